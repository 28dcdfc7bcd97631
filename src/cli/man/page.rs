//! One command as a manual page: clap's own sections, and ours around them.
//!
//! Texts of the command line are taken as they are; only what a page has and a help text has not, such
//! as the list of files, is written here.

use std::io;

use clap_mangen::roff::{Roff, bold, roman};

use super::Page;

/// The day of the texts that are written here.
pub(super) const DATE: &str = "2026-11-22";
/// What the pages belong to.
pub(super) const MANUAL: &str = "wharf manual";

/// The page of a command, which must be built. `whole` adds what holds for all commands.
pub(super) fn of(command: &clap::Command, whole: bool) -> Page {
    let source = concat!("wharf ", env!("CARGO_PKG_VERSION"));
    let page = clap_mangen::Man::new(command.clone()).date(DATE).source(source).manual(MANUAL);
    let name = page.get_filename();
    let mut text = Vec::new();
    claps_sections(&page, whole, &mut text).expect("writing into memory cannot fail");
    let text = String::from_utf8(text).expect("the texts of the command line are UTF-8");
    // What clap_mangen puts around lists of values has breaks that change nothing, which mandoc(1)
    // complains about.
    let mut text = text.replace(".br\n\n.br\n", "\n").replace(".br\n\n", "\n");
    let mut ours = Roff::new();
    examples(command, &mut ours);
    if whole {
        for (heading, rows) in [("EXIT STATUS", EXIT_STATUS), ("ENVIRONMENT", ENVIRONMENT)] {
            listed(heading, rows, &mut ours);
        }
        listed("FILES", FILES, &mut ours);
    }
    see_also(command, whole, &mut ours);
    text.push_str(&ours.to_roff());
    Page { section: 1, name, text }
}

fn claps_sections(page: &clap_mangen::Man, whole: bool, text: &mut Vec<u8>) -> io::Result<()> {
    page.render_title(text)?;
    page.render_name_section(text)?;
    page.render_synopsis_section(text)?;
    page.render_description_section(text)?;
    page.render_options_section(text)?;
    if whole { page.render_subcommands_section(text) } else { Ok(()) }
}

/// `Examples:` of a help text is a section, and what follows it another.
fn examples(command: &clap::Command, page: &mut Roff) {
    let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let (examples, notes) = help.split_once("\n\n").unwrap_or((&help, ""));
    page.control("SH", ["EXAMPLES"]).control("EX", []);
    for line in examples.lines().skip(1) {
        page.text([roman(line.strip_prefix("  ").unwrap_or(line))]);
    }
    page.control("EE", []);
    // The exit codes of the whole have a section of their own.
    let notes = notes.split("\n\n").filter(|note| !note.starts_with("Exit codes:"));
    for (at, note) in notes.filter(|note| !note.is_empty()).enumerate() {
        if at == 0 {
            page.control("SH", ["NOTES"]);
        } else {
            page.control("PP", []);
        }
        for line in note.lines() {
            page.text([roman(line)]);
        }
    }
}

/// A section of terms, each with its explanation.
pub(super) fn listed(heading: &str, rows: &[(&str, &str)], page: &mut Roff) {
    page.control("SH", [heading]);
    for (term, meaning) in rows {
        page.control("TP", []).text([bold(*term)]).text([roman(*meaning)]);
    }
}

fn see_also(command: &clap::Command, whole: bool, page: &mut Roff) {
    let mut others: Vec<(String, &str)> = Vec::new();
    if whole {
        let commands = command.get_subcommands().filter(|sub| !sub.is_hide_set());
        others.extend(commands.map(|sub| (format!("wharf-{}", sub.get_name()), "(1)")));
        others.sort();
    } else {
        others.push(("wharf".to_owned(), "(1)"));
    }
    others.push(("wharf.yaml".to_owned(), "(5)"));
    let last = others.len() - 1;
    page.control("SH", ["SEE ALSO"]);
    for (at, (name, section)) in others.into_iter().enumerate() {
        let comma = if at == last { "" } else { "," };
        page.text([bold(name), roman(format!("{section}{comma}"))]);
    }
}

const EXIT_STATUS: &[(&str, &str)] = &[
    ("0", "Done."),
    ("1", "Failed."),
    ("2", "The command line is not understood."),
    ("3", "The configuration is invalid; of status with a name: it does not run."),
    ("4", "There is no such service or replica."),
    ("5", "No manager can be reached."),
    ("6", "It took too long."),
    ("7", "Some of several things were done, and some were not."),
];

const ENVIRONMENT: &[(&str, &str)] = &[
    ("WHARF_STATE_DIR", "The state directory, where --state-dir is not given."),
    ("WHARF_LOG", "What the manager and the guardian log, such as debug or wharf::manager=trace."),
    ("NO_COLOR", "No colours, where it is set and not empty."),
    (
        "RUNTIME_DIRECTORY, STATE_DIRECTORY, LOGS_DIRECTORY",
        "With --system: the places to use, as systemd sets them.",
    ),
];

const FILES: &[(&str, &str)] = &[
    ("services.yaml, services.yml", "The configuration; see wharf.yaml(5)."),
    (".wharf/", "The state directory, beside the first configuration file."),
    (".wharf/sock", "The control socket: HTTP, for the owner and root alone."),
    (
        ".wharf/exits.jsonl",
        "The journal: one record for each end, oldest first. Older: .1, .2 and so on.",
    ),
    (
        ".wharf/log/SERVICE.REPLICA.log",
        "What the programs wrote, with time and stream of each line.",
    ),
    (".wharf/wharf.log", "What the manager and the guardian have to say."),
    ("/etc/wharf/services.yaml", "With --system: the configuration."),
    ("/run/wharf, /var/lib/wharf, /var/log/wharf", "With --system: socket, state and logs."),
];

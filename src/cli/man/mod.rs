//! `wharf man`: the manual pages, made from the very definitions that understand the command line and
//! check services.yaml.
//!
//! `page` lays out a command, `configuration` the file. Nothing is written by hand twice.

mod configuration;
mod page;

use std::fs;
use std::io;
use std::path::PathBuf;

use clap::{Args, CommandFactory as _};

use super::args::Cli;
use super::failure::{Failure, OK};
use super::out;

/// Print the manual page, or write every page into a folder
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wharf man | man -l -             read wharf(1)
  wharf man ~/.local/share/man     write every page, into man1 and man5 there")]
pub(super) struct Man {
    /// Write all pages into the folders man1 and man5 of this one, which are made where they lack
    #[arg(value_name = "DIR")]
    folder: Option<PathBuf>,
}

/// A page: its section, its file's name, its text in the man(7) language.
struct Page {
    section: u8,
    name: String,
    text: String,
}

impl Man {
    pub(super) fn run(self) -> Result<u8, Failure> {
        let Some(folder) = self.folder else {
            out::print(&page::of(&root(), true).text)?;
            return Ok(OK);
        };
        write(&folder).map_err(|source| Failure::Io { doing: "write the manual pages", source })?;
        Ok(OK)
    }
}

fn write(folder: &std::path::Path) -> io::Result<()> {
    for page in pages() {
        let section = folder.join(format!("man{}", page.section));
        fs::create_dir_all(&section)?;
        fs::write(section.join(&page.name), page.text)?;
    }
    Ok(())
}

fn root() -> clap::Command {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    command
}

/// Every page. That of the file stands under both of its names.
fn pages() -> Vec<Page> {
    let root = root();
    let mut pages = vec![page::of(&root, true)];
    let commands = root.get_subcommands().filter(|command| !command.is_hide_set());
    pages.extend(commands.map(|command| page::of(command, false)));
    for name in ["wharf.yaml.5", "services.yaml.5"] {
        pages.push(Page { section: 5, name: name.to_owned(), text: configuration::text() });
    }
    pages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_and_the_file_have_a_page() {
        let pages = pages();
        let names: Vec<_> = pages.iter().map(|page| page.name.as_str()).collect();
        for name in ["wharf.1", "wharf-up.1", "wharf-man.1", "wharf.yaml.5", "services.yaml.5"] {
            assert!(names.contains(&name), "{names:?}");
        }
        let hidden = names.iter().any(|name| name.contains("guardian") || name.contains("help"));
        assert!(!hidden, "{names:?}");
    }

    #[test]
    fn examples_and_what_follows_them_have_their_sections() {
        let status = page::of(root().find_subcommand("status").unwrap(), false).text;
        assert!(status.contains(".SH EXAMPLES\n.EX\nwharf status\n"), "{status}");
        assert!(status.contains(".SH NOTES\n"), "{status}");
        assert!(!status.contains(".SH EXTRA"), "{status}");
    }

    #[test]
    fn the_file_s_page_has_every_key() {
        let text = configuration::text().replace("\\-", "-").replace("\\&", "");
        for key in crate::spec::keys() {
            let shown = configuration::shown(&key.path);
            assert!(text.contains(&format!("\\fB{shown}\\fR")), "{}", key.path);
        }
    }
}

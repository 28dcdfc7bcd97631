//! The keys of a program that have an equal of their own.

use crate::exit::Signal;
use crate::import::command::words;
use crate::import::draft::{Draft, Origin};
use crate::import::job::Job;
use crate::time::format_size;

/// Takes one key over; `false` where it has no equal.
pub(super) fn take(
    job: &mut Job<'_>,
    draft: &mut Draft,
    from: &Origin,
    value: &str,
    raw: &str,
    file: usize,
) -> bool {
    match from.key.as_str() {
        "command" => command(job, draft, from, value),
        "autostart" if is_false(raw) => draft.hold(from, "it is not to be started by itself"),
        "killasgroup" if is_false(raw) => draft.put("stop_kill", "process", from),
        "stopsignal" => signal(job, draft, from, raw),
        "stopwaitsecs" => match raw.parse::<u32>() {
            Ok(length) => draft.put("stop_grace_period", format!("{length}s"), from),
            Err(_) => job.wrong(from, format!("`{raw}` is no number of seconds"), ""),
        },
        "user" => job.user(draft, value, from),
        "stdout_logfile_maxbytes" => log_size(job, draft, from, raw),
        "stdout_logfile_backups" => match raw.parse::<u32>() {
            Ok(files) if files <= 1000 => draft.put("logging.max_files", files, from),
            _ => job.wrong(from, format!("`{raw}` is no number of files"), ""),
        },
        "stdout_logfile" | "stderr_logfile" => return stays(raw),
        "stderr_logfile_maxbytes" if raw == "0" => log_size(job, draft, from, raw),
        "environment" => environment(job, draft, from, value),
        "directory" => {
            let folder = job.folder(file).join(value);
            if let Some(folder) = job.working_dir(&folder) {
                draft.put("working_dir", folder, from);
            }
        }
        "umask" => draft.put("umask", value, from),
        "minfds" => match raw.parse::<u64>() {
            Ok(number) => draft.put("limits.nofile", number.max(8), from),
            Err(_) => job.wrong(from, format!("`{raw}` is no number"), ""),
        },
        // Read together with others, or already as it should be.
        "process_name" | "numprocs" | "numprocs_start" | "priority" | "autorestart"
        | "startsecs" | "startretries" | "exitcodes" | "redirect_stderr" | "stopasgroup"
        | "autostart" | "killasgroup" => {}
        _ => return false,
    }
    true
}

fn command(job: &mut Job<'_>, draft: &mut Draft, from: &Origin, value: &str) {
    match shell_words::split(value) {
        Ok(split) if !split.is_empty() => draft.put("command", words(&split), from),
        Ok(_) => job.wrong(from, "the command is empty", ""),
        Err(_) => job.wrong(from, "a quote is opened and not closed", ""),
    }
}

fn signal(job: &mut Job<'_>, draft: &mut Draft, from: &Origin, raw: &str) {
    match raw.parse::<Signal>() {
        Ok(signal) => draft.put("stop_signal", signal.to_string(), from),
        Err(error) => job.wrong(from, error.to_string(), ""),
    }
}

/// Whether output already goes where wharf shows it.
fn stays(raw: &str) -> bool {
    let raw = raw.to_ascii_lowercase();
    matches!(raw.as_str(), "auto" | "/dev/stdout" | "/dev/stderr" | "/dev/fd/1" | "/dev/fd/2")
}

fn log_size(job: &mut Job<'_>, draft: &mut Draft, from: &Origin, raw: &str) {
    let (number, shift) = match raw.to_ascii_uppercase() {
        text if text.ends_with("KB") => (text.trim_end_matches("KB").to_owned(), 10),
        text if text.ends_with("MB") => (text.trim_end_matches("MB").to_owned(), 20),
        text if text.ends_with("GB") => (text.trim_end_matches("GB").to_owned(), 30),
        text => (text, 0),
    };
    match number.trim().parse::<u64>() {
        Ok(0) => draft.note(from, "0 means no limit, and every log has one: see `logging`"),
        Ok(size) => {
            draft.put("logging.max_size", format_size((size << shift).max(1024)), from);
        }
        Err(_) => job.wrong(from, format!("`{raw}` is no size"), "write 10MB"),
    }
}

/// `A="b",C=d` as variables.
fn environment(job: &mut Job<'_>, draft: &mut Draft, from: &Origin, value: &str) {
    let mut rest = value.trim_matches([',', ' ', '\n']);
    while !rest.is_empty() {
        let Some((name, after)) = rest.split_once('=') else {
            let help = "write KEY=\"value\",KEY2=\"value\"";
            return job.wrong(from, format!("`{rest}` is not KEY=value"), help);
        };
        let after = after.trim_start();
        let (text, left) = if let Some(quote @ ('"' | '\'')) = after.chars().next() {
            let Some(inside) = after[1..].split_once(quote) else {
                return job.wrong(from, "a quote is opened and not closed", "");
            };
            inside
        } else {
            let end = after.find([',', '\n']).unwrap_or(after.len());
            (after[..end].trim(), &after[end..])
        };
        draft.variable(name.trim(), text.to_owned());
        rest = left.trim_start_matches([',', ' ', '\n', '\t']);
    }
}

pub(super) fn is_true(word: &str) -> bool {
    matches!(word.to_ascii_lowercase().as_str(), "true" | "yes" | "on" | "1")
}

pub(super) fn is_false(word: &str) -> bool {
    matches!(word.to_ascii_lowercase().as_str(), "false" | "no" | "off" | "0")
}

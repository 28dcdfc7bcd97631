//! What a file is, from its name and its text.

use std::fmt;
use std::path::Path;

/// A format that can be imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// foreman's and Heroku's Procfile.
    Procfile,
    /// supervisord.conf.
    Supervisord,
    /// docker compose.
    Compose,
    /// process-compose.
    ProcessCompose,
    /// systemd's units.
    Systemd,
    /// pm2's list of applications in JSON.
    Pm2,
}

/// Every format with its word on the command line and its name in prose.
const ALL: [(Format, &str, &str); 6] = [
    (Format::Procfile, "procfile", "Procfile"),
    (Format::Supervisord, "supervisord", "supervisord"),
    (Format::Compose, "compose", "docker compose"),
    (Format::ProcessCompose, "process-compose", "process-compose"),
    (Format::Systemd, "systemd", "systemd"),
    (Format::Pm2, "pm2", "pm2"),
];

impl Format {
    /// The format with this word.
    pub fn named(word: &str) -> Option<Self> {
        ALL.iter().find(|(_, known, _)| *known == word).map(|(format, ..)| *format)
    }

    /// All words in one text.
    pub fn words() -> String {
        ALL.map(|(_, word, _)| word).join("|")
    }

    /// The name in prose.
    pub(super) fn title(self) -> &'static str {
        ALL.iter().find(|(format, ..)| *format == self).map_or("", |(.., title)| title)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.title())
    }
}

/// The kinds of systemd units that are understood.
const UNITS: [&str; 3] = ["service", "timer", "socket"];

/// What a file is; `None` where neither its name nor its text says so. The name alone decides where
/// it is a usual one, so that a file with a mistake is told to be wrong and not to be unknown.
pub fn detect(path: &Path, text: &str) -> Option<Format> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let lower = name.to_ascii_lowercase();
    let (stem, extension) = lower.rsplit_once('.').unwrap_or((&lower, ""));
    if lower.starts_with("procfile") {
        return Some(Format::Procfile);
    }
    if UNITS.contains(&extension) {
        return Some(Format::Systemd);
    }
    match extension {
        "yaml" | "yml" if stem.starts_with("process-compose") => {
            return Some(Format::ProcessCompose);
        }
        "yaml" | "yml" if stem.starts_with("docker-compose") || stem.starts_with("compose") => {
            return Some(Format::Compose);
        }
        "conf" | "ini" if stem.contains("supervisor") => return Some(Format::Supervisord),
        "json" if stem.starts_with("ecosystem") => return Some(Format::Pm2),
        _ => {}
    }
    by_text(extension, text)
}

fn by_text(extension: &str, text: &str) -> Option<Format> {
    let begins = |words: &[&str]| {
        text.lines().any(|line| words.iter().any(|word| line.trim_end().starts_with(word)))
    };
    if begins(&["[program:", "[supervisord]", "[group:", "[eventlistener:", "[fcgi-program:"]) {
        return Some(Format::Supervisord);
    }
    if begins(&["[Unit]", "[Service]", "[Timer]", "[Socket]"]) {
        return Some(Format::Systemd);
    }
    if matches!(extension, "yaml" | "yml") {
        if begins(&["processes:"]) {
            return Some(Format::ProcessCompose);
        }
        if begins(&["services:"]) {
            return Some(Format::Compose);
        }
        return None;
    }
    if extension == "json" {
        let mentions = |word: &str| text.contains(&format!("\"{word}\""));
        return (mentions("apps") || mentions("pm2_env") || mentions("script"))
            .then_some(Format::Pm2);
    }
    None
}

/// Whether a file is pm2's configuration as a program.
pub(super) fn is_javascript(path: &Path) -> bool {
    path.extension().is_some_and(|end| ["js", "cjs", "mjs", "ts"].iter().any(|js| end == *js))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_texts_say_what_a_file_is() {
        for (name, text, expected) in [
            ("Procfile", "", Some(Format::Procfile)),
            ("Procfile.dev", "", Some(Format::Procfile)),
            ("/etc/systemd/system/nginx.service", "", Some(Format::Systemd)),
            ("backup.timer", "", Some(Format::Systemd)),
            ("compose.yaml", "", Some(Format::Compose)),
            ("docker-compose.prod.yml", "", Some(Format::Compose)),
            ("process-compose.yaml", "", Some(Format::ProcessCompose)),
            ("supervisord.conf", "", Some(Format::Supervisord)),
            ("ecosystem.json", "", Some(Format::Pm2)),
            ("app.conf", "[program:app]\ncommand=x\n", Some(Format::Supervisord)),
            ("app.ini", "; x\n[supervisord]\n", Some(Format::Supervisord)),
            ("app", "[Service]\nExecStart=/bin/x\n", Some(Format::Systemd)),
            ("stack.yml", "services:\n  web: {}\n", Some(Format::Compose)),
            ("dev.yaml", "version: '0.5'\nprocesses:\n", Some(Format::ProcessCompose)),
            ("apps.json", "{\"apps\": []}", Some(Format::Pm2)),
            ("notes.txt", "services: none\n", None),
            ("other.yaml", "jobs: {}\n", None),
        ] {
            assert_eq!(detect(Path::new(name), text), expected, "{name}");
        }
    }
}

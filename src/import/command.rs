//! Command lines: which need a shell, what they refer to, and how they are written in
//! services.yaml, where a `$` is `$$`.

use serde_json::Value;

/// A text that services.yaml reads as just this text.
pub(super) fn escape(text: &str) -> String {
    text.replace('$', "$$")
}

/// A reference to a variable of the environment in which wharf reads services.yaml; empty, or
/// `default`, where it is not set. `None` where the name or the default cannot be written.
pub(super) fn reference(name: &str, default: &str) -> Option<String> {
    let begins = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let good = begins && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    (good && !default.contains(['}', '$'])).then(|| format!("${{{name}:-{default}}}"))
}

/// Words as `command:` takes them: one line where it reads the same, a list otherwise. They are
/// escaped already.
pub(super) fn words(words: &[String]) -> Value {
    let plain = |word: &String| {
        !word.is_empty()
            && word.chars().all(|c| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c))
    };
    if words.iter().all(plain) && words.iter().map(|word| word.len() + 1).sum::<usize>() < 90 {
        Value::String(words.join(" "))
    } else {
        Value::Array(words.iter().cloned().map(Value::String).collect())
    }
}

/// What a line for a shell is made of.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Line {
    /// It has something that only a shell understands.
    pub(super) needs_shell: bool,
    /// It is more than one plain command, so that nothing can be put before it.
    pub(super) compound: bool,
    /// The variables it refers to, each once, but for those it sets itself.
    pub(super) variables: Vec<String>,
}

/// Words that begin what only a shell does.
const BUILT_IN: &[&str] = &[
    ".", ":", "[[", "alias", "case", "cd", "eval", "exec", "export", "for", "function", "if",
    "local", "read", "set", "source", "trap", "ulimit", "umask", "unset", "until", "wait", "while",
    "{", "!",
];

/// Names that a shell sets itself, or wharf.
const OWN: &[&str] = &[
    "PATH",
    "HOME",
    "USER",
    "LANG",
    "TZ",
    "PWD",
    "OLDPWD",
    "IFS",
    "PPID",
    "RANDOM",
    "HOSTNAME",
    "UID",
    "EUID",
    "SECONDS",
    "LINENO",
    "SHLVL",
    "OPTARG",
    "OPTIND",
    "WHARF_SERVICE",
    "WHARF_REPLICA",
    "WHARF_INCARNATION",
];

/// Looks at a line as a shell would.
pub(super) fn look(line: &str) -> Line {
    let mut found = Line::default();
    let mut scan = Scan { rest: line, found: &mut found, word_start: true, depth: 0 };
    scan.run();
    let first = line.split_whitespace().next().unwrap_or_default();
    if BUILT_IN.contains(&first) {
        found.needs_shell = true;
        found.compound = true;
    }
    if assignment(first).is_some() {
        found.needs_shell = true;
        found.compound = true;
    }
    let sets = |name: &String| {
        ["=", "+="].iter().any(|sign| {
            line.match_indices(&format!("{name}{sign}")).any(|(at, _)| {
                line[..at]
                    .chars()
                    .next_back()
                    .is_none_or(|c| c.is_whitespace() || ";&|(".contains(c))
            })
        }) || line.contains(&format!("for {name} in"))
            || line.contains(&format!("read {name}"))
            || line.contains(&format!("read -r {name}"))
    };
    found.variables.retain(|name| !OWN.contains(&name.as_str()) && !sets(name));
    found
}

/// The name and value where a word is an assignment.
pub(super) fn assignment(word: &str) -> Option<(&str, &str)> {
    let (name, value) = word.split_once('=')?;
    let begins = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let goes_on = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    (begins && goes_on).then_some((name, value))
}

struct Scan<'l, 'f> {
    rest: &'l str,
    found: &'f mut Line,
    /// Whether a word begins here, where `#`, `~` and `!` mean something.
    word_start: bool,
    /// In how many references and substitutions this is.
    depth: u8,
}

/// References deeper inside one another than this are not looked into.
const DEEPEST: u8 = 64;

impl Scan<'_, '_> {
    fn run(&mut self) {
        while let Some(c) = self.next() {
            let starts = std::mem::replace(&mut self.word_start, c.is_whitespace());
            match c {
                '\\' => drop(self.next()),
                '\'' => self.single(),
                '"' => self.double(),
                '$' => self.dollar(),
                '`' => {
                    self.found.needs_shell = true;
                    self.found.compound = true;
                }
                '|' | '&' | ';' | '(' | ')' | '\n' => {
                    self.found.needs_shell = true;
                    self.found.compound = true;
                    self.word_start = true;
                }
                '<' | '>' | '*' | '?' | '[' => self.found.needs_shell = true,
                '#' | '~' if starts => self.found.needs_shell = true,
                '{' => self.found.needs_shell |= self.rest.contains([',', '.']),
                _ => {}
            }
        }
    }

    fn next(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    fn single(&mut self) {
        while let Some(c) = self.next() {
            if c == '\'' {
                return;
            }
        }
    }

    fn double(&mut self) {
        while let Some(c) = self.next() {
            match c {
                '"' => return,
                '\\' => drop(self.next()),
                '$' => self.dollar(),
                '`' => {
                    self.found.needs_shell = true;
                    self.found.compound = true;
                }
                _ => {}
            }
        }
    }

    fn dollar(&mut self) {
        self.found.needs_shell = true;
        if self.depth == DEEPEST {
            return;
        }
        self.depth += 1;
        self.referred();
        self.depth -= 1;
    }

    fn referred(&mut self) {
        if self.rest.starts_with('(') {
            // What stands inside is a command of its own; it is looked at for variables alone.
            return self.inside();
        }
        let name = self.rest.strip_prefix('{').unwrap_or(self.rest);
        let end = name.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(name.len());
        let name = &name[..end];
        let good = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if good && !self.found.variables.iter().any(|known| known == name) {
            self.found.variables.push(name.to_owned());
        }
        if self.rest.starts_with('{') {
            // `${A:-${B}}` and the like: the operators inside are no operators of the line.
            let mut depth = 0_usize;
            while let Some(c) = self.next() {
                match c {
                    '{' => depth += 1,
                    '}' if depth <= 1 => return,
                    '}' => depth -= 1,
                    '$' => self.dollar(),
                    _ => {}
                }
            }
        } else {
            self.rest = &self.rest[end..];
        }
    }

    fn inside(&mut self) {
        let mut depth = 0_usize;
        while let Some(c) = self.next() {
            match c {
                '(' => depth += 1,
                ')' if depth <= 1 => return,
                ')' => depth -= 1,
                '\'' => self.single(),
                '$' => self.dollar(),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_a_shell_is_known() {
        for (line, needs_shell, compound, variables) in [
            ("bundle exec puma -C config/puma.rb", false, false, ""),
            ("bundle exec puma -p $PORT", true, false, "PORT"),
            ("bundle exec puma -p ${PORT:-3000} $OPTS", true, false, "PORT OPTS"),
            ("a | b", true, true, ""),
            ("cd web && npm start", true, true, ""),
            ("echo 'a | $b; c'", false, false, ""),
            ("echo \"a; $b\"", true, false, "b"),
            ("echo a\\;b", false, false, ""),
            ("A=1 b", true, true, ""),
            ("echo *.rb", true, false, ""),
            ("echo $(date +%s | cut -c$N)", true, false, "N"),
            ("for i in 1 2; do echo $i; done", true, true, ""),
            ("node --max=${A:-a;b} x", true, false, "A"),
            ("echo $HOME $1 $$", true, false, ""),
            ("sleep 5 # later", true, false, ""),
            ("echo a#b x~y", false, false, ""),
        ] {
            let found = look(line);
            let expected = Line {
                needs_shell,
                compound,
                variables: variables.split_whitespace().map(str::to_owned).collect(),
            };
            assert_eq!(found, expected, "{line}");
        }
    }

    #[test]
    fn a_dollar_is_written_twice() {
        assert_eq!(escape("a $B ${C} $$"), "a $$B $${C} $$$$");
        assert_eq!(reference("A", "b").as_deref(), Some("${A:-b}"));
        assert_eq!(reference("A", "}"), None);
        assert_eq!(reference("A.b", ""), None);
    }

    #[test]
    fn substitutions_without_end_inside_one_another_are_not_looked_into() {
        for begin in ["$(", "${A:-", "$(${A:-"] {
            let found = look(&format!("echo {}", begin.repeat(50_000)));
            assert!(found.needs_shell, "{begin}");
        }
    }
}

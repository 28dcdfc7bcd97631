//! Command lines of units (systemd.service(5), "Command lines"): prefixes, several commands in a
//! row, and variables, which systemd puts in itself.

use super::unit::{Word, words};

/// One command of an `ExecStart=` or its like.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Command {
    /// The words, variables in place.
    pub(super) words: Vec<String>,
    /// Its failure is no failure (`-`).
    pub(super) ignore: bool,
    /// Its first word is not its program (`@`).
    pub(super) renamed: bool,
    /// It runs with more rights than the rest (`+`, `!`, `!!`).
    pub(super) elevated: bool,
    /// Variables that were put in.
    pub(super) used: Vec<String>,
    /// Variables of which nothing is known, and which were therefore taken for empty.
    pub(super) unset: Vec<String>,
}

/// The commands of one line; `variable` knows the unit's environment.
pub(super) fn commands(
    line: &str,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<Command>, String> {
    let mut parts: Vec<Vec<Word>> = vec![Vec::new()];
    for word in words(line)? {
        if word == (";".to_owned(), false) {
            parts.push(Vec::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(word);
        }
    }
    parts.into_iter().filter(|part| !part.is_empty()).map(|part| command(&part, variable)).collect()
}

fn command(part: &[Word], variable: &dyn Fn(&str) -> Option<String>) -> Result<Command, String> {
    let mut command = Command::default();
    let mut literal = false;
    let (first, rest) = part.split_first().ok_or("the command is empty")?;
    let mut program = first.0.as_str();
    while let Some(c) = program.chars().next() {
        match c {
            '-' => command.ignore = true,
            '@' => command.renamed = true,
            ':' => literal = true,
            '+' | '!' => command.elevated = true,
            '|' => {}
            _ => break,
        }
        program = &program[1..];
    }
    if program.is_empty() {
        return Err("the command is empty".to_owned());
    }
    command.words.push(program.to_owned());
    let rest = if command.renamed { rest.get(1..).unwrap_or_default() } else { rest };
    for (word, _) in rest {
        if literal {
            command.words.push(word.clone());
        } else {
            put_values(word, variable, &mut command)?;
        }
    }
    Ok(command)
}

/// One word with its variables: `$NAME` alone becomes several words, `${NAME}` is part of its own.
fn put_values(
    word: &str,
    variable: &dyn Fn(&str) -> Option<String>,
    command: &mut Command,
) -> Result<(), String> {
    let mut look = |name: &str| {
        let value = variable(name);
        let list = if value.is_some() { &mut command.used } else { &mut command.unset };
        if !list.iter().any(|known| known == name) {
            list.push(name.to_owned());
        }
        value.unwrap_or_default()
    };
    let name = |text: &str| {
        let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        text[..end.unwrap_or(text.len())].to_owned()
    };
    if let Some(alone) = word.strip_prefix('$')
        && !alone.is_empty()
        && name(alone) == alone
    {
        let value = look(alone);
        command.words.extend(words(&value)?.into_iter().map(|(word, _)| word));
        return Ok(());
    }
    let mut out = String::new();
    let mut rest = word;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(inside) = rest.strip_prefix('{')
            && let Some((inside, after)) = inside.split_once('}')
        {
            out.push_str(&look(inside));
            rest = after;
        } else {
            // Only a whole word is taken for `$NAME`.
            out.push('$');
        }
    }
    out.push_str(rest);
    command.words.push(out);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable(name: &str) -> Option<String> {
        match name {
            "OPTS" => Some("-a 'b c'".to_owned()),
            "PORT" => Some("80".to_owned()),
            _ => None,
        }
    }

    #[test]
    fn commands_are_read_as_systemd_reads_them() {
        for (line, expected) in [
            ("/bin/a -b", "/bin/a|-b"),
            ("/bin/a $OPTS --port=${PORT} x$PORT", "/bin/a|-a|b c|--port=80|x$PORT"),
            ("/bin/a $NONE ${NONE} $$HOME", "/bin/a||$HOME"),
            ("-/bin/a ; /bin/b \\; c", "-/bin/a & /bin/b|;|c"),
            ("@/bin/a arg0 x", "/bin/a|x"),
            (":/bin/a $OPTS", "/bin/a|$OPTS"),
            ("!!/bin/a", "+/bin/a"),
        ] {
            let told: Vec<_> = commands(line, &variable)
                .unwrap()
                .iter()
                .map(|command| {
                    let sign = if command.ignore { "-" } else { "" };
                    let more = if command.elevated { "+" } else { "" };
                    format!("{sign}{more}{}", command.words.join("|"))
                })
                .collect();
            assert_eq!(told.join(" & "), expected, "{line}");
        }
    }
}

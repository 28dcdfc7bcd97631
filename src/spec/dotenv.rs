//! Files of `NAME=value` lines: `env_file`, foreman's and compose's `.env`, systemd's EnvironmentFile.
//!
//! What they have in common is read: comments, `export`, single quotes that keep all, double quotes
//! with backslashes, values over several lines inside quotes.

/// What one line came to.
pub(crate) struct Line {
    /// Where it begins, in bytes.
    pub(crate) start: usize,
    /// Name and value, or what is wrong.
    pub(crate) variable: Result<(String, String), String>,
}

/// Reads a whole file.
pub(crate) fn read(text: &str) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        let end = rest.find('\n').map_or(rest.len(), |end| end + 1);
        let line = rest[..end].trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            at += end;
            continue;
        }
        let (variable, length) = assignment(rest, end);
        lines.push(Line { start: at, variable });
        at += length;
    }
    lines
}

/// One assignment at the start of `rest`, whose first line has `end` bytes; with it the bytes taken.
fn assignment(rest: &str, end: usize) -> (Result<(String, String), String>, usize) {
    let line = &rest[..end];
    let Some((name, _)) = line.split_once('=') else {
        return (Err(format!("`{}` is not NAME=value", line.trim())), end);
    };
    let value_at = name.len() + 1;
    let name = name.trim();
    let name = name.strip_prefix("export ").unwrap_or(name).trim();
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if name.is_empty() || !name.chars().all(good) {
        return (Err(format!("`{name}` is no name of a variable")), end);
    }
    let blank = rest[value_at..].len() - rest[value_at..].trim_start_matches([' ', '\t']).len();
    let from = value_at + blank;
    let Some(quote @ ('"' | '\'')) = rest[from..].chars().next() else {
        let value = rest[value_at..end].trim();
        let comment = value.find(" #").or_else(|| value.find("\t#"));
        let value = comment.map_or(value, |at| value[..at].trim_end());
        return (Ok((name.to_owned(), value.to_owned())), end);
    };
    let Some((value, length)) = quoted(&rest[from + 1..], quote) else {
        return (Err(format!("the quote of `{name}` is not closed")), end);
    };
    let after = from + 1 + length;
    let left = rest[after..].find('\n').map_or(rest.len(), |end| after + end + 1);
    (Ok((name.to_owned(), value)), left)
}

/// The text up to the closing quote, and how many bytes it takes with it.
fn quoted(text: &str, quote: char) -> Option<(String, usize)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            c if c == quote => return Some((value, at + 1)),
            '\\' if quote == '"' => match chars.next()?.1 {
                'n' => value.push('\n'),
                't' => value.push('\t'),
                'r' => value.push('\r'),
                '\n' => {}
                c => value.push(c),
            },
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_their_tools_do() {
        let text = "# c\n\nA=1\nexport B = two words \nC='a $x \"b'\nD=\"q\\\"\\n\" # c\nE=x # y\nF=a#b\nG=\n\
                    H=\"two\nlines\"\nI=http://x/?a=b\n";
        let read: Vec<_> = read(text).into_iter().map(|line| line.variable.unwrap()).collect();
        let read: Vec<_> = read.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(
            read,
            [
                ("A", "1"),
                ("B", "two words"),
                ("C", "a $x \"b"),
                ("D", "q\"\n"),
                ("E", "x"),
                ("F", "a#b"),
                ("G", ""),
                ("H", "two\nlines"),
                ("I", "http://x/?a=b"),
            ]
        );
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let wrong: Vec<_> = read("A=1\nnonsense\nB C=1\nD=\"open\n")
            .into_iter()
            .filter_map(|line| Some((line.start, line.variable.err()?)))
            .collect();
        assert_eq!(
            wrong.iter().map(|(at, message)| (*at, message.as_str())).collect::<Vec<_>>(),
            [
                (4, "`nonsense` is not NAME=value"),
                (13, "`B C` is no name of a variable"),
                (19, "the quote of `D` is not closed")
            ]
        );
    }
}

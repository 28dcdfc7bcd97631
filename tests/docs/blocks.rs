//! The fenced blocks of a document and what their info strings say.

/// One fenced block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Block {
    /// The first word of the info string: `console`, `sh`, `yaml` …
    pub(crate) kind: String,
    /// The rest: `file=NAME`, `refused`, `not-run="REASON"`.
    marks: Vec<(String, String)>,
    /// What stands between the fences.
    pub(crate) text: String,
    /// The line of the opening fence, from 1.
    pub(crate) line: usize,
}

impl Block {
    /// What a mark says; empty where it stands alone.
    pub(crate) fn mark(&self, name: &str) -> Option<&str> {
        self.marks.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The commands of a `console` block, each with what it says.
    pub(crate) fn steps(&self) -> Vec<(String, String)> {
        let mut steps: Vec<(String, String)> = Vec::new();
        for line in self.text.lines() {
            if let Some(command) = line.strip_prefix("$ ") {
                steps.push((command.to_owned(), String::new()));
            } else if let (Some(more), Some((command, said))) =
                (line.strip_prefix("> "), steps.last_mut())
                && said.is_empty()
            {
                command.push('\n');
                command.push_str(more);
            } else {
                let said = &mut steps.last_mut().expect("a console block begins with a command").1;
                said.push_str(line);
                said.push('\n');
            }
        }
        steps
    }
}

const MARKS: [&str; 4] = ["file", "refused", "not-run", "check"];

/// Every fenced block of a document; indented ones, as in lists, too.
pub(crate) fn blocks(document: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut lines = document.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        let Some(info) = line.trim_start().strip_prefix("```") else { continue };
        let indent = line.len() - line.trim_start().len();
        let mut text = String::new();
        loop {
            let (_, line) = lines.next().unwrap_or_else(|| panic!("line {} never ends", at + 1));
            if line.trim_start() == "```" {
                break;
            }
            text.push_str(line.get(indent..).unwrap_or_default());
            text.push('\n');
        }
        let words = shell_words::split(info).unwrap();
        let (kind, marks) = words.split_first().unwrap_or_else(|| {
            panic!("the block of line {} says nothing of its kind: use text for prose", at + 1)
        });
        let marks = marks.iter().map(|mark| {
            let (name, value) = mark.split_once('=').unwrap_or((mark, ""));
            assert!(MARKS.contains(&name), "line {}: {name} is no mark", at + 1);
            (name.to_owned(), value.to_owned())
        });
        found.push(Block { kind: kind.clone(), marks: marks.collect(), text, line: at + 1 });
    }
    found
}

#[test]
fn blocks_are_found_with_their_marks() {
    let document = "a\n```sh\nb\n```\n- c\n  ```yaml file=x.yaml not-run=\"needs a moon\"\n  d:\n    e\n  ```\n";
    let found = blocks(document);
    assert_eq!((found[0].kind.as_str(), found[0].text.as_str(), found[0].line), ("sh", "b\n", 2));
    assert_eq!(found[1].text, "d:\n  e\n");
    assert_eq!(found[1].mark("file"), Some("x.yaml"));
    assert_eq!(found[1].mark("not-run"), Some("needs a moon"));
    assert_eq!(found[1].mark("refused"), None);
}

#[test]
fn a_transcript_is_commands_and_what_they_say() {
    let block = &blocks("```console\n$ a\nx\ny\n$ b \\\n> c\n```\n")[0];
    let steps = block.steps();
    assert_eq!(steps[0], ("a".to_owned(), "x\ny\n".to_owned()));
    assert_eq!(steps[1], ("b \\\nc".to_owned(), String::new()));
}

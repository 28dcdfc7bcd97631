//! `dashboards/README.md` is true: its commands are run, its files parse, and it leaves no row out.

use std::path::Path;

use serde_json::Value;

use crate::dashboard::{dashboard, folder, panels, rules, text, word};
use crate::prometheus::shell;

pub(crate) fn readme() -> String {
    text("README.md")
}

/// The blocks of one language.
fn blocks(language: &str) -> Vec<String> {
    let readme = readme();
    let opening = format!("```{language}\n");
    let blocks = readme.split(&opening).skip(1);
    blocks.map(|block| block.split("```").next().unwrap().to_owned()).collect()
}

/// The commands that the documentation gives, one a line.
pub(crate) fn commands() -> Vec<String> {
    let blocks = blocks("sh");
    let lines = blocks.iter().flat_map(|block| block.lines());
    lines.map(|line| line.split(" #").next().unwrap().trim().to_owned()).collect()
}

/// Those that need nothing to run; the others are run by the test with a real Prometheus.
#[test]
fn the_commands_that_need_no_wharf_work() {
    let alone: Vec<_> =
        commands().into_iter().filter(|command| !command.contains("127.0.0.1")).collect();
    assert!(alone.len() > 1, "{alone:?}");
    for command in alone {
        let (worked, said) = shell(Path::new(env!("CARGO_MANIFEST_DIR")), &command);
        assert!(worked, "{command}: {said}");
    }
}

#[test]
fn the_files_it_shows_can_be_read() {
    let shown = blocks("yaml");
    assert!(shown.len() > 2);
    for block in shown {
        let file: Value = serde_saphyr::from_str(&block).unwrap();
        assert!(file.is_object(), "{block}");
    }
}

#[test]
fn it_tells_of_every_row_every_alert_and_every_file() {
    let readme = readme();
    let dashboard = dashboard();
    for row in panels(&dashboard).into_iter().filter(|panel| panel["type"] == "row") {
        let title = word(row, "title").split(':').next().unwrap();
        assert!(readme.contains(&format!("**{title}**")), "the row {title}");
    }
    for rule in rules() {
        assert!(readme.contains(&format!("`{}`", rule.name)), "{}", rule.name);
    }
    for entry in std::fs::read_dir(folder()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name == "README.md" || readme.contains(&format!("`{name}`")), "{name}");
    }
}

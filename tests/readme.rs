//! The README's transcript is really produced: its commands are run on a clone of this repository and
//! what they say is compared, but for numbers, names of objects and times.

#![expect(clippy::unwrap_used, reason = "a test stops where the world is not as it must be")]
#![expect(clippy::disallowed_types, reason = "tests start the binary as a user would")]

use std::path::Path;
use std::process::Command;

/// The commands of the first `console` block, each with what it says.
fn transcript(readme: &str) -> Vec<(String, String)> {
    let block = readme.split("```console\n").nth(1).unwrap().split("```").next().unwrap();
    let mut steps: Vec<(String, String)> = Vec::new();
    for line in block.lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            steps.push((command.to_owned(), String::new()));
        } else {
            let said = &mut steps.last_mut().unwrap().1;
            said.push_str(line);
            said.push('\n');
        }
    }
    steps
}

/// Numbers, object names and lengths of time are different in every run.
fn normalised(text: &str) -> String {
    let mut words = Vec::new();
    for line in text.lines() {
        let line: Vec<String> = line
            .split_whitespace()
            .map(|word| {
                let hex = word.len() == 40 && word.chars().all(|c| c.is_ascii_hexdigit());
                if hex {
                    return "OBJECT".to_owned();
                }
                let digits = word.contains(|c: char| c.is_ascii_digit());
                let unit = |c: char| c.is_ascii_digit() || "hmsu.:-(),;KMGiB/".contains(c);
                if digits && word.chars().all(unit) { "NUMBER".to_owned() } else { word.to_owned() }
            })
            .collect();
        words.push(line.join(" "));
    }
    words.join("\n").trim_end().replace("under NUMBER", "NUMBER")
}

fn run(folder: &Path, command: &str) -> String {
    let binary = Path::new(env!("CARGO_BIN_EXE_wharf")).parent().unwrap();
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap());
    let output = Command::new("bash")
        .args(["-c", command])
        .current_dir(folder)
        .env("PATH", path)
        .env("NO_COLOR", "1")
        .env_remove("WHARF_STATE_DIR")
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {complaint}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_transcript_is_true() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().unwrap();
    let clone = folder.path().join("wharf");
    let clone_text = clone.to_str().unwrap();
    run(root, &format!("git clone -q . {clone_text} && cp services.yaml {clone_text}/"));
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let steps = transcript(&readme);
    assert!(steps.len() > 6);
    let result = std::panic::catch_unwind(|| {
        for (command, expected) in &steps {
            let said = run(&clone, command);
            assert_eq!(normalised(&said), normalised(expected), "{command}\n{said}");
        }
    });
    if result.is_err() {
        run(&clone, "wharf down");
    }
    result.unwrap();
}

#[test]
fn the_files_that_it_points_to_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for document in ["README.md", "CONTRIBUTING.md", "docs/ARCHITECTURE.md"] {
        let text = std::fs::read_to_string(root.join(document)).unwrap();
        let folder = root.join(document).parent().unwrap().to_owned();
        for link in text.split("](").skip(1) {
            let target = link.split(')').next().unwrap();
            if !target.contains("://") {
                assert!(folder.join(target).exists(), "{document} points to {target}");
            }
        }
    }
}

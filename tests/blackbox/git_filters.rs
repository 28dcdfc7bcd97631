//! git's long-running filters over `wharf connect`: many git commands, one after the other and at the
//! same time, share one supervised filter. The filters are the real git-lfs and a few lines of Python
//! written after gitattributes(5); the client is the real git.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::support::{Wharf, at, send, text};

/// How many files go through.
const FILES: usize = 100;

/// A repository whose files named `*.bin` go through a service.
struct Repository {
    folder: PathBuf,
}

impl Repository {
    fn new(wharf: &Wharf, service: &str, required: bool) -> Self {
        let this = Self { folder: wharf.folder.join("repository") };
        fs::create_dir_all(&this.folder).unwrap();
        this.ok(&["init", "-q"]);
        let connect = format!(
            "{} -f {}/services.yaml connect {service}",
            env!("CARGO_BIN_EXE_wharf"),
            wharf.folder.display()
        );
        this.ok(&["config", "filter.it.process", &connect]);
        this.ok(&["config", "filter.it.required", if required { "true" } else { "false" }]);
        fs::write(this.folder.join(".gitattributes"), "*.bin filter=it\n").unwrap();
        this
    }

    /// Another working tree of it.
    fn tree(&self, name: &str) -> Self {
        let folder = self.folder.with_file_name(name);
        self.ok(&["worktree", "add", "-q", "--detach", folder.to_str().unwrap()]);
        Self { folder }
    }

    fn git(&self, words: &[&str]) -> Output {
        let mut command = Command::new("git");
        command.args(words).current_dir(&self.folder).stdin(Stdio::null());
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
        for who in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{who}_NAME"), "Wharf");
            command.env(format!("GIT_{who}_EMAIL"), "wharf@example.com");
        }
        command.output().unwrap()
    }

    #[track_caller]
    fn ok(&self, words: &[&str]) -> Vec<u8> {
        let output = self.git(words);
        assert!(output.status.success(), "{words:?}: {}", text(&output.stderr));
        output.stdout
    }

    /// What stands in the index.
    fn indexed(&self, name: &str) -> Vec<u8> {
        self.ok(&["cat-file", "-p", &format!(":{name}")])
    }

    /// Files that look like packets, are empty, and are larger than one packet; and many small ones.
    fn fill(&self, of: &str) -> Vec<(String, Vec<u8>)> {
        let mut files: Vec<(String, Vec<u8>)> = vec![
            (format!("{of}-flush.bin"), b"0000".to_vec()),
            (format!("{of}-packets.bin"), b"0013status=success\n0000".to_vec()),
            (format!("{of}-empty.bin"), Vec::new()),
            (format!("{of}-large.bin"), (0..300_000_u32).flat_map(u32::to_be_bytes).collect()),
        ];
        let small = (files.len()..FILES)
            .map(|number| (format!("{of}-{number}.bin"), format!("{of} {number}\n").into_bytes()));
        files.extend(small);
        for (name, contents) in &files {
            fs::write(self.folder.join(name), contents).unwrap();
        }
        files
    }

    /// Adds the files, has them checked out anew, and compares.
    fn there_and_back(&self, files: &[(String, Vec<u8>)]) {
        self.ok(&["add", "."]);
        for (name, _) in files {
            fs::remove_file(self.folder.join(name)).unwrap();
        }
        self.ok(&["checkout", "--", "."]);
        for (name, contents) in files {
            assert!(fs::read(self.folder.join(name)).unwrap() == *contents, "{name}");
        }
    }
}

#[test]
fn git_commands_share_one_git_lfs() {
    let wharf = Wharf::new(
        "services:
  lfs:
    working_dir: repository
    port: { use: git-lfs }
    restart: { policy: always, delay: 1ms, factor: 1 }
",
    );
    let repository = Repository::new(&wharf, "lfs", true);
    wharf.ok(&["up", "-d"]);
    let files = repository.fill("one");
    repository.there_and_back(&files);
    let pointer = text(&repository.indexed("one-50.bin"));
    assert!(pointer.starts_with("version https://git-lfs.github.com/spec/v1\n"), "{pointer}");
    repository.ok(&["commit", "-qm", "files"]);
    assert_eq!((wharf.row("lfs")["restarts"].as_u64(), wharf.records().len()), (Some(0), 0));
    // Two at once, each with a working tree of its own.
    let trees = [repository.tree("second"), repository.tree("third")];
    std::thread::scope(|scope| {
        for (tree, of) in trees.iter().zip(["two", "three"]) {
            scope.spawn(move || tree.there_and_back(&tree.fill(of)));
        }
    });
    let pointer = text(&trees[1].indexed("three-flush.bin"));
    assert!(pointer.ends_with("size 4\n"), "{pointer}");
    assert_eq!((wharf.row("lfs")["restarts"].as_u64(), wharf.records().len()), (Some(0), 0));
    // Killed between two commands: the next one waits for the next run.
    send(wharf.pid("lfs"), 9);
    wharf.wait_records("lfs", 1);
    repository.there_and_back(&repository.fill("four"));
    assert_eq!(wharf.records().len(), 1);
}

/// A service with the filter in Python.
fn python(required: bool) -> (Wharf, Repository) {
    let filter = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/blackbox/filter.py");
    let wharf = Wharf::new(&format!(
        r#"services:
  turns:
    command: [python3, {}]
    port:
      framing: pkt-line
      max_frame: 2MiB
      ready:
        exchange:
          send: "0016git-filter-client\n000eversion=2\n00000015capability=clean\n0016capability=smudge\n0000"
          expect: "^capability=clean"
      replies:
        sections:
          longer:
            - {{ first: "^command=", count: 2 }}
            - {{ first: "^status=success", count: 3 }}
          error: "0011status=error\n0000"
    restart: {{ policy: always, delay: 1ms, factor: 1 }}
"#,
        filter.display()
    ));
    let repository = Repository::new(&wharf, "turns", required);
    wharf.ok(&["up", "-d"]);
    (wharf, repository)
}

#[test]
fn a_filter_of_ones_own_hears_one_handshake_a_run() {
    let (wharf, repository) = python(true);
    let files = repository.fill("one");
    repository.there_and_back(&files);
    assert_eq!(text(&repository.indexed("one-flush.bin")), "filtered 0000");
    assert_eq!(text(&repository.indexed("one-empty.bin")), "filtered ");
    let row = wharf.row("turns");
    // The question, and each file there and back.
    assert_eq!(row["port"]["frames_in"].as_u64(), Some(1 + 2 * FILES as u64), "{row}");
    wharf.ok(&["stop", "turns"]);
    let record = &wharf.records_of("turns")[0];
    assert_eq!(at(record, "process.exit.code"), 0, "{record}");
    fs::remove_file(repository.folder.join("one-50.bin")).unwrap();
    let output = repository.git(&["checkout", "--", "."]);
    let said = text(&output.stderr);
    assert!(!output.status.success() && said.contains("turns/1 is stopped"), "{said}");
}

#[test]
fn a_file_that_cannot_be_filtered_is_told_and_the_others_go_on() {
    let (wharf, repository) = python(false);
    repository.fill("one");
    let special = ["a-bad.bin", "b-half.bin", "p-die.bin", "z-large.bin"];
    let large = vec![b'x'; 3 << 20];
    for (name, contents) in special.iter().zip([&b"bad"[..], b"half", b"die", &large]) {
        fs::write(repository.folder.join(name), contents).unwrap();
    }
    let output = repository.git(&["add", "."]);
    let said = text(&output.stderr);
    // The filter is not required: what it does not take is added as it is, and the end that a call met
    // is named.
    assert!(output.status.success(), "{said}");
    assert!(said.contains("turns/1 exited with code 3"), "{said}");
    assert!(said.contains("more than 2097152 bytes cannot be sent"), "{said}");
    assert_eq!(repository.indexed("p-die.bin"), b"die");
    assert_eq!(repository.indexed("a-bad.bin"), b"bad");
    assert_eq!(repository.indexed("b-half.bin"), b"half");
    assert!(repository.indexed("z-large.bin") == large);
    for name in ["one-4.bin", "one-99.bin"] {
        assert!(repository.indexed(name).starts_with(b"filtered "), "{name}");
    }
    assert_eq!(wharf.wait_records("turns", 1).len(), 1);
    // Where it is required, git says which file it was.
    repository.ok(&["config", "filter.it.required", "true"]);
    fs::write(repository.folder.join("q-die.bin"), "die").unwrap();
    let output = repository.git(&["add", "q-die.bin"]);
    let said = text(&output.stderr);
    assert!(!output.status.success() && said.contains("q-die.bin"), "{said}");
    assert!(said.contains("turns/1 exited with code 3"), "{said}");
}

//! `wharf call` with a program of its own, which is such a port.

use std::time::Duration;

use wharf::Port;
use wharf::exit::Reason;
use wharf::port::exchange::Refusal;
use wharf::port::{OpenError, PortError, Replies, Unbuffer};

use super::{run, sh, upper};

/// `wharf call` with a program of its own: exit code, standard output and error.
fn call(words: &[&str], input: &str) -> (i32, String, String) {
    call_in(&tempfile::tempdir().unwrap(), words, input)
}

fn call_in(folder: &tempfile::TempDir, words: &[&str], input: &str) -> (i32, String, String) {
    use std::io::Write as _;
    use std::process::{Command, Stdio};
    let mut command = Command::new(env!("CARGO_BIN_EXE_wharf"));
    command.arg("call").args(words).current_dir(folder.path()).env_remove("WHARF_STATE_DIR");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It may have refused its words before it reads.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(!folder.path().join(".wharf").exists(), "no manager, no state");
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_program_is_called_without_a_manager() {
    let said = |out: &str| (0, out.to_owned(), String::new());
    assert_eq!(call(&["--use", "bc", "2^64"], ""), said("18446744073709551616\n"));
    assert_eq!(call(&["--use", "bc", "x=6", "x*7", "--", "bc", "-q"], ""), said("\n42\n"));
    assert_eq!(call(&["--use", "bc", "-", "--raw"], "6*7"), said("42"));
    assert_eq!(call(&["--use", "bc", "--lines"], "1+1\n2+2\n3+3"), said("2\n4\n6\n"));
    let upper = "s/.*/\\U&\\n/";
    let words = ["--framing", "lines", "--replies", "until: ^$", "hello", "--", "sed", "-u", upper];
    assert_eq!(call(&words, ""), said("HELLO\n"));
    assert_eq!(call(&["--framing", "eof", "b\na\n", "--", "sort"], ""), said("a\nb\n"));
}

#[test]
fn a_profile_of_ones_own_is_used_and_what_only_a_manager_gives_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (name, port) in [("loud", "replies: one"), ("tty", "channel: pty, replies: one")] {
        std::fs::create_dir_all(folder.path().join("ports").join(name)).unwrap();
        let text = format!("description: x\ncommand: [cat]\nport: {{ {port} }}\n");
        std::fs::write(folder.path().join(format!("ports/{name}/port.yaml")), text).unwrap();
    }
    let (code, out, words) = call_in(&folder, &["--use", "loud", "hello"], "");
    assert_eq!((code, &*out, &*words), (0, "hello\n", ""));
    let (code, _, words) = call_in(&folder, &["--use", "tty", "hello"], "");
    assert!(code == 1 && words.contains("cannot open a port with `channel: pty`"), "{words}");
}

#[test]
fn what_goes_wrong_has_its_exit_code_and_its_reason() {
    for (words, code, complaint) in [
        (&["--use", "bcc", "1"][..], 3, "bcc"),
        (&["--framing", "limes", "1", "--", "cat"], 3, "limes"),
        (&["--use", "awk", "1"], 3, "the key `command` is missing"),
        (&["--use", "bc"], 2, "which messages are meant"),
        (&["--use", "bc", "1", "--lines"], 2, "which messages are meant"),
        (&["db", "1", "--lines"], 2, "--lines with a service"),
        (&["db", "1", "2"], 2, "more than one message"),
        (&["--replies", "one", "x", "--", "/no/such"], 1, "ENOENT"),
        (&["--replies", "one", "x", "--timeout", "50ms", "--", "sleep", "60"], 6, "in time"),
        (&["--replies", "one", "x", "--", "sh", "-c", "read x; exit 3"], 1, "exited with code 3"),
        (&["--replies", "none", "x", "--", "cat"], 1, "replies: none"),
    ] {
        let (ended, out, words_said) = call(words, "");
        assert_eq!(ended, code, "{words:?}: {words_said}");
        assert!(words_said.contains(complaint) && out.is_empty(), "{words:?}: {words_said}");
    }
    // Some of several: what came is printed, the rest is told.
    let script = "read x; echo $x; read x; exit 4";
    let (code, out, words) =
        call(&["--replies", "one", "--lines", "--", "sh", "-c", script], "1\n2\n3\n");
    assert_eq!((code, &*out), (7, "1\n"));
    assert!(words.contains("exited with code 4") && words.contains("may have read"), "{words}");
}

#[test]
fn the_last_call_closes_the_input_and_has_all_that_is_said_for_its_reply() {
    run(async {
        let sort = Port::command("sort").arg("-n").open().await.unwrap();
        for number in ["30", "4"] {
            sort.feed(number).await.unwrap();
        }
        assert_eq!(sort.call_last("10").await.unwrap().messages(), ["4", "10", "30"]);
        assert!(sort.wait().await.is_success());
        // Every call before it is answered first, and none is taken after it.
        let shouts = upper().open().await.unwrap();
        let (one, last, late) =
            tokio::join!(shouts.call("one"), shouts.call_last("two"), shouts.call("three"));
        assert_eq!((one.unwrap().text(), last.unwrap().text()), ("ONE".into(), "TWO".into()));
        let refused = late.unwrap_err();
        assert!(matches!(refused, PortError::Refused(Refusal::InputClosed)), "{refused}");
        // Without a message only the input is closed.
        let words = Port::command("wc").arg("-w").open().await.unwrap();
        words.feed("a bc d").await.unwrap();
        assert_eq!(words.call_last("").await.unwrap().text(), "3");
        // A run that fails gives its reason, and no half of a reply.
        let failing = sh("cat; exit 3").open().await.unwrap();
        let error = failing.call_last("half").await.unwrap_err();
        assert_eq!(error.exit().unwrap().reason, Reason::Failed, "{error}");
        // And one that does not end has no reply in time.
        let lasting = sh("cat >/dev/null; exec sleep 1000").open().await.unwrap();
        let error = lasting.call_last_within(Duration::from_millis(50), "x").await.unwrap_err();
        assert!(error.is_timeout(), "{error}");
        lasting.kill().await;
    });
}

#[test]
fn output_that_is_held_back_is_had_by_stdbuf() {
    run(async {
        let grep = Port::command("grep").args(["--color=never", "x"]).replies(Replies::One);
        let port = grep.clone().unbuffer(Unbuffer::Stdbuf).open().await.unwrap();
        for word in ["xa", "bx"] {
            assert_eq!(port.call(word).await.unwrap().text(), word);
        }
        assert!(port.call_last("no").await.unwrap().messages().is_empty());
        let refused = grep.unbuffer(Unbuffer::Pty).open().await.unwrap_err();
        assert!(matches!(refused, OpenError::Channel("unbuffer: pty")), "{refused}");
    });
}

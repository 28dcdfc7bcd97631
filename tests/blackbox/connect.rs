//! `wharf connect` and `wharf attach`: clients that believe they have launched a server share one that
//! is supervised: a language client's bytes and pylsp, bc, and a few lines of Python. (MCP is in `mcp`.)

use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use crate::support::{Wharf, send, text, times, until};

/// A client's end of `wharf connect`.
struct Connected {
    child: Child,
    input: Option<ChildStdin>,
    output: ChildStdout,
    came: Vec<u8>,
}

impl Connected {
    fn new(wharf: &Wharf, name: &str) -> Self {
        let mut command = wharf.command(&["connect", name]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let (input, output) = (child.stdin.take(), child.stdout.take().unwrap());
        Self { child, input, output, came: Vec::new() }
    }

    fn write(&mut self, bytes: &[u8]) {
        self.input.as_mut().unwrap().write_all(bytes).unwrap();
    }

    fn more(&mut self) -> bool {
        let mut buffer = [0; 4096];
        let count = self.output.read(&mut buffer).unwrap();
        self.came.extend_from_slice(&buffer[..count]);
        count > 0
    }

    /// Says a line of JSON.
    fn line(&mut self, message: &Value) {
        self.write(format!("{message}\n").as_bytes());
    }

    /// The next line, as JSON.
    fn next_line(&mut self) -> Value {
        loop {
            if let Some(end) = self.came.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.came.drain(..=end).collect();
                return serde_json::from_slice(&line).unwrap();
            }
            assert!(self.more(), "it ended; left: {}", text(&self.came));
        }
    }

    /// The next line that is no notification: where it was there in time it hears those too.
    fn answer(&mut self) -> Value {
        loop {
            let told = self.next_line();
            if told.get("method").is_none() {
                return told;
            }
        }
    }

    /// Says a message as language servers do.
    fn lsp(&mut self, message: &Value) {
        let message = message.to_string();
        let head = format!("Content-Length: {}\r\n\r\n", message.len());
        self.write((head + &message).as_bytes());
    }

    /// The answer to this request; notifications before it are passed over.
    fn lsp_answer(&mut self, id: &Value) -> Value {
        loop {
            let came = text(&self.came);
            if let Some((head, _)) = came.split_once("\r\n\r\n") {
                let length: usize =
                    head.split("Content-Length: ").nth(1).unwrap().trim().parse().unwrap();
                let end = head.len() + 4 + length;
                if self.came.len() >= end {
                    let message: Vec<u8> = self.came.drain(..end).skip(head.len() + 4).collect();
                    let message: Value = serde_json::from_slice(&message).unwrap();
                    if message["id"] == *id && message.get("method").is_none() {
                        return message;
                    }
                    continue;
                }
            }
            assert!(self.more(), "it ended; left: {came}");
        }
    }

    /// Ends its input and waits for its end; gives the exit code and what else it said.
    fn end(mut self) -> (Option<i32>, String) {
        drop(self.input.take());
        while self.more() {}
        (self.child.wait().unwrap().code(), text(&self.came))
    }
}

const JSON: &str = "services:
  upper:
    command:
      - python3
      - -uc
      - |
        import json, sys
        for line in sys.stdin:
            told = json.loads(line)
            if told.get('method') == 'die':
                sys.exit(5)
            if 'id' in told:
                answer = {'id': told['id'], 'result': told.get('params')}
            else:
                answer = {'method': 'heard', 'params': told.get('params')}
            print(json.dumps(answer))
    port:
      replies: { id: { pointer: /id } }
      timeout: 20s
      handshake: { begin: initialize, done: initialized, end: [shutdown, exit] }
    restart: { policy: always, delay: 1ms, factor: 1 }
  bc: { port: { use: bc } }
";

/// Text of these lines.
fn lines(lines: impl Iterator<Item = String>) -> String {
    lines.flat_map(|line| [line, "\n".to_owned()]).collect()
}

#[test]
fn clients_share_one_handshake_and_none_ends_the_server() {
    let wharf = Wharf::up(JSON);
    wharf.wait_state("upper", "running");
    let (mut first, mut second) =
        (Connected::new(&wharf, "upper"), Connected::new(&wharf, "upper"));
    first.line(&json!({"id": 1, "method": "initialize", "params": "first"}));
    assert_eq!(first.next_line(), json!({"id": 1, "result": "first"}));
    first.line(&json!({"method": "initialized", "params": 1}));
    // What the program says of it reaches everybody who has joined.
    assert_eq!(first.next_line(), json!({"method": "heard", "params": 1}));
    second.line(&json!({"id": "a", "method": "initialize", "params": "second"}));
    assert_eq!(second.answer(), json!({"id": "a", "result": "first"}));
    second.line(&json!({"method": "initialized", "params": 2}));
    second.line(&json!({"id": 7, "method": "shutdown"}));
    let told = second.answer();
    assert_eq!(told, json!({"jsonrpc": "2.0", "id": 7, "result": null}));
    second.line(&json!({"method": "exit"}));
    assert_eq!(second.end().0, Some(0));
    first.line(&json!({"id": 2, "method": "any", "params": [1]}));
    assert_eq!(first.next_line(), json!({"id": 2, "result": [1]}), "and nothing of the second");
    // It ends, and the next run is greeted in the clients' place.
    let before = wharf.row("upper")["incarnation"].clone();
    first.line(&json!({"id": 3, "method": "die"}));
    let told = first.next_line();
    assert_eq!(
        (&told["id"], &told["error"]["data"]["code"]),
        (&json!(3), &json!("ended")),
        "{told}"
    );
    assert!(told["error"]["message"].to_string().contains("code 5"), "{told}");
    first.line(&json!({"id": 4, "method": "any", "params": [2]}));
    let told = [first.next_line(), first.next_line()];
    assert!(told.contains(&json!({"id": 4, "result": [2]})), "{told:?}");
    assert!(told.contains(&json!({"method": "heard", "params": 1})), "greeted anew: {told:?}");
    let row = wharf.row("upper");
    assert!(row["incarnation"] != before && row["port"]["frames_in"] == 3, "{row}");
    assert_eq!(first.end(), (Some(0), String::new()));
}

#[test]
fn a_client_of_any_protocol_is_answered_to_the_end_of_its_input() {
    let wharf = Wharf::up(JSON);
    wharf.wait_state("bc", "running");
    let mut client = Connected::new(&wharf, "bc");
    let count = times(2000);
    let asked: String = lines((0..count).map(|number| format!("{number}+1")));
    client.write(asked.as_bytes());
    let (code, said) = client.end();
    let expected: String = lines((1..=count).map(|number| number.to_string()));
    assert!(code == Some(0) && said == expected, "{code:?} {said}");
    let told = wharf.fails(4, &["connect", "nothing"]);
    assert!(told.contains("no service nothing"), "{told}");
    wharf.ok(&["stop", "bc"]);
    let mut client = Connected::new(&wharf, "bc");
    client.write(b"1+1\n");
    assert_eq!(client.end().0, Some(1), "no words for an error: it ends as a server would");
}

/// Answers what has an id with its parameters; says of everything else what it heard.
const ECHO: &str = "services:
  echo:
    command:
      - python3
      - -uc
      - |
        import json, sys
        for line in sys.stdin:
            told = json.loads(line)
            if isinstance(told, list):
                answer = [{'id': one['id'], 'result': one.get('params')} for one in told]
            elif 'id' in told:
                answer = {'id': told['id'], 'result': told.get('params')}
            else:
                answer = {'method': 'heard', 'params': told}
            print(json.dumps(answer))
    port: { replies: { id: { pointer: /id } }, max_frame: 64MiB, timeout: 60s }
";

#[test]
fn a_list_of_requests_is_answered_with_a_list_that_nobody_else_hears() {
    let wharf = Wharf::up(ECHO);
    wharf.wait_state("echo", "running");
    let (mut first, mut second) = (Connected::new(&wharf, "echo"), Connected::new(&wharf, "echo"));
    second.line(&json!({"id": 1, "method": "any", "params": "own"}));
    assert_eq!(second.next_line(), json!({"id": 1, "result": "own"}), "it has joined");
    first.line(&json!([
        {"id": 1, "method": "any", "params": "a"},
        {"method": "told"},
        {"id": 2, "method": "any", "params": "b"},
    ]));
    let told = [first.next_line(), first.next_line()];
    let heard = json!({"method": "heard", "params": {"method": "told"}});
    let list = told.iter().find_map(Value::as_array).expect("a list of the answers");
    assert!(told.contains(&heard) && list.len() == 2, "{told:?}");
    assert!(list.contains(&json!({"id": 1, "result": "a"})), "{list:?}");
    assert!(list.contains(&json!({"id": 2, "result": "b"})), "{list:?}");
    // A list with one bad request in it: the others are answered.
    first.line(&json!([{"id": 3, "method": "any"}, {"id": "x".repeat(5000), "method": "any"}]));
    let told = first.next_line();
    let list = told.as_array().expect("a list");
    assert_eq!(list.len(), 2);
    assert!(list.contains(&json!({"id": 3, "result": null})), "{list:?}");
    assert!(list.iter().any(|one| one.get("error").is_some()), "{list:?}");
    second.line(&json!({"id": 1, "method": "any", "params": "again"}));
    let told = [second.next_line(), second.next_line()];
    assert_eq!(told, [heard, json!({"id": 1, "result": "again"})], "and nothing of the list");
    assert_eq!(first.end(), (Some(0), String::new()));
}

#[test]
fn what_is_only_told_arrives_to_the_last_word_however_slowly_it_is_read() {
    let wharf = Wharf::up(
        "services:
  slow:
    command:
      - python3
      - -uc
      - |
        import sys, time
        for number, line in enumerate(sys.stdin):
            if number < 20:
                time.sleep(0.01)
    port: { replies: { id: { pointer: /id } }, queue: 10 }
  away: { command: [cat], port: { replies: { id: { pointer: /id } } }, restart: no }
",
    );
    wharf.wait_state("slow", "running");
    let told =
        lines((0..5000).map(|number| {
            json!({"method": "told", "params": [number, "x".repeat(100)]}).to_string()
        }));
    let mut client = Connected::new(&wharf, "slow");
    client.write(told.as_bytes());
    assert_eq!(client.end(), (Some(0), String::new()));
    until("all to be written", || (wharf.row("slow")["port"]["frames_in"] == 5000).then_some(()));
    for _ in 0..20 {
        let mut client = Connected::new(&wharf, "slow");
        client.write(b"{\"method\":\"one\"}\n");
        assert_eq!(client.end().0, Some(0));
    }
    until("those too", || (wharf.row("slow")["port"]["frames_in"] == 5020).then_some(()));
    wharf.ok(&["stop", "away"]);
    let mut client = Connected::new(&wharf, "away");
    client.write(b"{\"method\":\"one\"}\n");
    assert_eq!(client.end().0, Some(1), "it could not be told");
}

#[test]
fn a_request_without_a_method_is_answered_as_well() {
    let wharf = Wharf::up(ECHO);
    wharf.wait_state("echo", "running");
    let mut client = Connected::new(&wharf, "echo");
    client.line(&json!({"id": 1, "params": [1]}));
    assert_eq!(client.end(), (Some(0), "{\"id\": 1, \"result\": [1]}\n".to_owned()));
    let mut command = wharf.command(&["attach", "echo"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"{\"id\":\"a\",\"params\":2}\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(text(&output.stdout), "{\"id\": \"a\", \"result\": 2}\n");
    // What answers a request of the program's own is none.
    let mut client = Connected::new(&wharf, "echo");
    client.line(&json!({"id": 1, "result": null}));
    client.line(&json!({"id": 2}));
    assert_eq!(client.end(), (Some(0), "{\"id\": 2, \"result\": null}\n".to_owned()));
    assert_eq!(wharf.row("echo")["port"]["unmatched"], 1);
}

/// Works on `work` until it is told to stop, and says how far it is; each line is a request's or ours.
const WORKS: &str = "services:
  works:
    command:
      - python3
      - -uc
      - |
        import json, sys
        working = {}
        def say(told):
            print(json.dumps(told))
        for line in sys.stdin:
            told = json.loads(line)
            method, params = told.get('method'), told.get('params', {})
            if method == 'work':
                token = params['_meta']['progressToken']
                working[told['id']] = token
                say({'method': 'notifications/progress', 'params': {'progressToken': token, 'progress': 1}})
            elif method == 'notifications/cancelled':
                known = working.pop(params['requestId'], None) is not None
                say({'method': 'stopped', 'params': known})
                if known:
                    say({'id': params['requestId'], 'error': {'code': -32800}})
            elif method == 'how many':
                say({'id': told['id'], 'result': len(working)})
    port: { replies: { id: { pointer: /id } }, timeout: 60s }
";

#[test]
fn a_client_cancels_its_own_request_and_hears_of_its_own_progress_alone() {
    let wharf = Wharf::up(WORKS);
    wharf.wait_state("works", "running");
    let (mut first, mut second) =
        (Connected::new(&wharf, "works"), Connected::new(&wharf, "works"));
    let many = json!({"id": 0, "method": "how many"});
    for client in [&mut first, &mut second] {
        client.line(&many);
        assert_eq!(client.next_line(), json!({"id": 0, "result": 0}), "it has joined");
    }
    let progress = |token: Value| json!({"method": "notifications/progress", "params": {"progressToken": token, "progress": 1}});
    let work = |id: Value, token: Value| json!({"id": id, "method": "work", "params": {"_meta": {"progressToken": token}}});
    // Both call their request the same, and the token too.
    first.line(&work(json!(7), json!(7)));
    assert_eq!(first.next_line(), progress(json!(7)));
    second.line(&work(json!(7), json!(7)));
    assert_eq!(second.next_line(), progress(json!(7)));
    second.line(&work(json!("x"), json!("a\"b")));
    assert_eq!(second.next_line(), progress(json!("a\"b")));
    let cancel =
        |id: Value| json!({"method": "notifications/cancelled", "params": {"requestId": id}});
    let stopped = |known: bool| json!({"method": "stopped", "params": known});
    let over = |id: Value| json!({"id": id, "error": {"code": -32800}});
    // The first one has no request "x" to cancel; its own is cancelled, and nobody else's.
    first.line(&cancel(json!("x")));
    assert_eq!(first.next_line(), stopped(false));
    first.line(&cancel(json!(7)));
    assert_eq!((first.next_line(), first.next_line()), (stopped(true), over(json!(7))));
    first.line(&many);
    assert_eq!(first.next_line(), json!({"id": 0, "result": 2}));
    assert_eq!((second.next_line(), second.next_line()), (stopped(false), stopped(true)));
    second.line(&cancel(json!("x")));
    assert_eq!((second.next_line(), second.next_line()), (stopped(true), over(json!("x"))));
    second.line(&cancel(json!(7)));
    assert_eq!((second.next_line(), second.next_line()), (stopped(true), over(json!(7))));
}

#[test]
fn a_message_may_be_as_large_as_its_port_says_and_a_larger_one_hangs_nobody() {
    let wharf = Wharf::up(&format!("{ECHO}  bc: {{ port: {{ use: bc }} }}\n"));
    wharf.wait_state("echo", "running");
    let large = "x".repeat(20 << 20);
    let mut client = Connected::new(&wharf, "echo");
    client.line(&json!({"id": 1, "method": "any", "params": large}));
    client.line(&json!({"id": 2, "method": "any"}));
    let (code, said) = client.end();
    let told: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(code == Some(0) && told.len() == 2, "{code:?} {}", told.len());
    assert!(told.contains(&json!({"id": 1, "result": large})), "the large one");
    assert!(told.contains(&json!({"id": 2, "result": null})), "the one behind it");
    let message = json!({"id": "h", "params": large}).to_string();
    let (status, reply) = wharf.post("/v1/services/echo/call", message.as_bytes());
    assert!(status == 200 && reply.len() > large.len(), "{status}");
    wharf.wait_state("bc", "running");
    for line in [17 << 20, 70 << 20] {
        let mut command = wharf.command(&["attach", "bc"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        let written = std::thread::spawn(move || {
            // It may end before all is written.
            let _ = input.write_all(&vec![b'1'; line + 1]);
        });
        let output = child.wait_with_output().unwrap();
        written.join().unwrap();
        let told = text(&output.stderr);
        assert!(output.status.code() == Some(1) && told.contains("bytes"), "{told}");
    }
    assert_eq!(wharf.row("bc")["state"], "running");
}

#[test]
fn a_language_server_is_shared_and_outlives_its_clients() {
    let wharf = Wharf::up(
        "services:
  pylsp:
    port: { use: pylsp }
    restart: { policy: always, delay: 1ms, factor: 1 }
",
    );
    wharf.wait_state("pylsp", "running");
    let begin = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize",
        "params": {"processId": null, "rootUri": null, "capabilities": {}}});
    let mut capabilities = Vec::new();
    for _ in 0..2 {
        let mut client = Connected::new(&wharf, "pylsp");
        client.lsp(&begin);
        capabilities.push(client.lsp_answer(&json!(0))["result"]["capabilities"].clone());
        client.lsp(&json!({"jsonrpc": "2.0", "method": "initialized", "params": {}}));
        client.lsp(&json!({"jsonrpc": "2.0", "id": "bye", "method": "shutdown"}));
        assert_eq!(client.lsp_answer(&json!("bye"))["result"], Value::Null);
        client.lsp(&json!({"jsonrpc": "2.0", "method": "exit"}));
        assert_eq!(client.end().0, Some(0));
    }
    assert!(capabilities[0].is_object() && capabilities[0] == capabilities[1]);
    assert_eq!((wharf.row("pylsp")["restarts"].as_u64(), wharf.records().len()), (Some(0), 0));
    // Two at once use the same id, and what each asks is answered to it.
    let (mut client, mut other) =
        (Connected::new(&wharf, "pylsp"), Connected::new(&wharf, "pylsp"));
    for (one, name) in [(&mut client, "first"), (&mut other, "second")] {
        one.lsp(
            &json!({"jsonrpc": "2.0", "method": "textDocument/didOpen", "params": {"textDocument":
            {"uri": format!("file:///{name}.py"), "languageId": "python", "version": 1,
             "text": format!("def {name}():\n    pass\n")}}}),
        );
        one.lsp(&symbols(name));
    }
    for (one, name) in [(&mut client, "first"), (&mut other, "second")] {
        assert_eq!(one.lsp_answer(&json!(1))["result"][0]["name"], name);
    }
    // It is killed while it works at one call and has not read the other: the one hears why, and the
    // other is answered by the next run.
    let large = lines((0..10_000).map(|number| format!("def f{number}(): pass")));
    client.lsp(
        &json!({"jsonrpc": "2.0", "method": "textDocument/didOpen", "params": {"textDocument":
        {"uri": "file:///large.py", "languageId": "python", "version": 1, "text": large}}}),
    );
    client.lsp(&symbols("large"));
    let (pid, open) = (wharf.pid("pylsp"), || wharf.row("pylsp")["port"]["open"].clone());
    until("the call to be read", || (open() == 1 && has_read_all(pid)).then_some(()));
    send(pid, 19);
    other.lsp(&symbols("second"));
    until("both calls", || (open() == 2).then_some(()));
    send(pid, 9);
    let told = client.lsp_answer(&json!(1));
    assert!(told["error"]["message"].to_string().contains("SIGKILL"), "{told}");
    assert_eq!(told["error"]["data"]["read"], "maybe_read", "{told}");
    let told = other.lsp_answer(&json!(1));
    assert!(told.get("error").is_none(), "{told}");
    other.end();
    client.lsp(&json!({"jsonrpc": "2.0", "method": "textDocument/didOpen", "params": {"textDocument":
        {"uri": "file:///x.py", "languageId": "python", "version": 1, "text": "import os\nos.getcwd\n"}}}));
    client.lsp(&json!({"jsonrpc": "2.0", "id": 5, "method": "textDocument/hover", "params":
        {"textDocument": {"uri": "file:///x.py"}, "position": {"line": 1, "character": 4}}}));
    let told = client.lsp_answer(&json!(5));
    assert!(told.get("error").is_none(), "{told}");
    client.end();
}

/// Whether nothing is left in a program's input.
fn has_read_all(pid: i32) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let input = fs::File::open(format!("/proc/{pid}/fd/0")).unwrap();
    let mut polled = [PollFd::new(input.as_fd(), PollFlags::POLLIN)];
    poll(&mut polled, PollTimeout::ZERO).unwrap() == 0
}

/// The request for what a file defines.
fn symbols(name: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": 1, "method": "textDocument/documentSymbol",
        "params": {"textDocument": {"uri": format!("file:///{name}.py")}}})
}

#[test]
fn a_person_or_a_pipe_attaches_and_the_program_goes_on() {
    let wharf = Wharf::up(JSON);
    wharf.wait_state("bc", "running");
    let mut command = wharf.command(&["attach", "bc"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"6*7\n2^64\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(text(&output.stdout), "42\n18446744073709551616\n");
    assert!(text(&output.stderr).contains("bc/1 runs (run "), "{}", text(&output.stderr));
    assert!(output.status.success() && wharf.row("bc")["restarts"] == 0);
    // At a terminal, which `script` gives it.
    let mut command = Command::new("script");
    let attach = format!("{} attach bc", env!("CARGO_BIN_EXE_wharf"));
    command.args(["-qefc", &attach, "/dev/null"]).current_dir(&wharf.folder);
    command.env("TERM", "xterm").env("XDG_STATE_HOME", &wharf.folder).env("NO_COLOR", "1");
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (mut input, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut said = String::new();
    let mut wait = |word: &str| {
        let mut buffer = [0; 1024];
        loop {
            if let Some(at) = said.find(word) {
                said.drain(..at + word.len());
                return;
            }
            let count = output.read(&mut buffer).unwrap();
            assert!(count > 0, "it ended: {said}");
            said.push_str(&text(&buffer[..count]));
        }
    };
    wait("bc/1 runs");
    wait("bc/1> ");
    input.write_all(b"123456789*1000\r").unwrap();
    wait("123456789000");
    send(i32::try_from(wharf.row("bc")["pid"].as_i64().unwrap()).unwrap(), 9);
    wait("SIGKILL");
    wait("bc/1 runs");
    input.write_all(&[4]).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(wharf.row("bc")["state"], "running");
    let kept = until("what was typed", || {
        Some(wharf.read("wharf/attach_history")).filter(|kept| !kept.is_empty())
    });
    assert!(kept.contains("123456789*1000"), "{kept}");
    // At one that knows nothing but lines, such as a shell within Emacs.
    let mut command = Command::new("script");
    command.args(["-qefc", &attach, "/dev/null"]).current_dir(&wharf.folder).env("TERM", "dumb");
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"123456789*1000\n\x04").unwrap();
    let output = child.wait_with_output().unwrap();
    let said = text(&output.stdout);
    assert!(output.status.success() && said.contains("123456789000"), "{said}");
}

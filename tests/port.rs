//! `wharf::Port` in an ordinary tokio program, against real programs.

#![expect(clippy::unwrap_used, reason = "a test stops where the world is not as it must be")]
#![expect(clippy::disallowed_types, reason = "the command is run as a user would")]
#![expect(clippy::disallowed_methods, reason = "a test may look at the clock")]

#[path = "port/command.rs"]
mod command;
#[path = "port/ends.rs"]
mod ends;

use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use wharf::exit::{Cause, How, Reason, Signal};
use wharf::port::exchange::{CallError, Refusal};
use wharf::port::{
    Builder, Bytes, Exit, Framing, KillScope, Missed, PacketWidth, PortError, Replies, Stderr,
};
use wharf::{Port, os};

/// The longest any single thing may take.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs a test in a runtime of its own, and never for ever.
#[track_caller]
fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(LIMIT, test).await.expect("it takes too long") })
}

fn sh(script: &str) -> Builder {
    Port::command("sh").args(["-c", script]).stderr(Stderr::Quiet)
}

fn upper() -> Builder {
    let program = "import sys\nfor line in sys.stdin: print(line.strip().upper())";
    Port::command("python3").args(["-uc", program]).replies(Replies::One).stderr(Stderr::Quiet)
}

fn cat() -> Builder {
    Port::command("cat").stderr(Stderr::Quiet)
}

fn gone(pid: i32) -> bool {
    os::procfs::stat(pid).is_none_or(|stat| stat.is_zombie())
}

/// Waits until `look` says yes; there is no event to wait for.
async fn until(what: &str, mut look: impl FnMut() -> bool) {
    let start = Instant::now();
    while !look() {
        assert!(start.elapsed() < LIMIT, "waited in vain for {what}");
        tokio::task::spawn_blocking(|| {
            nix::poll::poll(&mut [], nix::poll::PollTimeout::from(5_u8)).unwrap();
        })
        .await
        .unwrap();
    }
}

fn steps(exit: &Exit) -> Vec<&str> {
    exit.stop
        .as_ref()
        .map_or(Vec::new(), |stop| stop.steps.iter().map(|step| step.step.as_str()).collect())
}

#[test]
fn a_call_gets_its_reply_and_the_end_its_reason() {
    run(async {
        let port = upper().open().await.unwrap();
        assert_eq!(port.call("one").await.unwrap().text(), "ONE");
        assert_eq!(port.call("two").await.unwrap().messages(), ["TWO"]);
        let exit = port.stop().await;
        assert!(exit.is_success());
        assert_eq!((exit.how, exit.cause), (How::Exited(0), Cause::StopRequested));
        assert_eq!(port.exit(), Some(exit));
    });
}

#[test]
fn many_callers_share_one_program_and_none_gets_anothers_reply() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.unwrap().block_on(async {
        let port = upper().open().await.unwrap();
        let callers = (0..20).map(|caller| {
            let port = port.clone();
            tokio::spawn(async move {
                for call in 0..50 {
                    let reply = port.call(format!("caller {caller} call {call}")).await.unwrap();
                    assert_eq!(reply.text(), format!("CALLER {caller} CALL {call}"));
                }
            })
        });
        for caller in callers.collect::<Vec<_>>() {
            tokio::time::timeout(LIMIT, caller).await.unwrap().unwrap();
        }
        let counters = port.counters();
        assert_eq!((counters.frames_in, counters.frames_out), (1000, 1000));
        let exit = port.stop().await;
        assert_eq!((exit.reason, exit.cause), (Reason::Completed, Cause::StopRequested));
        assert_eq!(steps(&exit), ["close_stdin"]);
        assert_eq!(exit.port.frames_in, 1000);
    });
}

#[test]
fn calls_that_wait_go_on_though_answers_are_there_at_once() {
    run(async {
        let port = cat().replies(Replies::One).open().await.unwrap();
        for round in 0..20 {
            let calls = (0..50).map(|call| {
                let port = port.clone();
                tokio::spawn(async move { port.call(format!("{round} {call}")).await })
            });
            for (number, call) in calls.collect::<Vec<_>>().into_iter().enumerate() {
                let reply = call.await.unwrap().unwrap();
                assert_eq!(reply.text(), format!("{round} {number}"));
            }
        }
    });
}

#[test]
fn a_lone_call_that_is_not_polled_holds_up_nobody() {
    run(async {
        let port = upper().open().await.unwrap();
        let mut lone = Box::pin(port.call("one"));
        // Polled once, it has written its message itself and is the one to be told of the reply.
        assert!(lone.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        assert_eq!(port.call("two").await.unwrap().text(), "TWO");
        assert_eq!(lone.await.unwrap().text(), "ONE");

        let port = sh("while read line; do :; done").replies(Replies::One).open().await.unwrap();
        let mut lone = Box::pin(port.call("three"));
        assert!(lone.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        port.signal(Signal::KILL);
        let exit = port.wait().await;
        assert!(matches!(lone.await, Err(PortError::Ended { exit: why, .. }) if why == exit));
    });
}

#[test]
fn a_lone_call_has_its_deadline_also_after_timers_that_went_off_for_nobody() {
    run(async {
        let port = sh("read line; echo heard; while read line; do :; done");
        let port = port.replies(Replies::One).open().await.unwrap();
        let (start, patience) = (Instant::now(), Duration::from_secs(1));
        assert_eq!(port.call_within(patience, "one").await.unwrap().text(), "heard");
        until("the first deadline to pass", || start.elapsed() > patience * 2).await;
        for _ in 0..2 {
            let failed = port.call_within(Duration::from_millis(20), "two").await;
            assert!(matches!(failed, Err(PortError::Failed { .. })), "{failed:?}");
        }
    });
}

#[test]
fn a_message_too_large_is_refused_and_the_port_lives() {
    run(async {
        let port = upper().max_frame(10).open().await.unwrap();
        let error = port.call("x".repeat(11)).await.unwrap_err();
        assert!(matches!(error, PortError::Refused(Refusal::Encode(_))), "{error}");
        assert_eq!(port.call("x".repeat(10)).await.unwrap().text(), "X".repeat(10));
    });
}

#[test]
fn much_goes_through_both_ways_without_loss_or_deadlock() {
    run(async {
        let port = cat().framing(Framing::Packet(PacketWidth::Four)).open().await.unwrap();
        let mut messages = port.subscribe();
        let sender = port.clone();
        let message = |number: u32| {
            let size = usize::try_from(number * 7919 % 200_000).unwrap();
            Bytes::from(
                number.to_be_bytes().iter().copied().cycle().take(size).collect::<Vec<u8>>(),
            )
        };
        let fed = tokio::spawn(async move {
            sender.feed_all((0..500).map(message)).await.unwrap();
            sender.flush().await.unwrap();
            sender.close_input();
        });
        for number in 0..500 {
            assert!(messages.next().await.unwrap().unwrap().payload == message(number), "{number}");
        }
        assert!(messages.next().await.is_none());
        fed.await.unwrap();
        assert!(port.wait().await.is_success());
    });
}

#[test]
fn a_program_that_does_not_read_holds_up_only_who_feeds_it() {
    run(async {
        let port = sh("exec sleep 60").queue(10).open().await.unwrap();
        let line = Bytes::from(vec![b'x'; 10_000]);
        let fed = async {
            loop {
                port.feed(line.clone()).await.unwrap();
            }
        };
        let waited = tokio::time::timeout(Duration::from_millis(300), fed).await;
        assert!(waited.is_err(), "a pipe is not that large");
        assert_eq!(port.waiting().0, 10);
        let error = port.send(line.clone()).await.unwrap_err();
        assert!(matches!(error, PortError::Refused(Refusal::Busy { messages: 10, .. })), "{error}");
        let exit = port.kill().await;
        assert_eq!((exit.how, exit.cause), (How::Signaled(Signal::KILL), Cause::StopRequested));
        assert!(exit.port.unread_stdin_bytes.unwrap() >= 40_000);
    });
}

#[test]
fn a_program_nobody_listens_to_waits_and_costs_nothing() {
    run(async {
        let port = Port::command("yes").open().await.unwrap();
        let cpu = |pid| os::usage::account(pid).unwrap().cpu;
        // It has filled its pipe and sleeps.
        until("yes to wait", || os::usage::account(port.pid()).is_some_and(|yes| yes.state == 'S'))
            .await;
        let before = cpu(port.pid());
        tokio::time::timeout(Duration::from_millis(300), port.wait()).await.unwrap_err();
        assert_eq!(cpu(port.pid()), before);
        // A listener hears it from the beginning, and nothing is missed while only it listens.
        let mut messages = port.subscribe_with(10);
        for _ in 0..200_000 {
            assert_eq!(messages.next().await.unwrap().unwrap().payload, "y");
        }
        let exit = port.stop().await;
        assert_eq!(exit.reason, Reason::Signaled);
    });
}

#[test]
fn a_slow_subscriber_is_told_how_much_it_missed() {
    run(async {
        let port = sh("i=0; while read n; do echo event; echo event; echo reply; done")
            .replies(Replies::until("^reply$"))
            .open()
            .await
            .unwrap();
        // With `until` what comes during a call is its reply; so others are made by sends.
        let mut slow = port.subscribe_with(1);
        let mut quick = port.subscribe();
        let mut heard = 0;
        for _ in 0..100 {
            port.send("x").await.unwrap();
            for _ in 0..3 {
                quick.next().await.unwrap().unwrap();
                heard += 1;
            }
        }
        let exit = port.stop().await;
        assert!(exit.is_success(), "{exit}");
        let (mut got, mut missed) = (0, 0);
        while let Some(next) = slow.next().await {
            match next {
                Ok(_) => got += 1,
                Err(Missed(count)) => missed += count,
            }
        }
        assert!(missed > 0);
        assert_eq!((got + missed, heard), (300, 300));
    });
}

#[test]
fn a_call_that_takes_too_long_fails_and_its_late_reply_reaches_nobody() {
    run(async {
        let slow = "import sys, time\nfor line in sys.stdin:\n    if 'slow' in line: time.sleep(0.3)\n    print(line.strip())";
        let port = Port::command("python3").args(["-uc", slow]).replies(Replies::One);
        let port = port.open().await.unwrap();
        let error = port.call_within(Duration::from_millis(20), "slow").await.unwrap_err();
        assert!(error.is_timeout() && !error.never_read(), "{error}");
        let why = match error {
            PortError::Failed { error, .. } => *error,
            other => panic!("{other}"),
        };
        assert_eq!(why, CallError::Unanswered);
        assert_eq!(port.call("quick").await.unwrap().text(), "quick");
        // A caller that goes away takes nobody's reply with it either.
        let left = tokio::time::timeout(Duration::from_millis(20), port.call("slow again")).await;
        assert!(left.is_err());
        assert_eq!(port.call("quick again").await.unwrap().text(), "quick again");
        assert_eq!(port.counters().swallowed, 2);
    });
}

#[test]
fn standard_error_is_apart_and_always_read() {
    run(async {
        let script = "yes oops | head -c 1000000 >&2; echo done; echo last >&2";
        let port = sh(script).open().await.unwrap();
        let (mut messages, mut errors) = (port.subscribe(), port.stderr().unwrap());
        assert_eq!(messages.next().await.unwrap().unwrap().payload, "done");
        let exit = port.wait().await;
        assert!(exit.stderr_tail.0.ends_with(b"oops\nlast\n") && exit.stderr_tail.0.len() == 4096);
        let (mut bytes, mut missed) = (0, 0);
        while let Some(next) = errors.next().await {
            match next {
                Ok(message) => bytes += message.payload.len(),
                Err(Missed(count)) => missed += count,
            }
        }
        assert!(bytes == 1_000_005 || (missed > 0 && bytes < 1_000_005), "{bytes} {missed}");
        let inherited = sh("exit 0").stderr(Stderr::Inherit).open().await.unwrap();
        assert!(inherited.stderr().is_none());
    });
}

#[test]
fn environment_folder_and_limits_are_those_asked_for() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let script = "echo $A-$B-$C; pwd; ulimit -n; ls /proc/self/fd";
        let port = sh(script).env_clear().env("PATH", "/usr/bin:/bin").env("A", "1").env("B", "2");
        let port = port.env_remove("B").current_dir(folder.path()).max_open_files(50);
        // A descriptor that somebody forgot to mark is not inherited.
        let leaked = std::fs::File::open("/dev/null").unwrap();
        os::fds::set_inheritable(std::os::fd::AsFd::as_fd(&leaked), true).unwrap();
        let port = port.open().await.unwrap();
        let mut messages = port.subscribe();
        let mut line = async || messages.next().await.unwrap().unwrap().payload;
        assert_eq!(line().await, "1--");
        let expected = folder.path().canonicalize().unwrap();
        assert_eq!(line().await, expected.to_str().unwrap());
        assert_eq!(line().await, "50");
        // Its three, and the folder that ls looks into.
        for fd in ["0", "1", "2", "3"] {
            assert_eq!(line().await, fd);
        }
        assert!(messages.next().await.is_none());
    });
}

#[test]
fn this_process_stays_as_it_was() {
    let handlers = || {
        let text = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let wanted = ["SigBlk", "SigIgn", "SigCgt"];
        text.lines()
            .filter(|line| wanted.iter().any(|name| line.starts_with(name)))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let before = handlers();
    run(async {
        let port = upper().open().await.unwrap();
        assert_eq!(port.call("x").await.unwrap().text(), "X");
        assert_eq!(handlers(), before);
        let mut reaper = 0;
        // PR_GET_CHILD_SUBREAPER, by way of the kernel's own account: an orphan does not come to us.
        let orphan = sh("(sleep 0.2; exec true) & echo $!").kill_scope(KillScope::Process);
        let orphan = orphan.open().await.unwrap();
        let line = orphan.subscribe().next().await.unwrap().unwrap().payload;
        let pid: i32 = std::str::from_utf8(&line).unwrap().parse().unwrap();
        orphan.wait().await;
        if let Some(stat) = os::procfs::stat(pid) {
            reaper = stat.parent;
        }
        assert_ne!(reaper, os::prctl::pid());
    });
}

#[test]
fn a_thousand_ports_leave_nothing_behind() {
    run(async {
        let count = if std::env::var_os("WHARF_SOAK").is_some() { 1000 } else { 100 };
        let mut pids = Vec::new();
        let mut ports = Vec::new();
        for _ in 0..count {
            ports.push(cat().replies(Replies::One).open().await.unwrap());
        }
        for port in &ports {
            assert_eq!(port.call("hello").await.unwrap().text(), "hello");
            pids.push(port.pid());
        }
        drop(ports);
        until("all to be reaped", || pids.iter().all(|pid| os::procfs::stat(*pid).is_none())).await;
    });
}

#[path = "../examples/calculator.rs"]
mod calculator;
#[path = "../examples/word-count.rs"]
mod word_count;

#[test]
fn the_examples_run() {
    calculator::main().unwrap();
    word_count::main().unwrap();
}

//! `wharf::Port` in an ordinary tokio program, against real programs.

#![expect(clippy::unwrap_used, reason = "a test stops where the world is not as it must be")]
#![expect(clippy::disallowed_types, reason = "the command is run as a user would")]
#![expect(clippy::disallowed_methods, reason = "a test may look at the clock")]

use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use wharf::exit::{Cause, How, Reason, Signal, Stage};
use wharf::port::exchange::{CallError, Refusal};
use wharf::port::{
    Builder, Bytes, Eof, Exit, Framing, KillScope, Missed, OpenError, PacketWidth, PortError,
    Replies, Stderr, Unbuffer,
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
fn a_program_that_dies_in_the_middle_tells_every_caller_why_and_what_it_read() {
    run(async {
        // It reads one line and no more, though others wait in its pipe.
        let script = "exec python3 -c 'import os; os.read(0, 6); os.write(2, b\"oops\"); os.kill(os.getpid(), 9)'";
        let port = sh(script).replies(Replies::id("/id")).open().await.unwrap();
        let calls = ["{\"id\":1}", "{\"id\":2}", "{\"id\":3}"].map(|call| port.call(call));
        let [first, second, third] = calls;
        let (first, second, third) = tokio::join!(first, second, third);
        let error = first.unwrap_err();
        assert!(!error.never_read());
        let exit = Arc::clone(error.exit().unwrap());
        assert_eq!(exit.how, How::Signaled(Signal::KILL));
        assert_eq!((exit.reason, exit.cause), (Reason::Signaled, Cause::Spontaneous));
        assert_eq!(exit.stderr_tail.0, b"oops");
        let error = error.to_string();
        assert!(
            error.contains("killed by SIGKILL") && error.ends_with("it may have read the message")
        );
        for later in [second, third] {
            let error = later.unwrap_err();
            assert!(error.never_read(), "{error}");
            assert_eq!(error.exit().unwrap(), &exit);
        }
        assert!(exit.port.unread_stdin_bytes.unwrap() > 0);
        // Who asks later hears the same.
        assert_eq!(port.wait().await, exit);
        let late = port.call("{\"id\":4}").await.unwrap_err();
        assert!(late.never_read() && late.exit() == Some(&exit));
        assert!(port.feed("x").await.unwrap_err().never_read());
        assert!(port.subscribe().next().await.is_none());
    });
}

#[test]
fn a_reply_in_the_same_breath_as_the_end_arrives() {
    run(async {
        for _ in 0..20 {
            let port =
                sh("read x; echo last words; exit 3").replies(Replies::One).open().await.unwrap();
            assert_eq!(port.call("x").await.unwrap().text(), "last words");
            let exit = port.wait().await;
            assert_eq!((exit.how, exit.reason), (How::Exited(3), Reason::Failed));
        }
    });
}

#[test]
fn an_unfinished_last_line_comes_before_the_end() {
    run(async {
        let port = sh("printf 'whole\\npart'").open().await.unwrap();
        let mut messages = port.subscribe();
        let exit = port.wait().await;
        let whole = messages.next().await.unwrap().unwrap();
        assert_eq!((&whole.payload[..], whole.partial), (&b"whole"[..], false));
        let tail = messages.next().await.unwrap().unwrap();
        assert_eq!((&tail.payload[..], tail.partial), (&b"part"[..], true));
        assert!(messages.next().await.is_none());
        assert!(exit.is_success() && exit.port.partial_frame);
    });
}

#[test]
fn who_subscribes_after_the_end_hears_what_was_left_in_the_pipe() {
    run(async {
        let port = sh("echo a; printf b").open().await.unwrap();
        assert!(port.wait().await.is_success());
        let mut messages = port.subscribe();
        assert_eq!(messages.next().await.unwrap().unwrap().payload, "a");
        assert_eq!(messages.next().await.unwrap().unwrap().payload, "b");
        assert!(messages.next().await.is_none());
        assert!(port.subscribe().next().await.is_none());
    });
}

#[test]
fn a_length_of_ffffffff_is_a_protocol_error_that_costs_nothing() {
    run(async {
        let port = sh("printf 'aa\\377\\377\\377\\377'; exec sleep 60")
            .framing(Framing::Packet(PacketWidth::Four))
            .replies(Replies::One)
            .open()
            .await
            .unwrap();
        let before = os::usage::account(os::prctl::pid()).unwrap().resident_bytes;
        let error = port.call("hello").await.unwrap_err();
        let after = os::usage::account(os::prctl::pid()).unwrap().resident_bytes;
        assert!(after.saturating_sub(before) < 1 << 20, "{before} {after}");
        let exit = error.exit().unwrap();
        assert_eq!(exit.reason, Reason::ProtocolError);
        assert!(exit.port.error.as_ref().unwrap().contains("1633812479"), "{:?}", exit.port.error);
        assert_eq!(exit.how, How::Signaled(Signal::KILL));
        assert!(exit.to_string().contains("broke its protocol"), "{exit}");
    });
}

#[test]
fn a_frame_cut_by_the_end_is_told() {
    run(async {
        let port = sh("printf '\\0\\0\\0\\012abc'")
            .framing(Framing::Packet(PacketWidth::Four))
            .open()
            .await
            .unwrap();
        let mut messages = port.subscribe();
        assert!(messages.next().await.is_none());
        let exit = port.wait().await;
        assert!(exit.port.partial_frame);
        assert!(exit.port.error.as_ref().unwrap().contains("3 of 10"), "{:?}", exit.port.error);
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
fn programs_that_ignore_the_end_of_their_input_stop_by_the_ladder() {
    run(async {
        let grace = Duration::from_millis(50);
        let deaf = "import signal, sys, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint(1)\ntime.sleep(60)";
        let deaf = Port::command("python3").args(["-uc", deaf]);
        for (builder, ladder) in [
            (sh("echo 1; exec sleep 60").quit("bye"), &["quit", "close_stdin", "SIGTERM"][..]),
            (sh("echo 1; exec sleep 60").eof(Eof::Ignored), &["SIGTERM"]),
            (deaf.quit("bye"), &["quit", "close_stdin", "SIGTERM", "SIGKILL"]),
        ] {
            let port = builder.eof_grace(grace).stop_grace(grace).open().await.unwrap();
            assert!(port.subscribe().next().await.unwrap().is_ok());
            let exit = port.stop().await;
            assert_eq!(steps(&exit), ladder);
            assert_eq!((exit.reason, exit.cause), (Reason::Signaled, Cause::StopRequested));
            let stop = exit.stop.as_ref().unwrap();
            assert_eq!(stop.escalated, ladder.last() == Some(&"SIGKILL"));
        }
    });
}

#[test]
fn half_closed_a_program_answers_at_its_end() {
    run(async {
        let sort = Port::command("sort").framing(Framing::Eof).replies(Replies::One);
        let port = sort.open().await.unwrap();
        assert_eq!(port.call("b\na\n").await.unwrap().text(), "a\nb\n");
        assert!(port.wait().await.is_success());

        let wc = Port::command("wc").arg("-l").open().await.unwrap();
        let mut messages = wc.subscribe();
        let lines = (0..100_000).map(|_| Bytes::from_static(b"line"));
        wc.feed_all(lines).await.unwrap();
        wc.close_input();
        assert_eq!(messages.next().await.unwrap().unwrap().payload, "100000");
        let error = wc.feed("late").await.unwrap_err();
        assert!(matches!(
            error,
            PortError::Refused(Refusal::InputClosed) | PortError::Ended { .. }
        ));
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
fn what_does_not_start_says_which_step_failed() {
    run(async {
        for (builder, stage, errno) in [
            (Port::command("/no/such/program"), Stage::Exec, libc::ENOENT),
            (Port::command("/etc"), Stage::Exec, libc::EACCES),
            (Port::command("true").current_dir("/no/such"), Stage::WorkingDir, libc::ENOENT),
            (Port::command("true").user("no-such-user"), Stage::User, libc::ENOENT),
        ] {
            match builder.open().await.unwrap_err() {
                OpenError::NotStarted { stage: at, errno: with, .. } => {
                    assert_eq!((at, with.0), (stage, errno));
                }
                other => panic!("{other}"),
            }
        }
        let nul = Port::command("a\0b").open().await.unwrap_err();
        assert!(matches!(nul, OpenError::Nul { .. }));
        let bad = Port::command("true").replies(Replies::until("(")).open().await.unwrap_err();
        assert!(matches!(bad, OpenError::Protocol(_)), "{bad}");
    });
    let outside = futures_lite(Port::command("true").open());
    assert!(matches!(outside, Some(Err(OpenError::NoRuntime))));
}

/// Polls a future once, outside of any runtime.
fn futures_lite<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(&mut context) {
        std::task::Poll::Ready(done) => Some(done),
        std::task::Poll::Pending => None,
    }
}

#[test]
fn a_dropped_port_ends_its_program_and_what_that_started() {
    run(async {
        // A child in another session, one in another group's place, and itself.
        let script = "setsid sleep 61 & sleep 62 & echo $$; exec sleep 63";
        let port = sh(script).eof_grace(Duration::from_millis(20)).open().await.unwrap();
        port.subscribe().next().await.unwrap().unwrap();
        let pid = port.pid();
        let family = || {
            let all = os::procfs::all().unwrap();
            let marker = os::procfs::variable(pid, "WHARF_PORT");
            let own = all.iter().filter(|one| !one.is_zombie()).filter(|one| {
                one.pid == pid || {
                    let value = os::procfs::variable(one.pid, "WHARF_PORT");
                    value.is_some() && value == marker
                }
            });
            own.map(|one| one.pid).collect::<Vec<_>>()
        };
        let mut before = Vec::new();
        until("three processes", || {
            before = family();
            before.len() == 3
        })
        .await;
        drop(port);
        until("their end", || before.iter().all(|pid| gone(*pid))).await;
        until("the reaping", || os::procfs::stat(pid).is_none()).await;
    });
}

#[test]
fn with_the_runtime_everything_ends() {
    let (port, pid) = run(async {
        let port = sh("echo 1; trap '' TERM; sleep 60").open().await.unwrap();
        port.subscribe().next().await.unwrap().unwrap();
        let pid = port.pid();
        (port, pid)
    });
    // Whoever still has the port is told what can be told.
    let exit = port.exit().unwrap();
    assert_eq!((exit.reason, exit.cause), (Reason::Lost, Cause::ParentDied));
    run(until("its end", || os::procfs::stat(pid).is_none()));
}

#[test]
fn nobody_who_inherited_the_pipe_delays_the_end() {
    run(async {
        let port = sh("(trap '' HUP TERM; sleep 60) & echo 1; exit 0")
            .kill_scope(KillScope::Process)
            .open()
            .await
            .unwrap();
        let mut messages = port.subscribe();
        let exit = port.wait().await;
        assert!(exit.is_success());
        assert_eq!(messages.next().await.unwrap().unwrap().payload, "1");
        assert!(messages.next().await.is_none());
        // What was left alone is ours to end, and may be gone before it is reached.
        for process in os::procfs::all().unwrap() {
            if process.group == exit.pid {
                let sent = os::signal::send_pid(process.pid, Signal::KILL);
                assert!(sent.is_ok() || os::procfs::stat(process.pid).is_none(), "{sent:?}");
            }
        }
    });
}

#[test]
fn signals_reach_the_program_and_are_in_the_reason() {
    run(async {
        let port = sh("trap 'echo usr1' USR1; echo up; while :; do read x || sleep 1 & wait; done");
        let port = port.open().await.unwrap();
        let mut messages = port.subscribe();
        assert_eq!(messages.next().await.unwrap().unwrap().payload, "up");
        port.signal("USR1".parse().unwrap());
        assert_eq!(messages.next().await.unwrap().unwrap().payload, "usr1");
        port.signal(Signal::KILL);
        let exit = port.wait().await;
        assert_eq!((exit.how, exit.cause), (How::Signaled(Signal::KILL), Cause::SignalRequested));
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

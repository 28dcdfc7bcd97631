//! How ports end, and what everybody hears of it.

use std::sync::Arc;
use std::time::Duration;

use wharf::exit::{Cause, How, Reason, Signal, Stage};
use wharf::port::exchange::Refusal;
use wharf::port::{Bytes, Eof, Framing, KillScope, OpenError, PacketWidth, PortError, Replies};
use wharf::{Port, os};

use super::{gone, run, sh, steps, until};

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

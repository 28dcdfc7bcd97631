//! Erlang ports for Rust: any program that speaks on its standard input and output, as a value that is
//! called, listened to and watched, and that always ends with a reason.
//!
//! A [`Port`] is one run of a program in a tokio program of yours. There is no manager and no configuration
//! file, and nothing global is touched: no signal handler, no subreaper, no `waitpid` for anybody
//! else's children. (A program that is to be *supervised*, restarted and shared between processes is a
//! service of the `wharf` command.)
//!
//! # A calculator
//!
//! `bc` answers a line with any number of lines, or with none. A *sentinel* finds the end of each reply:
//! after every request it is made to print a token that nothing else prints.
//!
//! ```
//! use wharf::port::{Port, Replies};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let bc = Port::command("bc")
//!     .arg("-q")
//!     .replies(Replies::sentinel("print \"{token}\\n\"", "{token}"))
//!     .quit("quit")
//!     .open()
//!     .await?;
//!
//! assert_eq!(bc.call("2^64").await?.text(), "18446744073709551616");
//! assert_eq!(bc.call("x = 6").await?.messages().len(), 0);
//! assert_eq!(bc.call("x * 7; x * 8").await?.text(), "42\n48");
//!
//! let exit = bc.stop().await;
//! assert!(exit.is_success());
//! assert_eq!(exit.stop.as_ref().unwrap().steps[0].step, "quit");
//! # Ok(())
//! # }
//! ```
//!
//! # Four choices
//!
//! | choice | in the builder | says |
//! |---|---|---|
//! | framing | [`Builder::framing`] | where a message ends: [`Framing::Lines`], a length before it, JSON values, … |
//! | replies | [`Builder::replies`] | which message answers which call: the next one, all up to a pattern, one with the same id, … |
//! | life | [`Builder::quit`], [`Builder::eof`], … | how it is asked to end |
//! | bounds | [`Builder::max_frame`], [`Builder::queue`], [`Builder::timeout`] | what nobody can exceed |
//!
//! `git cat-file --batch` announces the length of each object in a line before it:
//!
//! ```
//! use wharf::port::{Framing, Port, Replies};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let made = Port::command("git").args(["init", "-q", "."]).current_dir(folder.path()).open().await?;
//! # assert!(made.wait().await.is_success());
//! let git = Port::command("git")
//!     .args(["cat-file", "--batch"])
//! #   .current_dir(folder.path())
//!     .framing(Framing::counted(r"^[0-9a-f]+ \w+ (?P<length>\d+)$", "\n"))
//!     .replies(Replies::One)
//!     .open()
//!     .await?;
//!
//! // Header and object are one message; what is missing is a message of its own.
//! let empty_tree = "4b825dc642cb6eb9a060e54bf8d69288fbee4904";
//! assert_eq!(git.call(empty_tree).await?.text(), format!("{empty_tree} tree 0\n"));
//! assert_eq!(git.call("HEAD:README").await?.text(), "HEAD:README missing");
//! # Ok(())
//! # }
//! ```
//!
//! # Many callers at once
//!
//! Where requests and replies bear an id, as in JSON-RPC, MCP and language servers, many calls are open at
//! once and replies come in any order. Every caller may use ids of its own liking: the port puts its
//! own numbers in their place on the way out and the callers' back on the way in.
//!
//! ```
//! use wharf::port::{Framing, Port, Replies};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A language server would have Framing::ContentLength.
//! let server = Port::command("jq")
//!     .args(["--unbuffered", "-c", "{id, result: (.params | add)}"])
//!     .framing(Framing::Json)
//!     .replies(Replies::id("/id"))
//!     .open()
//!     .await?;
//!
//! let (one, other) = (server.clone(), server.clone());
//! let (one, other) = tokio::join!(
//!     one.call(r#"{"id": 1, "method": "add", "params": [1, 2]}"#),
//!     other.call(r#"{"id": 1, "method": "add", "params": ["a", "b"]}"#),
//! );
//! assert_eq!(one?.text(), r#"{"id":1,"result":3}"#);
//! assert_eq!(other?.text(), r#"{"id":1,"result":"ab"}"#);
//! # Ok(())
//! # }
//! ```
//!
//! What the server says of itself (`notifications/…`, diagnostics, a request of its own) reaches every
//! [subscriber](Port::subscribe).
//!
//! # Half a conversation
//!
//! `sort` says nothing before its input ends. [`Port::close_input`] ends it, and leaves the output open:
//!
//! ```
//! use wharf::port::Port;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let sort = Port::command("sort").arg("-n").open().await?;
//! let mut lines = sort.subscribe();
//! for number in ["10", "9", "100"] {
//!     sort.feed(number).await?;
//! }
//! sort.close_input();
//!
//! let mut sorted = Vec::new();
//! while let Some(line) = lines.next().await {
//!     sorted.push(line?.payload);
//! }
//! assert_eq!(sorted, ["9", "10", "100"]);
//! assert!(sort.wait().await.is_success());
//! # Ok(())
//! # }
//! ```
//!
//! [`Port::call_last`] is the same as a call: its reply is all that the program says from then on.
//!
//! ```
//! # use wharf::port::Port;
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let count = Port::command("wc").arg("-w").open().await?;
//! assert_eq!(count.call_last("one two three").await?.text(), "3");
//! # Ok(())
//! # }
//! ```
//!
//! # Ends
//!
//! Every port ends exactly once, and [`Port::wait`] tells how and why, early or late, to everybody who asks.
//! All that the program wrote is delivered before. A call that no program will ever answer gets the same
//! end instead of a reply, and whether the program may have read it:
//!
//! ```
//! use wharf::exit::{Cause, How, Reason, Signal};
//! use wharf::port::{Port, PortError, Replies};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let shell = Port::command("sh")
//!     .args(["-c", "read word; echo no $word >&2; kill -9 $$"])
//!     .replies(Replies::One)
//!     .open()
//!     .await?;
//!
//! let error = shell.call("bananas").await.unwrap_err();
//! assert!(!error.never_read(), "it must not be sent again unseen");
//!
//! let exit = shell.wait().await;
//! assert_eq!(exit.how, How::Signaled(Signal::KILL));
//! assert_eq!((exit.reason, exit.cause), (Reason::Signaled, Cause::Spontaneous));
//! assert_eq!(exit.stderr_tail.0, b"no bananas\n");
//! assert_eq!(exit.port.frames_in, 1);
//! # assert!(matches!(error, PortError::Ended { .. }));
//!
//! // What keeps a program from running is never taken for an exit code.
//! let error = Port::command("no-such-program").open().await.unwrap_err();
//! assert_eq!(
//!     error.to_string(),
//!     "start no-such-program: executing the program failed with ENOENT (No such file or directory)"
//! );
//! # Ok(())
//! # }
//! ```
//!
//! # What holds
//!
//! - **Nothing grows without bound.** A length is checked before anything is allocated. A program that does
//!   not read blocks only who [feeds](Port::feed) it; [`Port::call`] and [`Port::send`] are refused when the
//!   queue is full. A program that nobody listens to is not read and waits, at no cost.
//! - **Nothing is left behind.** When the last [`Port`] is dropped its program is stopped as by [`Port::stop`],
//!   within the times given; when the runtime ends it is killed at once; when this process dies by
//!   whatever means the kernel kills it (`PR_SET_PDEATHSIG`). After its end its group, its session and
//!   every process that still has its `WHARF_PORT` in the environment is killed too ([`Builder::kill_scope`]).
//!   Only what is left by a program that dies *with* this process is on its own.
//! - **The end is not held hostage.** Somebody who inherited the program's output can neither delay its end
//!   nor its last words.
//! - **No task is in the way of another.** Each port has a task of its own, which never waits for who listens.
//!
//! Programs are started by one thread that lives as long as this process, since the kernel binds
//! `PR_SET_PDEATHSIG` to the thread that made a child. It is started by the first port. A process that
//! ignores `SIGCHLD`, or waits for any child there is, takes the ends of its ports away from them: then the
//! reason is [`Reason::Lost`](crate::exit::Reason::Lost).
//!
//! Who has no runtime finds the same with plain functions in [`blocking`].
//!
//! # Beside Erlang
//!
//! | `open_port` | here |
//! |---|---|
//! | `{packet, 4}`, `{line, L}` | [`Framing`], with a bound that is checked first |
//! | owner's mailbox, without bound | [`Messages`], bounded; the program waits, or it is said how much was missed |
//! | `port_command`, suspends at 8 KiB | [`Port::feed`], bounded and awaited |
//! | – | [`Port::call`]: replies find their callers |
//! | – | [`Port::close_input`] |
//! | `{exit_status, 137}` | [`Exit`]: code or signal, reason, cause, usage, the last words |
//! | a missing program "exits" with 127 or 2 | [`OpenError::NotStarted`] with the step and the error |
//! | `port_close` forgets the program | [`Port::stop`], [`Port::kill`], and `Drop` |

pub mod blocking;
pub mod exchange;
pub mod handshake;
pub mod stdbuf;
pub mod welcome;

mod builder;
mod driver;
mod error;
mod exit;
mod handle;
mod keeper;
mod messages;
mod pipes;
mod reader;
mod shared;
mod stderr;

pub use builder::Builder;
pub use error::{OpenError, PortError};
pub use exit::Exit;
pub use handle::{Port, Reply};
pub use messages::{Messages, Missed};
pub use stderr::Stderr;

/// Bytes that are shared and not copied, as tokio's world has them.
pub use bytes::Bytes;

pub use crate::framing::Message;
pub use crate::spec::{
    Banner, Eof, Framing, IdPlace, IdType, KillScope, Longer, PacketWidth, Ready, Replies, Stray,
    Unbuffer,
};

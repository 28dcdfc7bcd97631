//! Questions to programs that nobody here may wait for: HTTP, a connection, how much memory is held.
//!
//! A thread of its own asks them, started with the first one, so that neither a name server nor a
//! program that hangs holds anything up. Each question has its deadline; [`AT_ONCE`] are asked at the
//! same time and the others wait in line, first come, first served. Nothing here decides what an
//! answer means, and no program is executed here: that is the spawner's.

mod http;
mod leftovers;
mod memory;
mod tcp;

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::name::Incarnation;
use crate::os::cgroup::Group;
use crate::os::clock;
use crate::os::fds::Waker;
use crate::spec::{Endpoint, HttpUrl};

use leftovers::kill_marked;

/// So many questions are asked over the network at once.
pub const AT_ONCE: usize = 128;
/// How much of what a program says to a question is kept, in bytes.
pub const KEPT: usize = 4096;
/// A deadline that is seen so much too late was missed because this thread did not run.
const LATE: Duration = Duration::from_millis(50);
/// How often that is forgiven to one question.
const FORGIVEN: usize = 3;
/// How many names are looked up at once.
const LOOKUPS: usize = 8;

/// What is asked.
#[derive(Debug, Clone)]
pub enum Question {
    /// Whether this address answers with a status of 200 to 399.
    Http(HttpUrl),
    /// Whether this address accepts a connection.
    Tcp(Endpoint),
}

/// What came of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Whether it was the right answer, or what was wrong.
    pub result: Result<(), Box<str>>,
    /// What the program said, at most [`KEPT`] bytes.
    pub said: Vec<u8>,
}

/// One run's question.
#[derive(Debug)]
struct Asked {
    incarnation: Incarnation,
    number: u64,
    question: Question,
    timeout: Duration,
}

/// What the thread has to tell.
#[derive(Debug)]
pub enum Told {
    /// A question has its answer.
    Answer {
        /// Of which run.
        incarnation: Incarnation,
        /// Which question of that run.
        number: u64,
        /// What came of it.
        outcome: Outcome,
    },
    /// How much memory a run holds, in bytes.
    Memory {
        /// Which run.
        incarnation: Incarnation,
        /// All its processes together.
        bytes: u64,
    },
    /// What marked processes were looked for is over: so many were killed.
    Swept {
        /// How many.
        killed: usize,
    },
}

/// What is done where files have to be read.
#[derive(Debug)]
enum Look {
    Memory { incarnation: Incarnation, pid: i32, group: Option<Group> },
    Leftovers { marks: Vec<u64> },
}

/// The threads' handle: questions go in, answers come out after the waker was rung. Both queues are
/// bounded by the number of replicas: each has at most one question open and is looked at every few
/// seconds.
#[derive(Debug)]
pub struct Prober {
    waker: Waker,
    told: (Sender<Told>, Receiver<Told>),
    asked: Option<UnboundedSender<Asked>>,
    looks: Option<Sender<Look>>,
}

impl Prober {
    /// A prober whose threads start with its first question.
    pub fn new(waker: Waker) -> Self {
        Self { waker, told: channel(), asked: None, looks: None }
    }

    /// What was found since, one after the other.
    pub fn told(&self) -> Option<Told> {
        self.told.1.try_recv().ok()
    }

    /// Asks. An error is the system's, which has no thread to give.
    pub fn ask(
        &mut self,
        incarnation: Incarnation,
        number: u64,
        question: Question,
        timeout: Duration,
    ) -> io::Result<()> {
        let asked = Asked { incarnation, number, question, timeout };
        let sender = match self.asked.take() {
            Some(sender) => sender,
            None => start(self.told.0.clone(), self.waker.clone())?,
        };
        // The thread ends only with its handle.
        let _ = sender.send(asked);
        self.asked = Some(sender);
        Ok(())
    }

    /// Has the memory of a run looked at: of the processes in `group`, or else of `pid` and what it
    /// started as far as that can be seen.
    pub fn measure(
        &mut self,
        incarnation: Incarnation,
        pid: i32,
        group: Option<Group>,
    ) -> io::Result<()> {
        self.look(Look::Memory { incarnation, pid, group })
    }

    /// Has processes killed that were orphaned to this one and carry one of these marks (`os::mark`).
    pub fn sweep(&mut self, marks: Vec<u64>) -> io::Result<()> {
        self.look(Look::Leftovers { marks })
    }

    fn look(&mut self, look: Look) -> io::Result<()> {
        let sender = match self.looks.take() {
            Some(sender) => sender,
            None => start_looking(self.told.0.clone(), self.waker.clone())?,
        };
        let _ = sender.send(look);
        self.looks = Some(sender);
        Ok(())
    }
}

/// Starts the thread that asks.
fn start(told: Sender<Told>, waker: Waker) -> io::Result<UnboundedSender<Asked>> {
    let runtime = Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(LOOKUPS)
        .thread_stack_size(128 << 10)
        .build()?;
    let (sender, mut inbox) = unbounded_channel();
    std::thread::Builder::new().name("probe".into()).stack_size(512 << 10).spawn(move || {
        let here = runtime.handle().clone();
        runtime.block_on(serve(&mut inbox, &here, &told, &waker));
        // Not waiting for names that are still being looked up.
        runtime.shutdown_background();
    })?;
    Ok(sender)
}

async fn serve(
    inbox: &mut UnboundedReceiver<Asked>,
    here: &Handle,
    told: &Sender<Told>,
    waker: &Waker,
) {
    let line = Arc::new(Semaphore::new(AT_ONCE));
    while let Some(asked) = inbox.recv().await {
        let (line, told, waker) = (Arc::clone(&line), told.clone(), waker.clone());
        here.spawn(async move {
            // The semaphore is fair and never closed.
            let Ok(_turn) = line.acquire().await else { return };
            let Asked { incarnation, number, question, timeout } = asked;
            let outcome = answer(question, timeout).await;
            if told.send(Told::Answer { incarnation, number, outcome }).is_ok() {
                waker.wake();
            }
        });
    }
}

/// Asks and waits for the answer, but not for longer than `timeout`.
async fn answer(question: Question, timeout: Duration) -> Outcome {
    let asking = async {
        match question {
            Question::Http(url) => http::get(&url).await,
            Question::Tcp(endpoint) => tcp::connect(&endpoint).await.map(drop).into(),
        }
    };
    let mut asking = std::pin::pin!(asking);
    let mut left = timeout;
    for _ in 0..FORGIVEN {
        let until = clock::now() + left;
        if let Ok(outcome) = tokio::time::timeout(left, &mut asking).await {
            return outcome;
        }
        let late = clock::now().since(until);
        if late <= LATE {
            break;
        }
        // Not the program was late but this thread, which did not run: nobody could hear an answer.
        left = late.min(timeout);
    }
    Err(late(timeout)).into()
}

/// What is said of an answer that did not come.
pub fn late(timeout: Duration) -> Box<str> {
    format!("no answer within {}", crate::time::format_duration(timeout)).into()
}

impl From<Result<(), Box<str>>> for Outcome {
    fn from(result: Result<(), Box<str>>) -> Self {
        Self { result, said: Vec::new() }
    }
}

/// Starts the thread that reads files. All that waits shares one look at the processes there are.
fn start_looking(told: Sender<Told>, waker: Waker) -> io::Result<Sender<Look>> {
    let (sender, inbox) = channel();
    std::thread::Builder::new().name("look".into()).stack_size(256 << 10).spawn(move || {
        while let Ok(first) = inbox.recv() {
            let mut processes = memory::Processes::default();
            for look in std::iter::once(first).chain(inbox.try_iter()) {
                let found = match look {
                    Look::Memory { incarnation, pid, group } => {
                        let bytes = memory::held(pid, group.as_ref(), &mut processes);
                        bytes.map(|bytes| Told::Memory { incarnation, bytes })
                    }
                    Look::Leftovers { marks } => {
                        let killed = kill_marked(&marks);
                        Some(Told::Swept { killed })
                    }
                };
                if let Some(found) = found {
                    if told.send(found).is_err() {
                        return;
                    }
                    waker.wake();
                }
            }
        }
    })?;
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    const LIMIT: Duration = Duration::from_secs(20);

    fn ask(question: Question, timeout: Duration) -> Outcome {
        let mut prober = Prober::new(Waker::new().unwrap());
        prober.ask(Incarnation(7), 3, question, timeout).unwrap();
        match prober.told.1.recv_timeout(LIMIT).unwrap() {
            Told::Answer { incarnation: Incarnation(7), number: 3, outcome } => outcome,
            other => panic!("{other:?}"),
        }
    }

    /// A server that answers one request with these bytes, and the address to ask.
    fn server(
        answer: impl Into<Vec<u8>>,
        closes: bool,
    ) -> (HttpUrl, std::thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let answer = answer.into();
        let serving = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") {
                socket.read_exact(&mut byte).unwrap();
                request.push(byte[0]);
            }
            let _ = socket.write_all(&answer);
            if !closes {
                // Until the other side hangs up.
                let _ = socket.read_to_end(&mut Vec::new());
            }
            String::from_utf8(request).unwrap()
        });
        (HttpUrl::parse(&format!("http://{address}/a?b")).unwrap(), serving)
    }

    fn get(answer: impl Into<Vec<u8>>, closes: bool) -> Outcome {
        let (url, serving) = server(answer, closes);
        let outcome = ask(Question::Http(url), Duration::from_millis(500));
        let request = serving.join().unwrap().to_lowercase();
        assert!(request.starts_with("get /a?b http/1.1\r\n"), "{request}");
        assert!(request.contains("host: 127.0.0.1:"), "{request}");
        outcome
    }

    #[test]
    fn a_status_of_200_to_399_is_well() {
        for (status, well) in
            [(200, true), (204, true), (302, true), (399, true), (400, false), (503, false)]
        {
            let answer =
                format!("HTTP/1.1 {status} Word\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n");
            assert_eq!(get(answer, false).result.is_ok(), well, "{status}");
        }
        let outcome = get("HTTP/1.1 503 No\r\ncontent-length: 12\r\n\r\nno database\n", false);
        assert_eq!(outcome.result, Err("status 503: no database".into()));
        assert_eq!(outcome.said, b"no database\n");
    }

    #[test]
    fn an_answer_that_is_none_is_told_in_words() {
        let outcome = |answer: &str, closes| get(answer, closes).result.unwrap_err();
        assert_eq!(&*outcome("", false), "no answer within 500ms");
        assert_eq!(
            &*outcome("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc", false),
            "no answer within 500ms"
        );
        assert!(outcome("SSH-2.0-OpenSSH\r\n", true).starts_with("its answer is not HTTP: "));
        assert!(outcome("", true).starts_with("its answer is not HTTP: "));
        let head = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(300 << 10));
        assert!(outcome(&head, true).starts_with("its answer is not HTTP: "));
    }

    #[test]
    fn of_a_long_answer_the_beginning_is_enough() {
        let mut answer = b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n".to_vec();
        answer.resize(1 << 20, b'x');
        let outcome = get(answer, false);
        assert_eq!((outcome.result, outcome.said.len()), (Ok(()), KEPT));
    }

    /// The thread that asks does not run while the answer comes, and until long after its time.
    #[test]
    fn an_answer_that_came_while_nobody_could_hear_it_counts() {
        let (url, serving) = server("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", false);
        let runtime = Builder::new_current_thread().enable_io().enable_time().build().unwrap();
        let (_never, nobody) = channel::<()>();
        let stopped = async {
            let _ = nobody.recv_timeout(Duration::from_millis(600));
        };
        let asked = answer(Question::Http(url), Duration::from_millis(200));
        let (outcome, ()) = runtime.block_on(async { tokio::join!(asked, stopped) });
        assert_eq!(outcome.result, Ok(()));
        serving.join().unwrap();
    }

    #[test]
    fn a_connection_is_made_or_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let text = listener.local_addr().unwrap().to_string();
        let question = || Question::Tcp(Endpoint::parse(&text).unwrap());
        assert_eq!(ask(question(), LIMIT).result, Ok(()));
        drop(listener);
        assert_eq!(ask(question(), LIMIT).result, Err("connection refused".into()));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s").to_str().unwrap().to_owned();
        let question = || Question::Tcp(Endpoint::Unix(path.clone()));
        assert_eq!(ask(question(), LIMIT).result, Err("no such file or directory".into()));
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert_eq!(ask(question(), LIMIT).result, Ok(()));
    }

    #[test]
    fn more_than_can_be_asked_at_once_wait_in_line() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = HttpUrl::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
        let mut prober = Prober::new(Waker::new().unwrap());
        let count = 2 * AT_ONCE as u64 + 5;
        for number in 0..count {
            let question = Question::Http(url.clone());
            prober.ask(Incarnation(1), number, question, Duration::from_millis(100)).unwrap();
        }
        // Nobody answers; whose turn it is was among the first that are left.
        let numbers: Vec<u64> = (0..count)
            .map(|_| match prober.told.1.recv_timeout(LIMIT).unwrap() {
                Told::Answer { number, outcome, .. } => {
                    assert_eq!(outcome.result, Err(late(Duration::from_millis(100))));
                    number
                }
                other => panic!("{other:?}"),
            })
            .collect();
        let in_turn = |(told, number): (u64, &u64)| *number < told + AT_ONCE as u64;
        assert!((0..).zip(&numbers).all(in_turn), "{numbers:?}");
    }

    #[test]
    fn memory_is_that_of_all_processes() {
        let mut prober = Prober::new(Waker::new().unwrap());
        prober.measure(Incarnation(5), crate::os::prctl::pid(), None).unwrap();
        match prober.told.1.recv_timeout(LIMIT).unwrap() {
            Told::Memory { incarnation: Incarnation(5), bytes } => assert!(bytes > 1 << 16),
            other => panic!("{other:?}"),
        }
    }
}

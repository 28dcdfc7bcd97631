//! Starting and reaping a program that ends at once, from a small and from a large process.

use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Child, Command, Stdio};

use wharf::exit::How;
use wharf::os::fds;
use wharf::os::spawn::{Landing, Launch, Stacks};
use wharf::os::{clock, signal, wait as reaping};

use crate::report::{Report, Table};
use crate::samples::Samples;
use crate::wait::{LIMIT, micros, readable};
use crate::workshop::Workshop;
use crate::{Options, WARM_UP};

const C: &str = "C: vfork, exec, waitpid";
const BARE: &str = "wharf: os::spawn, pidfd, waitid";
const PIPES: &str = "wharf, with two pipes for its output";
/// One start is short: a round is so many of them for each contestant.
const EACH: usize = 10;

pub(crate) fn measure(workshop: &Workshop, options: &Options, report: &mut Report) {
    // What is touched below is to be as many pages as it looks like.
    nix::sys::prctl::set_thp_disable(true).unwrap();
    let mut medians = Vec::new();
    for (title, mebibytes) in
        [("Spawn and reap, 10 MiB resident", 10_usize), ("Spawn and reap, 1 GiB resident", 1024)]
    {
        let (workshop_child, rounds) = (workshop.child(), options.rounds);
        let mut limit = Limit::new(workshop, mebibytes);
        // A thread of its own: signals are blocked where children are made.
        let samples = std::thread::spawn(move || {
            signal::block_all().unwrap();
            let memory = touched(mebibytes);
            let samples = contest(&mut limit, &workshop_child, rounds);
            drop(std::hint::black_box(memory));
            samples
        });
        let [c, bare, pipes] = samples.join().unwrap();
        medians.push(bare.median());
        let table = Table::new(title, "µs").row(C, c).row(BARE, bare).row(PIPES, pipes);
        report.promise(format!("{title}: × vfork+exec"), table.ratio(BARE), 1.3);
        report.table(table);
    }
    nix::sys::prctl::set_thp_disable(false).unwrap();
    report.promise("spawn and reap at 1 GiB, × at 10 MiB", medians[1] / medians[0], 1.1);
}

/// Memory that is really there, page by page.
fn touched(mebibytes: usize) -> Vec<u8> {
    let mut memory = vec![0; mebibytes << 20];
    memory.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
    memory
}

fn contest(limit: &mut Limit, child: &str, rounds: usize) -> [Samples; 3] {
    let mut samples = [Samples::default(), Samples::default(), Samples::default()];
    let mut stacks = Stacks::default();
    for round in 0..WARM_UP + rounds {
        for _ in 0..EACH {
            let took = [
                limit.once(),
                start_and_reap(child, &mut stacks, false),
                start_and_reap(child, &mut stacks, true),
            ];
            if round >= WARM_UP {
                samples.iter_mut().zip(took).for_each(|(samples, took)| samples.push(took));
            }
        }
    }
    samples
}

/// One program by way of `os::spawn`, as the manager does it.
fn start_and_reap(child: &str, stacks: &mut Stacks, pipes: bool) -> f64 {
    let null = std::fs::File::open("/dev/null").unwrap();
    let before = clock::now();
    let launch = Box::new(Launch::new(&[child], std::iter::empty::<(&str, &str)>()).unwrap());
    let output = pipes.then(|| (fds::pipe().unwrap(), fds::pipe().unwrap()));
    let ends = output.as_ref().map_or((null.as_fd(), null.as_fd()), |(output, error)| {
        (output.write.as_fd(), error.write.as_fd())
    });
    assert!(null.as_raw_fd() > 2);
    let places = [(null.as_fd(), 0), (ends.0, 1), (ends.1, 2)];
    let mut started = launch.start(&places, stacks).unwrap();
    assert!(readable(started.flight.as_fd(), LIMIT));
    assert_eq!(started.flight.landed(stacks), Some(Landing::Executed));
    assert!(readable(started.pidfd.as_fd(), LIMIT));
    let ended = reaping::reap(started.pidfd.as_fd()).unwrap().unwrap();
    drop((started, output));
    let took = micros(clock::now().since(before));
    assert_eq!(ended.how, How::Exited(0));
    took
}

/// The C program, which starts one child for each byte it is given.
struct Limit {
    process: Child,
}

impl Limit {
    fn new(workshop: &Workshop, mebibytes: usize) -> Self {
        let mut command = Command::new(workshop.program("spawn"));
        command.arg(mebibytes.to_string()).arg(workshop.child());
        let process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        Self { process }
    }

    fn once(&mut self) -> f64 {
        self.process.stdin.as_mut().unwrap().write_all(b"x").unwrap();
        let mut took = [0; 8];
        self.process.stdout.as_mut().unwrap().read_exact(&mut took).unwrap();
        micros(std::time::Duration::from_nanos(u64::from_ne_bytes(took)))
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

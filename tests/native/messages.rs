//! Messages between processes: order, the last one before the end, back-pressure, calls.

use std::collections::HashMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wharf::process::{Address, Down, Error, ReplyTo};
use wharf::process::{
    call, kill, me, receive, receive_match, receive_timeout, send, send_timeout, spawn,
    spawn_monitor,
};

use crate::{PATIENCE, times};

pub(crate) fn scenes() -> Vec<(&'static str, crate::Scene)> {
    vec![
        ("order_holds_between_every_pair_of_twenty", twenty),
        ("the_last_message_comes_before_the_end", last_message),
        ("a_receiver_that_takes_nothing_stops_its_sender_and_nobody_else", full),
        ("two_that_send_to_each_other_do_not_block", both_ways),
        ("a_call_ends_with_its_reply_or_with_a_reason", calls),
        ("many_threads_share_one_process", threads),
        ("large_messages_arrive_whole", large),
        ("a_ring_of_processes", ring),
    ]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Numbered {
    from: Address,
    number: u64,
}

/// Sends so many to all the others, receives as many from each, and checks their order.
fn talk(count: u64) -> Result<u64, Error> {
    let own = me()?;
    let others: Vec<Address> =
        receive::<Vec<Address>>()?.into_iter().filter(|one| *one != own).collect();
    let mut heard = Heard::default();
    for number in 0..count {
        for other in &others {
            send(other, &Numbered { from: own, number })?;
        }
        // Nobody may stop taking for longer than a window lasts.
        while let Some(one) = receive_timeout(Duration::ZERO)? {
            heard.note(one);
        }
    }
    while heard.all < count * u64::try_from(others.len()).unwrap() {
        heard.note(receive()?);
    }
    Ok(heard.all)
}

/// What came, by its sender.
#[derive(Default)]
struct Heard {
    next: HashMap<Address, u64>,
    all: u64,
}

impl Heard {
    fn note(&mut self, Numbered { from, number }: Numbered) {
        let expected = self.next.entry(from).or_default();
        assert_eq!(number, *expected, "from {from}");
        *expected += 1;
        self.all += 1;
    }
}

fn twenty() {
    let count = u64::try_from(times(1_000_000 / (20 * 19))).unwrap();
    let all: Vec<Address> = (0..20).map(|_| spawn_monitor(talk, count).unwrap().0).collect();
    for one in &all {
        send(one, &all).unwrap();
    }
    for _ in &all {
        let down: Down = receive_timeout(PATIENCE).unwrap().expect("they end");
        assert_eq!(down.exit.returned::<u64>().unwrap().unwrap(), 19 * count, "{}", down.exit);
    }
}

/// Sends numbers until it is killed.
fn flood(to: Address) -> Result<(), Error> {
    for number in 0.. {
        send(&to, &number)?;
    }
    Ok(())
}

fn last_message() {
    for round in 0..times(400) {
        let (flooder, _) = spawn_monitor(flood, me().unwrap()).unwrap();
        let wanted = u64::try_from(round * 37 % 500).unwrap();
        let mut seen = 0_i32;
        let mut killed = false;
        loop {
            if !killed && seen >= i32::try_from(wanted).unwrap() {
                kill(&flooder).unwrap();
                killed = true;
            }
            let next = receive_match(Some(PATIENCE), |message| {
                message.read::<i32>().map(Ok).or_else(|| message.read::<Down>().map(Err))
            });
            match next.unwrap().expect("a number or the end") {
                Ok(number) => {
                    assert_eq!(number, seen, "none is lost and none comes twice");
                    seen += 1;
                }
                Err(down) => {
                    assert_eq!(down.address, flooder);
                    break;
                }
            }
        }
        assert_eq!(receive_timeout::<i32>(Duration::ZERO).unwrap(), None, "nothing after the end");
    }
}

/// Takes nothing until it is told to.
fn lazy(_: ()) -> Result<usize, Error> {
    let _: bool = receive()?;
    let mut taken = 0;
    while receive_timeout::<Vec<u8>>(Duration::from_millis(300))?.is_some() {
        taken += 1;
    }
    Ok(taken)
}

fn full() {
    let (lazy, _) = spawn_monitor(lazy, ()).unwrap();
    let other = spawn(echo, ()).unwrap();
    let message = vec![1_u8; 10_000];
    let mut sent = 0;
    let refused = loop {
        match send_timeout(&lazy, &message, Duration::from_millis(100)) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
        assert!(sent < 1000, "what waits is bounded");
    };
    assert!(matches!(refused, Error::Full), "{refused}");
    assert!(sent >= 20, "{sent}");
    // Others are not held up by that.
    let back: u64 = call(&other, PATIENCE, |reply| Echo { value: 7, reply }).unwrap();
    assert_eq!(back, 7);
    // The window is counted by sender, so somebody else may send. It stands behind the others, and is found.
    let (_, monitor) = spawn_monitor(pass_on, (lazy, true)).unwrap();
    let down = receive_match(Some(PATIENCE), |message| {
        message.read::<Down>().filter(|down| down.monitor == monitor.id())
    });
    assert!(down.unwrap().unwrap().exit.is_normal());
    let down: Down = receive_timeout(PATIENCE).unwrap().unwrap();
    assert_eq!(down.exit.returned::<usize>().unwrap().unwrap(), sent, "{}", down.exit);
}

fn pass_on((to, value): (Address, bool)) -> Result<(), Error> {
    send(&to, &value)
}

#[derive(Debug, Serialize, Deserialize)]
struct Echo {
    value: u64,
    reply: ReplyTo<u64>,
}

/// Answers; 13 makes it panic, 14 is never answered.
fn echo(_: ()) -> Result<(), Error> {
    loop {
        let Echo { value, reply } = receive()?;
        assert_ne!(value, 13, "unlucky");
        if value != 14 {
            reply.send(&value)?;
            // The second one is nobody's.
            reply.send(&(value + 1))?;
        }
    }
}

fn calls() {
    let server = spawn(echo, ()).unwrap();
    for value in 0..10 {
        assert_eq!(
            call::<_, u64>(&server, PATIENCE, |reply| Echo { value, reply }).unwrap(),
            value
        );
    }
    let late =
        call::<_, u64>(&server, Duration::from_millis(20), |reply| Echo { value: 14, reply });
    assert!(matches!(late, Err(Error::Timeout)));
    let fine = call::<_, u64>(&server, PATIENCE, |reply| Echo { value: 15, reply }).unwrap();
    assert_eq!(fine, 15);
    let down = call::<_, u64>(&server, PATIENCE, |reply| Echo { value: 13, reply }).unwrap_err();
    let Error::Down(exit) = down else { panic!("{down}") };
    assert!(exit.message.unwrap().contains("unlucky"));
    let gone = call::<_, u64>(&server, PATIENCE, |reply| Echo { value: 1, reply }).unwrap_err();
    assert!(matches!(gone, Error::Down(_)), "{gone}");
    assert_eq!(wharf::process::waiting().unwrap(), 0, "nothing of all that is in the mailbox");
}

fn both_ways() {
    let (one, _) = spawn_monitor(exchange, 400).unwrap();
    let (other, _) = spawn_monitor(exchange, 400).unwrap();
    send(&one, &other).unwrap();
    send(&other, &one).unwrap();
    for _ in 0..2 {
        let down: Down = receive_timeout(PATIENCE).unwrap().expect("neither blocks the other");
        assert_eq!(down.exit.returned::<usize>().unwrap().unwrap(), 400, "{}", down.exit);
    }
}

/// Sends nearly a window, which is more than a socket holds, before it receives anything, over and over.
fn exchange(count: usize) -> Result<usize, Error> {
    let other: Address = receive()?;
    let mut taken = 0;
    for _ in 0..count / 4 {
        for _ in 0..4 {
            send(&other, &vec![3_u8; 60_000])?;
        }
        for _ in 0..4 {
            taken += usize::from(receive::<Vec<u8>>()?.len() == 60_000);
        }
    }
    Ok(taken)
}

fn threads() {
    let server = spawn(echo, ()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8_u64 {
            scope.spawn(move || {
                for value in 0..50 {
                    let value = thread * 1000 + 100 + value;
                    let back: u64 = call(&server, PATIENCE, |reply| Echo { value, reply }).unwrap();
                    assert_eq!(back, value);
                }
            });
        }
    });
}

fn large() {
    let back = spawn(return_it, me().unwrap()).unwrap();
    for size in [0, 1, 65_535, 300_000, 10 << 20] {
        let sent: Vec<u8> = (0..size).map(|at: u32| u8::try_from(at % 251).unwrap()).collect();
        send(&back, &sent).unwrap();
        let came: Vec<u8> = receive_timeout(PATIENCE).unwrap().expect("it comes back");
        assert!(came == sent, "{size}");
    }
    let refused = send(&back, &vec![0_u8; 20 << 20]).unwrap_err();
    assert!(matches!(refused, Error::TooLarge { .. }), "{refused}");
}

fn return_it(to: Address) -> Result<(), Error> {
    loop {
        send(&to, &receive::<Vec<u8>>()?)?;
    }
}

fn hop(next: Address) -> Result<(), Error> {
    loop {
        let number: u64 = receive()?;
        send(&next, &(number + 1))?;
    }
}

fn ring() {
    let mut next = me().unwrap();
    for _ in 0..times(1000) {
        next = spawn(hop, next).unwrap();
    }
    for round in 0..10 {
        send(&next, &(round * 1000)).unwrap();
        let back: u64 = receive_timeout(PATIENCE).unwrap().unwrap();
        assert_eq!(back, round * 1000 + u64::try_from(times(1000)).unwrap());
    }
}

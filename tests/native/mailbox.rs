//! The mailbox: types, patterns, time, and what waits in it.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use wharf::process::{
    Pattern, me, receive, receive_match, receive_timeout, send, send_timeout, spawn, waiting,
};

use crate::PATIENCE;

pub(crate) fn scenes() -> Vec<(&'static str, crate::Scene)> {
    vec![
        ("a_type_is_a_pattern_and_the_others_stay_in_order", by_type),
        ("zero_takes_what_is_there_and_does_not_wait", zero),
        ("a_pattern_looks_at_each_message_once", once),
        ("what_one_sends_to_oneself_is_bounded_too", to_oneself),
        ("bytes_of_another_language_are_read_as_what_they_can_be", of_others),
    ]
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Reading {
    sensor: u32,
    value: f64,
}

/// Reads like a [`Reading`], and is none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Other {
    sensor: u32,
    value: f64,
}

fn by_type() {
    let own = me().unwrap();
    let reading = |sensor| Reading { sensor, value: 0.5 };
    send(&own, &reading(1)).unwrap();
    send(&own, "first").unwrap();
    send(&own, &Other { sensor: 2, value: 0.5 }).unwrap();
    send(&own, &String::from("second")).unwrap();
    send(&own, &reading(3)).unwrap();
    assert_eq!(receive::<String>().unwrap(), "first");
    assert_eq!(receive::<Other>().unwrap().sensor, 2);
    let third =
        receive_match(None, |message| message.read::<Reading>().filter(|one| one.sensor == 3));
    assert_eq!(third.unwrap(), Some(reading(3)));
    assert_eq!(receive::<Reading>().unwrap(), reading(1));
    assert_eq!(receive::<String>().unwrap(), "second");
    assert_eq!(waiting().unwrap(), 0);
}

fn zero() {
    let begin = Instant::now();
    assert_eq!(receive_timeout::<String>(Duration::ZERO).unwrap(), None);
    assert!(begin.elapsed() < Duration::from_secs(5));
    // What has come is seen without waiting, and what is to come is not waited for.
    let from = spawn(send_when_told, me().unwrap()).unwrap();
    assert_eq!(receive_timeout::<String>(Duration::ZERO).unwrap(), None);
    send(&from, &()).unwrap();
    assert_eq!(receive_timeout(PATIENCE).unwrap(), Some("told".to_owned()));
    let begin = Instant::now();
    assert_eq!(receive_timeout::<String>(Duration::from_millis(80)).unwrap(), None);
    assert!(begin.elapsed() >= Duration::from_millis(80));
}

fn send_when_told(to: wharf::process::Address) -> Result<(), wharf::process::Error> {
    receive::<()>()?;
    send(&to, "told")
}

fn once() {
    let own = me().unwrap();
    for number in 0..2000_u32 {
        send(&own, &number).unwrap();
    }
    let mut looked = 0;
    let mut wanted = Pattern::new(|message: &wharf::process::Message<'_>| {
        looked += 1;
        message.read::<String>()
    });
    for _ in 0..5 {
        send(&own, "found").unwrap();
        assert_eq!(wanted.receive(Some(PATIENCE)).unwrap(), Some("found".to_owned()));
        assert_eq!(wanted.receive(Some(Duration::ZERO)).unwrap(), None);
    }
    assert_eq!(looked, 2005);
    assert_eq!(waiting().unwrap(), 2000);
    assert_eq!(receive::<u32>().unwrap(), 0);
}

fn to_oneself() {
    let own = me().unwrap();
    let mut sent = 0_usize;
    while send_timeout(&own, &vec![0_u8; 10_000], Duration::ZERO).is_ok() {
        sent += 1;
        assert!(sent < 1000);
    }
    assert_eq!(waiting().unwrap(), sent);
    for _ in 0..sent {
        receive::<Vec<u8>>().unwrap();
    }
    send_timeout(&own, &vec![0_u8; 10_000], Duration::ZERO).unwrap();
}

/// Something of ours that another one reads as what it wants: the tag is not looked at, the bytes are.
fn of_others() {
    let own = me().unwrap();
    send(&own, &(1_u8, "pair".to_owned())).unwrap();
    let taken = receive_match(None, |message| Some(message.bytes().to_vec())).unwrap().unwrap();
    let mut expected = vec![0x92, 1, 0xa4];
    expected.extend(b"pair");
    assert_eq!(taken, expected, "it is MessagePack");
}

//! The other ways in and out, for whoever moves bytes without copying them, and what is said of where a
//! conversation stands.

use std::convert::Infallible;

use super::*;

/// Bytes that belong to a message whose length is known arrive in its own memory.
#[test]
fn what_is_missing_of_a_message_is_read_into_its_place() {
    let mut port = start(&packets(Replies::One));
    port.accept(call(1, "ask"));
    port.writes();
    let mut deliveries = Vec::new();
    let never = |_: &mut Vec<u8>, _| -> Result<(), Infallible> { panic!("nothing is missing") };
    assert_eq!(port.missing(), 0);
    assert_eq!(port.received_by(NOW, &mut deliveries, never), None);

    assert_eq!(port.says("\0\0\0\x06ab"), []);
    assert_eq!(port.missing(), 4);
    let two = |body: &mut Vec<u8>, missing| -> Result<(), Infallible> {
        assert_eq!(missing, 4);
        body.extend(b"cd");
        Ok(())
    };
    assert_eq!(port.received_by(NOW, &mut deliveries, two), Some(Ok(2)));
    assert_eq!((port.missing(), &deliveries[..]), (2, &[][..]));
    let fails = |_: &mut Vec<u8>, _| Err("no");
    assert_eq!(port.received_by(NOW, &mut deliveries, fails), Some(Err("no")));
    let rest = |body: &mut Vec<u8>, _| -> Result<(), Infallible> {
        body.extend(b"ef");
        Ok(())
    };
    assert_eq!(port.received_by(NOW, &mut deliveries, rest), Some(Ok(2)));
    assert_eq!(deliveries, [reply(1, &["abcdef"])]);
    assert_eq!((port.missing(), port.counters().bytes_out), (0, 10));
    assert_eq!(port.counters().frames_out, 1);
}

/// Where its output is over nobody reads on.
#[test]
fn nothing_is_missing_of_what_is_over() {
    let mut port = start(&packets(Replies::None));
    port.says("\0\0\0\x06ab");
    assert_eq!(port.missing(), 4);
    let Delivery::Protocol(error) = &port.output_closed(NOW)[0] else { panic!("it is cut off") };
    assert!(matches!(error.fault, Fault::Truncated { .. }), "{error}");
    assert_eq!(port.missing(), 0);
    let never = |_: &mut Vec<u8>, _| -> Result<(), Infallible> { panic!("it is over") };
    assert_eq!(port.received_by(NOW, &mut Vec::new(), never), None);
}

#[test]
fn it_is_awaited_while_anything_is_open() {
    let mut port = start(&lines(Replies::One));
    assert!(!port.is_awaited() && port.is_all_written());
    port.accept(send(1, "a"));
    assert!(port.is_awaited() && !port.is_all_written());
    assert_eq!(port.flush(), ("a\n".to_owned(), vec![Delivery::Sent { id: 1 }]));
    assert!(!port.is_awaited() && port.is_all_written());
    port.accept(call(2, "b"));
    port.accept(call(3, "c"));
    assert_eq!(port.writes(), "b\n");
    assert!(port.is_awaited() && !port.is_all_written(), "one waits for its turn");
    port.says("B\n");
    assert_eq!(port.writes(), "c\n");
    assert!(port.is_awaited() && port.is_all_written(), "one waits for its reply");
    port.says("C\n");
    assert!(!port.is_awaited() && port.is_all_written());
}

/// A request of which nothing was written cannot have been read, whoever holds its bytes.
#[test]
fn what_was_handed_out_and_not_written_fails_when_the_input_closes() {
    let mut port = start(&lines(Replies::One));
    port.accept(call(1, "ask"));
    assert!(port.next_write().is_some());
    assert!(!port.standing().in_request);
    assert_eq!(port.input_closed(), [failed(1, CallError::InputClosed, &[])]);
    assert_eq!((port.open_calls(), port.waiting()), (0, (0, 0)));

    let mut port = start(&lines(Replies::One));
    port.accept(call(1, "ask"));
    assert!(port.next_write().is_some());
    port.wrote(2);
    assert!(port.standing().in_request);
    assert_eq!(port.input_closed(), [], "it may answer what it has read");
    assert_eq!(port.open_calls(), 1);
}

/// One write takes as much as a pipe holds and no more messages than is fair, to the byte and the
/// message.
#[test]
fn as_much_is_written_at_once_as_a_pipe_holds() {
    let port = Port { max_frame: 1 << 20, queue: 1000, ..lines(Replies::None) };
    let taken = |messages: usize, length: usize| {
        let mut port = start(&port);
        for id in 0..messages as u64 {
            port.accept(send(id, &"x".repeat(length - 1)));
        }
        let chunk = port.next_write().unwrap();
        chunk.pieces.concat().len()
    };
    assert_eq!(taken(3, 32 << 10), 64 << 10);
    assert_eq!(taken(3, (32 << 10) - 1), 3 * ((32 << 10) - 1));
    assert_eq!(taken(70, 10), 640);
    assert_eq!(taken(64, 10), 640);
}

//! The last request: the input is closed behind it, and its reply is all that is still said.

use super::*;

fn last(id: u64, text: &str) -> Request {
    Request { kind: Kind::Last { deadline: after(10) }, ..call(id, text) }
}

/// The end of a run that was a success: what became of the last request, which must be the only one.
fn rest(exchange: &mut Exchange, id: u64) -> Vec<String> {
    let ending = exchange.ended(0, NOW);
    assert_eq!(ending.unanswered.len(), 1, "{ending:?}");
    let one = &ending.unanswered[0];
    assert_eq!((one.id, one.is_reply), (id, true));
    one.so_far.iter().map(|part| String::from_utf8(part.to_vec()).unwrap()).collect()
}

#[test]
fn it_goes_last_and_is_answered_by_the_rest_under_every_rule() {
    let pointer = Replies::Id(IdPlace::Pointer("/id".to_owned()));
    for replies in [Replies::None, Replies::One, until_empty(), sentinel(), bracket(), pointer] {
        let mut port = start(&lines(replies.clone()));
        port.accept(last(1, "b\na"));
        assert!(!port.is_input_open());
        for refused in [send(2, "x"), last(3, "x")] {
            assert_eq!(port.submit(refused, NOW), Err(Refusal::InputClosed), "{replies:?}");
        }
        assert_eq!(port.writes(), "b\na\n", "neither a number nor a sentinel");
        assert!(port.is_input_done());
        assert_eq!(port.says("a\n\n{\"id\":1}\nb"), [], "{replies:?}");
        assert_eq!(rest(&mut port, 1), ["a", "", "{\"id\":1}", "b"]);
    }
}

#[test]
fn it_waits_for_what_was_asked_before_it() {
    let mut port = start(&lines(Replies::One));
    port.accept(call(1, "one"));
    port.accept(send(2, "two"));
    port.accept(Request { client: 9, ..call(3, "three") });
    port.accept(last(4, "four"));
    assert_eq!(port.waiting().0, 4);
    assert_eq!(port.writes(), "one\ntwo\n");
    assert_eq!(port.says("1\n"), [reply(1, &["1"])]);
    assert_eq!(port.writes(), "three\n");
    assert!(!port.is_input_done());
    assert_eq!(port.says("3\n"), [reply(3, &["3"])]);
    assert_eq!(port.writes(), "four\n");
    assert!(port.is_input_done());
    assert_eq!(port.says("4\n5\n"), []);
    assert_eq!(rest(&mut port, 4), ["4", "5"]);
}

#[test]
fn nothing_at_all_only_closes_the_input() {
    let mut port = start(&lines(Replies::None));
    port.accept(send(1, "a"));
    port.accept(last(2, ""));
    assert_eq!(port.writes(), "a\n");
    assert!(port.is_input_done());
    assert_eq!(port.waiting(), (0, 0));
    port.says("said\n");
    assert_eq!(rest(&mut port, 2), ["said"]);
    assert_eq!(port.counters().frames_in, 1);
}

#[test]
fn bytes_without_borders_come_as_one() {
    let mut port = start(&Port { framing: Framing::Raw, ..lines(Replies::None) });
    port.accept(last(1, "x"));
    port.writes();
    for piece in ["a", "bc", "d"] {
        port.says(piece);
    }
    assert_eq!(rest(&mut port, 1), ["abcd"]);
}

#[test]
fn one_that_is_given_up_in_time_closes_nothing() {
    let mut port = start(&lines(Replies::One));
    port.accept(call(1, "one"));
    port.writes();
    port.accept(last(2, "two"));
    assert_eq!(port.cancel(2, NOW), Some(Cancelled::Withdrawn));
    assert!(port.is_input_open());
    port.accept(Request { kind: Kind::Last { deadline: after(1) }, ..call(3, "three") });
    assert_eq!(port.expire(after(1)), [failed(3, CallError::Unsent { stuck: false }, &[])]);
    assert!(port.is_input_open() && port.waiting() == (0, 0));
    assert_eq!(port.says("1\n"), [reply(1, &["1"])]);
    port.accept(call(4, "four"));
    assert_eq!(port.writes(), "four\n");
}

#[test]
fn one_that_is_given_up_late_leaves_the_input_closed_and_swallows_the_rest() {
    let mut port = start(&lines(Replies::None));
    port.accept(last(1, "one"));
    port.writes();
    port.says("a\n");
    assert_eq!(port.expire(after(10)), [failed(1, CallError::Unanswered, &["a"])]);
    assert_eq!(port.submit(send(2, "x"), NOW), Err(Refusal::InputClosed));
    assert_eq!(port.says("b\n"), []);
    let ending = port.ended(0, NOW);
    assert_eq!((ending.deliveries, ending.unanswered), (Vec::new(), Vec::new()));
    assert_eq!(port.counters().swallowed, 1);
}

#[test]
fn a_rest_that_is_too_large_is_an_error_and_costs_no_more_memory() {
    let mut port = start(&Port { max_frame: 10, ..lines(Replies::None) });
    port.accept(last(1, "one"));
    port.writes();
    assert_eq!(port.says("12345678\n"), []);
    let error = CallError::ReplyTooLarge { max: 10 };
    assert_eq!(port.says("90ab\n"), [failed(1, error, &["12345678"])]);
    assert_eq!(port.says("more\n"), []);
    assert!(port.ended(0, NOW).unanswered.is_empty());
}

#[test]
fn a_late_reply_of_another_is_no_part_of_it() {
    let mut port = start(&lines(Replies::Id(IdPlace::Pointer("/id".to_owned()))));
    port.accept(call(1, r#"{"id":5}"#));
    let written = port.writes();
    assert_eq!(port.expire(after(10)).len(), 1);
    port.accept(Request { kind: Kind::Last { deadline: after(99) }, ..call(2, r#"{"id":6}"#) });
    assert_eq!(port.writes(), "{\"id\":6}\n");
    assert_eq!(port.says(&written), []);
    assert_eq!(port.says("{\"id\":6}\n"), []);
    assert_eq!(rest(&mut port, 2), ["{\"id\":6}"]);
}

#[test]
fn it_survives_being_saved_and_a_program_that_closes_its_input() {
    let protocol = Arc::new(Protocol::new(&lines(Replies::One)).unwrap());
    let mut port = Exchange::new(Arc::clone(&protocol), 7);
    port.accept(call(1, "one"));
    port.writes();
    port.accept(last(2, "two"));
    let saved: Saved = serde_json::from_str(&serde_json::to_string(&port).unwrap()).unwrap();
    let mut port = Exchange::restore(protocol, saved).unwrap();
    assert!(!port.is_input_open());
    assert_eq!(port.input_closed(), [failed(2, CallError::InputClosed, &[])]);
    // Where a part of it was read, what the program says is its reply all the same.
    let mut port = start(&lines(Replies::None));
    port.accept(last(1, "one"));
    port.next_write().unwrap();
    port.wrote(2);
    assert_eq!(port.input_closed(), []);
    port.says("enough\n");
    assert_eq!(rest(&mut port, 1), ["enough"]);
    let mut port = start(&lines(Replies::None));
    port.accept(last(1, "one"));
    let ending = port.ended(0, NOW);
    assert_eq!(ending.unanswered, [unanswered(1, ReadState::NeverRead)]);
}

#[test]
fn with_the_whole_output_for_a_reply_every_call_is_the_last() {
    let mut port = start(&Port { framing: Framing::Eof, ..lines(Replies::One) });
    port.accept(last(1, "b\na\n"));
    assert_eq!(port.submit(call(2, "x"), NOW), Err(Refusal::Taken));
    assert_eq!(port.writes(), "b\na\n");
    assert!(port.is_input_done());
    port.says("a\nb\n");
    assert_eq!(rest(&mut port, 1), ["a\nb\n"]);
}

#[test]
fn in_wire_protocol_1_there_is_none() {
    let port = Port { framing: Framing::Envelope, ..lines(Replies::Envelope) };
    assert_eq!(start(&port).submit(last(1, "x"), NOW), Err(Refusal::Enveloped));
}

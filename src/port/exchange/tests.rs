//! An exchange against what a program could do: by hand here, by chance in `model`.

mod doors;
mod driver;
mod enveloped;
mod greeting;
mod last;
mod model;
mod shared;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{
    CallError, Cancelled, Delivery, Ending, Exchange, Kind, Protocol, ReadState, Refusal, Request,
    RestoreError, Saved, Unanswered,
};
use crate::framing::{EncodeError, Fault, Message, Part};
use crate::spec::{Framing, IdPlace, PacketWidth, Port, Replies};
use crate::time::Tick;

const NOW: Tick = Tick(0);

fn after(seconds: u64) -> Tick {
    NOW + Duration::from_secs(seconds)
}

fn lines(replies: Replies) -> Port {
    Port { replies, max_frame: 1000, queue: 8, ..Port::default() }
}

fn packets(replies: Replies) -> Port {
    Port { framing: Framing::Packet(PacketWidth::Four), ..lines(replies) }
}

fn until_empty() -> Replies {
    Replies::Until("^$".to_owned())
}

fn sentinel() -> Replies {
    Replies::Sentinel { send: "say {token}".to_owned(), expect: "{token}".to_owned() }
}

fn bracket() -> Replies {
    let line = |word: &str| format!(r"^{word} (?P<number>\d+)$");
    Replies::Bracket { begin: line("begin"), end: line("end") }
}

fn start(port: &Port) -> Exchange {
    Exchange::new(Arc::new(Protocol::new(port).unwrap()), 7)
}

fn call(id: u64, text: &str) -> Request {
    let payload = Bytes::copy_from_slice(text.as_bytes());
    Request { id, client: 0, kind: Kind::Call { deadline: after(10) }, payload }
}

fn send(id: u64, text: &str) -> Request {
    Request { kind: Kind::Send, ..call(id, text) }
}

fn reply(id: u64, messages: &[&'static str]) -> Delivery {
    let messages = messages.iter().map(|message| Bytes::from(*message)).collect();
    Delivery::Reply { id, messages }
}

fn event(text: &'static str) -> Delivery {
    Delivery::Event(Message { payload: Bytes::from(text), partial: false })
}

fn failed(id: u64, error: CallError, so_far: &[&'static str]) -> Delivery {
    let so_far = so_far.iter().map(|message| Bytes::from(*message)).collect();
    Delivery::Failed { id, error, so_far }
}

fn unanswered(id: u64, read: ReadState) -> Unanswered {
    Unanswered { id, read, so_far: Vec::new(), is_reply: false }
}

impl Exchange {
    fn accept(&mut self, request: Request) {
        self.submit(request, NOW).unwrap();
    }

    fn says(&mut self, text: &str) -> Vec<Delivery> {
        self.received(text.as_bytes(), NOW)
    }

    /// Writes everything that may be written; what that was, and what came of it.
    fn flush(&mut self) -> (String, Vec<Delivery>) {
        let (mut written, mut deliveries) = (Vec::new(), Vec::new());
        while let Some(chunk) = self.next_write() {
            let bytes = chunk.pieces.concat();
            deliveries.extend(self.wrote(bytes.len()));
            written.extend(bytes);
        }
        (String::from_utf8(written).unwrap(), deliveries)
    }

    fn writes(&mut self) -> String {
        self.flush().0
    }
}

#[test]
fn a_call_is_written_and_answered() {
    let mut port = start(&lines(Replies::One));
    port.accept(call(1, "1+1"));
    port.accept(call(2, "2+2"));
    assert_eq!(port.writes(), "1+1\n", "one call at a time");
    assert_eq!(port.says("2\n"), [reply(1, &["2"])]);
    assert_eq!(port.writes(), "2+2\n");
    assert_eq!(port.says("4\nextra\n"), [reply(2, &["4"]), event("extra")]);
    let counters = port.counters();
    assert_eq!((counters.frames_in, counters.frames_out, counters.unasked), (2, 3, 1));
    assert_eq!((counters.bytes_in, counters.bytes_out), (8, 10));
    assert_eq!(port.next_deadline(), None);
}

#[test]
fn a_sentinel_follows_its_request_and_ends_the_reply() {
    let mut port = start(&lines(sentinel()));
    port.accept(call(1, "select 1"));
    port.accept(call(2, "select 2"));
    assert_eq!(port.writes(), "select 1\nsay wharf0000000000000007x00000000000000000001\n");
    assert!(port.says("a\nb\n").is_empty());
    assert_eq!(port.says("wharf0000000000000007x00000000000000000001\n"), [reply(1, &["a", "b"])]);
    assert_eq!(port.writes(), "select 2\nsay wharf0000000000000007x00000000000000000002\n");
    assert_eq!(
        port.says("wharf0000000000000007x00000000000000000002\n"),
        [reply(2, &[])],
        "an empty reply"
    );
}

#[test]
fn a_message_before_the_request_is_written_is_no_reply() {
    let mut port = start(&lines(Replies::One));
    port.accept(call(1, "ask"));
    assert!(port.next_write().is_some());
    assert_eq!(port.says("banner\n"), [event("banner")]);
    port.wrote(0);
    assert_eq!(port.says("more\n"), [event("more")]);
    port.wrote(1);
    assert_eq!(port.says("answer\n"), [reply(1, &["answer"])]);
}

#[test]
fn scenario_18_a_reply_and_the_end_in_the_same_moment_reach_the_caller() {
    let token = "wharf0000000000000007x00000000000000000001";
    for (replies, said, messages) in [
        (Replies::One, "last".to_owned(), vec!["last"]),
        (Replies::Until("^ok".to_owned()), "a\nok".to_owned(), vec!["a", "ok"]),
        (sentinel(), format!("a\n{token}"), vec!["a"]),
        (sentinel(), format!("a{token}"), vec!["a"]),
    ] {
        let mut port = start(&lines(replies.clone()));
        port.accept(call(1, "ask"));
        port.writes();
        assert!(port.says(&said).is_empty());
        let ending = Ending { deliveries: vec![reply(1, &messages)], unanswered: Vec::new() };
        assert_eq!(port.ended(0, NOW), ending, "{replies:?}");
        assert!(port.counters().partial_frame);
    }
}

#[test]
fn d8_a_last_line_without_an_end_is_delivered_before_the_end_is_told() {
    let mut port = start(&lines(Replies::None));
    assert_eq!(port.says("a\nlast"), [event("a")]);
    let last = Message { payload: Bytes::from("last"), partial: true };
    assert_eq!(port.ended(0, NOW).deliveries, [Delivery::Event(last)]);
    assert_eq!(port.ended(0, NOW), Ending { deliveries: Vec::new(), unanswered: Vec::new() });
}

#[test]
fn scenario_7_and_d7_a_truncated_packet_is_told_and_its_call_accounted_for() {
    let mut port = start(&packets(Replies::One));
    port.accept(call(1, "ask"));
    port.writes();
    port.received(b"\0\0\0\x0aabc", NOW);
    let ending = port.ended(0, NOW);
    let [Delivery::Protocol(error)] = &ending.deliveries[..] else { panic!("{ending:?}") };
    assert_eq!(error.fault, Fault::Truncated { part: Part::Body, got: 3, wanted: 10 });
    assert_eq!(ending.unanswered, [unanswered(1, ReadState::MaybeRead)]);
    assert!(port.counters().partial_frame);
}

#[test]
fn scenario_4_and_d6_a_garbage_length_is_told_once_and_ends_the_conversation() {
    let mut port = start(&packets(Replies::One));
    port.accept(call(1, "ask"));
    port.writes();
    port.accept(call(2, "more"));
    let told = port.received(b"\0\0\0\x02ok\xff\xff\xff\xff", NOW);
    let [Delivery::Reply { id: 1, .. }, Delivery::Protocol(error)] = &told[..] else {
        panic!("{told:?}")
    };
    assert_eq!(error.offset, 6);
    assert_eq!(port.says("more"), []);
    assert_eq!(port.next_write(), None);
    assert_eq!(port.submit(call(3, "x"), NOW), Err(Refusal::Broken));
    assert_eq!(port.submit(send(3, "x"), NOW), Err(Refusal::Broken));
    let unanswered = vec![unanswered(2, ReadState::NeverRead)];
    assert_eq!(port.ended(0, NOW), Ending { deliveries: Vec::new(), unanswered });
}

#[test]
fn scenario_5_a_message_that_is_too_large_is_refused_and_the_port_unharmed() {
    let mut port = start(&lines(Replies::One));
    let refused = port.submit(call(1, &"x".repeat(1001)), NOW);
    assert_eq!(refused, Err(Refusal::Encode(EncodeError::TooLarge { size: 1001, max: 1000 })));
    assert_eq!((port.next_write(), port.waiting(), port.next_deadline()), (None, (0, 0), None));
    port.accept(call(1, &"x".repeat(1000)));
    assert_eq!(port.writes().len(), 1001);
    assert_eq!(port.says("ok\n"), [reply(1, &["ok"])]);
}

#[test]
fn a_reply_that_is_too_large_fails_its_call_and_no_other() {
    let mut port = start(&lines(until_empty()));
    port.accept(call(1, "a"));
    port.accept(call(2, "b"));
    port.writes();
    let line = format!("{}\n", "x".repeat(600));
    assert!(port.says(&line).is_empty());
    let told = port.says(&line);
    let [Delivery::Failed { id: 1, error: CallError::ReplyTooLarge { max: 1000 }, so_far }] =
        &told[..]
    else {
        panic!("{told:?}")
    };
    assert_eq!(so_far.len(), 1);
    assert_eq!((port.writes(), port.stuck_since()), (String::new(), Some(NOW)));
    assert!(port.says("still the first\n\n").is_empty());
    assert_eq!(port.writes(), "b\n");
    assert_eq!(port.says("\n"), [reply(2, &[""])]);
    assert_eq!(port.counters().swallowed, 2);
}

#[test]
fn waiting_is_bounded_in_messages() {
    let mut port = start(&lines(Replies::One));
    for id in 0..8 {
        port.accept(call(id, "x"));
    }
    assert_eq!(port.submit(send(8, "x"), NOW), Err(Refusal::Busy { messages: 8, bytes: 16 }));
    assert_eq!(port.writes(), "x\n");
    assert_eq!(port.waiting(), (7, 14), "what is written does not wait");
    port.accept(send(8, "x"));
    port.cancel(3, NOW);
    port.accept(send(9, "x"));
    assert!(matches!(port.submit(send(10, "x"), NOW), Err(Refusal::Busy { .. })));
}

#[test]
fn waiting_is_bounded_in_bytes_but_one_message_always_fits() {
    let mut port = start(&Port { max_frame: 2 << 20, queue: 1000, ..Port::default() });
    let large = Bytes::from(vec![b'x'; 2 << 20]);
    port.accept(Request { payload: large, ..send(1, "") });
    assert!(matches!(port.submit(send(2, "x"), NOW), Err(Refusal::Busy { messages: 1, .. })));
    port.writes();
    assert_eq!(port.waiting(), (0, 0));
    port.accept(send(2, "x"));
}

#[test]
fn what_makes_no_sense_is_refused() {
    let mut events = start(&lines(Replies::None));
    assert_eq!(events.submit(call(1, "x"), NOW), Err(Refusal::NoReplies));
    let mut port = start(&lines(Replies::One));
    assert_eq!(port.submit(call(1, "x"), after(10)), Err(Refusal::TooLate));
    port.output_closed(NOW);
    assert_eq!(port.submit(call(1, "x"), NOW), Err(Refusal::OutputClosed));
    port.accept(send(1, "x"));
    port.close_input();
    assert_eq!(port.submit(send(2, "x"), NOW), Err(Refusal::InputClosed));
    assert!(!port.is_input_done());
    assert_eq!(port.flush(), ("x\n".to_owned(), vec![Delivery::Sent { id: 1 }]));
    assert!(port.is_input_done());
}

#[test]
fn a_deadline_gives_up_a_call_and_its_late_reply_reaches_nobody() {
    let token = "wharf0000000000000007x00000000000000000001";
    for (replies, late) in [
        (Replies::One, "late\n".to_owned()),
        (until_empty(), "late\n\n".to_owned()),
        (sentinel(), format!("late\n{token}\n")),
    ] {
        let mut port = start(&lines(replies.clone()));
        port.accept(call(1, "slow"));
        port.writes();
        assert_eq!(port.next_deadline(), Some(after(10)));
        assert!(port.expire(Tick(after(10).0 - 1)).is_empty());
        assert_eq!(port.expire(after(10)), [failed(1, CallError::Unanswered, &[])], "{replies:?}");
        assert_eq!((port.next_deadline(), port.stuck_since()), (None, Some(after(10))));
        let Request { client, payload, .. } = call(2, "next");
        let kind = Kind::Call { deadline: after(20) };
        port.submit(Request { id: 2, client, kind, payload }, after(10)).unwrap();
        assert_eq!(port.writes(), "", "the program still owes a reply");
        assert!(port.says(&late).is_empty(), "{replies:?}");
        assert!(port.writes().starts_with("next\n"), "{replies:?}");
        assert!(port.counters().swallowed > 0);
    }
}

#[test]
fn a_program_that_never_answers_holds_up_later_calls_until_their_own_deadline() {
    let mut port = start(&lines(Replies::One));
    port.accept(call(1, "mute"));
    port.writes();
    port.expire(after(10));
    let kind = Kind::Call { deadline: after(20) };
    port.submit(Request { kind, ..call(2, "next") }, after(10)).unwrap();
    assert_eq!(port.expire(after(20)), [failed(2, CallError::Unsent { stuck: true }, &[])]);
    assert_eq!(
        CallError::Unsent { stuck: true }.to_string(),
        "send the request in time: the program still owes the reply to a call that was given up"
    );
    assert_eq!(port.waiting(), (0, 0));
}

#[test]
fn what_had_come_of_a_reply_is_not_lost_with_its_call() {
    for end in [false, true] {
        let mut port = start(&lines(until_empty()));
        port.accept(call(1, "ask"));
        port.writes();
        port.says("half\n");
        if end {
            let [Unanswered { id: 1, read: ReadState::MaybeRead, so_far, is_reply: false }] =
                &port.ended(0, NOW).unanswered[..]
            else {
                panic!("one call is open")
            };
            assert_eq!(so_far[..], ["half"]);
        } else {
            assert_eq!(port.expire(after(10)), [failed(1, CallError::Unanswered, &["half"])]);
        }
    }
}

#[test]
fn a_call_of_which_no_byte_is_out_is_withdrawn() {
    let mut port = start(&lines(sentinel()));
    port.accept(send(1, "first"));
    port.accept(call(2, "ask"));
    let chunk = port.next_write().unwrap();
    assert!(chunk.pieces.concat().starts_with(b"first\nask\nsay "));
    port.wrote(3);
    assert_eq!(port.cancel(2, NOW), Some(Cancelled::Withdrawn));
    assert_eq!(port.flush(), ("st\n".to_owned(), vec![Delivery::Sent { id: 1 }]));
    assert_eq!((port.next_deadline(), port.waiting()), (None, (0, 0)));
    port.accept(call(3, "ask"));
    port.next_write();
    assert_eq!(port.cancel(3, NOW), Some(Cancelled::Abandoned), "it is in the writer's hands");
    assert_eq!(port.cancel(3, NOW), None, "it has had its outcome");
    assert_eq!(port.cancel(4, NOW), None);
}

#[test]
fn a_call_that_is_written_without_its_sentinel_is_abandoned_not_withdrawn() {
    let mut port = start(&lines(sentinel()));
    port.accept(call(1, "ask"));
    port.next_write();
    port.wrote("ask\n".len());
    assert_eq!(port.cancel(1, NOW), Some(Cancelled::Abandoned));
    assert_eq!(
        port.writes(),
        "say wharf0000000000000007x00000000000000000001\n",
        "or its reply would have no end"
    );
}

#[test]
fn what_needs_no_reply_passes_an_open_call_but_not_its_own_clients_calls() {
    let mut port = start(&lines(Replies::One));
    port.accept(call(1, "go"));
    port.accept(send(2, "stop"));
    port.accept(call(3, "again"));
    port.accept(send(4, "behind"));
    port.accept(Request { client: 9, ..send(5, "other") });
    assert_eq!(port.writes(), "go\nother\nstop\n");
    assert_eq!(port.says("done\n"), [reply(1, &["done"])]);
    assert_eq!(port.writes(), "again\nbehind\n");
}

#[test]
fn a_client_with_many_calls_does_not_starve_another() {
    let mut port = start(&Port { queue: 2000, ..lines(Replies::One) });
    for id in 0..1000 {
        port.accept(call(id, "many"));
    }
    port.accept(Request { client: 1, ..call(5000, "few") });
    port.accept(Request { client: 2, ..call(6000, "few") });
    let mut order = Vec::new();
    while order.len() < 6 {
        port.writes();
        for told in port.says("ok\n") {
            let Delivery::Reply { id, .. } = told else { panic!("{told:?}") };
            order.push(id);
        }
    }
    assert_eq!(order, [0, 5000, 6000, 1, 2, 3]);
}

#[test]
fn at_the_end_each_open_request_is_told_whether_it_was_read() {
    // Written: "send\nask\nbeh", of which the program read all but `unread`.
    for (unread, call_read, send_read) in [
        (0, ReadState::MaybeRead, ReadState::MaybeRead),
        (2, ReadState::MaybeRead, ReadState::MaybeRead),
        (3, ReadState::MaybeRead, ReadState::NeverRead),
        (6, ReadState::MaybeRead, ReadState::NeverRead),
        (7, ReadState::NeverRead, ReadState::NeverRead),
        (12, ReadState::NeverRead, ReadState::NeverRead),
    ] {
        let mut port = start(&lines(Replies::One));
        port.accept(send(1, "send"));
        port.accept(call(2, "ask"));
        port.accept(send(3, "behind"));
        port.accept(call(4, "never"));
        port.next_write();
        assert_eq!(port.wrote("send\nask\nbeh".len()), [Delivery::Sent { id: 1 }]);
        let unanswered = vec![
            unanswered(2, call_read),
            unanswered(3, send_read),
            unanswered(4, ReadState::NeverRead),
        ];
        let ending = Ending { deliveries: Vec::new(), unanswered };
        assert_eq!(port.ended(unread, NOW), ending, "{unread} unread");
        assert_eq!(port.submit(send(5, "x"), NOW), Err(Refusal::InputClosed));
    }
}

#[test]
fn scenario_26_a_program_that_closes_its_input_is_still_heard() {
    let mut port = start(&lines(Replies::One));
    port.accept(call(1, "ask"));
    port.writes();
    port.accept(call(2, "x"));
    port.accept(send(3, "x"));
    let told = [2, 3].map(|id| failed(id, CallError::InputClosed, &[]));
    assert_eq!(port.input_closed(), told);
    assert_eq!(port.submit(send(4, "x"), NOW), Err(Refusal::InputClosed));
    assert_eq!(port.says("answer\nmore\n"), [reply(1, &["answer"]), event("more")]);
    assert_eq!((port.next_deadline(), port.waiting()), (None, (0, 0)));
}

#[test]
fn a_large_message_is_handed_out_without_a_copy_and_in_any_pieces() {
    let mut port = start(&Port::default());
    let payload = Bytes::from(vec![b'x'; 1 << 20]);
    port.accept(Request { payload: payload.clone(), ..send(1, "") });
    let chunk = port.next_write().unwrap();
    assert_eq!(chunk.pieces[0].as_ptr(), payload.as_ptr());
    assert!(port.wrote(100_000).is_empty());
    let chunk = port.next_write().unwrap();
    assert_eq!((chunk.at, chunk.pieces.concat().len()), (100_000, (1 << 20) + 1 - 100_000));
    assert_eq!(chunk.pieces[0].as_ptr(), payload[100_000..].as_ptr());
    assert_eq!(port.wrote(1 << 20), [Delivery::Sent { id: 1 }]);
}

#[test]
fn many_small_messages_are_handed_out_together() {
    let mut port = start(&Port::default());
    for id in 0..1000 {
        port.accept(send(id, "x"));
    }
    assert_eq!(port.next_write().unwrap().pieces.len(), 64);
    assert_eq!(port.writes().len(), 2000);
}

#[test]
fn an_idle_exchange_is_small() {
    assert!(size_of::<Exchange>() <= 640, "{} bytes", size_of::<Exchange>());
    let mut port = start(&lines(until_empty()));
    for id in 0..8 {
        port.accept(Request { client: id, ..call(id, "x") });
    }
    for _ in 0..8 {
        port.writes();
        assert_eq!(port.says("a\n\n").len(), 1);
    }
    let state = &port.state;
    let held = (state.decoder.held(), state.waiting.capacity(), state.outgoing.capacity());
    assert_eq!(held, (0, 0, 0));
}

#[test]
fn an_exchange_is_restored_only_from_a_form_it_knows() {
    let port = start(&lines(Replies::One));
    let mut text = serde_json::to_value(&port).unwrap();
    let restore = |text: &serde_json::Value, port: &Port| {
        let saved: Saved = serde_json::from_value(text.clone()).unwrap();
        Exchange::restore(Arc::new(Protocol::new(port).unwrap()), saved).err()
    };
    assert_eq!(restore(&text, &lines(Replies::One)), None);
    assert_eq!(restore(&text, &packets(Replies::One)), Some(RestoreError::Framing));
    let id = Replies::Id(IdPlace::Pointer("/id".to_owned()));
    assert_eq!(restore(&text, &lines(id)), Some(RestoreError::Replies));
    text["version"] = 2.into();
    assert_eq!(restore(&text, &lines(Replies::One)), Some(RestoreError::Version(2)));
}

/// What waits for a number is framed only when it has one, so it has to fit then.
#[test]
fn what_waits_has_to_fit_where_it_is_restored() {
    let port =
        |max_frame| Port { max_frame, ..lines(Replies::Id(IdPlace::Pointer("/id".to_owned()))) };
    let mut exchange = start(&port(1000));
    exchange.accept(call(1, &format!(r#"{{"id":1,"x":"{}"}}"#, "x".repeat(200))));
    let text = serde_json::to_value(&exchange).unwrap();
    for (max_frame, error) in [(1000, None), (100, Some(RestoreError::Framing))] {
        let saved: Saved = serde_json::from_value(text.clone()).unwrap();
        let protocol = Arc::new(Protocol::new(&port(max_frame)).unwrap());
        assert_eq!(Exchange::restore(protocol, saved).err(), error);
    }
}

#[test]
fn a_sentinel_that_its_framing_cannot_carry_is_refused() {
    let send = format!("{{token}}{}", "x".repeat(250));
    let replies = Replies::Sentinel { send, expect: "{token}".to_owned() };
    let port = Port { framing: Framing::Packet(PacketWidth::One), ..lines(replies) };
    let refused = Protocol::new(&port).unwrap_err().to_string();
    assert!(refused.starts_with("use the sentinel in this framing"), "{refused}");
}

fn whole() -> Exchange {
    start(&Port { framing: Framing::Eof, ..lines(Replies::One) })
}

#[test]
fn a_run_whose_whole_output_is_the_reply_takes_one_call() {
    let mut port = whole();
    port.accept(send(1, "b\n"));
    port.accept(call(2, "a\n"));
    assert_eq!(port.submit(call(3, "x"), NOW), Err(Refusal::Taken));
    assert_eq!(port.submit(send(4, "x"), NOW), Err(Refusal::Taken));
    assert!(!port.is_input_done());
    assert_eq!(port.flush(), ("b\na\n".to_owned(), vec![Delivery::Sent { id: 1 }]));
    assert!(port.is_input_done() && port.is_taken());
    assert_eq!(port.says("a\n"), []);
    assert_eq!(port.says("b\n"), []);
    assert_eq!(port.output_closed(NOW), [], "its end will tell");
    let so_far = vec![Bytes::from("a\nb\n")];
    let told = Unanswered { id: 2, read: ReadState::MaybeRead, so_far, is_reply: true };
    assert_eq!(port.ended(0, NOW), Ending { deliveries: Vec::new(), unanswered: vec![told] });
    assert_eq!(port.counters().frames_out, 1);
}

#[test]
fn a_whole_output_may_be_empty_and_so_may_what_it_answers() {
    let mut port = whole();
    assert_eq!(port.submit(send(1, ""), NOW), Err(Refusal::Encode(EncodeError::Empty)));
    port.accept(call(2, ""));
    assert_eq!(port.flush(), (String::new(), Vec::new()));
    assert!(port.is_input_done());
    assert_eq!((port.waiting(), port.counters().frames_in), ((0, 0), 1));
    let so_far = vec![Bytes::new()];
    let told = Unanswered { id: 2, read: ReadState::NeverRead, so_far, is_reply: true };
    assert_eq!(port.ended(0, NOW).unanswered, [told]);
}

#[test]
fn a_whole_output_that_nobody_called_for_is_an_event_or_swallowed() {
    let mut port = whole();
    port.says("unasked");
    assert_eq!(port.ended(0, NOW).deliveries, [event("unasked")]);
    assert_eq!(whole().ended(0, NOW).deliveries, [], "nothing is no event");
    let mut port = whole();
    port.accept(call(1, "x"));
    port.writes();
    assert_eq!(port.expire(after(10)), [failed(1, CallError::Unanswered, &[])]);
    assert_eq!(port.submit(call(2, "x"), NOW), Err(Refusal::Taken), "until this run has ended");
    port.says("late");
    assert_eq!(port.ended(0, after(10)), Ending { deliveries: Vec::new(), unanswered: Vec::new() });
    assert_eq!(port.counters().swallowed, 1);
}

#[test]
fn a_call_that_was_taken_back_before_it_was_written_leaves_its_run_to_others() {
    let mut port = whole();
    port.accept(call(1, "x"));
    assert_eq!(port.cancel(1, NOW), Some(Cancelled::Withdrawn));
    port.accept(call(2, "y"));
    assert_eq!(port.writes(), "y");
}

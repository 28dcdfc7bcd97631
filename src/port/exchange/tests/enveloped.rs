//! Wire protocol 1 through an exchange: the greeting, calls by id, credit, and how it comes to an end.

use super::*;
use crate::message::{self, Form, Frame, Kind as Said, Mode, Read};
use crate::port::exchange::Unfit;

fn port() -> Port {
    let (framing, replies) = (Framing::Envelope, Replies::Envelope);
    let stray = Some(crate::spec::Stray::Log);
    Port { framing, replies, stray, max_frame: 1000, queue: 8, ..Port::default() }
}

impl Exchange {
    fn says_frame(&mut self, frame: &Frame) -> Vec<Delivery> {
        let wire = frame.encode(&Form::new(Mode::Frame)).unwrap().to_vec();
        self.received(&wire, NOW)
    }

    /// What is written to the program, as frames.
    fn frames(&mut self) -> Vec<Frame> {
        let mode = self.state.decoder.mode().unwrap_or(Mode::Frame);
        let mut decoder = message::Decoder::new(mode, 1 << 20);
        let mut frames = Vec::new();
        while let Some(chunk) = self.next_write() {
            let bytes = chunk.pieces.concat();
            // Byte by byte, so that what a chunk holds changes under it.
            let half = bytes.len().div_ceil(2);
            self.wrote(half);
            decoder
                .push(&bytes[..half], &mut |read| match read {
                    Read::Frame(frame) => frames.push(frame),
                    Read::Stray { error, .. } => panic!("{error}"),
                })
                .unwrap();
        }
        decoder.finish().unwrap();
        frames
    }

    fn greets(&mut self, hello: &str) {
        assert_eq!(self.says_frame(&Frame::new(Said::Hello, 0, hello.to_owned())), []);
        let [own] = &self.frames()[..] else { panic!("HELLO alone is said") };
        assert_eq!(own.kind, Said::Hello);
    }

    fn gets_ready(&mut self) {
        self.greets(r#"{"proto":1,"concurrency":4}"#);
        assert!(!self.is_ready() && self.unready().unwrap().contains("READY"));
        assert_eq!(self.says_frame(&Frame::new(Said::Ready, 0, "{}")), [Delivery::Ready]);
        assert!(self.is_ready() && self.unready().is_none());
    }
}

fn replied(id: u64, text: &'static str) -> Frame {
    Frame::new(Said::Reply, id, text)
}

#[test]
fn nothing_is_written_before_hello_and_no_request_before_ready() {
    let mut port = start(&port());
    port.accept(call(1, "early"));
    assert!(port.unready().unwrap().contains("HELLO"));
    assert_eq!(port.frames(), []);
    port.gets_ready();
    let [early] = &port.frames()[..] else { panic!("it was waiting") };
    assert_eq!((early.kind, &early.payload[..]), (Said::Call, &b"early"[..]));
    assert_eq!(port.says_frame(&replied(early.id, "late")), [reply(1, &["late"])]);
    assert_eq!((port.waiting(), port.open_calls()), ((0, 0), 0));
}

#[test]
fn answers_reach_their_callers_in_any_order_and_in_parts() {
    let mut port = start(&port());
    port.gets_ready();
    for id in 1..=6 {
        port.accept(call(id, "x"));
    }
    let ids: Vec<_> = port.frames().iter().map(|frame| frame.id).collect();
    assert_eq!(ids.len(), 4, "as many as it works on at once");
    let more = |id, text| replied(id, text).with(message::Flags::MORE);
    assert_eq!(port.says_frame(&more(ids[2], "a")), []);
    assert_eq!(port.says_frame(&replied(ids[0], "one")), [reply(1, &["one"])]);
    assert_eq!(port.says_frame(&replied(ids[2], "b")), [reply(3, &["a", "b"])]);
    let failure = message::Failure::not_supported(Said::Call);
    let refused = CallError::Refused(failure.clone());
    assert_eq!(port.says_frame(&Frame::failure(ids[1], &failure)), [failed(2, refused, &[])]);
    assert_eq!(port.says_frame(&replied(ids[0], "again")), []);
    assert_eq!(port.counters().unmatched, 1);
    assert_eq!(port.frames().len(), 2, "three have been answered, two waited");
}

#[test]
fn a_call_that_is_given_up_is_cancelled_and_its_answer_swallowed() {
    let mut port = start(&port());
    port.gets_ready();
    port.accept(call(1, "slow"));
    let id = port.frames()[0].id;
    assert_eq!(port.says_frame(&replied(id, "part").with(message::Flags::MORE)), []);
    assert_eq!(port.expire(after(10)), [failed(1, CallError::Unanswered, &[])]);
    let cancel = Frame::new(Said::Cancel, id, "");
    assert_eq!(port.frames(), [cancel]);
    assert_eq!(port.says_frame(&replied(id, "part").with(message::Flags::MORE)), []);
    assert_eq!(port.says_frame(&replied(id, "late")), []);
    assert_eq!((port.counters().swallowed, port.counters().unmatched), (2, 0));
}

#[test]
fn parts_are_bounded_together() {
    let mut port = start(&port());
    port.gets_ready();
    port.accept(call(1, "much"));
    let id = port.frames()[0].id;
    let piece = Frame::new(Said::Reply, id, vec![b'x'; 600]).with(message::Flags::MORE);
    assert_eq!(port.says_frame(&piece), []);
    let deliveries = port.says_frame(&piece);
    let [Delivery::Failed { id: 1, error: CallError::ReplyTooLarge { max: 1000 }, so_far }] =
        &deliveries[..]
    else {
        panic!("{deliveries:?}")
    };
    assert_eq!(so_far.len(), 1);
    assert_eq!(port.open_calls(), 0);
    assert_eq!(port.frames()[0].kind, Said::Cancel);
}

#[test]
fn what_a_program_does_not_take_is_refused_when_it_says_so() {
    let mut port = start(&port());
    port.accept(call(1, "no calls"));
    port.accept(send(2, "too long for it"));
    port.accept(send(3, "fits"));
    let hello = Frame::new(Said::Hello, 0, r#"{"proto":1,"concurrency":0,"max_frame":8}"#);
    let deliveries = port.says_frame(&hello);
    let large = failed(2, CallError::Unfit(Unfit::TooLarge(8)), &[]);
    assert_eq!(deliveries, [failed(1, CallError::Unfit(Unfit::NoCalls), &[]), large]);
    assert_eq!(port.submit(call(4, "x"), NOW), Err(Refusal::NoReplies));
    let refusal = port.submit(send(5, "123456789"), NOW);
    assert_eq!(refusal, Err(EncodeError::TooLarge { size: 9, max: 8 }.into()));
    assert_eq!(port.waiting().0, 1);
    assert_eq!(port.next_deadline(), None);
}

#[test]
fn data_waits_for_credit_and_calls_do_not() {
    let mut port = start(&port());
    port.greets(r#"{"proto":1,"credit":1}"#);
    port.says_frame(&Frame::new(Said::Ready, 0, ""));
    for id in 1..=3 {
        port.accept(send(id, "x"));
    }
    port.accept(Request { client: 1, ..call(4, "y") });
    let kinds = |frames: Vec<Frame>| frames.iter().map(|frame| frame.kind).collect::<Vec<_>>();
    assert_eq!(kinds(port.frames()), [Said::Data, Said::Call]);
    port.says_frame(&Frame::new(Said::Credit, 0, r#"{"frames":2}"#));
    assert_eq!(kinds(port.frames()), [Said::Data, Said::Data]);
    assert_eq!(port.waiting(), (0, 0));
}

#[test]
fn a_broken_protocol_has_its_place_and_its_bytes() {
    let wrong = |bytes: &[u8]| {
        let mut port = start(&port());
        let deliveries = port.received(bytes, NOW);
        let [Delivery::Protocol(error)] = &deliveries[..] else { panic!("{deliveries:?}") };
        error.to_string()
    };
    let text = wrong(&[0xff; 4]);
    assert!(text.contains("at byte 0") && text.contains("announces 4294967285 bytes"), "{text}");
    let ping = Frame::new(Said::Ping, 1, "").encode(&Form::new(Mode::Frame)).unwrap().to_vec();
    let text = wrong(&ping);
    assert!(text.contains("is of the kind PING, and HELLO is due"), "{text}");
    let hello = Frame::new(Said::Hello, 0, r#"{"proto":1}"#);
    let hello = hello.encode(&Form::new(Mode::Frame)).unwrap().to_vec();
    let text = wrong(&[hello.clone(), hello.clone()].concat());
    assert!(text.contains(&format!("at byte {} of", hello.len())), "{text}");
    assert!(text.contains("is a second HELLO"), "{text}");
    let mut port = start(&port());
    port.received(&hello[..20], NOW);
    let deliveries = port.output_closed(NOW);
    let [Delivery::Protocol(error)] = &deliveries[..] else { panic!("{deliveries:?}") };
    assert_eq!(
        error.fault,
        Fault::Truncated { part: Part::Body, got: 6, wanted: hello.len() as u64 - 14 }
    );
}

#[test]
fn lines_of_json_are_the_same_and_strays_among_them_go_to_the_log() {
    let mut port = start(&port());
    let stray = Delivery::Stray(Bytes::from("Loading...\n"));
    assert_eq!(port.says("Loading...\n"), [stray]);
    assert_eq!(port.says("{\"k\":\"hello\",\"p\":{\"proto\":1,\"enc\":\"text\"}}\n"), []);
    assert_eq!(port.frames()[0].kind, Said::Hello);
    assert_eq!(port.says("{\"k\":\"ready\"}\n"), [Delivery::Ready]);
    port.accept(call(1, "{\"a\":1}"));
    let line = port.writes();
    let id = line.strip_prefix("{\"k\":\"call\",\"id\":").and_then(|rest| rest.split_once(','));
    let (id, rest) = id.unwrap();
    assert_eq!(rest, "\"t\":\"{\\\"a\\\":1}\"}\n");
    let answer = format!("{{\"k\":\"reply\",\"id\":{id},\"p\":{{\"b\":2}}}}\n");
    assert_eq!(port.says(&answer), [reply(1, &["{\"b\":2}"])]);
    assert_eq!(port.counters().strays, 1);
}

#[test]
fn a_drained_program_answers_what_is_open_and_gets_nothing_more() {
    let mut port = start(&port());
    port.gets_ready();
    port.accept(call(1, "open"));
    let id = port.frames()[0].id;
    port.accept(call(2, "late"));
    port.drain(3000);
    let frames = port.frames();
    assert_eq!(frames.len(), 1);
    assert_eq!(
        (frames[0].kind, &frames[0].payload[..]),
        (Said::Drain, &b"{\"deadline_ms\":3000}"[..])
    );
    assert_eq!(port.says_frame(&replied(id, "done")), [reply(1, &["done"])]);
    let exit = Frame::new(Said::Exit, 0, r#"{"reason":"returned","message":"enough"}"#);
    assert_eq!(port.says_frame(&exit), []);
    assert!(port.is_ready() && port.farewell().unwrap().ends_with("returned, enough"));
    port.close_input();
    assert!(port.is_input_done(), "what waits is not written");
    let ending = port.ended(0, NOW);
    assert_eq!(ending.unanswered, [unanswered(2, ReadState::NeverRead)]);
}

#[test]
fn a_program_that_never_will_be_ready_has_its_input_closed() {
    let mut port = start(&port());
    port.accept(call(1, "x"));
    port.greets(r#"{"proto":1}"#);
    let failed = Frame::new(Said::Ready, 0, r#"{"failed":"no licence"}"#);
    assert_eq!(port.says_frame(&failed), []);
    assert!(port.has_word() && port.is_input_done());
    assert!(port.unready().unwrap().ends_with("no licence"));
    let ending = port.ended(0, NOW);
    assert_eq!(ending.unanswered, [unanswered(1, ReadState::NeverRead)]);
}

#[test]
fn it_goes_on_from_its_saved_form() {
    let mut port = start(&port());
    port.gets_ready();
    port.accept(call(1, "x"));
    let id = port.frames()[0].id;
    port.says_frame(&replied(id, "a").with(message::Flags::MORE));
    port.says_frame(&Frame::new(Said::Ping, 9, ""));
    port.accept(call(2, "y"));
    let saved = serde_json::to_string(&port).unwrap();
    let saved: Saved = serde_json::from_str(&saved).unwrap();
    let mut port =
        Exchange::restore(Arc::new(Protocol::new(&super::enveloped::port()).unwrap()), saved)
            .unwrap();
    let frames = port.frames();
    let kinds: Vec<_> = frames.iter().map(|frame| frame.kind).collect();
    assert_eq!(kinds, [Said::Pong, Said::Call]);
    assert_eq!(port.says_frame(&replied(id, "b")), [reply(1, &["a", "b"])]);
}

/// A program says how large a frame it takes: that large, and not larger.
#[test]
fn what_just_fits_is_taken() {
    let mut port = start(&port());
    port.greets(r#"{"proto":1,"max_frame":100,"concurrency":100}"#);
    port.says_frame(&Frame::new(Said::Ready, 0, "{}"));
    for (length, fits) in [(1, true), (99, true), (100, true), (101, false), (200, false)] {
        let submitted =
            port.submit(call(length, &"x".repeat(usize::try_from(length).unwrap())), NOW);
        let size = length;
        let refused = Err(Refusal::from(EncodeError::TooLarge { size, max: 100 }));
        assert_eq!(submitted, if fits { Ok(()) } else { refused });
    }
    let sizes: Vec<_> = port.frames().iter().map(|frame| frame.payload.len()).collect();
    assert_eq!(sizes, [1, 99, 100]);
}

/// Frames of an answered kind have no number where they are nobody's.
#[test]
fn credit_for_somebody_is_no_credit() {
    let mut port = start(&port());
    port.gets_ready();
    assert_eq!(port.says_frame(&Frame::new(Said::Credit, 0, r#"{"frames":1}"#)), []);
    port.says_frame(&Frame::new(Said::Credit, 3, r#"{"frames":1}"#));
    let [refused] = &port.frames()[..] else { panic!("it is told so") };
    assert_eq!((refused.kind, refused.id), (Said::Error, 3));
}

/// What the protocol itself has to say is said, and then nothing is left to say.
#[test]
fn it_has_a_word_until_it_is_written() {
    let mut port = start(&port());
    port.gets_ready();
    assert!(!port.has_word() && port.is_all_written());
    port.says_frame(&Frame::new(Said::Ping, 9, ""));
    assert!(port.has_word() && !port.is_all_written());
    assert_eq!(port.frames()[0].kind, Said::Pong);
    assert!(!port.has_word() && port.is_all_written());
}

//! What a program says before it is spoken to, and text that is no protocol.

use super::*;
use crate::port::exchange::BadProtocol;
use crate::spec::{Banner, Longer, Ready, Stray};

fn greeted(banner: Banner, ready: Ready) -> Port {
    Port { banner, ready, ..lines(Replies::One) }
}

fn message(pattern: &str) -> Ready {
    Ready::Message(pattern.to_owned())
}

fn question() -> Ready {
    Ready::Exchange { send: "are you?".to_owned(), expect: "^yes".to_owned() }
}

/// What a port tells of what its program says, in short.
fn told(port: &mut Exchange, said: &str) -> Vec<String> {
    let short = |delivery| match delivery {
        Delivery::Event(message) => format!("event {}", message.payload.escape_ascii()),
        Delivery::Ready => "ready".to_owned(),
        Delivery::Reply { id, .. } => format!("reply {id}"),
        Delivery::Stray(text) => format!("stray {}", text.escape_ascii()),
        Delivery::Protocol(error) => format!("broken at {}", error.offset),
        other => format!("{other:?}"),
    };
    port.says(said).into_iter().map(short).collect()
}

#[test]
fn where_messages_have_sections_the_greeting_ends_with_the_last_answer() {
    let port = Port {
        framing: Framing::PktLine,
        ready: Ready::Exchange {
            send: "0005a0000000800000000000dcan=more\n0000".to_owned(),
            expect: "^yes".to_owned(),
        },
        replies: Replies::Sections {
            longer: vec![
                Longer { first: "^00080000$".to_owned(), count: 2 },
                Longer { first: "^two".to_owned(), count: 2 },
            ],
            error: None,
        },
        ..Port::default()
    };
    // Two requests, the second of which has two sections, so that there are two answers.
    let mut exchange = start(&port);
    assert_eq!(exchange.writes(), "0005a0000000800000000000dcan=more\n0000");
    exchange.accept(call(1, "0005x0000"));
    for said in ["0007yes0000", "0007two", "0000", "00080000"] {
        assert!(!told(&mut exchange, said).contains(&"ready".to_owned()), "{said}");
        assert_eq!(exchange.writes(), "", "{said}");
    }
    assert_eq!(told(&mut exchange, "0000"), ["event 0000".to_owned(), "ready".to_owned()]);
    assert_eq!(exchange.writes(), "0005x0000");
    assert_eq!(told(&mut exchange, "0005y0000"), ["reply 1"]);
    // What is expected may stand in any of the answers, but must stand in one.
    let mut exchange = start(&port);
    exchange.writes();
    assert!(!told(&mut exchange, "0006no0000").contains(&"ready".to_owned()));
    assert!(!told(&mut exchange, "0006no0000").contains(&"ready".to_owned()));
    assert!(exchange.unready().unwrap().contains("^yes"));
    let unfinished = Ready::Exchange { send: "0005a".to_owned(), expect: "x".to_owned() };
    let refused = Protocol::new(&Port { ready: unfinished, ..port }).unwrap_err();
    assert_eq!(refused, BadProtocol::Unfinished);
}

#[test]
fn nothing_of_clients_is_written_before_it_is_ready() {
    for (port, before, last) in [
        (greeted(Banner::Messages(2), Ready::Banner), "a\n", "b\n"),
        (greeted(Banner::Until("^>".to_owned()), Ready::Banner), "a\nb\nc\n", "> b\n"),
        (greeted(Banner::None, Ready::FirstMessage), "", "b\n"),
        (greeted(Banner::Messages(1), Ready::FirstMessage), "", "b\n"),
        (greeted(Banner::Messages(2), Ready::FirstMessage), "a\n", "b\n"),
        (greeted(Banner::None, message("b")), "a\na\n", "b\n"),
        // What shows readiness may stand in the banner.
        (greeted(Banner::Messages(2), message("a")), "a\n", "b\n"),
        (greeted(Banner::Messages(1), message("b")), "a\na\n", "b\n"),
    ] {
        let mut exchange = start(&port);
        exchange.accept(call(1, "1+1"));
        exchange.accept(send(2, "x"));
        assert!(!exchange.is_ready() && exchange.is_awaited());
        assert!(!told(&mut exchange, before).contains(&"ready".to_owned()), "{port:?}");
        assert_eq!(exchange.writes(), "", "{port:?}");
        assert!(exchange.unready().unwrap().starts_with("it was not ready: "));
        let said = told(&mut exchange, last);
        assert_eq!(said, [format!("event {}", last.trim()), "ready".to_owned()], "{port:?}");
        assert!(exchange.is_ready() && exchange.unready().is_none());
        assert_eq!(exchange.writes(), "1+1\nx\n", "{port:?}");
        assert_eq!(told(&mut exchange, "2\n"), ["reply 1"]);
        let counters = exchange.counters();
        assert_eq!((counters.strays, counters.unasked), (0, 0), "it was meant to be said");
    }
}

#[test]
fn a_question_is_asked_once_and_after_the_banner() {
    let mut port = start(&greeted(Banner::Messages(1), question()));
    port.accept(call(1, "1+1"));
    assert_eq!(port.writes(), "");
    assert_eq!(told(&mut port, "yes, this is my banner\n"), ["event yes, this is my banner"]);
    assert_eq!(port.writes(), "are you?\n");
    assert_eq!(port.writes(), "", "once");
    assert_eq!(told(&mut port, "not yet\n"), ["event not yet"]);
    let words = port.unready().unwrap();
    assert_eq!(
        words,
        "it was not ready: an answer that matches \"^yes\" was waited for, and it had said 2 \
         messages, the last of them \"not yet\""
    );
    assert_eq!(told(&mut port, "yes\n2\n"), ["event yes", "ready", "event 2"]);
    assert_eq!(port.writes(), "1+1\n");
    assert_eq!(port.counters().frames_in, 2, "the question is a message too");
    assert_eq!(port.waiting(), (0, 0));
}

#[test]
fn with_ready_started_the_banner_holds_nobody_up_and_is_no_reply() {
    let mut port = start(&greeted(Banner::Messages(1), Ready::Started));
    assert!(port.is_ready());
    port.accept(call(1, "1+1"));
    assert_eq!(port.writes(), "1+1\n");
    assert_eq!(told(&mut port, "welcome\n2\n"), ["event welcome", "reply 1"]);
}

#[test]
fn a_call_that_waits_for_readiness_ends_at_its_deadline() {
    let mut port = start(&greeted(Banner::None, Ready::FirstMessage));
    port.accept(call(1, "1+1"));
    let error = CallError::Unsent { stuck: false };
    assert_eq!(port.expire(after(10)), [failed(1, error, &[])]);
    assert_eq!(port.waiting(), (0, 0));
    told(&mut port, "hello\n");
    assert_eq!(port.writes(), "", "it was taken back");
}

#[test]
fn the_input_of_a_program_that_is_not_ready_can_be_closed() {
    let mut port = start(&greeted(Banner::None, Ready::FirstMessage));
    port.accept(send(1, "x"));
    port.close_input();
    assert!(port.is_input_done(), "nothing will be written");
    let Ending { unanswered: left, .. } = port.ended(0, NOW);
    assert_eq!(left, [unanswered(1, ReadState::NeverRead)]);
}

#[test]
fn the_end_of_what_it_said_counts_as_said() {
    let mut port = start(&greeted(Banner::None, message("^ready$")));
    assert!(told(&mut port, "password: ").is_empty());
    let Ending { deliveries, .. } = port.ended(0, NOW);
    assert_eq!(deliveries.len(), 1, "{deliveries:?}");
    assert!(port.unready().unwrap().ends_with("it had said \"password: \""));
    let mut port = start(&greeted(Banner::None, message("^ready$")));
    port.ended(0, NOW);
    assert!(port.unready().unwrap().ends_with("it had said nothing"));
}

#[test]
fn a_greeting_is_carried_over() {
    let rule = greeted(Banner::Messages(1), question());
    let mut port = start(&rule);
    told(&mut port, "banner\n");
    assert_eq!(port.writes(), "are you?\n");
    let saved = |port: &Exchange| -> Saved {
        serde_json::from_value(serde_json::to_value(port).unwrap()).unwrap()
    };
    let protocol = |port: &Port| Arc::new(Protocol::new(port).unwrap());
    let mut again = Exchange::restore(protocol(&rule), saved(&port)).unwrap();
    assert_eq!(again.writes(), "", "it was asked before");
    assert_eq!(told(&mut again, "yes\n"), ["event yes", "ready"]);
    let other = Exchange::restore(protocol(&lines(Replies::One)), saved(&port)).err();
    assert_eq!(other, Some(RestoreError::Greeting));
    assert!(Exchange::restore(protocol(&lines(Replies::One)), saved(&again)).is_ok());
}

#[test]
fn what_cannot_be_a_greeting_is_refused() {
    let refused = |port: Port| Protocol::new(&port).unwrap_err().to_string();
    let bad = refused(greeted(Banner::Until("(".to_owned()), Ready::Started));
    assert!(bad.starts_with("use \"(\" in `banner`"), "{bad}");
    let bad = refused(greeted(Banner::None, message("(")));
    assert!(bad.starts_with("use \"(\" in `ready`"), "{bad}");
    let large = Ready::Exchange { send: "x".repeat(1001), expect: String::new() };
    assert!(refused(greeted(Banner::None, large)).starts_with("ask whether it is ready"));
    let eof = Port { framing: Framing::Eof, ..greeted(Banner::None, Ready::FirstMessage) };
    assert!(refused(eof).contains("`eof`"));
    let packets = Port { stray: Some(Stray::Log), ..packets(Replies::One) };
    assert!(refused(packets).starts_with("bear text"));
}

fn json(framing: Framing, stray: Stray) -> Port {
    let replies = Replies::Id(IdPlace::Pointer("/id".to_owned()));
    Port { framing, stray: Some(stray), ..lines(replies) }
}

#[test]
fn a_line_that_is_no_json_is_borne_or_not() {
    let said = "2026-11-22 [INFO] listening\n{\"method\":\"hello\"}\nnot JSON\n";
    let hello = "event {\\\"method\\\":\\\"hello\\\"}".to_owned();
    for framing in [Framing::Lines, Framing::Json] {
        let mut port = start(&json(framing.clone(), Stray::Log));
        let log = [
            "stray 2026-11-22 [INFO] listening\\n".into(),
            hello.clone(),
            "stray not JSON\\n".into(),
        ];
        assert_eq!(told(&mut port, said), log, "{framing:?}");
        assert_eq!(port.counters().strays, 2);
        let mut port = start(&json(framing.clone(), Stray::Drop));
        assert_eq!(told(&mut port, said), std::slice::from_ref(&hello));
        assert_eq!((port.counters().strays, port.counters().unasked), (2, 0));
        let mut port = start(&json(framing, Stray::Kill));
        let told = told(&mut port, &said[28..]);
        assert_eq!(told, [hello.clone(), "broken at 19".to_owned()]);
        assert_eq!(port.says("{\"id\":1}\n"), [], "what comes after it is not heard");
    }
}

#[test]
fn a_call_is_answered_in_spite_of_stray_lines() {
    for framing in [Framing::Lines, Framing::Json, Framing::ContentLength] {
        let mut port = start(&json(framing.clone(), Stray::Log));
        port.accept(call(1, r#"{"id":"a"}"#));
        let id = port.writes();
        let id = id.split('"').nth(3).unwrap();
        let body = format!("{{\"id\":\"{id}\"}}");
        let reply = match framing {
            Framing::ContentLength => format!("Content-Length: {}\r\n\r\n{body}", body.len()),
            _ => format!("{body}\n"),
        };
        let said = told(&mut port, &format!("loading …\n{reply}done\n"));
        assert_eq!(said.last().unwrap(), "stray done\\n");
        assert!(said.contains(&"reply 1".to_owned()), "{framing:?} {said:?}");
        assert_eq!(port.counters().strays, 2);
    }
}

/// What is waited for is told by how far it has come.
#[test]
fn what_is_waited_for_is_said() {
    let banner = || Banner::Until("^go$".to_owned());
    for (banner, ready, said, words) in [
        (
            banner(),
            Ready::Banner,
            "",
            "a banner that ends with \"^go$\" was waited for, and it had said nothing",
        ),
        (
            banner(),
            message("^yes"),
            "hm\n",
            "a banner that ends with \"^go$\" was waited for, and it had said \"hm\"",
        ),
        (
            banner(),
            message("^yes"),
            "go\n",
            "a message that matches \"^yes\" was waited for, and it had said \"go\"",
        ),
        (
            Banner::Messages(2),
            Ready::Banner,
            "a\n",
            "the 2 messages of its banner was waited for, and it had said \"a\"",
        ),
        (
            Banner::Messages(2),
            message("^yes"),
            "a\nb\n",
            "a message that matches \"^yes\" was waited for, and it had said 2 messages, the last of them \"b\"",
        ),
        (
            Banner::None,
            Ready::FirstMessage,
            "",
            "its first message was waited for, and it had said nothing",
        ),
    ] {
        let mut port = start(&greeted(banner, ready));
        told(&mut port, said);
        assert_eq!(port.unready().unwrap(), format!("it was not ready: {words}"));
    }
}

/// A question is made of whole requests, one at least.
#[test]
fn a_question_without_a_request_is_none() {
    let unfinished = |send: &str| {
        let ready = Ready::Exchange { send: send.to_owned(), expect: "^yes".to_owned() };
        let replies = Replies::Sections { longer: Vec::new(), error: None };
        let port = Port { framing: Framing::PktLine, ready, replies, ..Port::default() };
        matches!(crate::port::exchange::Protocol::new(&port), Err(BadProtocol::Unfinished))
    };
    assert!(!unfinished("0005a0000"));
    for send in ["", "0005a", "0005"] {
        assert!(unfinished(send), "{send:?}");
    }
}

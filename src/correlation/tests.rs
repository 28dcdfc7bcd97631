//! Every rule against tables of what a program says.

use bytes::Bytes;

use super::{BadRule, Correlator, Occupied, Outcome, Rule};
use crate::spec::Replies;

const MAX: u64 = 1 << 20;

fn bc() -> Replies {
    Replies::Sentinel { send: "print \"{token}\\n\"".to_owned(), expect: "{token}".to_owned() }
}

fn until(pattern: &str) -> Replies {
    Replies::Until(pattern.to_owned())
}

/// One port under a rule, with a call 7 of token `T7`.
struct Port(Rule, Correlator);

impl Port {
    fn new(replies: &Replies) -> Self {
        Self(Rule::new(replies).unwrap(), Correlator::default())
    }

    fn called(replies: &Replies) -> Self {
        let mut port = Self::new(replies);
        port.1.begin(7, "T7").unwrap();
        port
    }

    fn says(&mut self, message: &'static str) -> Outcome {
        self.1.take(&self.0, Bytes::from(message), MAX)
    }
}

fn done(reply: &[&'static str]) -> Outcome {
    let reply = reply.iter().map(|part| Bytes::from(*part)).collect();
    Outcome::Done { call: 7, reply }
}

fn sections() -> Replies {
    Replies::sections([("^status=success", 3)])
}

/// The program says all this; only the last completes the reply, which is this.
fn check(replies: &Replies, said: &[&'static str], reply: &[&'static str]) {
    let mut port = Port::called(replies);
    let (last, before) = said.split_last().unwrap();
    for message in before {
        assert_eq!(port.says(message), Outcome::Part, "{replies:?} {said:?} at {message:?}");
    }
    assert_eq!(port.says(last), done(reply), "{replies:?} {said:?}");
    assert_eq!(port.says(last), Outcome::Event(Bytes::from(*last)), "no call is open");
}

#[test]
fn replies_end_where_their_rule_says() {
    check(&Replies::One, &["a"], &["a"]);
    check(&Replies::One, &[""], &[""]);
    check(&until("^$"), &["a", "b", ""], &["a", "b", ""]);
    check(&until("^$"), &[""], &[""]);
    check(
        &until("^bestmove "),
        &["info depth 1", "bestmove e2e4"],
        &["info depth 1", "bestmove e2e4"],
    );
    check(&bc(), &["2", "T7"], &["2"]);
    let whole = ["status=success\n", "0000", "x", "00080000", "0000", "0000"];
    check(&sections(), &whole, &whole);
    check(&sections(), &["status=error\n", "0000"], &["status=error\n", "0000"]);
    check(&bc(), &["T7"], &[]);
    check(&bc(), &["1", "5T7"], &["1", "5"]);
    check(&bc(), &["T7 is no end", "T6", "T7"], &["T7 is no end", "T6"]);
}

#[test]
fn a_program_that_echoes_does_not_end_its_reply_with_the_echo() {
    let sqlite =
        Replies::Sentinel { send: ".print {token}\n".to_owned(), expect: "{token}".to_owned() };
    check(&sqlite, &["sqlite> .print T7", "T7"], &["sqlite> .print T7"]);
    let cat = Replies::Sentinel { send: "{token}".to_owned(), expect: "{token}".to_owned() };
    check(&cat, &["xT7", "T7"], &["xT7"]);
}

#[test]
fn what_nobody_asked_for_is_an_event() {
    for replies in [Replies::None, Replies::One, until("x"), bc()] {
        let mut port = Port::new(&replies);
        assert_eq!(port.says("x T7"), Outcome::Event(Bytes::from("x T7")), "{replies:?}");
        assert_eq!(port.0.answers(), replies != Replies::None);
    }
}

#[test]
fn only_a_sentinel_follows_a_request() {
    for replies in [Replies::None, Replies::One, until("x")] {
        assert_eq!(Rule::new(&replies).unwrap().after_request("T7"), None);
    }
    let follows = Rule::new(&bc()).unwrap().after_request("T7").unwrap();
    assert_eq!(follows, r#"print "T7\n""#);
}

#[test]
fn a_late_reply_is_swallowed_whole_and_holds_up_the_next_call_until_then() {
    let table: &[(Replies, &[&'static str], &'static str)] = &[
        (Replies::One, &[], "late"),
        (until("^$"), &["late", "later"], ""),
        (bc(), &["late", "later"], "T7"),
        (bc(), &[], "5T7"),
        (sections(), &["status=success\n", "0000", "late", "0000"], "0000"),
    ];
    for (replies, parts, last) in table {
        let mut port = Port::called(replies);
        assert_eq!(port.1.abandon(), Vec::<Bytes>::new());
        for part in *parts {
            assert_eq!(port.says(part), Outcome::Swallowed, "{replies:?}");
            assert_eq!(port.1.begin(8, "T8"), Err(Occupied), "{replies:?}");
        }
        assert_eq!(port.1.open(), Some(7));
        assert_eq!(port.says(last), Outcome::Resolved { call: 7 }, "{replies:?}");
        assert_eq!(port.1.begin(8, "T8"), Ok(()), "{replies:?}");
    }
}

#[test]
fn abandoning_gives_what_has_come_and_keeps_nothing() {
    let mut port = Port::called(&bc());
    port.says("half");
    assert_eq!(port.1.abandon(), ["half"]);
    assert_eq!(port.1.abandon(), Vec::<Bytes>::new());
    let mut port = Port::called(&bc());
    port.says("half");
    assert_eq!(port.1.close(), ["half"]);
    assert_eq!(port.1, Correlator::default());
}

#[test]
fn a_reply_that_is_too_large_fails_its_call_alone() {
    let (rule, mut port) = (Rule::new(&until("end$")).unwrap(), Correlator::default());
    for (last, max) in [("12end", 10), ("123end", 10)] {
        port.begin(7, "T7").unwrap();
        assert_eq!(port.take(&rule, Bytes::from("12345"), max), Outcome::Part);
        let outcome = port.take(&rule, Bytes::from(last), max);
        let so_far = vec![Bytes::from("12345")];
        match last {
            "12end" => assert!(matches!(outcome, Outcome::Done { .. }), "exactly max"),
            _ => assert_eq!(outcome, Outcome::TooLarge { call: 7, so_far }),
        }
        assert_eq!(port.open(), None, "the end has come");
    }
    port.begin(7, "T7").unwrap();
    assert!(matches!(port.take(&rule, Bytes::from("12345678901"), 10), Outcome::TooLarge { .. }));
    assert_eq!(port.take(&rule, Bytes::from("more"), 10), Outcome::Swallowed);
    assert_eq!(port.take(&rule, Bytes::from("end"), 10), Outcome::Resolved { call: 7 });
}

#[test]
fn a_reply_of_empty_messages_is_bounded_too() {
    let mut port = Port::called(&bc());
    let most = usize::try_from(MAX / 16).unwrap();
    for _ in 0..most {
        assert_eq!(port.says(""), Outcome::Part);
    }
    let Outcome::TooLarge { call: 7, so_far } = port.says("") else { panic!("no bound") };
    assert_eq!(so_far.len(), most);
}

#[test]
fn a_correlator_survives_its_text_in_the_middle_of_a_reply() {
    let mut port = Port::called(&bc());
    assert_eq!(port.says("gr\u{fc}\u{df}e"), Outcome::Part);
    port.1.take(&port.0, Bytes::from_static(b"\xff\0"), MAX);
    let text = serde_json::to_string(&port.1).unwrap();
    port.1 = serde_json::from_str(&text).unwrap();
    let reply = vec![Bytes::from("gr\u{fc}\u{df}e"), Bytes::from_static(b"\xff\0")];
    assert_eq!(port.says("T7"), Outcome::Done { call: 7, reply });
}

#[test]
fn bad_rules_are_refused() {
    assert!(matches!(Rule::new(&until("(")), Err(BadRule::Pattern { .. })));
    for (send, expect) in [("x", "{token}"), ("{token}", "x")] {
        let replies = Replies::Sentinel { send: send.to_owned(), expect: expect.to_owned() };
        let refused = Rule::new(&replies).unwrap_err();
        assert_eq!(refused, BadRule::NoToken { text: "x".to_owned(), times: "at least once" });
        assert_eq!(
            refused.to_string(),
            "use \"x\" in `replies`: it must contain {token} at least once"
        );
    }
}

//! Whatever a program says, no rule panics, and no call is answered but by its own number.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Correlator, Outcome, Rule};
use crate::spec::{IdPlace, IdType, Longer, Replies};

const MAX: u64 = 1 << 20;

fn rules() -> Vec<Replies> {
    let text = str::to_owned;
    let pointer = |pointer| Replies::Id(IdPlace::Pointer(text(pointer)));
    let offset = |offset, kind| Replies::Id(IdPlace::Offset { offset, kind });
    vec![
        Replies::None,
        Replies::One,
        Replies::Until(text("end$")),
        Replies::Sentinel { send: text("say {token}"), expect: text("{token}") },
        Replies::Bracket { begin: text(r"^\[(?P<number>\d*)"), end: text(r"^\](?P<number>\d*)") },
        Replies::Sections { longer: vec![Longer { first: text("end"), count: 2 }], error: None },
        Replies::Prefix { send: text("{token}"), expect: text("=?{token}") },
        pointer("/id"),
        pointer("/a/0/~1~0"),
        pointer("/0"),
        offset(0, IdType::U8),
        offset(2, IdType::U16be),
        offset(1, IdType::U16le),
        offset(0, IdType::U32be),
        offset(0, IdType::U32le),
        offset(0, IdType::U64be),
        offset(7, IdType::U64le),
    ]
}

/// Bytes of any kind, those among them that look like something.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        any::<Vec<u8>>(),
        "[ -~]{0,20}".prop_map(String::into_bytes),
        prop::sample::select(vec![
            "{",
            "}",
            "[",
            "]",
            "\"id\"",
            ":",
            ",",
            "null",
            "\"",
            "\\u0069d",
            "\\ud800",
            "1073741824",
            "\"1073741824\"",
            "1e9",
            "-0",
            "method",
            "\"method\"",
            "=",
            "end",
            "0000",
            "T7",
            "\u{feff}",
            " ",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
    ];
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 20, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("[a-h]{0,3}|id", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// The calls of a rule that tells them apart, all begun; how each is told.
fn begin(rule: &Rule, correlator: &mut Correlator, request: &Bytes) -> Option<u64> {
    if !rule.tells_apart() {
        correlator.begin(7, "T7").unwrap();
        return None;
    }
    let (_, tag) = rule.tag(request.clone()).ok()?;
    let number = correlator.reserve(rule, 7, &tag?, 0)?;
    correlator.begin_numbered(number);
    Some(number)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn garbage_is_borne_by_every_rule(messages in proptest::collection::vec(message(), 1..20)) {
        for replies in rules() {
            let rule = Rule::new(&replies).unwrap();
            let mut correlator = Correlator::default();
            let request = Bytes::from(messages[0].clone());
            if let Ok((tagged, Some(tag))) = rule.tag(request.clone()) {
                let numbered = rule.numbered(tagged.clone(), &tag, 1 << 30);
                prop_assert_eq!(numbered.len(), tagged.len());
            }
            let number = begin(&rule, &mut correlator, &request);
            for message in &messages {
                let whole = Bytes::from(message.clone());
                match correlator.take(&rule, whole.clone(), MAX) {
                    Outcome::Event(same) | Outcome::Notification(same) => {
                        prop_assert_eq!(same, whole);
                    }
                    Outcome::Done { call, reply } => {
                        prop_assert_eq!(call, 7);
                        if rule.tells_apart() {
                            prop_assert!(number.is_some(), "{:?}: {:?}", replies, reply);
                            prop_assert_eq!(reply.len(), 1);
                        }
                    }
                    Outcome::Part | Outcome::Unmatched => {}
                    other => prop_assert!(false, "{:?}", other),
                }
            }
        }
    }

    /// The id goes out as a number and comes back as it was, in any message and of any type.
    #[test]
    fn an_id_comes_back_byte_for_byte(id in value(), other in value(), pretty: bool, seed: u64) {
        let rule = Rule::new(&Replies::Id(IdPlace::Pointer("/id".to_owned()))).unwrap();
        let id = if pretty { format!("{id:#}") } else { id.to_string() };
        let request = Bytes::from(format!("{{\"a\":{other},\"id\" : {id}\n,\"b\":{other:#}}}"));
        let mut correlator = Correlator::default();
        let (tagged, tag) = rule.tag(request.clone()).unwrap();
        let tag = tag.unwrap();
        let number = correlator.reserve(&rule, 9, &tag, seed).unwrap();
        let sent = rule.numbered(tagged, &tag, number);
        prop_assert!(!sent.contains(&b'\n'));
        let meant: Value = serde_json::from_slice(&sent).unwrap();
        let shown = if id.starts_with('"') { json!(number.to_string()) } else { json!(number) };
        prop_assert_eq!(&meant["id"], &shown);
        prop_assert_eq!(&meant["a"], &meant["b"]);
        correlator.begin_numbered(number);
        // The program says the same again; the spaces of the request are its own.
        let said = format!("{{\"b\":{other:#}, \"id\" :{shown} ,\"c\":{other}}}");
        let told = correlator.take(&rule, Bytes::from(said), MAX);
        let reply = Bytes::from(format!("{{\"b\":{other:#}, \"id\" :{id} ,\"c\":{other}}}"));
        prop_assert_eq!(told, Outcome::Done { call: 9, reply: vec![reply] });
    }

    /// A reply that was damaged answers nobody, or its own call.
    #[test]
    fn a_damaged_reply_answers_no_other_call(at: prop::sample::Index, byte: u8, cut: bool) {
        let rule = Rule::new(&Replies::Id(IdPlace::Pointer("/id".to_owned()))).unwrap();
        let mut correlator = Correlator::default();
        let (_, tag) = rule.tag(Bytes::from_static(b"{\"id\":1}")).unwrap();
        let numbers: Vec<u64> = (0..2)
            .map(|call| {
                // Far apart: no single byte makes one number of the other.
                let seed = call * 22_222_222;
                let number = correlator.reserve(&rule, call, tag.as_ref().unwrap(), seed).unwrap();
                correlator.begin_numbered(number);
                number
            })
            .collect();
        let mut said = format!("{{\"id\":{},\"result\":[\"x\"]}}", numbers[0]).into_bytes();
        let at = at.index(said.len());
        if cut { said.truncate(at) } else { said[at] = byte }
        let told = correlator.take(&rule, Bytes::from(said), MAX);
        let others = matches!(told, Outcome::Done { call: 1, .. });
        prop_assert!(!others, "{:?}", told);
    }
}

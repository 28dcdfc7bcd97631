//! Ids inside of JSON messages, beside the one that replies are told by: the request that a client
//! cancels, and the token under which it wants to be told of progress. Clients choose both as if they
//! were alone with the program, so each is made to mean the same to a program that has many.
//!
//! Which messages have them is fixed by the protocols: the Language Server Protocol 3.17 (Cancellation
//! Support, Work Done Progress, Partial Result Progress) and the Model Context Protocol (Cancellation,
//! Progress). Nothing is kept: a token says itself whose it is and what it was. Everything else of a
//! message stays as it is, and so does every message that is none of these.

use core::ops::Range;

use bytes::Bytes;

use super::JsonIds;
use super::flight::{DIGITS, replaced, write_digits};
use super::id::Pointer;
use super::json_ids::Letter;

/// Notifications of a client that cancel a request, and where its id is.
const CANCELS: [(&str, &str); 2] =
    [("$/cancelRequest", "/params/id"), ("notifications/cancelled", "/params/requestId")];
/// What both have in common: most messages are not looked into.
const CANCEL: &[u8] = b"ancel";

/// Where requests have tokens.
const TOKENS: [(&[u8], &str); 3] = [
    (b"progressToken", "/params/_meta/progressToken"),
    (b"workDoneToken", "/params/workDoneToken"),
    (b"partialResultToken", "/params/partialResultToken"),
];

/// Notifications of a program that bear a token, and where.
const PROGRESS: [(&str, &str); 2] =
    [("notifications/progress", "/params/progressToken"), ("$/progress", "/params/token")];

/// What our tokens begin with; no byte of it has a second form in JSON that programs write.
const OURS: &str = "wharf-token:";

/// The longest token that is made ours, in bytes.
const LONGEST: usize = 4096;

/// Where a message has the id of the request that it cancels.
pub(super) fn cancels(message: &[u8]) -> Option<Range<usize>> {
    memchr::memmem::find(message, CANCEL)?;
    let method = notifies(message)?;
    let (_, pointer) = CANCELS.iter().find(|(name, _)| *name == method)?;
    place(message, pointer)
}

/// A message that cancels the request with this number, instead of the one with the id at `at`; 0 is
/// the number of none.
pub(super) fn cancelling(message: &Bytes, at: Range<usize>, number: u64) -> Bytes {
    let quoted = message.get(at.start) == Some(&b'"');
    let mut digits = [b'0'; DIGITS];
    write_digits(number, &mut digits);
    let text = match (number, quoted) {
        // A number of JSON has no zero before others.
        (0, false) => b"0".to_vec(),
        (_, false) => digits.to_vec(),
        (_, true) => [&b"\""[..], &digits, b"\""].concat(),
    };
    replaced(message, at, &text)
}

/// A request whose tokens say that they are those of `client`; `None` where it has none.
pub fn with_tokens(message: &Bytes, client: u64) -> Option<Bytes> {
    let mut changed = None;
    for (name, pointer) in TOKENS {
        let message = changed.as_ref().unwrap_or(message);
        if memchr::memmem::find(message, name).is_none() {
            continue;
        }
        let Some(at) = place(message, pointer).filter(|at| at.len() <= LONGEST) else { continue };
        let own = String::from_utf8_lossy(&message[at.clone()]);
        let token = serde_json::Value::String(format!("{OURS}{client}:{own}")).to_string();
        changed = Some(replaced(message, at, token.as_bytes()));
    }
    changed
}

/// Whose progress a program tells, and the notification as that client knows it; `None` where it is
/// everybody's business.
pub fn progress_of(message: &Bytes) -> Option<(u64, Bytes)> {
    memchr::memmem::find(message, OURS.as_bytes())?;
    let method = notifies(message)?;
    let (_, pointer) = PROGRESS.iter().find(|(name, _)| *name == method)?;
    let at = place(message, pointer)?;
    let token: String = serde_json::from_slice(&message[at.clone()]).ok()?;
    let (client, own) = token.strip_prefix(OURS)?.split_once(':')?;
    Some((client.parse().ok()?, replaced(message, at, own.as_bytes())))
}

/// The method of a notification.
fn notifies(message: &[u8]) -> Option<String> {
    match JsonIds::new("/id").ok()?.read(message) {
        Letter::Notification { method } => Some(method),
        Letter::Request { .. } | Letter::Answer { .. } | Letter::Other => None,
    }
}

/// Where a number or a text is; other values are no ids of these protocols.
fn place(message: &[u8], pointer: &str) -> Option<Range<usize>> {
    let at = Pointer::new(pointer).ok()?.anatomy(message).ok()?.id?;
    matches!(message.get(at.start), Some(b'"' | b'-' | b'0'..=b'9')).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    #[test]
    fn a_cancelled_request_is_found_and_renamed() {
        for (message, number, then) in [
            (
                r#"{"method":"$/cancelRequest","params":{"id":7}}"#,
                1_073_741_830,
                r#"{"method":"$/cancelRequest","params":{"id":1073741830}}"#,
            ),
            (
                r#"{"params":{"reason":"x","requestId" : "a\"b"},"method":"notifications/cancelled"}"#,
                1_073_741_830,
                r#"{"params":{"reason":"x","requestId" : "1073741830"},"method":"notifications/cancelled"}"#,
            ),
            (
                r#"{"method":"$/cancelRequest","params":{"id":7}}"#,
                0,
                r#"{"method":"$/cancelRequest","params":{"id":0}}"#,
            ),
        ] {
            let message = bytes(message);
            let at = cancels(&message).unwrap();
            assert_eq!(cancelling(&message, at, number), then);
        }
        for other in [
            r#"{"id":1,"method":"$/cancelRequest","params":{"id":7}}"#,
            r#"{"method":"$/cancelRequest","params":{"id":[7]}}"#,
            r#"{"method":"$/cancelRequest"}"#,
            r#"{"method":"cancel","params":{"id":7}}"#,
            "cancel",
            "",
        ] {
            assert_eq!(cancels(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn a_token_comes_back_to_its_client_byte_for_byte() {
        for own in ["1", "-1.50", r#""a:b\"\u00e9 \\""#, r#""wharf-token:3:4""#] {
            let text = format!(
                r#"{{"id":1,"method":"m","params":{{"_meta":{{"progressToken":{own}}}}}}}"#
            );
            let asked = with_tokens(&bytes(&text), 17).unwrap();
            let asked: serde_json::Value = serde_json::from_slice(&asked).unwrap();
            let token = &asked["params"]["_meta"]["progressToken"];
            assert!(token.is_string() && asked["id"] == 1, "{asked}");
            let told = format!(
                r#"{{"method":"notifications/progress","params":{{"progressToken":{token},"progress":1}}}}"#
            );
            let then = format!(
                r#"{{"method":"notifications/progress","params":{{"progressToken":{own},"progress":1}}}}"#
            );
            assert_eq!(progress_of(&bytes(&told)), Some((17, bytes(&then))));
        }
        let both = r#"{"id":1,"method":"m","params":{"workDoneToken":1,"partialResultToken":"2"}}"#;
        assert_eq!(
            with_tokens(&bytes(both), 5).unwrap(),
            r#"{"id":1,"method":"m","params":{"workDoneToken":"wharf-token:5:1","partialResultToken":"wharf-token:5:\"2\""}}"#
        );
        for other in [
            r#"{"id":1,"method":"m","params":{"text":"progressToken"}}"#,
            r#"{"id":1,"method":"m","params":{"workDoneToken":null}}"#,
            "progressToken",
        ] {
            assert_eq!(with_tokens(&bytes(other), 1), None, "{other}");
        }
        for other in [
            r#"{"method":"$/progress","params":{"token":"theirs"}}"#,
            r#"{"method":"other","params":{"token":"wharf-token:5:1"}}"#,
            r#"{"method":"$/progress","params":{"token":"wharf-token:x:1"}}"#,
            r#"{"id":3,"result":"wharf-token:5:1"}"#,
        ] {
            assert_eq!(progress_of(&bytes(other)), None, "{other}");
        }
    }
}

//! The compiled `port:` block of one service, shared by the exchanges of all its replicas.

use super::greeting;
use super::outgoing::size;
use super::pieces::Pieces;
use crate::correlation::{self, Correlator, Rule};
use crate::framing::{self, Codec, EncodeError};
use crate::spec::{Port, Stray};

/// The least that may wait for a program, in bytes, however small its messages.
const LEAST_WAITING: u64 = 1 << 20;

/// How programs of one service are spoken to.
#[derive(Debug)]
pub struct Protocol {
    pub(super) codec: Codec,
    pub(super) rule: Rule,
    pub(super) greeting: greeting::Rule,
    /// What becomes of text that is no protocol; `None` where every message is protocol.
    pub(super) stray: Option<Stray>,
    /// The largest reply, in bytes.
    pub(super) max_reply: u64,
    /// The most messages that may wait to be written, and the most calls that may be open at once.
    pub(super) queue: u64,
    /// The most bytes that may wait to be written, unless it is a single message.
    pub(super) queue_bytes: u64,
    /// Whether it is wire protocol 1 that is spoken.
    pub(super) is_enveloped: bool,
}

/// Why a `port:` block cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadProtocol {
    /// Its framing cannot.
    #[error(transparent)]
    Framing(#[from] framing::BadRule),
    /// Its replies cannot.
    #[error(transparent)]
    Replies(#[from] correlation::BadRule),
    /// The sentinel cannot be sent in its framing.
    #[error("use the sentinel in this framing: cannot {0}")]
    Sentinel(#[source] EncodeError),
    /// The question that shows readiness cannot be sent in its framing.
    #[error("ask whether it is ready in this framing: cannot {0}")]
    Question(#[source] EncodeError),
    /// The question that shows readiness is not made of whole requests.
    #[error(
        "ask whether it is ready: the question must be packets, each request with all its sections"
    )]
    Unfinished,
    /// What should be a regular expression is none.
    #[error("use {pattern:?} in `{key}`: {why}")]
    Pattern {
        /// Where it stands.
        key: &'static str,
        /// As written.
        pattern: String,
        /// In the words of the regular expression compiler.
        why: String,
    },
    /// Where the whole output is one message, nothing can be said before it.
    #[error("wait for a greeting with the framing `eof`: all that is said is one message")]
    Greeting,
    /// Text that is no protocol cannot be told, or there is no way back behind it.
    #[error(
        "bear text that is no protocol: the framing and the replies of this port cannot tell it"
    )]
    Stray,
}

impl Protocol {
    /// Compiles a `port:` block.
    pub fn new(port: &Port) -> Result<Self, BadProtocol> {
        let mut codec = Codec::new(&port.framing, port.max_frame)?;
        if port.stray.is_some_and(Stray::is_borne) {
            if !port.can_bear_strays() {
                return Err(BadProtocol::Stray);
            }
            if codec.can_bear_strays() {
                codec = codec.bearing_strays();
            }
        } else if port.stray.is_some() && codec.is_lax() {
            codec = codec.bearing_strays();
        }
        let rule = Rule::within(&port.replies, &port.framing)?;
        if let Some(sentinel) = rule.after_request(&token(u64::MAX, u64::MAX)) {
            codec.check(&sentinel).map_err(BadProtocol::Sentinel)?;
        }
        let greeting = greeting::Rule::new(port, &codec)?;
        Ok(Self {
            codec,
            rule,
            greeting,
            stray: port.stray.filter(|_| port.can_bear_strays()),
            max_reply: port.max_frame,
            queue: u64::from(port.queue),
            queue_bytes: port.max_frame.max(LEAST_WAITING),
            is_enveloped: port.is_enveloped(),
        })
    }

    /// Whether another call may be let out while so many are open.
    pub(super) fn may_begin(&self, correlator: &Correlator, open: usize) -> bool {
        if self.rule.tells_apart() {
            size(open) < self.queue && correlator.has_number(&self.rule)
        } else {
            open == 0
        }
    }

    /// The token of a call; empty where nothing asks for one.
    pub(super) fn token(&self, seed: u64, number: u64) -> String {
        if self.rule.needs_token() { token(seed, number) } else { String::new() }
    }

    /// The sentinel of a call, framed; no pieces where the rule has none.
    pub(super) fn sentinel(&self, token: &str) -> Pieces {
        let Some(message) = self.rule.after_request(token) else { return Pieces::default() };
        let frame = self.codec.encode(message);
        frame.expect("a sentinel with the longest token was encoded before").into()
    }
}

/// The token of a call: letters and digits alone, so that it is the same inside any quotes, always 42
/// of them, so that a sentinel may say how long it is, and never a suffix of another.
pub(super) fn token(seed: u64, number: u64) -> String {
    format!("wharf{seed:016x}x{number:020}")
}

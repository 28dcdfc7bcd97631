//! `sections`: a message of several packets ends with a flush packet, or with so many of them as its
//! first packet says.
//!
//! So speak git's protocols over `pkt-line` (gitprotocol-common(5)); the long-running filter of
//! gitattributes(5) is the case in point. There a request is a list, a flush, the contents and a flush;
//! a reply is a list that says `status=success`, a flush, the contents, a flush, a second list and a
//! flush, or else a single list with another status and its flush. What begins like none of the
//! expressions has one section. It counts flush packets and looks at nothing else, so contents may be
//! any bytes.

use regex::bytes::Regex;

use super::BadRule;
use crate::spec::Longer;

/// A flush packet, as the framing `pkt-line` gives it.
const FLUSH: &[u8] = b"0000";

/// How many sections messages have.
#[derive(Debug)]
pub struct Sections(Vec<(Regex, u32)>);

impl Sections {
    /// Compiles what a configuration says.
    pub fn new(longer: &[Longer]) -> Result<Self, BadRule> {
        let compile = |one: &Longer| {
            let first = Regex::new(&one.first).map_err(|error| BadRule::Pattern {
                pattern: one.first.clone(),
                why: error.to_string(),
            })?;
            Ok((first, one.count.max(1)))
        };
        longer.iter().map(compile).collect::<Result<_, _>>().map(Self)
    }

    /// Whether a packet is the last one of its message. `left` is how many sections are still to end,
    /// `None` before the first packet and after the last one.
    pub fn ends(&self, packet: &[u8], left: &mut Option<u32>) -> bool {
        let before = left.unwrap_or_else(|| self.count(packet));
        let after = before.saturating_sub(u32::from(packet == FLUSH));
        *left = Some(after).filter(|after| *after > 0);
        left.is_none()
    }

    /// How many sections a message has that begins with this packet.
    fn count(&self, first: &[u8]) -> u32 {
        let known = self.0.iter().find(|(pattern, _)| pattern.is_match(first));
        known.map_or(1, |(_, count)| *count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_ends_with_its_last_flush() {
        let longer = |first: &str, count| Longer { first: first.to_owned(), count };
        let filter = [longer("^command=(clean|smudge)", 2), longer("^status=success", 3)];
        let sections = Sections::new(&filter).unwrap();
        for (packets, messages) in [
            (&["git-filter-client\n", "version=2\n", "0000"][..], 1),
            (&["command=clean\n", "pathname=a\n", "0000", "status=success\n", "0000"], 1),
            (&["command=clean\n", "0000", "0000", "command=list_available_blobs\n", "0000"], 2),
            (&["status=success\n", "0000", "x", "00080000", "0000", "0000"], 1),
            (&["status=success\n", "0000", "x", "0000", "status=error\n", "0000"], 1),
            (&["status=error\n", "0000", "status=success\n", "0000", "0000", "0000"], 2),
            (&["0000", "0000"], 2),
        ] {
            let (mut left, mut ended) = (None, 0);
            for (at, packet) in packets.iter().enumerate() {
                let is_last = sections.ends(packet.as_bytes(), &mut left);
                ended += u32::from(is_last);
                assert!(is_last || at + 1 < packets.len(), "{packets:?} ends");
            }
            assert_eq!((ended, left), (messages, None), "{packets:?}");
        }
        assert!(Sections::new(&[longer("(", 2)]).is_err());
    }
}

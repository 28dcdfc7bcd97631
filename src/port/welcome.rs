//! The welcome of a port whose messages have sections: every client of `wharf connect` begins with
//! requests that the program has answered once and for all, when it became ready.
//!
//! So it is with git's long-running filters (gitattributes(5)): who is there, and what each can. The
//! requests are those of `ready: exchange`; a client's request that begins with the same word (what
//! stands before `=`, or the whole packet) is answered with what the program answered to that one.
//! Pure: nothing here is written or waited for.

use bytes::Bytes;

use super::exchange::{BadProtocol, requests};
use crate::correlation::Sections;
use crate::framing::{Codec, Decoder};
use crate::spec::{Banner, Port, Ready, Replies};

/// The most that is kept of what a program answers, in bytes; a packet counts for some more.
const MOST: usize = 64 << 10;
/// What a packet counts for beside its bytes.
const EACH: usize = 64;

/// What clients begin with, for every port of one service.
#[derive(Debug)]
pub struct Welcome {
    codec: Codec,
    sections: Sections,
    /// How each of the requests begins.
    words: Vec<Bytes>,
}

impl Welcome {
    /// The welcome of a port; `None` where clients are not welcomed so.
    pub fn of(port: &Port) -> Result<Option<Self>, BadProtocol> {
        let (Replies::Sections { longer, .. }, Ready::Exchange { send, .. }, Banner::None) =
            (&port.replies, &port.ready, &port.banner)
        else {
            return Ok(None);
        };
        let (codec, sections) =
            (Codec::new(&port.framing, port.max_frame)?, Sections::new(longer)?);
        let words = requests(send.as_bytes(), &sections, &codec)?;
        let words = words.iter().map(word).collect();
        Ok(Some(Self { codec, sections, words }))
    }

    /// Which of the requests a client's is; `None` where it is none of them.
    pub fn which(&self, request: &[u8]) -> Option<usize> {
        let mut first = None;
        let mut decoder = Decoder::new(&self.codec);
        // Only its first packet is looked at, which has at most 65,520 bytes.
        let beginning = &request[..request.len().min(1 << 16)];
        let _ = decoder.push(&self.codec, beginning, &mut |message| {
            first.get_or_insert(message.payload);
        });
        let first = word(&first?);
        self.words.iter().position(|word| *word == first)
    }
}

/// What a packet begins with: all before `=`, or else the whole of it.
fn word(packet: &Bytes) -> Bytes {
    let end = packet.iter().position(|byte| *byte == b'=').unwrap_or(packet.len());
    packet.slice(..end)
}

/// What the program of one run has answered.
#[derive(Debug, Default)]
pub struct Answers {
    whole: Vec<Vec<Bytes>>,
    /// The packets of the present one.
    present: Vec<Bytes>,
    left: Option<u32>,
    /// How much has been kept, in bytes.
    size: usize,
}

impl Answers {
    /// The program said something while it was not ready.
    pub fn heard(&mut self, welcome: &Welcome, packet: &Bytes) {
        self.size = self.size.saturating_add(packet.len() + EACH);
        if self.size > MOST || self.whole.len() == welcome.words.len() {
            return;
        }
        // A copy: a packet of a few bytes must not keep a large read alive.
        self.present.push(Bytes::copy_from_slice(packet));
        if welcome.sections.ends(packet, &mut self.left) {
            self.whole.push(std::mem::take(&mut self.present));
        }
    }

    /// The answer to this request; `None` where it has not come, or was too long to be kept.
    pub fn to(&self, which: usize) -> Option<&[Bytes]> {
        self.whole.get(which).map(Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Framing;

    fn filter() -> Welcome {
        let port = Port {
            framing: Framing::PktLine,
            replies: Replies::Sections { longer: Vec::new(), error: None },
            ready: Ready::Exchange {
                send: "0016git-filter-client\n000eversion=2\n00000015capability=clean\n0000".into(),
                expect: "capability".into(),
            },
            ..Port::default()
        };
        Welcome::of(&port).unwrap().unwrap()
    }

    #[test]
    fn a_clients_request_is_known_by_its_first_word() {
        let welcome = filter();
        for (request, which) in [
            ("0016git-filter-client\n000eversion=2\n0000", Some(0)),
            ("0016capability=smudge\n0015capability=clean\n0000", Some(1)),
            ("0012command=clean\n0000", None),
            ("0000", None),
            ("nonsense", None),
            ("", None),
        ] {
            assert_eq!(welcome.which(request.as_bytes()), which, "{request}");
        }
    }

    #[test]
    fn answers_are_kept_whole_and_within_bounds() {
        let (welcome, mut answers) = (filter(), Answers::default());
        for packet in ["git-filter-server\n", "version=2\n", "0000", "capability=clean\n"] {
            answers.heard(&welcome, &Bytes::from(packet));
        }
        assert_eq!(answers.to(0).unwrap(), ["git-filter-server\n", "version=2\n", "0000"]);
        assert_eq!(answers.to(1), None);
        answers.heard(&welcome, &Bytes::from("0000"));
        answers.heard(&welcome, &Bytes::from("more"));
        assert_eq!(answers.to(1).unwrap(), ["capability=clean\n", "0000"]);
        assert_eq!((answers.to(2), answers.present.len()), (None, 0));
        let mut answers = Answers::default();
        (0..10_000).for_each(|_| answers.heard(&welcome, &Bytes::from("x")));
        assert!(answers.present.len() <= MOST / EACH);
    }

    #[test]
    fn a_question_is_made_of_whole_requests() {
        for send in ["0016git-filter-client\n", "hello", ""] {
            let port = Port {
                framing: Framing::PktLine,
                replies: Replies::Sections { longer: Vec::new(), error: None },
                ready: Ready::Exchange { send: send.into(), expect: "x".into() },
                ..Port::default()
            };
            assert!(matches!(Welcome::of(&port), Err(BadProtocol::Unfinished)), "{send:?}");
        }
    }
}

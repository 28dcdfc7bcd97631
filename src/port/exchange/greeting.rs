//! What a program says before it is spoken to: its banner, and what shows that it is ready.
//!
//! Nothing said until then is a reply to anybody. Where readiness is a message, nothing of clients is
//! written before it; with `ready: started` they are written at once and only the banner is told
//! apart. It never asks twice and keeps no more of what was said than the beginning of the last
//! message.

use bytes::Bytes;
use regex::bytes::Regex;
use serde::{Deserialize, Serialize};

use super::pieces::Pieces;
use super::protocol::BadProtocol;
use crate::bytes_text;
use crate::correlation::Sections;
use crate::framing::{Codec, Decoder, Message};
use crate::spec::{self, Port};

/// How much of the last message is kept for the record, in bytes.
const KEPT: usize = 200;

/// The compiled `banner` and `ready` of a port.
#[derive(Debug)]
pub(super) struct Rule {
    banner: Banner,
    ready: Ready,
}

#[derive(Debug)]
enum Banner {
    None,
    Messages(u32),
    Until(Regex),
}

#[derive(Debug)]
enum Ready {
    Started,
    Banner,
    First,
    Message(Regex),
    Exchange { question: Pieces, expect: Regex, answers: Option<Answers> },
}

/// Where messages have sections: when all answers to a question have come.
#[derive(Debug)]
struct Answers {
    sections: Sections,
    /// How many requests the question is.
    count: u32,
}

/// How far a program has come with its greeting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Greeting {
    /// How many messages it has said.
    heard: u64,
    banner_is_over: bool,
    question: Question,
    is_answered: bool,
    /// Where messages have sections: how many answers have come whole, …
    #[serde(default)]
    answers: u32,
    /// … how many sections of the present one are still to end, …
    #[serde(default)]
    left: Option<u32>,
    /// … and whether what is expected was in one of them.
    #[serde(default)]
    is_expected: bool,
    /// The beginning of the last one.
    #[serde(with = "bytes_text")]
    last: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Question {
    /// Not among what is being written.
    Due,
    /// Not a byte of it is written.
    Waiting,
    /// The program may answer.
    Asked,
}

impl Rule {
    /// Compiles what a port says of it.
    pub(super) fn new(port: &Port, codec: &Codec) -> Result<Self, BadProtocol> {
        let banner = match &port.banner {
            spec::Banner::None | spec::Banner::Messages(0) => Banner::None,
            spec::Banner::Messages(count) => Banner::Messages(*count),
            spec::Banner::Until(pattern) => Banner::Until(regex("banner", pattern)?),
        };
        let ready = match &port.ready {
            spec::Ready::Started => Ready::Started,
            spec::Ready::Banner => Ready::Banner,
            spec::Ready::FirstMessage => Ready::First,
            spec::Ready::Message(pattern) => Ready::Message(regex("ready", pattern)?),
            spec::Ready::Exchange { send, expect } => {
                let frame = codec.encode(Bytes::copy_from_slice(send.as_bytes()));
                let question = frame.map_err(BadProtocol::Question)?.into();
                let answers = Answers::to(send, port, codec)?;
                Ready::Exchange { question, expect: regex("ready", expect)?, answers }
            }
        };
        let rule = Self { banner, ready };
        if codec.is_whole_output() && rule.begin().is_some() {
            return Err(BadProtocol::Greeting);
        }
        Ok(rule)
    }

    /// The greeting of a program that has just started; `None` where there is none to wait for.
    pub(super) fn begin(&self) -> Option<Box<Greeting>> {
        let banner_is_over = matches!(self.banner, Banner::None);
        let is_answered = matches!(self.ready, Ready::Started | Ready::Banner);
        (!banner_is_over || !is_answered).then(|| {
            let question = Question::Due;
            let last = Vec::new();
            Box::new(Greeting {
                heard: 0,
                banner_is_over,
                question,
                is_answered,
                answers: 0,
                left: None,
                is_expected: false,
                last,
            })
        })
    }

    /// Whether what clients send waits for the end of the greeting, which is readiness.
    pub(super) fn holds(&self) -> bool {
        !matches!(self.ready, Ready::Started)
    }
}

impl Answers {
    /// The answers to this question; `None` where one message is the answer.
    fn to(question: &str, port: &Port, codec: &Codec) -> Result<Option<Self>, BadProtocol> {
        let spec::Replies::Sections { longer, .. } = &port.replies else { return Ok(None) };
        let sections = Sections::new(longer)?;
        let requests = requests(question.as_bytes(), &sections, codec)?;
        let count = u32::try_from(requests.len()).unwrap_or(u32::MAX);
        Ok(Some(Self { sections, count }))
    }
}

/// The requests that a question in packets is: the first packet of each.
pub(crate) fn requests(
    question: &[u8],
    sections: &Sections,
    codec: &Codec,
) -> Result<Vec<Bytes>, BadProtocol> {
    let (mut left, mut firsts) = (None, Vec::new());
    let mut packet = |packet: Message| {
        if left.is_none() {
            firsts.push(packet.payload.clone());
        }
        sections.ends(&packet.payload, &mut left);
    };
    let mut decoder = Decoder::new(codec);
    let read = decoder.push(codec, question, &mut packet);
    let whole = read.and_then(|()| decoder.finish(codec));
    match (whole, left) {
        (Ok(_), None) if !firsts.is_empty() => Ok(firsts),
        _ => Err(BadProtocol::Unfinished),
    }
}

impl Greeting {
    /// The question to be written now, framed; each time it is asked for only once.
    pub(super) fn question(&mut self, rule: &Rule) -> Option<Pieces> {
        match &rule.ready {
            Ready::Exchange { question, .. }
                if self.banner_is_over && self.question == Question::Due =>
            {
                self.question = Question::Waiting;
                Some(question.clone())
            }
            _ => None,
        }
    }

    /// The first byte of the question is written.
    pub(super) fn asked(&mut self) {
        self.question = Question::Asked;
    }

    /// The program said something. Whether the greeting is over with it.
    pub(super) fn heard(&mut self, rule: &Rule, message: &[u8]) -> bool {
        self.heard += 1;
        self.last = message[..message.len().min(KEPT)].to_vec();
        let can_answer = self.banner_is_over && self.question == Question::Asked;
        self.is_answered |= match &rule.ready {
            Ready::Started | Ready::Banner | Ready::First => true,
            Ready::Message(pattern) => pattern.is_match(message),
            Ready::Exchange { expect, answers: None, .. } => can_answer && expect.is_match(message),
            Ready::Exchange { expect, answers: Some(all), .. } => {
                if can_answer {
                    self.is_expected |= expect.is_match(message);
                    self.answers += u32::from(all.sections.ends(message, &mut self.left));
                }
                self.is_expected && self.answers >= all.count
            }
        };
        self.banner_is_over |= match &rule.banner {
            Banner::None => true,
            Banner::Messages(count) => self.heard >= u64::from(*count),
            Banner::Until(pattern) => pattern.is_match(message),
        };
        self.banner_is_over && self.is_answered
    }

    /// What is waited for and what was said so far, as a sentence without its end.
    pub(super) fn words(&self, rule: &Rule) -> String {
        let due = match (&rule.banner, &rule.ready) {
            (Banner::Messages(count), _) if !self.banner_is_over => {
                format!("the {count} messages of its banner")
            }
            (Banner::Until(pattern), _) if !self.banner_is_over => {
                format!("a banner that ends with {:?}", pattern.as_str())
            }
            (_, Ready::Message(pattern)) => {
                format!("a message that matches {:?}", pattern.as_str())
            }
            (_, Ready::Exchange { expect, .. }) => {
                format!("an answer that matches {:?}", expect.as_str())
            }
            (_, Ready::Started | Ready::Banner | Ready::First) => "its first message".to_owned(),
        };
        let said = match self.heard {
            0 => "nothing".to_owned(),
            1 => format!("\"{}\"", self.last.escape_ascii()),
            many => format!("{many} messages, the last of them \"{}\"", self.last.escape_ascii()),
        };
        format!("it was not ready: {due} was waited for, and it had said {said}")
    }
}

fn regex(key: &'static str, pattern: &str) -> Result<Regex, BadProtocol> {
    Regex::new(pattern).map_err(|error| BadProtocol::Pattern {
        key,
        pattern: pattern.to_owned(),
        why: error.to_string(),
    })
}

//! The rules, in the words of `docs/PROTOCOL.md`: each is tried with a run of the program of its own.

use wharf::message::{Drain, Flags, Frame, Kind, Mode, Trace};

use super::subject::{Bench, Subject};

/// A rule for programs.
pub(crate) struct Rule {
    /// Its name in the specification.
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// What speaks against its being kept.
    pub(crate) holds: fn(&Bench) -> Result<(), String>,
}

const fn rule(
    name: &'static str,
    about: &'static str,
    holds: fn(&Bench) -> Result<(), String>,
) -> Rule {
    Rule { name, about, holds }
}

/// All of them.
pub(crate) const RULES: &[Rule] = &[
    rule("hello", "the first frame is HELLO", |bench| bench.start().map(drop)),
    rule("ready", "READY follows the manager's HELLO", |bench| bench.ready().map(drop)),
    rule("reply", "each CALL is answered once, with its id", reply),
    rule("concurrency", "as many calls as HELLO says are worked on at once", concurrency),
    rule("big-id", "an id below 2^53 comes back as it is", big_id),
    rule("empty", "a payload may be empty", |bench| with_payload(bench, 0)),
    rule("large", "a payload may be as large as max_frame, or 256 KiB", |bench| {
        with_payload(bench, 256 << 10)
    }),
    rule("split", "a frame may be cut anywhere", split),
    rule("joined", "many frames may come at once", joined),
    rule("noreply", "a CALL with NOREPLY gets no answer", noreply),
    rule("cancel", "CANCEL harms nothing", cancel),
    rule("data", "DATA gets no answer", data),
    rule("ping", "PING is answered by PONG with its id", ping),
    rule("trace", "a trace context is no part of the payload", trace),
    rule("unknown-kind", "a kind of 80 and above is ignored", unknown_kind),
    rule("unknown-flag", "a flag that is not known is ignored", unknown_flag),
    rule("unknown-key", "a key that is not known is ignored", |bench| bench.ready()?.calls()),
    rule("critical", "a critical flag that is not known is not ignored", critical),
    rule("malformed", "what is no frame is not acted upon", malformed),
    rule("oversize", "a length beyond the limit ends the program", oversize),
    rule("drain", "after DRAIN what is open is answered, and the program ends with code 0", drain),
    rule("eof", "at the end of its input as well", eof),
    rule("clean", "nothing but frames is written", clean),
];

fn reply(bench: &Bench) -> Result<(), String> {
    let mut subject = bench.ready()?;
    (0..3).try_for_each(|_| subject.calls())?;
    settled(&mut subject)
}

/// After a PING nothing comes but its PONG: there was no answer too many.
fn settled(subject: &mut Subject) -> Result<(), String> {
    subject.send(&Frame::new(Kind::Ping, 77, ""))?;
    let frame = subject.answer("PONG")?;
    if frame.kind == Kind::Pong && frame.id == 77 {
        return Ok(());
    }
    Err(format!("{} {} came, and PONG 77 is due", frame.kind, frame.id))
}

fn concurrency(bench: &Bench) -> Result<(), String> {
    let mut subject = bench.ready()?;
    if subject.hello.concurrency == 0 {
        return Ok(());
    }
    let calls: Vec<_> = (0..subject.hello.concurrency.min(64)).map(|_| subject.call()).collect();
    calls.iter().try_for_each(|call| subject.send(call))?;
    let mut open: Vec<_> = calls.iter().map(|call| call.id).collect();
    while !open.is_empty() {
        let frame = subject.answer("the answer to a call")?;
        let place = open.iter().position(|id| *id == frame.id);
        match (frame.kind, place) {
            (Kind::Reply, Some(_)) if frame.flags.has(Flags::MORE) => {}
            (Kind::Reply | Kind::Error, Some(place)) => drop(open.remove(place)),
            (kind, _) => return Err(format!("{kind} {} came, and no such call is open", frame.id)),
        }
    }
    settled(&mut subject)
}

fn big_id(bench: &Bench) -> Result<(), String> {
    let mut subject = bench.ready()?;
    let id = (1 << 53) - 1;
    let call = Frame { id, ..subject.call() };
    subject.send(&call)?;
    subject.answered(id)
}

fn with_payload(bench: &Bench, size: u64) -> Result<(), String> {
    let mut subject = bench.ready()?;
    let size = size.min(subject.hello.max_frame);
    // A JSON string, unless there is no room for its quotes; who takes no JSON takes a text.
    let text = match usize::try_from(size).map_err(|error| error.to_string())? {
        size @ 0..2 => "1".repeat(size),
        size => format!("\"{}\"", "x".repeat(size - 2)),
    };
    let call = Frame { payload: text.into(), ..subject.call() };
    subject.send(&call)?;
    subject.answered(call.id)
}

fn split(bench: &Bench) -> Result<(), String> {
    let mut subject = bench.ready()?;
    let call = subject.call();
    let bytes = subject.bytes(&call)?;
    bytes.chunks(1).try_for_each(|byte| subject.write(byte))?;
    subject.answered(call.id)
}

fn joined(bench: &Bench) -> Result<(), String> {
    let mut subject = bench.ready()?;
    let mut all = Vec::new();
    for id in 0..100 {
        all.extend(subject.bytes(&Frame::new(Kind::Ping, id, ""))?);
    }
    let call = subject.call();
    all.extend(subject.bytes(&call)?);
    subject.write(&all)?;
    let (mut pongs, mut answered) = (0, false);
    while pongs < 100 || !answered {
        let frame = subject.answer("PONG or the answer to a call")?;
        match frame.kind {
            Kind::Pong if frame.id == pongs => pongs += 1,
            Kind::Reply | Kind::Error if frame.id == call.id => {
                answered |= !frame.flags.has(Flags::MORE);
            }
            kind => return Err(format!("{kind} {} came, and PONG {pongs} is due", frame.id)),
        }
    }
    Ok(())
}

fn noreply(bench: &Bench) -> Result<(), String> {
    let mut subject = bench.ready()?;
    let silent = subject.call().with(Flags::NOREPLY);
    subject.send(&silent)?;
    subject.calls()?;
    settled(&mut subject)
}

fn cancel(bench: &Bench) -> Result<(), String> {
    let mut subject = bench.ready()?;
    subject.send(&Frame::new(Kind::Cancel, 4711, ""))?;
    let call = subject.call();
    subject.send(&call)?;
    subject.send(&Frame::new(Kind::Cancel, call.id, ""))?;
    let next = subject.call();
    subject.send(&next)?;
    loop {
        let frame = subject.answer("the answer to a call")?;
        match (frame.kind, frame.id) {
            (Kind::Reply, _) if frame.flags.has(Flags::MORE) => {}
            (Kind::Reply | Kind::Error, id) if id == next.id => return Ok(()),
            (Kind::Reply | Kind::Error, id) if id == call.id => {}
            (kind, id) => return Err(format!("{kind} {id} came, and no such call is open")),
        }
    }
}

fn data(bench: &Bench) -> Result<(), String> {
    let mut subject = bench.ready()?;
    if subject.hello.credit != Some(0) {
        let message = Frame::new(Kind::Data, 0, subject.payload.clone());
        subject.send(&message)?;
    }
    subject.calls()?;
    settled(&mut subject)
}

fn ping(bench: &Bench) -> Result<(), String> {
    let mut subject = bench.ready()?;
    for id in [1, 2, 0, (1 << 53) - 1] {
        subject.send(&Frame::new(Kind::Ping, id, ""))?;
        let frame = subject.answer("PONG")?;
        if (frame.kind, frame.id) != (Kind::Pong, id) {
            return Err(format!("{} {} came, and PONG {id} is due", frame.kind, frame.id));
        }
    }
    Ok(())
}

fn trace(bench: &Bench) -> Result<(), String> {
    let mut subject = bench.ready()?;
    let plain = subject.call();
    let traced = Frame { trace: Some(Trace::of_bytes([7; Trace::SIZE])), ..subject.call() };
    let mut answers = Vec::new();
    for call in [plain, traced] {
        subject.send(&call)?;
        let answer = subject.answer("the answer to a call")?;
        if answer.id != call.id {
            return Err(format!("{} {} came, and {} is due", answer.kind, answer.id, call.id));
        }
        if answer.flags.has(Flags::MORE) {
            subject.answered(call.id)?;
        }
        answers.push(answer.kind);
    }
    let same = answers[0] == answers[1];
    if same { Ok(()) } else { Err("a call with it is answered otherwise".to_owned()) }
}

/// A frame whose bytes no encoder would make: one byte of the header, or a key of the line, is other.
fn altered(
    subject: &Subject,
    frame: &Frame,
    at: usize,
    to: u8,
    line: &str,
) -> Result<Vec<u8>, String> {
    if subject.form.mode == Mode::Ndjson {
        return Ok(format!("{line}\n").into_bytes());
    }
    let mut bytes = subject.bytes(frame)?;
    bytes[at] = to;
    Ok(bytes)
}

/// Where kind and flags stand in the binary header.
const KIND: usize = 4;
const FLAGS: usize = 5;

fn unknown_kind(bench: &Bench) -> Result<(), String> {
    let mut subject = bench.ready()?;
    let frame = Frame::new(Kind::Data, 5, "whatever");
    let line = r#"{"k":"x-later","id":5,"t":"whatever"}"#;
    let bytes = altered(&subject, &frame, KIND, 0x80, line)?;
    subject.write(&bytes)?;
    subject.calls()?;
    settled(&mut subject)
}

fn unknown_flag(bench: &Bench) -> Result<(), String> {
    let mut subject = bench.ready()?;
    let line = r#"{"k":"ping","id":6,"later":true}"#;
    let bytes = altered(&subject, &Frame::new(Kind::Ping, 6, ""), FLAGS, 0x20, line)?;
    subject.write(&bytes)?;
    let frame = subject.answer("PONG")?;
    if (frame.kind, frame.id) == (Kind::Pong, 6) {
        return Ok(());
    }
    Err(format!("{} {} came, and PONG 6 is due", frame.kind, frame.id))
}

fn critical(bench: &Bench) -> Result<(), String> {
    let mut subject = bench.ready()?;
    let call = subject.call();
    let line = format!(r#"{{"k":"call","id":{},"later":true,"critical":true}}"#, call.id);
    let bytes = altered(&subject, &call, FLAGS, 0xa0, &line)?;
    subject.write(&bytes)?;
    refuses(subject, &call)
}

/// The program ends with a code that is not 0, and has not replied to the call.
fn refuses(mut subject: Subject, call: &Frame) -> Result<(), String> {
    let rest = subject.rest()?;
    if rest.iter().any(|frame| frame.kind == Kind::Reply && frame.id == call.id) {
        return Err("it was acted upon".to_owned());
    }
    match subject.ends()? {
        Some(0) => Err("the program ended with code 0, as if nothing were wrong".to_owned()),
        Some(_) | None => Ok(()),
    }
}

fn malformed(bench: &Bench) -> Result<(), String> {
    let mut subject = bench.ready()?;
    let call = subject.call();
    let bytes = altered(&subject, &call, KIND, 0x7f, "Listening on port 80")?;
    subject.write(&bytes)?;
    if subject.form.mode == Mode::Frame {
        return refuses(subject, &call);
    }
    // A line may be skipped.
    match subject.calls() {
        Ok(()) => Ok(()),
        Err(_) => refuses(subject, &call),
    }
}

fn oversize(bench: &Bench) -> Result<(), String> {
    let mut subject = bench.ready()?;
    let call = subject.call();
    if subject.form.mode == Mode::Ndjson {
        // How long a line may be is a matter of the reader's memory: there is nothing to announce.
        return subject.calls();
    }
    subject.write(&[0xff; 4])?;
    refuses(subject, &call)
}

fn drain(bench: &Bench) -> Result<(), String> {
    let mut subject = bench.ready()?;
    let call = subject.call();
    subject.send(&call)?;
    subject.send(&Frame::control(Kind::Drain, 0, &Drain { deadline_ms: 5000 }))?;
    leaves(subject, &call)
}

fn eof(bench: &Bench) -> Result<(), String> {
    let mut subject = bench.ready()?;
    let call = subject.call();
    subject.send(&call)?;
    subject.close();
    leaves(subject, &call)
}

/// The call is answered, then at most EXIT comes, and the program ends well.
fn leaves(mut subject: Subject, call: &Frame) -> Result<(), String> {
    subject.answered(call.id)?;
    let rest = subject.rest()?;
    let exits = rest.iter().filter(|frame| frame.kind == Kind::Exit).count();
    let last = rest.last().is_none_or(|frame| exits == 0 || frame.kind == Kind::Exit);
    if exits > 1 || !last {
        return Err("EXIT is not its last frame".to_owned());
    }
    match subject.ends()? {
        Some(0) => Ok(()),
        Some(code) => Err(format!("it ended with code {code}")),
        None => Err("it was ended by a signal".to_owned()),
    }
}

/// Everything a usual run writes is frames, to the last byte.
fn clean(bench: &Bench) -> Result<(), String> {
    let mut subject = bench.ready()?;
    (0..5).try_for_each(|_| subject.calls())?;
    subject.send(&Frame::control(Kind::Drain, 0, &Drain { deadline_ms: 5000 }))?;
    loop {
        match subject.frame("EXIT") {
            Ok(frame) if frame.kind == Kind::Exit => return subject.ends().map(drop),
            Ok(_) => {}
            // EXIT may be left out.
            Err(why) if why.starts_with("its output ended") => return Ok(()),
            Err(why) => return Err(why),
        }
    }
}

//! Lines of log files as they are printed: put together again, named, timed, harmless at a terminal,
//! or byte for byte.

use base64::Engine as _;
use jiff::tz::TimeZone;
use serde_json::json;

use super::failure::Failure;
use super::out::{self, Out};
use super::text::{harmless, instant};
use crate::name::ReplicaId;
use crate::output::{Line, Source};

/// How lines are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// One object a line.
    Json,
    /// What the programs wrote and nothing else.
    Raw,
    /// For people.
    Text {
        /// Time and stream before each line.
        timestamps: bool,
        /// Whether a terminal would obey what is printed.
        terminal: bool,
    },
}

/// Prints lines.
pub(super) struct Writer {
    out: Out,
    form: Form,
    /// Whether lines need the name of their replica.
    pub(super) many: bool,
    zone: TimeZone,
    /// Whose unfinished line was written last.
    open: Option<(ReplicaId, Source)>,
}

impl Writer {
    pub(super) fn new(form: Form, many: bool) -> Self {
        Self { out: Out::new(), form, many, zone: TimeZone::system(), open: None }
    }

    /// Prints a line, or a piece of one.
    pub(super) fn write(&mut self, id: &ReplicaId, line: &Line) -> Result<(), Failure> {
        let mut bytes = Vec::with_capacity(line.text.len() + 64);
        match self.form {
            Form::Json => return self.out.json_line(&object(id, line)),
            Form::Raw if line.source == Source::Wharf => {
                // No program said it.
                out::say(&format!("{id}: {}", harmless(&String::from_utf8_lossy(&line.text))));
            }
            Form::Raw => line.put_raw(&mut bytes),
            Form::Text { timestamps, terminal } => {
                let looks = Looks { many: self.many, timestamps, terminal };
                piece(&mut self.open, id, line, looks, &self.zone, &mut bytes);
            }
        }
        self.out.bytes(&bytes)
    }

    /// Nothing follows: a line that has not ended does so here, though not byte for byte.
    pub(super) fn end(&mut self) -> Result<(), Failure> {
        if self.open.take().is_some() { self.out.bytes(b"\n") } else { Ok(()) }
    }

    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        self.out.flush()
    }
}

#[derive(Debug, Clone, Copy)]
struct Looks {
    many: bool,
    timestamps: bool,
    terminal: bool,
}

/// Appends a line, or a piece of one; `open` is whose line is unfinished.
fn piece(
    open: &mut Option<(ReplicaId, Source)>,
    id: &ReplicaId,
    line: &Line,
    looks: Looks,
    zone: &TimeZone,
    bytes: &mut Vec<u8>,
) {
    let continues =
        open.as_ref().is_some_and(|(whose, source)| whose == id && *source == line.source);
    if open.is_some() && !continues {
        bytes.push(b'\n');
    }
    if !continues {
        if looks.timestamps {
            let at = instant(line.at, zone);
            bytes.extend_from_slice(format!("{at} {:6} ", line.source).as_bytes());
        }
        if looks.many {
            bytes.extend_from_slice(format!("{id} | ").as_bytes());
        }
        if line.source == Source::Wharf {
            bytes.extend_from_slice(b"[wharf] ");
        }
    }
    if looks.terminal {
        bytes.extend_from_slice(harmless(&String::from_utf8_lossy(&line.text)).as_bytes());
    } else {
        bytes.extend_from_slice(&line.text);
    }
    *open = line.partial.then(|| (id.clone(), line.source));
    if !line.partial {
        bytes.push(b'\n');
    }
}

/// Lines of one replica with time and stream, put together again; of a line in many pieces no more
/// than the first few.
pub(super) fn told(
    id: &ReplicaId,
    lines: &[Line],
    zone: &TimeZone,
    terminal: bool,
    pieces: usize,
) -> String {
    let mut bytes = Vec::new();
    let looks = Looks { many: false, timestamps: true, terminal };
    let (mut open, mut count) = (None, 0);
    for line in lines {
        count = if open.is_some() { count + 1 } else { 0 };
        if count < pieces || !line.partial {
            piece(&mut open, id, line, looks, zone, &mut bytes);
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A line as JSON; `partial` as in [`Line`], `noeol` only where it is true.
pub(super) fn object(id: &ReplicaId, line: &Line) -> serde_json::Value {
    let text = String::from_utf8_lossy(&line.text);
    let mut object = json!({
        "ts": line.at,
        "service": id.service,
        "replica": id.replica,
        "stream": line.source.as_str(),
        "partial": line.partial,
        "text": text,
    });
    let Some(map) = object.as_object_mut() else { return object };
    if line.noeol {
        map.insert("noeol".to_owned(), true.into());
    }
    if let std::borrow::Cow::Owned(_) = text {
        // Lossless all the same.
        let encoded = base64::engine::general_purpose::STANDARD.encode(&line.text);
        map.insert("text_base64".to_owned(), encoded.into());
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::Target;
    use crate::output::Stream;
    use crate::time::Wall;

    const PLAIN: Looks = Looks { many: false, timestamps: false, terminal: false };

    fn id(text: &str) -> ReplicaId {
        let target: Target = text.parse().unwrap();
        ReplicaId { service: target.service, replica: target.replica.unwrap() }
    }

    fn line(text: &[u8], source: Source, partial: bool) -> Line {
        Line { at: Wall(0), source, partial, noeol: false, text: text.to_vec() }
    }

    #[test]
    fn pieces_become_lines_again() {
        let (out, err) = (Source::Program(Stream::Stdout), Source::Program(Stream::Stderr));
        let said = [
            ("web/1", line(b"one", out, false)),
            ("web/1", line(b"two ", out, true)),
            ("web/1", line(b"halves", out, false)),
            ("web/1", line(b"cut", out, true)),
            ("web/2", line(b"\xff\x00", err, false)),
            ("web/1", line(b"off", out, false)),
            ("web/1", line(b"dropped 5 bytes of stdout: disk full", Source::Wharf, false)),
        ];
        let written = |looks| {
            let mut bytes = Vec::new();
            let mut open = None;
            for (name, line) in &said {
                piece(&mut open, &id(name), line, looks, &TimeZone::UTC, &mut bytes);
            }
            bytes
        };
        assert_eq!(
            written(Looks { many: true, ..PLAIN }),
            b"web/1 | one\nweb/1 | two halves\nweb/1 | cut\nweb/2 | \xff\x00\nweb/1 | off\n\
              web/1 | [wharf] dropped 5 bytes of stdout: disk full\n"
        );
        assert_eq!(
            written(PLAIN),
            b"one\ntwo halves\ncut\n\xff\x00\noff\n[wharf] dropped 5 bytes of stdout: disk full\n"
        );
        let timed =
            String::from_utf8_lossy(&written(Looks { timestamps: true, ..PLAIN })).into_owned();
        assert!(timed.starts_with("1970-01-01 00:00:00.000 stdout one\n"), "{timed}");
        assert!(timed.contains("1970-01-01 00:00:00.000 stdout two halves\n"), "{timed}");
        assert!(timed.contains("1970-01-01 00:00:00.000 stderr \u{fffd}\0\n"), "{timed}");
        assert!(timed.contains("1970-01-01 00:00:00.000 wharf  [wharf] dropped"), "{timed}");
        let terminal = written(Looks { terminal: true, ..PLAIN });
        assert!(String::from_utf8(terminal).unwrap().contains("\u{fffd}\\u{0}\n"));
    }

    #[test]
    fn json_is_lossless() {
        let out = Source::Program(Stream::Stdout);
        let text = object(&id("web/1"), &line("é".as_bytes(), out, false)).to_string();
        assert_eq!(
            text,
            r#"{"ts":"1970-01-01T00:00:00.000000000Z","service":"web","replica":1,"stream":"stdout","partial":false,"text":"é"}"#
        );
        let last = Line { noeol: true, ..line(b"\xff", out, false) };
        let text = object(&id("web/1"), &last);
        assert_eq!((&text["text"], &text["text_base64"]), (&json!("\u{fffd}"), &json!("/w==")));
        assert_eq!(text["noeol"], true);
    }
}

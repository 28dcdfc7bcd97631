//! What goes to people: the coloured `name | line` of a foreground run, and the manager's own log.
//!
//! Both are written by one thread through a bounded queue that drops what does not fit, so that a
//! terminal halted by Ctrl-S or a full disk never stops supervision. What is dropped is counted and
//! said. The terminal is never made non-blocking: that would change it for everybody.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::time::Duration;

use crate::name::ReplicaId;

/// How many pieces may wait for the terminal.
const QUEUE: usize = 256;
/// The manager's own log is rotated once beyond this, in bytes.
const OWN_LOG_MAX: u64 = 5 << 20;

#[derive(Debug)]
enum Piece {
    /// Lines of a program's output in the form of a log file.
    Output(ReplicaId, Vec<u8>),
    /// A line of the manager's own.
    Own(Vec<u8>),
    /// Everything before this is to be written out.
    Flush(Sender<()>),
}

/// The writing thread's handle.
#[derive(Debug, Clone)]
pub(super) struct Terminal {
    pieces: SyncSender<Piece>,
    lost: Arc<AtomicU64>,
    shows_output: bool,
}

/// How the terminal is to be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Style {
    /// Whether programs' output is shown (a foreground run).
    pub(super) output: bool,
    /// Whether colours are used.
    pub(super) color: bool,
    /// The width of the names' column, in characters.
    pub(super) width: usize,
}

impl Terminal {
    /// Starts the thread. The manager's own log is appended to `own_log`.
    pub(super) fn start(style: Style, own_log: &Path) -> io::Result<Self> {
        let (pieces, inbox) = sync_channel(QUEUE);
        let lost = Arc::new(AtomicU64::new(0));
        let shows_output = style.output;
        let mut writer = Writer {
            style,
            own_log: own_log.to_owned(),
            file: None,
            names: HashMap::new(),
            open: HashSet::new(),
            lost: Arc::clone(&lost),
        };
        let run = move || writer.serve(&inbox);
        std::thread::Builder::new().name("terminal".into()).spawn(run)?;
        Ok(Self { pieces, lost, shows_output })
    }

    /// Shows lines of a program's output, in the form of a log file.
    pub(super) fn output(&self, replica: &ReplicaId, lines: &[u8]) {
        if self.shows_output && !lines.is_empty() {
            self.push(Piece::Output(replica.clone(), lines.to_vec()));
        }
    }

    fn push(&self, piece: Piece) {
        if self.pieces.try_send(piece).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until everything so far is written, at most `bound`.
    pub(super) fn flush(&self, bound: Duration) {
        let (done, wait) = channel();
        self.push(Piece::Flush(done));
        let _ = wait.recv_timeout(bound);
    }
}

/// Lets `tracing` write through the same thread.
impl<'a> tracing_subscriber::fmt::MakeWriter<'a> for Terminal {
    type Writer = OwnLine;
    fn make_writer(&'a self) -> OwnLine {
        OwnLine { terminal: self.clone(), line: Vec::new() }
    }
}

/// One line of the manager's own log, sent when it is complete.
#[derive(Debug)]
pub(super) struct OwnLine {
    terminal: Terminal,
    line: Vec<u8>,
}

impl Write for OwnLine {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for OwnLine {
    fn drop(&mut self) {
        self.terminal.push(Piece::Own(std::mem::take(&mut self.line)));
    }
}

struct Writer {
    style: Style,
    own_log: PathBuf,
    file: Option<(File, u64)>,
    names: HashMap<ReplicaId, String>,
    /// Who has a line shown of which the end has not come, by stream.
    open: HashSet<(ReplicaId, Vec<u8>)>,
    lost: Arc<AtomicU64>,
}

/// Colours that are readable on dark and light ground: cyan, yellow, green, magenta, blue, and
/// their bright forms.
const COLORS: [u8; 10] = [36, 33, 32, 35, 34, 96, 93, 92, 95, 94];

impl Writer {
    fn serve(&mut self, inbox: &Receiver<Piece>) {
        while let Ok(piece) = inbox.recv() {
            let lost = self.lost.swap(0, Ordering::Relaxed);
            if lost > 0 {
                self.own(
                    format!("({lost} pieces of output not shown: the terminal is too slow)\n")
                        .as_bytes(),
                );
            }
            match piece {
                Piece::Output(replica, lines) => {
                    let shown = self.show(&replica, &lines);
                    let _ = io::stdout().write_all(&shown);
                }
                Piece::Own(line) => self.own(&line),
                Piece::Flush(done) => {
                    let _ = io::stdout().flush();
                    let _ = done.send(());
                }
            }
        }
    }

    /// The manager's own lines go to its log, and to standard error in the foreground.
    fn own(&mut self, line: &[u8]) {
        if self.style.output {
            let _ = io::stderr().write_all(line);
        }
        if self.file.as_ref().is_none_or(|(_, size)| *size > OWN_LOG_MAX) {
            if self.file.is_some() {
                let _ = std::fs::rename(&self.own_log, self.own_log.with_extension("log.1"));
            }
            let file = File::options().append(true).create(true).open(&self.own_log);
            self.file = file.ok().map(|file| {
                let size = file.metadata().map_or(0, |data| data.len());
                (file, size)
            });
        }
        let line = &if self.style.color { plain(line) } else { line.to_vec() };
        if let Some((file, size)) = &mut self.file {
            let _ = file.write_all(line);
            *size += line.len() as u64;
        }
    }

    /// Turns lines of a log file into `name | text`.
    fn show(&mut self, replica: &ReplicaId, lines: &[u8]) -> Vec<u8> {
        let count = self.names.len();
        let style = &self.style;
        let name = self.names.entry(replica.clone()).or_insert_with(|| {
            let label = if replica.replica == 1 {
                replica.service.to_string()
            } else {
                replica.to_string()
            };
            let width = style.width;
            if style.color {
                let color = COLORS[count % COLORS.len()];
                format!("\x1b[{color}m{label:width$} |\x1b[0m ")
            } else {
                format!("{label:width$} | ")
            }
        });
        let mut shown = Vec::with_capacity(lines.len());
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            // Time, stream and completeness are the first three words.
            let mut words = line.splitn(4, |byte| *byte == b' ').skip(1);
            let stream = words.next().unwrap_or_default();
            let partial = words.next().is_some_and(|tag| tag.starts_with(b"P"));
            let text = words.next().unwrap_or(b"\n");
            let goes_on = if partial {
                !self.open.insert((replica.clone(), stream.to_vec()))
            } else {
                !self.open.is_empty() && self.open.remove(&(replica.clone(), stream.to_vec()))
            };
            // The mere end of what is shown already, such as a prompt, is not worth a line.
            if goes_on && text == b"\n" {
                continue;
            }
            shown.extend_from_slice(name.as_bytes());
            shown.extend_from_slice(text);
        }
        shown
    }
}

/// A line without its colours (`ESC [ … m`): they are for the terminal, not for the file.
fn plain(line: &[u8]) -> Vec<u8> {
    let mut rest = line;
    let mut plain = Vec::with_capacity(line.len());
    while let Some(at) = rest.windows(2).position(|pair| pair == b"\x1b[") {
        plain.extend_from_slice(&rest[..at]);
        let end = rest[at..].iter().position(|byte| *byte == b'm');
        rest = end.map_or(&[], |end| &rest[at + end + 1..]);
    }
    plain.extend_from_slice(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_gets_no_colours() {
        let line = b"\x1b[2m12:00\x1b[0m \x1b[32m INFO\x1b[0m up \x1b[3mby\x1b[0m=x\n";
        assert_eq!(plain(line), b"12:00  INFO up by=x\n");
        assert_eq!(plain(b"plain\n"), b"plain\n");
    }

    #[test]
    fn lines_are_shown_with_their_names() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = Writer {
            style: Style { output: true, color: false, width: 5 },
            own_log: folder.path().join("wharf.log"),
            file: None,
            names: HashMap::new(),
            open: HashSet::new(),
            lost: Arc::default(),
        };
        let replica = |text: &str| {
            let target: crate::name::Target = text.parse().unwrap();
            ReplicaId { service: target.service, replica: target.replica.unwrap_or(1) }
        };
        let lines = b"1970-01-01T00:00:00.000000000Z stdout F hello you\n1970-01-01T00:00:00.000000000Z stderr F \n";
        let shown = writer.show(&replica("db"), lines);
        assert_eq!(String::from_utf8_lossy(&shown), "db    | hello you\ndb    | \n");
        let shown = writer.show(&replica("web/2"), b"1970-01-01T00:00:00.000000000Z stdout P x\n");
        assert_eq!(String::from_utf8_lossy(&shown), "web/2 | x\n");
        // The end of a prompt says nothing new; that of another stream is its own.
        let lines = b"1970-01-01T00:00:00.000000000Z stderr F \n1970-01-01T00:00:00.000000000Z stdout F \n1970-01-01T00:00:00.000000000Z stdout F \n";
        let shown = writer.show(&replica("web/2"), lines);
        assert_eq!(String::from_utf8_lossy(&shown), "web/2 | \nweb/2 | \n");
    }
}

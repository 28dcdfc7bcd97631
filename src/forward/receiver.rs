//! One receiver of datagrams: found again when it was restarted, waited for briefly, and passed by
//! while it is away.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::tz::TimeZone;

use super::{Forwarded, journald, syslog};
use crate::os::{clock, socket};
use crate::time::Tick;

/// How long a receiver that is there may take to make room.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often a receiver that is away is tried.
const RETRY: Duration = Duration::from_millis(200);

/// A socket of journald or of a syslog daemon.
#[derive(Debug)]
pub struct Receiver {
    path: PathBuf,
    form: Form,
    /// The zone of this machine when it was first asked for.
    zone: TimeZone,
    socket: Option<UnixDatagram>,
    away: Option<Away>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Journald,
    Syslog,
}

/// A receiver that does not take anything.
#[derive(Debug)]
struct Away {
    /// Not tried before this.
    again: Tick,
    /// What was dropped since.
    dropped: u64,
}

/// What became of a message.
#[derive(Debug)]
pub enum Sent {
    /// It was taken, or there was nothing to say.
    Taken,
    /// It was taken, the first after so many had been dropped.
    Back(u64),
    /// It was dropped, the first since the receiver last took one; and why.
    Lost(io::Error),
    /// It was dropped like those before it.
    LostToo,
}

impl Receiver {
    /// The journald that listens at `path`. Nothing is opened before something is sent.
    pub fn journald(path: &Path) -> Self {
        Self::new(path, Form::Journald)
    }

    /// The syslog daemon that listens at `path`.
    pub fn syslog(path: &Path) -> Self {
        Self::new(path, Form::Syslog)
    }

    fn new(path: &Path, form: Form) -> Self {
        let (path, zone) = (path.to_owned(), TimeZone::system());
        Self { path, form, zone, socket: None, away: None }
    }

    /// Sends one message. It takes a second at most, once; while the receiver is away next to nothing.
    pub fn send(&mut self, forwarded: &Forwarded<'_>) -> Sent {
        if forwarded.is_empty() {
            return Sent::Taken;
        }
        if let Some(away) = &mut self.away
            && clock::now() < away.again
        {
            away.dropped += 1;
            return Sent::LostToo;
        }
        let datagram = match self.form {
            Form::Journald => journald::entry(forwarded),
            Form::Syslog => syslog::message(forwarded, &self.zone),
        };
        match (self.deliver(&datagram), &mut self.away) {
            (Ok(()), away) => away.take().map_or(Sent::Taken, |away| Sent::Back(away.dropped)),
            (Err(_), Some(away)) => {
                away.dropped += 1;
                away.again = clock::now() + RETRY;
                Sent::LostToo
            }
            (Err(error), none) => {
                *none = Some(Away { again: clock::now() + RETRY, dropped: 1 });
                Sent::Lost(error)
            }
        }
    }

    fn deliver(&mut self, datagram: &[u8]) -> io::Result<()> {
        // One that is away is not waited for a second time.
        let patient = self.away.is_none();
        if let Some(socket) = &self.socket {
            socket.set_nonblocking(!patient)?;
            match socket.send(datagram) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
                // It was restarted: another socket has its name.
                Err(_) => self.socket = None,
            }
        }
        let socket = socket::connect_datagram(&self.path)?;
        socket.set_write_timeout(Some(PATIENCE))?;
        socket.set_nonblocking(!patient)?;
        socket.send(datagram)?;
        self.socket = Some(socket);
        Ok(())
    }
}

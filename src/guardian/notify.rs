//! What the service manager above wharf is told, as sd_notify(3) has it: that wharf is ready, reloads,
//! stops, lives, and how its services are.
//!
//! The guardian alone speaks, because it is the one process that stays the same over deaths of the
//! manager and over upgrades; so `NotifyAccess=main` is enough. It never waits: what finds no room is
//! said again a moment later, and the newest status replaces one that was not said. What to say is
//! decided by [`Stage`], from what the manager tells.

use std::collections::VecDeque;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use crate::os::clock;
use crate::time::Tick;

/// What is known of who wants to be told, from the environment.
#[derive(Debug, Clone)]
pub struct NotifyAt {
    address: SocketAddr,
    /// How often a sign of life is expected at the latest.
    watchdog: Option<Duration>,
}

/// The variables that a service manager sets for the process that it starts and for no other.
pub const VARIABLES: [&str; 8] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LISTEN_PID",
    "LISTEN_PIDFDID",
    "FDSTORE",
];

/// What happened that a service manager may want to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    /// A manager serves its socket.
    Serving,
    /// It has begun to read its configuration anew.
    Reloading,
    /// It is done with that, whatever came of it.
    Reloaded,
    /// Everything is to end.
    Stopping,
}

/// What a service manager believes of us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Stage {
    #[default]
    Starting,
    Ready,
    Reloading,
    Stopping,
}

/// A word for a service manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Ready,
    Reloading,
    Stopping,
}

impl Stage {
    /// What follows from the news, and what is to be said of it. A manager that was killed in the
    /// middle of a reload has a successor that works by the configuration in effect: that is its end.
    fn hear(self, news: News) -> (Self, Option<Word>) {
        match (self, news) {
            (Self::Starting | Self::Reloading, News::Serving)
            | (Self::Reloading, News::Reloaded) => (Self::Ready, Some(Word::Ready)),
            (Self::Ready, News::Reloading) => (Self::Reloading, Some(Word::Reloading)),
            (Self::Starting | Self::Ready | Self::Reloading, News::Stopping) => {
                (Self::Stopping, Some(Word::Stopping))
            }
            // It knows already, or has not been told of anything that could change.
            (Self::Ready, News::Serving | News::Reloaded)
            | (Self::Starting, News::Reloading | News::Reloaded)
            | (Self::Reloading, News::Reloading)
            | (Self::Stopping, News::Serving | News::Reloading | News::Reloaded | News::Stopping) => {
                (self, None)
            }
        }
    }
}

impl Word {
    fn text(self, now: Tick) -> String {
        match self {
            Self::Ready => "READY=1".to_owned(),
            // With the time, as Type=notify-reload wants it.
            Self::Reloading => format!("RELOADING=1\nMONOTONIC_USEC={}", now.0 / 1_000),
            Self::Stopping => "STOPPING=1".to_owned(),
        }
    }
}

/// Why nobody can be told.
#[derive(Debug, thiserror::Error)]
pub enum NotifyError {
    /// The address is none.
    #[error("use NOTIFY_SOCKET={0}: it is neither an absolute path nor an abstract name (@…)")]
    Address(String),
    /// The address cannot be one of a Unix socket.
    #[error("use NOTIFY_SOCKET={address}")]
    Unusable {
        /// What stands there.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl NotifyAt {
    /// Who wants to be told of the process `pid`; `None` where nobody does.
    pub fn of(
        variable: impl Fn(&str) -> Option<String>,
        pid: i32,
    ) -> Result<Option<Self>, NotifyError> {
        let Some(name) = variable("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Ok(None);
        };
        let unusable = |source| NotifyError::Unusable { address: name.clone(), source };
        let address = match name.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name).map_err(unusable)?,
            None if name.starts_with('/') => SocketAddr::from_pathname(&name).map_err(unusable)?,
            None => return Err(NotifyError::Address(name)),
        };
        Ok(Some(Self { address, watchdog: watchdog(variable, pid) }))
    }

    /// Says something once and waits for room, at most `limit`. For who is about to go.
    pub fn say(&self, text: &str, limit: Duration) -> io::Result<()> {
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(limit))?;
        socket.send_to_addr(text.as_bytes(), &self.address).map(drop)
    }

    /// How often signs of life are expected.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }
}

/// How often signs of life are expected of the process `pid` (sd_watchdog_enabled(3)).
fn watchdog(variable: impl Fn(&str) -> Option<String>, pid: i32) -> Option<Duration> {
    let is_ours = variable("WATCHDOG_PID").is_none_or(|text| text == pid.to_string());
    let usec = variable("WATCHDOG_USEC").filter(|_| is_ours)?;
    match usec.parse() {
        Ok(usec) if usec > 0 => Some(Duration::from_micros(usec)),
        _ => {
            tracing::warn!(usec, "WATCHDOG_USEC is no length of time; no signs of life are given");
            None
        }
    }
}

/// How soon what found no room is said again.
const AGAIN: Duration = Duration::from_millis(50);
/// How many words may wait for room. They are few: one for each reload.
const UNSAID: usize = 32;
/// For how long the guardian itself vouches for a manager that has not come to serve.
const SETTLING: Duration = Duration::from_secs(60);
/// How much of a status is passed on, in bytes.
const LONGEST_STATUS: usize = 400;

/// Speaks to the service manager above, if there is one.
#[derive(Debug, Default)]
pub(super) struct Notifier {
    to: Option<To>,
    stage: Stage,
    /// Words that found no room, in order.
    unsaid: VecDeque<String>,
    /// A status that was not said yet.
    status: Option<String>,
    again: Option<Tick>,
}

#[derive(Debug)]
struct To {
    socket: UnixDatagram,
    address: SocketAddr,
    pulse: Option<Pulse>,
    /// Whether it has been said that nobody hears.
    complained: bool,
}

/// Signs of life.
#[derive(Debug)]
struct Pulse {
    /// Half of what is expected.
    every: Duration,
    next: Tick,
    /// Whether the present manager was asked and has not answered.
    asked: bool,
    /// Until when the guardian vouches for a manager that does not serve yet.
    settling: Tick,
}

impl Notifier {
    pub(super) fn new(at: Option<&NotifyAt>) -> io::Result<Self> {
        let Some(at) = at else { return Ok(Self::default()) };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        let now = clock::now();
        let pulse = at.watchdog.map(|length| {
            let every = length / 2;
            Pulse { every, next: now, asked: false, settling: now + SETTLING }
        });
        let to = To { socket, address: at.address.clone(), pulse, complained: false };
        Ok(Self { to: Some(to), ..Self::default() })
    }

    /// Tells what happened.
    pub(super) fn hear(&mut self, news: News, now: Tick) {
        if self.to.is_none() {
            return;
        }
        let (stage, word) = self.stage.hear(news);
        self.stage = stage;
        if let Some(word) = word.filter(|_| self.unsaid.len() < UNSAID) {
            self.unsaid.push_back(word.text(now));
        }
        self.flush(now);
    }

    /// Tells how things are, in a line.
    pub(super) fn status(&mut self, text: &str, now: Tick) {
        if self.to.is_some() {
            let mut text: String = text.chars().filter(|c| !c.is_control()).collect();
            let mut end = text.len().min(LONGEST_STATUS);
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            text.truncate(end);
            self.status = Some(format!("STATUS={text}"));
            self.flush(now);
        }
    }

    /// The manager's loop has shown that it turns.
    pub(super) fn alive(&mut self, now: Tick) {
        if let Some(pulse) = self.pulse() {
            pulse.asked = false;
            self.beat();
        }
        self.flush(now);
    }

    /// Another manager was started: it knows of no question. What the one before it took along without
    /// an answer is answered for it, or the time until the next one would be too long.
    pub(super) fn begin(&mut self, now: Tick) {
        if let Some(pulse) = self.pulse() {
            pulse.settling = now + SETTLING;
            if std::mem::take(&mut pulse.asked) {
                self.beat();
            }
        }
    }

    /// Does what is due. True where the manager is to be asked for a sign of life; `serves` says whether
    /// there is one that could answer.
    pub(super) fn tick(&mut self, now: Tick, serves: bool) -> bool {
        if self.again.is_some_and(|at| at <= now) {
            self.flush(now);
        }
        let Some(pulse) = self.pulse().filter(|pulse| pulse.next <= now) else { return false };
        pulse.next = now + pulse.every;
        if serves {
            return !std::mem::replace(&mut pulse.asked, true);
        }
        if now < pulse.settling {
            self.beat();
        }
        false
    }

    /// When something is due.
    pub(super) fn due(&self) -> Option<Tick> {
        let pulse = self.to.as_ref().and_then(|to| to.pulse.as_ref());
        pulse.map(|pulse| pulse.next).into_iter().chain(self.again).min()
    }

    fn pulse(&mut self) -> Option<&mut Pulse> {
        self.to.as_mut()?.pulse.as_mut()
    }

    /// Gives a sign of life. One that finds no room is not said later: the next one is.
    fn beat(&mut self) {
        if let Some(to) = &mut self.to {
            let _ = to.say("WATCHDOG=1");
        }
    }

    /// Says what has not been said, as far as there is room.
    fn flush(&mut self, now: Tick) {
        self.again = None;
        let Some(to) = &mut self.to else { return };
        while let Some(text) = self.unsaid.front() {
            if !to.say(text) {
                self.again = Some(now + AGAIN);
                return;
            }
            self.unsaid.pop_front();
        }
        if let Some(text) = &self.status {
            if to.say(text) {
                self.status = None;
            } else {
                self.again = Some(now + AGAIN);
            }
        }
    }
}

impl To {
    /// Says something; false where there is no room now. Nobody to hear it is told once, and is no
    /// reason to say it again.
    fn say(&mut self, text: &str) -> bool {
        match self.socket.send_to_addr(text.as_bytes(), &self.address) {
            Ok(_) => true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(error) => {
                if !std::mem::replace(&mut self.complained, true) {
                    tracing::warn!(%error, "the service manager cannot be told how wharf is");
                }
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(all: &'static [(&str, &str)]) -> impl Fn(&str) -> Option<String> {
        move |name| all.iter().find(|(one, _)| *one == name).map(|(_, value)| (*value).to_owned())
    }

    #[test]
    fn a_service_manager_is_told_what_changes_and_nothing_twice() {
        use News::{Reloaded, Reloading, Serving, Stopping};
        for (news, expected) in [
            (&[Serving][..], "Ready"),
            (&[Serving, Serving], "Ready"),
            (&[Reloading, Reloaded, Serving], "Ready"),
            (&[Serving, Reloading, Reloading, Reloaded, Reloaded], "Ready Reloading Ready"),
            // The manager was killed in the middle of a reload.
            (&[Serving, Reloading, Serving, Reloaded], "Ready Reloading Ready"),
            (&[Serving, Stopping, Stopping, Serving, Reloading], "Ready Stopping"),
            (&[Stopping, Serving], "Stopping"),
            (&[Serving, Reloading, Stopping, Reloaded], "Ready Reloading Stopping"),
        ] {
            let mut stage = Stage::default();
            let mut said = Vec::new();
            for one in news {
                let (next, word) = stage.hear(*one);
                stage = next;
                said.extend(word.map(|word| format!("{word:?}")));
            }
            assert_eq!(said.join(" "), expected, "{news:?}");
        }
        assert_eq!(Word::Reloading.text(Tick(5_000_999)), "RELOADING=1\nMONOTONIC_USEC=5000");
    }

    #[test]
    fn who_wants_to_be_told_stands_in_the_environment() {
        assert!(NotifyAt::of(variables(&[]), 7).unwrap().is_none());
        assert!(NotifyAt::of(variables(&[("NOTIFY_SOCKET", "")]), 7).unwrap().is_none());
        for unusable in ["run/notify", "vsock:2:1234"] {
            let said = NotifyAt::of(|name| (name == "NOTIFY_SOCKET").then(|| unusable.into()), 7);
            assert!(said.unwrap_err().to_string().contains(unusable));
        }
        let long = format!("/{}", "x".repeat(200));
        assert!(NotifyAt::of(|name| (name == "NOTIFY_SOCKET").then(|| long.clone()), 7).is_err());
        for (all, expected) in [
            (&[("NOTIFY_SOCKET", "@x")][..], None),
            (&[("NOTIFY_SOCKET", "/x"), ("WATCHDOG_USEC", "3000000")], Some(3)),
            (
                &[("NOTIFY_SOCKET", "/x"), ("WATCHDOG_USEC", "3000000"), ("WATCHDOG_PID", "7")],
                Some(3),
            ),
            (&[("NOTIFY_SOCKET", "/x"), ("WATCHDOG_USEC", "3000000"), ("WATCHDOG_PID", "8")], None),
            (&[("NOTIFY_SOCKET", "/x"), ("WATCHDOG_USEC", "0")], None),
            (&[("NOTIFY_SOCKET", "/x"), ("WATCHDOG_USEC", "soon")], None),
        ] {
            let at = NotifyAt::of(variables(all), 7).unwrap().unwrap();
            assert_eq!(at.watchdog(), expected.map(Duration::from_secs), "{all:?}");
        }
    }

    #[test]
    fn what_finds_no_room_is_said_later_and_the_newest_status_wins() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let heard = UnixDatagram::bind(&path).unwrap();
        heard.set_nonblocking(true).unwrap();
        let at = NotifyAt { address: SocketAddr::from_pathname(&path).unwrap(), watchdog: None };
        // Its queue is full of somebody else's words.
        let other = UnixDatagram::unbound().unwrap();
        other.set_nonblocking(true).unwrap();
        let mut noise = 0;
        while other.send_to(b"noise", &path).is_ok() {
            noise += 1;
        }
        let now = clock::now();
        let mut notifier = Notifier::new(Some(&at)).unwrap();
        notifier.hear(News::Serving, now);
        notifier.status("1 of 2 running", now);
        notifier.status("2 of 2 running\n", now);
        let due = notifier.due().expect("it is said again");
        let mut buffer = [0; 100];
        let mut next = || {
            let length = heard.recv(&mut buffer).ok()?;
            Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
        };
        for _ in 0..noise {
            assert_eq!(next().as_deref(), Some("noise"));
        }
        assert_eq!(next(), None);
        assert!(!notifier.tick(due, true), "there is no watchdog");
        assert_eq!(next().as_deref(), Some("READY=1"));
        assert_eq!(next().as_deref(), Some("STATUS=2 of 2 running"));
        assert_eq!(next(), None);
        assert_eq!(notifier.due(), None);
    }

    #[test]
    fn a_sign_of_life_is_given_only_for_who_shows_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let heard = UnixDatagram::bind(&path).unwrap();
        heard.set_nonblocking(true).unwrap();
        let address = SocketAddr::from_pathname(&path).unwrap();
        let at = NotifyAt { address, watchdog: Some(Duration::from_secs(10)) };
        let mut notifier = Notifier::new(Some(&at)).unwrap();
        let beats = || std::iter::from_fn(|| heard.recv(&mut [0; 100]).ok()).count();
        let mut now = clock::now();
        let mut tick = |notifier: &mut Notifier, serves| {
            now = now + Duration::from_secs(5);
            (notifier.tick(now, serves), now)
        };
        // A manager that is on its way is vouched for, and not for ever.
        assert!(!tick(&mut notifier, false).0);
        assert_eq!(beats(), 1);
        for _ in 0..20 {
            tick(&mut notifier, false);
        }
        let before = beats();
        assert!((10..=12).contains(&before), "{before}");
        // One that serves has to answer, and is asked once.
        let (asked, at) = tick(&mut notifier, true);
        assert!(asked);
        assert!(!tick(&mut notifier, true).0);
        assert_eq!(beats(), 0);
        notifier.alive(at);
        assert_eq!(beats(), 1);
        assert!(tick(&mut notifier, true).0);
        // It died without an answer: the next one is vouched for again, and knows of no question.
        notifier.begin(at);
        assert_eq!(beats(), 1);
        notifier.begin(at);
        assert_eq!(beats(), 0);
        tick(&mut notifier, false);
        assert_eq!(beats(), 1);
        assert!(tick(&mut notifier, true).0);
    }
}

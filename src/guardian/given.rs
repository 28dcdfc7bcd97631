//! Sockets that were opened for wharf before it was started, as sd_listen_fds(3) has it: the control
//! socket, and the one at which metrics are scraped.
//!
//! The guardian holds them for its whole life and gives each manager a copy, so that whoever connects
//! waits in the queue while there is no manager. What cannot be what it is called is refused; nothing
//! that was handed over is ever closed or removed for want of a use.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use crate::os::fds;
use crate::os::listen::{self, Described};

/// The number of the first descriptor that is handed over (`SD_LISTEN_FDS_START`).
const FIRST: RawFd = 3;

/// What a socket that was handed over is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The control socket.
    Control,
    /// Where metrics are scraped.
    Metrics,
}

impl Role {
    const ALL: [Self; 2] = [Self::Control, Self::Metrics];

    /// Its name among `LISTEN_FDNAMES`, and between guardian and manager.
    pub fn name(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Metrics => "metrics",
        }
    }

    /// What has such a name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }

    /// What such a socket must be.
    fn needed(self) -> &'static str {
        match self {
            Self::Control => "a Unix stream socket with a path, at which somebody can connect",
            Self::Metrics => "a TCP socket, at which somebody can connect",
        }
    }

    fn fits(self, is: &Described) -> bool {
        match (self, is) {
            (Self::Control, Described::Unix { path }) => path.is_absolute(),
            (Self::Metrics, Described::Tcp(_)) => true,
            (Self::Control, Described::Tcp(_) | Described::Other(_))
            | (Self::Metrics, Described::Unix { .. } | Described::Other(_)) => false,
        }
    }
}

/// Why what was handed over cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum GivenError {
    /// `LISTEN_FDS` is no number of descriptors.
    #[error(
        "use the sockets that were handed over: LISTEN_FDS is {0:?}, which is no number of them"
    )]
    Count(String),
    /// There are more or fewer names than descriptors.
    #[error(
        "use the sockets that were handed over: LISTEN_FDS says {count}, and LISTEN_FDNAMES names \
         {names}"
    )]
    Names {
        /// How many descriptors there are.
        count: usize,
        /// How many names.
        names: usize,
    },
    /// There are several and none has a name.
    #[error(
        "use the sockets that were handed over: there are {0} of them and LISTEN_FDNAMES does not \
         say which is what (control, metrics)"
    )]
    Nameless(usize),
    /// Nothing here has that name.
    #[error(
        "use the socket that was handed over as {0:?}: the names are control and metrics \
         (FileDescriptorName= in systemd's unit)"
    )]
    Unknown(String),
    /// Two have the same name.
    #[error("use two sockets that were handed over as {0:?}: one is enough")]
    Twice(&'static str),
    /// It is not what it is called.
    #[error("use descriptor {number} as {name}: it is {is}, and has to be {needed}")]
    Kind {
        /// Its number.
        number: RawFd,
        /// What it was called.
        name: &'static str,
        /// What it is.
        is: String,
        /// What it has to be.
        needed: &'static str,
    },
    /// It cannot be looked at.
    #[error("use descriptor {number}, which was handed over as {name}")]
    Lost {
        /// Its number.
        number: RawFd,
        /// What it was called.
        name: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The sockets that were handed over, in the order of their roles.
#[derive(Debug, Default)]
pub struct Given {
    sockets: Vec<(Role, OwnedFd)>,
}

impl Given {
    /// Takes over what the environment says was handed over to the process `pid`: nothing where it was
    /// meant for another. To be called once, before anything else opens descriptors.
    pub fn take(variable: impl Fn(&str) -> Option<String>, pid: i32) -> Result<Self, GivenError> {
        let is_ours = variable("LISTEN_PID").is_some_and(|text| text == pid.to_string());
        let Some(count) = variable("LISTEN_FDS").filter(|_| is_ours) else {
            return Ok(Self::default());
        };
        Self::inherit(&roles(&count, variable("LISTEN_FDNAMES").as_deref())?, FIRST)
    }

    /// Takes over descriptors that stand one after the other from `first` on.
    pub fn inherit(roles: &[Role], first: RawFd) -> Result<Self, GivenError> {
        let mut sockets = Vec::new();
        for (role, number) in roles.iter().copied().zip(first..) {
            let name = role.name();
            let lost = |source| GivenError::Lost { number, name, source };
            let fd = fds::inherited(number).map_err(lost)?;
            let is = listen::described(fd.as_fd()).map_err(lost)?;
            if !role.fits(&is) {
                let (is, needed) = (is.to_string(), role.needed());
                return Err(GivenError::Kind { number, name, is, needed });
            }
            sockets.push((role, fd));
        }
        sockets.sort_by_key(|(role, _)| *role);
        Ok(Self { sockets })
    }

    /// Their names, in the order of [`Given::places`], for a word of a command line; `None` where
    /// there is nothing.
    pub fn word(&self) -> Option<String> {
        let names: Vec<_> = self.sockets.iter().map(|(role, _)| role.name()).collect();
        (!names.is_empty()).then(|| names.join(","))
    }

    /// Each with the number that it is to have in another process, from `first` on.
    pub fn places(&self, first: RawFd) -> impl Iterator<Item = (BorrowedFd<'_>, RawFd)> {
        self.sockets.iter().map(|(_, fd)| fd.as_fd()).zip(first..)
    }

    /// Their numbers in this process.
    pub fn numbers(&self) -> impl Iterator<Item = RawFd> {
        self.sockets.iter().map(|(_, fd)| fd.as_raw_fd())
    }

    /// Takes the one that is for something.
    pub fn remove(&mut self, role: Role) -> Option<OwnedFd> {
        let at = self.sockets.iter().position(|(one, _)| *one == role)?;
        Some(self.sockets.remove(at).1)
    }
}

/// What each of the descriptors is for. A single one without a name is the control socket.
fn roles(count: &str, names: Option<&str>) -> Result<Vec<Role>, GivenError> {
    let number: Option<usize> = count.parse().ok().filter(|count| *count <= fds::MAX_FDS);
    let count = number.ok_or_else(|| GivenError::Count(count.to_owned()))?;
    let names = match names.filter(|names| !names.is_empty()) {
        None if count <= 1 => vec![Role::Control.name(); count],
        None => return Err(GivenError::Nameless(count)),
        Some(names) => names.split(':').collect(),
    };
    if names.len() != count {
        return Err(GivenError::Names { count, names: names.len() });
    }
    let mut roles = Vec::new();
    for name in names {
        let role = Role::of(name).ok_or_else(|| GivenError::Unknown(name.to_owned()))?;
        if roles.contains(&role) {
            return Err(GivenError::Twice(role.name()));
        }
        roles.push(role);
    }
    Ok(roles)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_handed_over_is_known_by_its_name() {
        let check = |count: &str, names: Option<&str>| {
            roles(count, names)
                .map(|roles| roles.iter().map(|role| role.name()).collect::<Vec<_>>().join(" "))
                .map_err(|error| error.to_string())
        };
        for (count, names, expected) in [
            ("1", None, Ok("control")),
            ("1", Some(""), Ok("control")),
            ("0", None, Ok("")),
            ("1", Some("metrics"), Ok("metrics")),
            ("2", Some("metrics:control"), Ok("metrics control")),
            ("2", None, Err("there are 2 of them")),
            ("2", Some("control"), Err("LISTEN_FDS says 2, and LISTEN_FDNAMES names 1")),
            ("1", Some("wharf.socket"), Err("\"wharf.socket\": the names are control and metrics")),
            ("2", Some("control:control"), Err("one is enough")),
            ("-1", None, Err("LISTEN_FDS is \"-1\"")),
            ("many", None, Err("LISTEN_FDS is \"many\"")),
            ("100000", None, Err("LISTEN_FDS is \"100000\"")),
        ] {
            match (check(count, names), expected) {
                (Ok(roles), Ok(expected)) => assert_eq!(roles, expected),
                (Err(said), Err(expected)) => assert!(said.contains(expected), "{said}"),
                (said, expected) => panic!("{count} {names:?}: {said:?}, not {expected:?}"),
            }
        }
    }

    #[test]
    fn what_was_meant_for_another_process_is_left_alone() {
        let told = |name: &str| match name {
            "LISTEN_FDS" => Some("7".to_owned()),
            "LISTEN_PID" => Some("4711".to_owned()),
            _ => None,
        };
        assert_eq!(Given::take(told, 4712).unwrap().word(), None);
        assert!(Given::take(told, 4711).is_err());
    }
}

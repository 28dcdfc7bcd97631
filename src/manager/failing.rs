//! Which logs cannot be written, so that the trouble of one is told once and not taken back because
//! another one is written. It counts nothing and writes nothing.

use std::collections::BTreeMap;
use std::io::ErrorKind;

use super::disk::{Done, chain};
use crate::name::ReplicaId;
use crate::output::WriteError;

/// The logs that could not be written when that was last tried.
#[derive(Debug, Default)]
pub(super) struct Failing {
    logs: BTreeMap<ReplicaId, Why>,
    /// The one that was told of.
    told: Option<ReplicaId>,
}

#[derive(Debug)]
struct Why {
    text: String,
    /// For want of room, which is over for all as soon as one can be written.
    room: bool,
}

impl Failing {
    /// The log of a replica cannot be written; the first one is news.
    pub(super) fn failed(&mut self, replica: &ReplicaId, error: &WriteError) -> Option<Done> {
        let room = matches!(error.source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
        let text = chain(error);
        self.logs.insert(replica.clone(), Why { text, room });
        self.news()
    }

    /// The log of a replica is written, or not needed any more.
    pub(super) fn well(&mut self, replica: &ReplicaId) -> Option<Done> {
        if self.logs.is_empty() {
            return None;
        }
        self.logs.retain(|failing, why| failing != replica && !why.room);
        self.news()
    }

    /// What to tell, where what was told is not so any more.
    fn news(&mut self) -> Option<Done> {
        if self.told.as_ref().is_some_and(|told| self.logs.contains_key(told)) {
            return None;
        }
        let before = self.told.take();
        match self.logs.first_key_value() {
            Some((replica, why)) => {
                self.told = Some(replica.clone());
                Some(Done::Failing(why.text.clone()))
            }
            None => before.map(|_| Done::Recovered),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_trouble_is_told_until_all_are_over() {
        let id = |name: &str| ReplicaId { service: name.parse().unwrap(), replica: 1 };
        let error = |name: &str, errno| WriteError {
            written: 0,
            path: name.into(),
            source: std::io::Error::from_raw_os_error(errno),
        };
        let mut failing = Failing::default();
        let mut told = Vec::new();
        let steps: [(&str, Option<i32>); 10] = [
            ("a", None),
            ("a", Some(libc::EISDIR)),
            ("b", None),
            ("a", Some(libc::EISDIR)),
            ("b", Some(libc::ENOSPC)),
            ("a", None),
            ("b", Some(libc::ENOSPC)),
            ("c", Some(libc::ENOSPC)),
            ("d", None),
            ("a", None),
        ];
        for (name, errno) in steps {
            let news = match errno {
                Some(errno) => failing.failed(&id(name), &error(name, errno)),
                None => failing.well(&id(name)),
            };
            told.push(match news {
                Some(Done::Failing(text)) => text[..11].to_owned(),
                Some(Done::Recovered) => "well".to_owned(),
                _ => String::new(),
            });
        }
        // What is written of `a` says that there is room, so `b` is well too until it fails again.
        let (a, b) = ("write the l", "write the l");
        assert_eq!(told, ["", a, "", "", "", "well", b, "", "well", ""]);
    }
}

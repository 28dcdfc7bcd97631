//! What a changed configuration means for a service that runs.

use crate::event::Reread;
use crate::name::Requester;
use crate::spec::{Effect, Listen, Service, changed_files, effect};

/// What it takes for a service's new configuration to be in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Takes {
    /// Nothing more.
    Nothing,
    /// Its programs are told to read their files again.
    Telling(Reread),
    /// Its runs make room for new ones.
    NewRuns,
}

impl Takes {
    /// From one configuration to another.
    pub(super) fn between(old: &Service, new: &Service, by: &Requester) -> Self {
        match (effect(old, new), new.reload_signal) {
            (Some(Effect::Restart), _) => Self::NewRuns,
            (Some(Effect::Signal), Some(signal)) => {
                let files = changed_files(old, new);
                Self::Telling(Reread { signal: signal.0, by: by.clone(), files })
            }
            (None | Some(Effect::Live | Effect::Signal), _) => Self::Nothing,
        }
    }
}

/// Whether a run of `old` has to make room for a run of `new`: what `reload --plan` calls a restart.
pub fn restart_needed(old: &Service, new: &Service) -> bool {
    effect(old, new) == Some(Effect::Restart)
}

/// Whether a run of `new` cannot be ready while one of `old` goes on: an address of the one overlaps an
/// address of the other and is not the same, so that the two cannot be open together. Their replicas
/// cannot make room one after the other.
pub(super) fn shuts_out(old: &Service, new: &Service) -> bool {
    let in_the_way = |wanted: &Listen| {
        let apart =
            |own: &Listen| own.address != wanted.address || own.ipv6_only != wanted.ipv6_only;
        old.listen.iter().any(|own| apart(own) && own.overlaps(wanted))
    };
    new.listen.iter().any(in_the_way)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Framing, KillScope, ListenAddress, Policy, Port};
    use crate::supervise::sample::service;

    fn check(change: impl Fn(&mut Service), needed: bool) {
        let mut old = service("web");
        old.port = Some(Port::default());
        let mut new = old.clone();
        change(&mut new);
        assert_eq!(restart_needed(&old, &new), needed, "{new:?}");
        assert_eq!(restart_needed(&new, &old), needed, "and back");
    }

    #[test]
    fn live_fields_take_effect_in_place() {
        check(|_| {}, false);
        check(|new| new.restart.policy = Policy::Always, false);
        check(|new| new.stop.kill = KillScope::Group, false);
        check(|new| new.logging.max_files = 1, false);
        check(|new| new.start_timeout *= 2, false);
        check(|new| new.replicas = 7, false);
        check(|new| drop(new.labels.insert("a".to_owned(), "b".to_owned())), false);
        check(|new| new.port.as_mut().unwrap().timeout *= 2, false);
    }

    #[test]
    fn everything_else_needs_a_restart() {
        check(|new| new.command.push("-v".to_owned()), true);
        check(|new| drop(new.environment.insert("A".to_owned(), "b".to_owned())), true);
        check(|new| new.user = Some("app".to_owned()), true);
        check(|new| new.working_dir = "/srv".into(), true);
        check(|new| new.limits.core = Some(0), true);
        check(|new| new.port = None, true);
        check(|new| new.port.as_mut().unwrap().framing = Framing::Nul, true);
        check(|new| new.port.as_mut().unwrap().eof_grace *= 2, true);
    }

    #[test]
    fn an_address_that_grows_is_in_its_own_way() {
        let at = |text: &str, ipv6_only| {
            let address = ListenAddress::Tcp(text.parse().unwrap());
            let listen = Listen {
                name: "http".to_owned(),
                address,
                backlog: 1,
                ipv6_only,
                mode: 0o660,
                owner: None,
            };
            Service { listen: vec![listen], ..service("web") }
        };
        let (small, all) = (at("127.0.0.1:80", false), at("0.0.0.0:80", false));
        assert!(shuts_out(&small, &all) && shuts_out(&all, &small));
        assert!(shuts_out(&at("[::]:80", true), &at("[::]:80", false)));
        assert!(!shuts_out(&all, &all) && !shuts_out(&small, &at("127.0.0.1:81", false)));
        assert!(!shuts_out(&service("web"), &all) && !shuts_out(&all, &service("web")));
    }
}

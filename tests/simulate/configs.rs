//! Services with settings drawn by chance.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;

use wharf::exit::{Reason, Signal};
use wharf::name::ServiceName;
use wharf::spec::{
    BACKLOG, Condition, Contents, Dependency, Eof, Group, KillScope, Limits, Listen, ListenAddress,
    Missed, OnGiveUp, OnOom, OnProtocolError, Overlap, Policy, Port, Ready, Restart, Rhythm,
    SOCKET_MODE, Schedule, Service, SignalName, Stop, Strategy,
};

use super::watch::watched;
use super::world::Dice;

pub(crate) fn plain(name: &str) -> Service {
    Service {
        command: vec!["server".to_owned()],
        start_timeout: Duration::from_secs(20),
        ..Service::new(ServiceName::new(name).unwrap())
    }
}

pub(crate) fn some_service(name: &str, dice: &mut Dice) -> Service {
    let port = dice.one_in(2).then(|| Port {
        quit: dice.one_in(2).then(|| ".quit".to_owned()),
        eof: dice.pick(&[Eof::Graceful, Eof::Ignored, Eof::Error]),
        on_protocol_error: dice.pick(&[OnProtocolError::Restart, OnProtocolError::Stop]),
        ready: if dice.one_in(3) { Ready::FirstMessage } else { Ready::Started },
        ..Port::default()
    });
    let mut service = Service {
        // Whether a configuration needs a new run is told by the command alone here.
        command: vec!["server".to_owned(), dice.roll().to_string()],
        replicas: dice.few(4),
        depends_on: some_dependencies(name, dice),
        port,
        schedule: dice.one_in(4).then(|| some_schedule(dice)),
        restart: some_restart(dice),
        stop: some_stop(dice),
        limits: Limits {
            on_oom: if dice.one_in(3) { OnOom::Kill } else { OnOom::Continue },
            ..Limits::default()
        },
        ..plain(name)
    };
    watched(&mut service, dice);
    read_files(&mut service, dice);
    service
}

/// The file that programs read here.
pub(crate) const FILE: &str = "/etc/server.conf";

/// Whether it reads a file, what stands there, and whether it can be told.
pub(crate) fn read_files(service: &mut Service, dice: &mut Dice) {
    let stands = Contents::File(dice.below(5).to_string());
    service.config_files = BTreeMap::new();
    if dice.one_in(2) {
        service.config_files.insert(FILE.into(), stands);
    }
    let signal = dice.pick(&[Signal::HUP, Signal::HUP, Signal::INT]);
    service.reload_signal = (!dice.one_in(3)).then_some(SignalName(signal));
}

/// When it is due the history says; only what follows an overlap is drawn here.
pub(crate) fn some_schedule(dice: &mut Dice) -> Schedule {
    Schedule {
        rhythm: Rhythm::Every(Duration::from_secs(600)),
        overlap: dice.pick(&[Overlap::Skip, Overlap::Queue, Overlap::Kill]),
        missed: Missed::Run,
    }
}

/// The addresses a service may listen at: the first two cannot be open together.
const ADDRESSES: [&str; 3] = ["127.0.0.1:80", "0.0.0.0:80", "127.0.0.1:81"];

pub(crate) fn some_listen(dice: &mut Dice) -> Vec<Listen> {
    let address = ListenAddress::Tcp(dice.pick(&ADDRESSES).parse().expect("an address"));
    let name = "http".to_owned();
    let (backlog, mode) = (BACKLOG, SOCKET_MODE);
    vec![Listen { name, address, backlog, ipv6_only: false, mode, owner: None }]
}

/// Whether a socket of one has to be closed before one of the other is opened.
pub(crate) fn shut_out(old: &Service, new: &Service) -> bool {
    let on_80 = |service: &Service| {
        let mut addresses = service.listen.iter().map(|socket| socket.address.to_string());
        addresses.find(|address| address.ends_with(":80"))
    };
    matches!((on_80(old), on_80(new)), (Some(old), Some(new)) if old != new)
}

pub(crate) fn some_restart(dice: &mut Dice) -> Restart {
    Restart {
        policy: dice.pick(&[
            Policy::No,
            Policy::Always,
            Policy::OnFailure,
            Policy::OnFailure,
            Policy::UnlessStopped,
        ]),
        delay: Duration::from_millis(dice.pick(&[0, 50, 200, 200, 1_000])),
        factor: dice.pick(&[1.0, 1.5, 2.0, 2.0]),
        max_delay: Duration::from_millis(dice.pick(&[300, 5_000, 30_000])),
        jitter: dice.pick(&[0.0, 0.2, 1.0]),
        reset_after: Duration::from_secs(dice.pick(&[1, 10, 30])),
        max_restarts: dice.pick(&[0, 1, 2, 5, 10, 100]),
        within: Duration::from_secs(dice.pick(&[1, 60, 600])),
        on_give_up: dice.pick(&[
            OnGiveUp::Stop,
            OnGiveUp::Escalate,
            OnGiveUp::RetryEvery(Duration::from_secs(7)),
        ]),
        success_exit_codes: dice.pick(&[&[0][..], &[0, 3]]).to_vec(),
        success_signals: dice.pick(&[&[][..], &[SignalName(Signal::TERM)]]).to_vec(),
        never_on: dice.pick(&[&[][..], &[Reason::ExecFailed], &[Reason::CoreDumped]]).to_vec(),
    }
}

/// Each waits at most for those before it in the alphabet, so that nobody waits in a circle.
pub(crate) fn some_dependencies(name: &str, dice: &mut Dice) -> BTreeMap<ServiceName, Dependency> {
    let mut all = BTreeMap::new();
    for one in ["a", "b", "c", "d"].into_iter().filter(|one| *one < name) {
        if dice.one_in(3) {
            let condition =
                dice.pick(&[Condition::Started, Condition::Healthy, Condition::Completed]);
            let (restart, required) = (dice.one_in(2), !dice.one_in(4));
            all.insert(one.parse().unwrap(), Dependency { condition, restart, required });
        }
    }
    all
}

/// One group or none, or two without a common member.
pub(crate) fn some_groups(dice: &mut Dice) -> IndexMap<String, Group> {
    let mut groups = IndexMap::new();
    let mut left = vec!["a", "b", "c", "d", "e"];
    for name in ["g", "h"] {
        if dice.one_in(2) {
            let members: Vec<_> = left.iter().copied().filter(|_| dice.one_in(2)).collect();
            left.retain(|one| !members.contains(one));
            let group = Group {
                services: members.into_iter().map(|one| one.parse().unwrap()).collect(),
                strategy: dice.pick(&[
                    Strategy::OneForOne,
                    Strategy::OneForAll,
                    Strategy::RestForOne,
                ]),
                max_restarts: dice.pick(&[0, 1, 3, 100]),
                within: Duration::from_secs(dice.pick(&[1, 5, 60])),
            };
            groups.insert(name.to_owned(), group);
        }
    }
    groups
}

/// What a configuration can be: groups of what there is, and nobody waits for the end of what is always
/// started again.
pub(crate) fn valid(
    services: &[Arc<Service>],
    groups: &IndexMap<String, Group>,
) -> (IndexMap<ServiceName, Arc<Service>>, IndexMap<String, Group>) {
    let ends = |name: &ServiceName| {
        let service = services.iter().find(|service| service.name == *name);
        service
            .is_none_or(|service| matches!(service.restart.policy, Policy::No | Policy::OnFailure))
    };
    let with = |service: &Arc<Service>| {
        let mut service = Service::clone(service);
        for (name, how) in &mut service.depends_on {
            if how.condition == Condition::Completed && !ends(name) {
                how.condition = Condition::Started;
            }
        }
        (service.name.clone(), Arc::new(service))
    };
    let all: IndexMap<_, _> = services.iter().map(with).collect();
    let mut groups = groups.clone();
    for group in groups.values_mut() {
        group.services.retain(|name| all.contains_key(name));
    }
    groups.retain(|_, group| !group.services.is_empty());
    (all, groups)
}

pub(crate) fn some_stop(dice: &mut Dice) -> Stop {
    Stop {
        signal: dice.pick(&[Signal::TERM, Signal::TERM, Signal::INT, Signal::KILL]),
        grace: Duration::from_secs(dice.pick(&[1, 5, 10])),
        kill: dice.pick(&[KillScope::Tree, KillScope::Tree, KillScope::Group, KillScope::Process]),
    }
}

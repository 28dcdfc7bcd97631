//! Services by chance, all of them valid.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use wharf::exit::{Reason, Signal};
use wharf::name::ServiceName;
use wharf::spec::{
    self, Banner, Capability, Channel, Check, Condition, Dependency, Eof, Forward, Framing, Group,
    Handshake, HealthFailure, Healthcheck, IdPlace, KillScope, Limits, Logging, Longer, Missed,
    OnGiveUp, OnManagerExit, OnOom, OnProtocolError, Overlap, PacketWidth, Policy, Port,
    READY_INTERVAL, Readiness, Ready, ReadyBy, Replies, Restart, Rhythm, Rights, Schedule, Service,
    SignalName, Stop, Stray, Unbuffer, WhenFull,
};

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z./-]{0,8}",
        "[ -~]{0,12}",
        any::<String>().prop_map(|text| text.replace('\0', "")),
        Just("null".to_owned()),
        Just("- a: b #c".to_owned()),
        Just("${HOST} $$ $1 ${".to_owned()),
        Just("line\n  two\t\n".to_owned()),
        Just("0x10".to_owned()),
    ]
}

fn length() -> impl Strategy<Value = Duration> {
    (1_u64..10_000_000_000).prop_map(Duration::from_micros)
}

fn any_port() -> impl Strategy<Value = Port> {
    let framing = prop_oneof![
        Just(Framing::Lines),
        Just(Framing::Nul),
        Just(Framing::Packet(PacketWidth::Four)),
        Just(Framing::Netstring),
        Just(Framing::PktLine),
        Just(Framing::ContentLength),
        Just(Framing::Json),
        Just(Framing::Msgpack),
        Just(Framing::Stanza),
        text().prop_map(|text| Framing::Prompt(format!("^{}> $", regex::escape(&text)))),
        text().prop_map(|trailer| Framing::Counted { header: r"^(\d+) \w$".into(), trailer }),
    ];
    let replies = prop_oneof![
        Just(Replies::None),
        Just(Replies::One),
        Just(Replies::Id(IdPlace::Pointer("/a~1b/0".to_owned()))),
        text().prop_map(|first| Replies::Sections {
            longer: vec![Longer { first: regex::escape(&first), count: 2 }],
            error: Some(format!("{first}0000")),
        }),
        (0..4_u8, text(), text()).prop_map(|(rule, a, b)| {
            let (first, second) = (regex::escape(&a), regex::escape(&b));
            match rule {
                0 => Replies::Until(first),
                1 => Replies::Bracket { begin: first, end: second },
                2 => Replies::Prefix {
                    send: format!("{a}{{token}}{b}"),
                    expect: format!("{second}{{token}}"),
                },
                _ => Replies::Sentinel {
                    send: format!("{a}{{token}}{b}"),
                    expect: format!("{b}{{token}}"),
                },
            }
        }),
    ]
    .boxed();
    // A message with a header line is not JSON.
    let spoken = (framing, replies).prop_map(|(framing, replies)| {
        let fits = !matches!(
            (&framing, &replies),
            (Framing::Counted { .. } | Framing::Msgpack, Replies::Id(_))
        );
        // Flush packets are those of `pkt-line`.
        let framing = match replies {
            Replies::Sections { .. } => Framing::PktLine,
            _ => framing,
        };
        (framing, if fits { replies } else { Replies::One })
    });
    let word = option::of("[ -~]{0,1}");
    let rest = (1..1_u64 << 30, 1..1_000_000_u32, length(), word);
    let wired = prop_oneof![
        Just((Channel::Fd3, Unbuffer::None)),
        Just((Channel::Pty, Unbuffer::None)),
        Just((Channel::Stdio, Unbuffer::None)),
        Just((Channel::Stdio, Unbuffer::Stdbuf)),
        Just((Channel::Stdio, Unbuffer::Pty)),
    ];
    let handshake = option::of(option::of("[a-z]{1,9}"));
    (spoken, wired, rest, any_greeting(), 0..3_u8, handshake).prop_map(
        |((framing, replies), wired, rest, (banner, ready), stray, handshake)| {
            let (max_frame, queue, timeout, quit) = rest;
            // What is heard first answers the question, which is made of packets.
            let (banner, ready) = match &replies {
                Replies::Sections { .. } => {
                    let (send, expect) = ("0005x0000".to_owned(), "x".to_owned());
                    (Banner::None, Ready::Exchange { send, expect })
                }
                _ => (banner, ready),
            };
            // It needs messages that are known by ids in JSON.
            let json = matches!(&replies, Replies::Id(IdPlace::Pointer(_)));
            let handshake = handshake.filter(|_| json).map(|done| Handshake {
                begin: "Begin".to_owned(),
                done,
                end: vec!["End".to_owned()],
            });
            let port = Port {
                channel: wired.0,
                unbuffer: wired.1,
                framing,
                replies,
                max_frame,
                queue,
                timeout,
                on_protocol_error: OnProtocolError::Stop,
                handshake,
                stray: None,
                banner,
                ready,
                quit,
                eof: Eof::Ignored,
                eof_grace: timeout / 2_000 * 1_000,
            };
            let borne = [Stray::Log, Stray::Drop, Stray::Kill][usize::from(stray)];
            let stray = if port.can_bear_strays() {
                Some(borne)
            } else {
                (stray == 0).then_some(Stray::Kill)
            };
            Port { stray, ..port }
        },
    )
}

fn any_greeting() -> impl Strategy<Value = (Banner, Ready)> {
    let banner = prop_oneof![
        Just(Banner::None),
        (1..=1000_u32).prop_map(Banner::Messages),
        text().prop_map(|text| Banner::Until(regex::escape(&text))),
    ];
    let ready = prop_oneof![
        Just(Ready::Started),
        Just(Ready::Banner),
        Just(Ready::FirstMessage),
        text().prop_map(|text| Ready::Message(regex::escape(&text))),
        ("[ -~]{0,1}", text())
            .prop_map(|(send, text)| Ready::Exchange { send, expect: regex::escape(&text) }),
    ];
    // To be ready with its banner takes one.
    (banner, ready).prop_map(|(banner, ready)| match (&banner, &ready) {
        (Banner::None, Ready::Banner) => (banner, Ready::Started),
        _ => (banner, ready),
    })
}

/// What a service is watched by, as far as it goes with its port.
fn any_watch() -> impl Strategy<Value = Watch> {
    let check = || {
        prop_oneof![
            Just(Check::Http("http://[::1]:80/a?b=%20".to_owned())),
            Just(Check::Tcp("unix:/run/a b.sock".to_owned())),
            (text().prop_filter("empty", |word| !word.is_empty()), vec(text(), 0..2)).prop_map(
                |(first, rest)| Check::Exec(std::iter::once(first).chain(rest).collect())
            ),
            text().prop_map(Check::Call),
        ]
    };
    let ready = prop_oneof![
        check().prop_map(ReadyBy::Probe),
        text().prop_map(|text| ReadyBy::LogLine(regex::escape(&text))),
        Just(ReadyBy::Notify),
        (4..=1023_u32).prop_map(ReadyBy::Fd),
    ];
    let longer = || (10_000_u64..10_000_000_000).prop_map(Duration::from_micros);
    let readiness = (ready, longer(), longer()).prop_map(|(by, timeout, interval)| Readiness {
        by,
        timeout,
        interval,
    });
    let health = (check(), (longer(), longer(), length(), longer()), 1..=1000_u32, any::<bool>())
        .prop_map(|(by, (interval, timeout, start_period, start_interval), retries, report)| {
            let on_failure = if report { HealthFailure::Report } else { HealthFailure::Restart };
            Healthcheck { by, interval, timeout, retries, start_period, start_interval, on_failure }
        });
    let lifetime = (1_u64..1_000_000).prop_map(Duration::from_secs);
    (
        option::of(readiness),
        option::of(health),
        option::of(longer()),
        option::of(1..u64::MAX / 2),
        option::of(lifetime),
    )
}

type Watch =
    (Option<Readiness>, Option<Healthcheck>, Option<Duration>, Option<u64>, Option<Duration>);

/// The same without what this port cannot have.
fn fitting((ready, health, watchdog, memory, lifetime): Watch, port: Option<&Port>) -> Watch {
    let replies = port.is_some_and(|port| port.replies != Replies::None);
    let ready = match ready {
        Some(ready) if port.is_some_and(Port::awaits_ready) => {
            Some(Readiness { by: ReadyBy::Port, interval: READY_INTERVAL, ..ready })
        }
        Some(Readiness { by: ReadyBy::Probe(Check::Call(_)), .. }) => None,
        Some(ready) if !matches!(ready.by, ReadyBy::Probe(_)) => {
            Some(Readiness { interval: READY_INTERVAL, ..ready })
        }
        same => same,
    };
    let health = health.filter(|health| replies || !matches!(health.by, Check::Call(_)));
    (ready, health, watchdog, memory, lifetime)
}

fn any_restart() -> impl Strategy<Value = Restart> {
    let policy = prop_oneof![
        Just(Policy::No),
        Just(Policy::Always),
        Just(Policy::OnFailure),
        Just(Policy::UnlessStopped)
    ];
    let give_up = option::of(length());
    let signals = vec(1_i32..32, 0..3);
    (policy, length(), 1.0..1000.0, 0.0..=1.0, any::<u32>(), give_up, vec(0..=255, 0..3), signals)
        .prop_map(|(policy, delay, factor, jitter, max_restarts, give_up, codes, signals)| {
            Restart {
                policy,
                delay,
                factor,
                max_delay: delay * 3,
                jitter,
                reset_after: delay * 2,
                max_restarts,
                within: delay,
                on_give_up: give_up.map_or(OnGiveUp::Stop, OnGiveUp::RetryEvery),
                success_exit_codes: codes,
                success_signals: signals
                    .into_iter()
                    .map(|number| SignalName(Signal::new(number).unwrap()))
                    .collect(),
                never_on: vec![Reason::Failed, Reason::NodeDown],
            }
        })
}

fn any_schedule() -> impl Strategy<Value = Schedule> {
    let pattern = (0..60_u8, 0..24_u8).prop_map(|(m, h)| Rhythm::Cron(format!("{m} {h} * * mon")));
    let every = (1..100_000_u64).prop_map(|seconds| Rhythm::Every(Duration::from_secs(seconds)));
    let overlap = prop_oneof![Just(Overlap::Skip), Just(Overlap::Queue), Just(Overlap::Kill)];
    let missed = prop_oneof![Just(Missed::Run), Just(Missed::Skip)];
    (prop_oneof![pattern, every], overlap, missed).prop_map(|(rhythm, overlap, missed)| Schedule {
        rhythm,
        overlap,
        missed,
    })
}

fn any_limits() -> impl Strategy<Value = (Limits, Rights)> {
    let number = || option::of(1_u64..1 << 30);
    let size = || option::of(any::<u64>());
    let limits = (
        (option::of(65_536_u64..1 << 60), option::of(0.01_f64..1e3), option::of(1_u32..9999)),
        (any::<bool>(), any::<bool>(), option::of(8..1_u64 << 30), option::of(1..1_000_000_u64)),
        (number(), number(), option::of(0..=99_u64)),
        [size(), size(), size(), size(), size(), size(), size()],
    )
        .prop_map(|((memory, cpus, pids), (kills, required, nofile, cpu), counts, sizes)| {
            let [core, stack, address_space, data, fsize, memlock, msgqueue] = sizes;
            let (nproc, sigpending, rtprio) = counts;
            let on_oom = if kills { OnOom::Kill } else { OnOom::Continue };
            let cpu = cpu.map(Duration::from_secs);
            Limits {
                memory,
                cpus,
                pids,
                on_oom,
                required,
                core,
                nofile,
                nproc,
                stack,
                address_space,
                data,
                fsize,
                memlock,
                cpu,
                msgqueue,
                sigpending,
                rtprio,
            }
        });
    let capability = (0..Capability::names().count()).prop_map(|at| {
        let name = Capability::names().nth(at).unwrap();
        Capability::named(name).unwrap()
    });
    let rights = (
        (0..=0o777_u32, option::of(-20..=19_i32), option::of(-1000..=1000_i32)),
        vec("[a-z0-9]{1,8}", 0..3),
        any::<bool>(),
        proptest::collection::btree_set(capability, 0..4),
    )
        .prop_map(|((umask, nice, oom_score_adj), group_add, no_new_privileges, dropped)| {
            let cap_drop = dropped.into_iter().collect();
            Rights { umask, nice, oom_score_adj, group_add, no_new_privileges, cap_drop }
        });
    (limits, rights)
}

pub(super) fn any_service() -> impl Strategy<Value = Service> {
    let name = "[a-z][a-zA-Z0-9_.-]{0,20}".prop_filter("reserved", |name| !name.starts_with("x-"));
    let key = "[a-zA-Z_][ -<>-~]{0,12}";
    let words = (text().prop_filter("empty", |word| !word.is_empty()), vec(text(), 0..4));
    let socket = || option::of("/[a-z]{1,8}/[a-z./ -]{0,8}");
    let forward = (socket(), socket()).prop_map(|(journald, syslog)| Forward { journald, syslog });
    let limits = any_limits();
    (
        (
            name,
            words,
            text(),
            btree_map(key, text(), 0..4),
            option::of("[a-z0-9]{1,8}(:[a-z]{1,4})?"),
        ),
        (
            0..=10_000_u32,
            option::of(any_port().boxed()).boxed(),
            any_watch().boxed(),
            any_restart().boxed(),
            length(),
            limits,
        ),
        (
            (1024..u64::MAX / 2, 0..=1000_u32, any::<bool>(), forward),
            btree_map("[ -~]{1,8}", text(), 0..4),
            option::of(any_schedule()),
            prop_oneof![Just(OnManagerExit::Die), Just(OnManagerExit::Keep)],
        ),
    )
        .prop_map(
            |(
                (name, (first, rest), folder, environment, user),
                (replicas, port, watch, restart, length, (limits, rights)),
                ((max_size, max_files, compress, forward), labels, schedule, on_manager_exit),
            )| {
                let (ready, healthcheck, watchdog, max_memory, max_lifetime) =
                    fitting(watch, port.as_ref());
                Service {
                    name: name.parse().unwrap(),
                    command: std::iter::once(first).chain(rest).collect(),
                    working_dir: Path::new("/srv").join(folder.trim_start_matches('/')),
                    environment,
                    user,
                    replicas,
                    profiles: labels
                        .keys()
                        .filter(|key| key.parse::<ServiceName>().is_ok())
                        .cloned()
                        .collect(),
                    port,
                    restart,
                    start_timeout: length,
                    stop: Stop { signal: Signal::INT, grace: length, kill: KillScope::Group },
                    on_manager_exit,
                    logging: Logging {
                        max_size,
                        max_files,
                        compress,
                        when_full: WhenFull::Block,
                        forward,
                    },
                    limits,
                    rights,
                    schedule,
                    labels,
                    ready,
                    healthcheck,
                    watchdog,
                    max_memory,
                    max_lifetime,
                    ..Service::new("any".parse().unwrap())
                }
            },
        )
}

/// One group of all services, in their order.
pub(super) fn some_groups(
    services: &IndexMap<ServiceName, Arc<Service>>,
    strategy: usize,
) -> IndexMap<String, Group> {
    use spec::Strategy::{OneForAll, OneForOne, RestForOne};
    let strategies = [OneForOne, OneForAll, RestForOne];
    let group = Group {
        services: services.keys().cloned().collect(),
        strategy: strategies[strategy],
        max_restarts: 7,
        within: Duration::from_millis(1500),
    };
    if services.is_empty() { IndexMap::new() } else { [("all".to_owned(), group)].into() }
}

/// Each waits for the one before it.
pub(super) fn in_a_row(
    services: IndexMap<ServiceName, Arc<Service>>,
    (condition, restart, required): (usize, bool, bool),
) -> IndexMap<ServiceName, Arc<Service>> {
    let condition = [Condition::Started, Condition::Healthy][condition];
    let mut before: Option<ServiceName> = None;
    let with = |(name, service): (ServiceName, Arc<Service>)| {
        let mut service = Service::clone(&service);
        if let Some(before) = before.replace(name.clone()) {
            service.depends_on.insert(before, Dependency { condition, restart, required });
        }
        (name, Arc::new(service))
    };
    services.into_iter().map(with).collect()
}

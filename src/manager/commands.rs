//! The loop's dealings with operators: what they ask, and when it has come true.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::event::{Event, Health, Rest, State, Verb};
use crate::exit::Cause;
use crate::name::{Incarnation, ReplicaId, Requester, ServiceName, Target};
use crate::os::clock;
use crate::os::live::Phase;
use crate::spec::{HookEvent, Spec, meant_instead};
use crate::state::{Applied, Intent};
use crate::supervise::View;
use crate::time::Tick;

use super::control::{Control, Shown};
use super::disk::Persist;
use super::published::What;
use super::request::{Refusal, ReplicaStatus, Request};
use super::room::Spoken;

/// How long after a failure the small file of what operators want is written again.
const INTENT_RETRY: Duration = Duration::from_secs(1);

/// Somebody who waits for a wish to come true.
pub(super) struct Waiter {
    verb: Verb,
    /// The replicas meant, each with its run at the time of asking.
    replicas: Vec<(ReplicaId, Option<Incarnation>)>,
    /// Replicas of which nothing is to be left.
    gone: Vec<ReplicaId>,
    /// The wish must be on disk before it is confirmed: this version of the small files.
    version: u64,
    answer: Answer,
}

impl Waiter {
    /// One who waits for a wish that is about these replicas.
    pub(super) fn command(
        verb: Verb,
        replicas: Vec<(ReplicaId, Option<Incarnation>)>,
        gone: Vec<ReplicaId>,
        version: u64,
        reply: oneshot::Sender<Result<Vec<ReplicaStatus>, Refusal>>,
    ) -> Self {
        Self { verb, replicas, gone, version, answer: Answer::Command(reply) }
    }
}

enum Answer {
    Command(oneshot::Sender<Result<Vec<ReplicaStatus>, Refusal>>),
    Apply(oneshot::Sender<Result<(), Refusal>>),
}

impl Answer {
    /// Whether nobody waits for it any more.
    fn is_unwanted(&self) -> bool {
        match self {
            Self::Command(reply) => reply.is_closed(),
            Self::Apply(reply) => reply.is_closed(),
        }
    }
}

/// What a command wants to come true.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wish {
    Up,
    Down,
    None,
}

fn wish(verb: Verb) -> Wish {
    match verb {
        Verb::Start | Verb::Restart | Verb::Roll => Wish::Up,
        Verb::Stop | Verb::StopWithDependents => Wish::Down,
        Verb::Signal(_) => Wish::None,
    }
}

/// How far a wish has come.
enum Progress {
    Waiting,
    True,
    Failed(Refusal),
}

impl Control {
    /// Takes a client's request.
    pub(super) fn take_request(&mut self, request: Request) {
        // To answer takes code and memory that a manager at rest can do without.
        self.rested = false;
        match request {
            Request::Snapshot { reply } => drop(reply.send(self.snapshot())),
            Request::Measure { reply } => drop(reply.send(Box::new(self.sample()))),
            Request::MetricsDoor { listen, trouble } => {
                // Of an address that is not the configured one any more there is nothing to say.
                if self.spec.metrics.is_some_and(|metrics| metrics.listen == listen) {
                    self.metrics_door(trouble);
                }
            }
            Request::ReloadRefused => self.health.reload_refused = true,
            Request::Spec { reply } => drop(reply.send(Arc::clone(&self.spec))),
            Request::Written { reply } => drop(reply.send(Arc::clone(&self.written))),
            Request::Scale { service, replicas, by, reply } => {
                self.scale(&service, replicas, by, reply);
            }
            Request::Command { verb, target, by, reply } => self.command(verb, &target, by, reply),
            Request::Speak { target, payload, kind: speech, client, wait, reply } => {
                self.speak(Spoken { target, payload, speech, client, reply }, wait);
            }
            Request::Join(joining) => self.join(joining),
            Request::Forget => self.forget_callers(),
            Request::Apply { spec, by, reply } => self.apply(*spec, by, reply),
            Request::Upgrade { binary, form, by, reply } => self.upgrade(binary, form, &by, reply),
            Request::Drained { left } => self.drained(left),
            Request::Shutdown { by, reply } => {
                self.tell_shutdown(&by);
                self.shut_down(Cause::ManagerShutdown, by);
                let _ = reply.send(());
            }
        }
    }

    /// The replicas a target means.
    pub(super) fn replicas_of(&self, target: &Target) -> Result<Vec<ReplicaId>, Refusal> {
        let name = &target.service;
        let Some(service) = self.spec.services.get(name) else {
            let known = self.spec.services.keys().map(ServiceName::as_str);
            return Err(Refusal::NoSuchService {
                name: name.to_string(),
                suggestion: meant_instead(name.as_str(), known).map(str::to_owned),
            });
        };
        let all = 1..=service.replicas;
        let id = |replica| ReplicaId { service: name.clone(), replica };
        match target.replica {
            None => Ok(all.map(id).collect()),
            Some(replica) if all.contains(&replica) => Ok(vec![id(replica)]),
            Some(_) => Err(Refusal::NoSuchReplica {
                name: target.to_string(),
                service: name.to_string(),
                replicas: service.replicas,
            }),
        }
    }

    fn command(
        &mut self,
        verb: Verb,
        target: &Target,
        by: Requester,
        reply: oneshot::Sender<Result<Vec<ReplicaStatus>, Refusal>>,
    ) {
        let checked = self.replicas_of(target).and_then(|replicas| match verb {
            _ if self.shutting_down => Err(Refusal::ShuttingDown),
            Verb::Signal(_) => self.signalable(target, &replicas).map(|()| replicas),
            Verb::Start | Verb::Stop | Verb::StopWithDependents | Verb::Restart | Verb::Roll => {
                Ok(replicas)
            }
        });
        let replicas = match checked {
            Ok(replicas) => replicas,
            Err(refusal) => return drop(reply.send(Err(refusal))),
        };
        tracing::info!(?verb, %target, by = by.who, uid = by.uid, pid = by.pid, "command");
        let replicas = replicas
            .into_iter()
            .map(|replica| {
                let run = self.supervisor.view(&replica).and_then(|view| view.incarnation);
                (replica, run)
            })
            .collect();
        let before = self.intent;
        self.feed(Event::Command { verb, target: target.clone(), by });
        let version = if self.intent > before { self.intent } else { 0 };
        self.waiters.push(Waiter::command(verb, replicas, Vec::new(), version, reply));
        self.settle();
    }

    fn signalable(&self, target: &Target, replicas: &[ReplicaId]) -> Result<(), Refusal> {
        let states = replicas.iter().filter_map(|replica| self.supervisor.view(replica));
        let mut states = states.map(|view| view.state);
        let first = states.clone().next().unwrap_or(State::Stopped);
        if states.any(|state| matches!(state, State::Running | State::Starting | State::Stopping)) {
            Ok(())
        } else {
            Err(Refusal::NotRunning { name: target.to_string(), state: first })
        }
    }

    /// Makes a configuration the one in effect, once it is on disk.
    fn apply(&mut self, spec: Spec, by: Requester, reply: oneshot::Sender<Result<(), Refusal>>) {
        if self.shutting_down {
            return drop(reply.send(Err(Refusal::ShuttingDown)));
        }
        self.try_sockets(Arc::new(spec), by, reply);
    }

    /// Writes a configuration down, which then takes effect.
    pub(super) fn persist_applied(
        &mut self,
        spec: Arc<Spec>,
        by: Requester,
        reply: oneshot::Sender<Result<(), Refusal>>,
    ) {
        if self.shutting_down {
            return drop(reply.send(Err(Refusal::ShuttingDown)));
        }
        self.intent += 1;
        let version = self.intent;
        let earlier = self.earlier(&spec);
        let applied = Applied { schema: 1, realm: self.realm, spec: (*spec).clone(), earlier };
        self.disk.persist(version, Persist::Applied(Box::new(applied)));
        self.applying.push((version, spec, by));
        let answer = Answer::Apply(reply);
        let (replicas, gone) = (Vec::new(), Vec::new());
        self.waiters.push(Waiter { verb: Verb::Start, replicas, gone, version, answer });
    }

    /// A small file is on disk, or cannot be written.
    pub(super) fn persisted(&mut self, version: u64, result: Result<(), String>) {
        let at = self.applying.iter().position(|(one, ..)| *one == version);
        let applying = at.map(|at| self.applying.remove(at));
        match result {
            Ok(()) => {
                self.persisted = self.persisted.max(version);
                if let Some((_, spec, by)) = applying {
                    self.take_spec(spec, by);
                } else if self.health.intent.take().is_some() {
                    tracing::info!("what operators want is written down again");
                    self.publish_health();
                }
            }
            Err(msg) => {
                self.health.reload_refused |= applying.is_some();
                if applying.is_none() {
                    self.intent_again = Some(clock::now() + INTENT_RETRY);
                    if self.health.intent.replace(msg.clone()).is_none() {
                        self.publish_health();
                    }
                }
                tracing::error!(error = %msg, "cannot persist what was asked for");
                self.persisted = self.persisted.max(version);
                let failed = self.waiters.extract_if(.., |waiter| waiter.version == version);
                for waiter in failed.collect::<Vec<_>>() {
                    match waiter.answer {
                        Answer::Command(reply) => {
                            let msg = format!(
                                "it is done, but cannot be written down yet, and until then a new \
                                 manager would not know of it: {msg}"
                            );
                            drop(reply.send(Err(Refusal::Disk { msg })));
                        }
                        Answer::Apply(reply) => {
                            let msg = format!(
                                "the new configuration could not be written down, so the old one \
                                 stays in effect: {msg}"
                            );
                            drop(reply.send(Err(Refusal::Disk { msg })));
                        }
                    }
                }
            }
        }
        self.settle();
    }

    /// Tries again to write down what operators want.
    pub(super) fn intent_due(&mut self, now: Tick) {
        if self.intent_again.is_some_and(|at| at <= now) {
            self.intent_again = None;
            self.persist_intent();
        }
    }

    /// Remembers which services operators have stopped.
    pub(super) fn persist_intent(&mut self) {
        self.stopped = self.supervisor.stopped();
        self.intent += 1;
        let intent = Intent {
            stopped: self.stopped.clone(),
            due: self.last_due.clone(),
            scale: self.scale.clone(),
            profiles: self.profiles.clone(),
        };
        self.disk.persist(self.intent, Persist::Intent(intent));
    }

    /// Ends everything; a second time hurries.
    pub(super) fn shut_down(&mut self, cause: Cause, by: Requester) {
        self.tell_of_shutdown(&by);
        self.feed(Event::Shutdown { cause, by });
    }

    /// Says that everything is to end.
    pub(super) fn tell_of_shutdown(&mut self, by: &Requester) {
        tracing::info!(
            by = by.who,
            uid = by.uid,
            pid = by.pid,
            again = self.shutting_down,
            "shutting down"
        );
        self.shutting_down = true;
        self.tidings.stale();
        self.explain_shutdown(clock::now());
        self.publish(What::ManagerStopping { by: by.clone() });
    }

    /// Answers those whose wish has come true, or cannot come true any more.
    pub(super) fn settle(&mut self) {
        if self.waiters.is_empty() || self.feeding {
            return;
        }
        for waiter in std::mem::take(&mut self.waiters) {
            if waiter.answer.is_unwanted() {
                continue;
            }
            match (self.progress(&waiter), waiter.answer) {
                (Progress::Waiting, answer) => self.waiters.push(Waiter { answer, ..waiter }),
                (Progress::True, Answer::Apply(reply)) => drop(reply.send(Ok(()))),
                (Progress::True, Answer::Command(reply)) => {
                    let rows = waiter.replicas.iter().filter_map(|(id, _)| self.status_of(id));
                    drop(reply.send(Ok(rows.collect())));
                }
                (Progress::Failed(refusal), Answer::Apply(reply)) => drop(reply.send(Err(refusal))),
                (Progress::Failed(refusal), Answer::Command(reply)) => {
                    drop(reply.send(Err(refusal)));
                }
            }
        }
    }

    fn progress(&self, waiter: &Waiter) -> Progress {
        if waiter.version > self.persisted {
            return Progress::Waiting;
        }
        if waiter.gone.iter().any(|id| self.supervisor.view(id).is_some_and(|view| !view.wanted)) {
            let stuck = waiter.gone.iter().find(|id| {
                self.supervisor.view(id).is_some_and(|view| view.state == State::Unkillable)
            });
            return match stuck {
                Some(id) => Progress::Failed(self.unkillable(id)),
                None => Progress::Waiting,
            };
        }
        for (replica, before) in &waiter.replicas {
            // A replica that a reload took away has nothing left to wait for.
            let Some(view) = self.supervisor.view(replica) else { continue };
            // What is true of a state is not told before its record can be read.
            let on_paper = !self.held.contains_key(replica);
            let renewed = view.incarnation != *before || waiter.verb == Verb::Start;
            let step = match (wish(waiter.verb), view.state) {
                (Wish::None, _) => Progress::True,
                (Wish::Down, state) if state.is_resting() && on_paper => Progress::True,
                // Somebody else's wish, or a configuration, came after this one.
                (Wish::Down, _) if view.wanted => Progress::Failed(Refusal::Ended {
                    msg: format!("{replica} was started meanwhile"),
                }),
                (Wish::Up | Wish::Down, State::Unkillable) => {
                    Progress::Failed(self.unkillable(replica))
                }
                (Wish::Up, State::Running) if renewed => Progress::True,
                (Wish::Up, State::Running) if self.is_left(waiter.verb, replica) => {
                    let (service, at) =
                        (&replica.service, self.supervisor.halted(&replica.service));
                    let at = at.map_or(String::new(), |at| {
                        format!(": {service}/{} is not ready", at.replica)
                    });
                    Progress::Failed(Refusal::Ended {
                        msg: format!("{replica} and those after it keep their runs{at}"),
                    })
                }
                (Wish::Up, State::Finished) if on_paper => Progress::True,
                (Wish::Up, State::Failed) if view.hold.is_some() => {
                    let hold = view.hold.as_ref().map(ToString::to_string).unwrap_or_default();
                    Progress::Failed(Refusal::Ended { msg: format!("{replica} is {hold}") })
                }
                (Wish::Up, State::Backoff | State::Failed) if on_paper => {
                    let last = self.last.get(replica);
                    let msg =
                        last.map_or_else(|| format!("{replica} ended"), |last| last.msg.clone());
                    Progress::Failed(Refusal::Ended { msg })
                }
                (Wish::Up, State::Stopped) if on_paper => Progress::Failed(Refusal::Ended {
                    msg: format!("{replica} was stopped meanwhile"),
                }),
                _ => Progress::Waiting,
            };
            if !matches!(step, Progress::True) {
                return step;
            }
        }
        Progress::True
    }

    /// Whether a replica was to be restarted in its turn, and its turn will not come.
    fn is_left(&self, verb: Verb, replica: &ReplicaId) -> bool {
        verb == Verb::Roll && !self.supervisor.is_rolling(&replica.service)
    }

    fn unkillable(&self, replica: &ReplicaId) -> Refusal {
        let run = self.present.get(replica).and_then(|run| self.runs.get(run));
        let pid = run.map_or(0, |run| run.pid);
        Refusal::Ended {
            msg: format!("{replica} (pid {pid}) does not end even by SIGKILL; the kernel holds it"),
        }
    }

    /// What shows of a replica has changed.
    pub(super) fn changed(&mut self, replica: &ReplicaId) {
        let Some(view) = self.supervisor.view(replica) else { return };
        let home = match self.homes.get(replica) {
            Some(home) => Some(*home),
            None => self.claim(replica, Phase::Between).ok().inspect(|home| {
                self.homes.insert(replica.clone(), *home);
            }),
        };
        if let Some(home) = home {
            let slot = self.table.slot(home);
            slot.set_row(view.row);
            let waits = matches!(view.state, State::Backoff | State::Stopping);
            slot.set_due(view.next_start.filter(|_| waits));
            slot.set_phase(match view.rest {
                Some(Rest::Stopped) => Phase::Stopped,
                Some(Rest::Finished) => Phase::Finished,
                Some(Rest::Failed) => Phase::Failed,
                Some(Rest::Scheduled) => Phase::Scheduled,
                None => Phase::Between,
            });
        }
        self.look_at_sockets(replica, view.state);
        self.tell_change(replica, &view);
    }

    /// Tells what has changed since it was last told.
    fn tell_change(&mut self, replica: &ReplicaId, view: &View) {
        let (state, incarnation) = (view.state, view.incarnation);
        let crash_looping = view.crash_looping;
        let health = view.health;
        let shown = Shown { state, incarnation, crash_looping, health };
        let before = self.shown.insert(replica.clone(), shown);
        if before == Some(shown) {
            return;
        }
        self.tidings.stale();
        if let Some(exit_with) = &mut self.exit_with {
            exit_with.changed(&replica.service);
        }
        let mut tell = |what| self.news.push((replica.clone(), what));
        if before.is_some_and(|before| before.crash_looping) != crash_looping {
            if crash_looping {
                tracing::warn!(%replica, failures = view.row, "crash-looping");
            }
            let replica = replica.clone();
            tell(What::CrashLoop { replica, active: crash_looping, failures: view.row });
        }
        let same_run = before.filter(|before| before.incarnation == incarnation);
        if let (Some(health), Some(incarnation)) = (health, incarnation)
            && same_run
                .is_some_and(|before| before.health != Some(health) && before.health.is_some())
        {
            let (replica, failures) = (replica.clone(), view.failed_checks);
            let what = What::Health { replica: replica.clone(), incarnation, health, failures };
            tell(what.clone());
            if health == Health::Unhealthy {
                self.fire_for_event(HookEvent::Unhealthy, &replica, what);
            }
        }
        let same = before.map(|before| (before.state, before.incarnation));
        if same == Some((state, incarnation)) {
            return;
        }
        tracing::debug!(%replica, state = state.as_str(), "state");
        let pid = self.pid_of(replica);
        let before = before.map(|before| before.state);
        let mut tell = |what| self.news.push((replica.clone(), what));
        let because = view.hold.as_ref().map(|hold| hold.to_string().into());
        tell(What::State { replica: replica.clone(), state, before, incarnation, pid, because });
        if let (State::Running, Some(incarnation)) = (state, incarnation) {
            tell(What::Ready { replica: replica.clone(), incarnation, pid });
        }
    }

    /// A replica is gone from the configuration, and nothing of it runs.
    pub(super) fn forget(&mut self, replica: &ReplicaId) {
        if let Some(home) = self.homes.remove(replica) {
            self.release(home);
        }
        self.last.remove(replica);
        self.manners.remove(replica);
        self.silence(replica);
        self.shown.remove(replica);
        self.disk.forget(replica);
        self.measured_no_more(&replica.service);
        self.controllers.forget(&format!("{}.{}", replica.service, replica.replica));
        if let Ok(root) = &self.cgroups
            && let Ok(group) = root.group(&format!("{}.{}", replica.service, replica.replica))
        {
            group.remove();
        }
    }
}

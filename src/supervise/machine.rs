//! What a replica is made of: its phases with their data inside, and what can happen to it.
//!
//! Data only; the transitions are in `replica.rs`, what follows an end is in `follow.rs`.

use serde::{Deserialize, Serialize};

use crate::event::{Action, End, Reread, Rest, Said};
use crate::exit::{Cause, Signal};
use crate::name::{Incarnation, Requester};
use crate::time::Tick;

use super::backoff::Chance;
use super::graph::Team;
use super::health::Care;
use super::hold::{Held, Hold};
use super::intensity::Intensity;
use super::ladder::{After, Ending};
use super::view::LastEnd;

/// All of a replica that is neither name nor configuration.
#[expect(clippy::struct_excessive_bools, reason = "each is an independent fact of the replica")]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Machine {
    pub(super) phase: Phase,
    pub(super) deadline: Option<Tick>,
    pub(super) since: Tick,
    pub(super) wanted: bool,
    /// It is no longer part of the configuration.
    pub(super) leaving: bool,
    pub(super) left_behind: bool,
    /// Its time came during the present run; another one follows it.
    #[serde(default)]
    pub(super) due: bool,
    pub(super) row: u32,
    pub(super) restarts: u64,
    pub(super) recent: Intensity,
    pub(super) last: Option<LastEnd>,
    /// Why it is not started, while it is in line, and why it rests, where its group was given up.
    #[serde(default)]
    pub(super) hold: Option<Box<Hold>>,
    /// The end that comes as soon as nobody is in the way, of a program that runs.
    #[serde(default)]
    pub(super) held: Option<Box<Held>>,
}

/// Where a replica is. What belongs to a phase lives inside it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Phase {
    /// Nothing runs and nothing is to run.
    Down(Rest),
    /// It waits for its turn to start.
    Queued(Turn),
    /// There were no resources; it will queue again at the deadline or when something ended.
    Deferred(Retry),
    /// Its start has been ordered, and it is not ready yet; the deadline is that of the start, or of
    /// the next question whether it is ready.
    Starting(Run),
    /// The program runs and is ready. The deadline, if any, ends the row of failures or is that of
    /// what is watched of it.
    Running(Run),
    /// Its end has been ordered; the deadline is that of the ladder's present step.
    Stopping(Run, Box<Ending>),
    /// It has been killed and is still there.
    Unkillable(Run, Box<Ending>),
    /// It has ended; what it left behind is being killed, until the deadline at most.
    Sweeping(Incarnation, Next),
    /// It is started again at the deadline.
    Backoff,
}

/// A place in the queue of starts. A start that was deferred comes before all that were not tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Turn {
    /// Tried before.
    Again(Retry),
    /// Not tried; the number is that of arrival.
    First(u64),
}

/// A start that lacked resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Retry {
    pub(super) incarnation: Incarnation,
    /// How often it was deferred.
    pub(super) tries: u32,
}

/// A run, from the order to start it to its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Run {
    pub(super) incarnation: Incarnation,
    /// How often its start was deferred.
    pub(super) tries: u32,
    /// Whether its process exists: only then can anything be done to it.
    pub(super) spawned: bool,
    /// When its program was seen to run.
    pub(super) started: Option<Tick>,
    /// When it became ready; as soon as it ran, where nothing else was declared.
    pub(super) ready: Option<Tick>,
    pub(super) signal: Option<Box<Sent>>,
    /// What it is to be told as soon as it is ready.
    #[serde(default)]
    pub(super) reread: Option<Box<Reread>>,
    /// What is watched of it, once its program runs.
    #[serde(default)]
    pub(super) care: Option<Box<Care>>,
}

/// A signal that an operator had sent to a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Sent {
    pub(super) signal: Signal,
    pub(super) by: Requester,
    pub(super) at: Tick,
}

/// What follows an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Next {
    Start(Tick),
    Rest(Rest),
}

/// What can happen to a replica.
#[derive(Debug)]
pub(super) enum Input<'a> {
    /// An operator wants it up.
    Start,
    /// An operator wants it down.
    Stop(&'a Requester),
    /// An operator wants a new run of it.
    Restart(&'a Requester),
    /// An operator sends it a signal.
    Signal(Signal, &'a Requester),
    /// It is to end because everything does, or because it is no longer configured.
    End(Cause, &'a Requester),
    /// Its run, if it has one, is to end.
    Yield(Box<Held>),
    /// Its run, if its program runs, is to end as soon as nobody is in the way.
    Hold(Box<Held>),
    /// Nobody is in the way any more.
    LetGo,
    /// What has been asked to end is to be killed.
    Hurry,
    /// The time of its schedule has come.
    Due(&'a Requester),
    /// Another configuration, which a run of the present one has to make room for.
    Changed(&'a Requester),
    /// What stands in a file that its program reads has changed, and the program can be told.
    Reread(Box<Reread>),
    /// It is its turn to start.
    Admit,
    /// Resources may have become free.
    Wake,
    /// The world says something of its present run.
    Heard(Heard),
    /// The deadline has passed.
    Deadline,
}

/// What the world says of a run: see [`Event`](crate::event::Event) for each.
#[derive(Debug)]
pub(super) enum Heard {
    Spawned,
    Started,
    Ready,
    /// `Deferred`.
    Lacking,
    Ended(End),
    Swept {
        stuck: bool,
    },
    ProtocolError,
    OutOfMemory,
    Probed {
        number: u64,
        result: Result<(), Box<str>>,
    },
    Said(Said),
    Measured(u64),
}

/// What a step needs from outside, and where its actions go.
#[derive(Debug)]
pub(super) struct Context<'a> {
    pub(super) now: Tick,
    pub(super) source: &'a mut Source,
    pub(super) actions: &'a mut Vec<Action>,
    /// The group of the service.
    pub(super) team: Option<&'a mut Team>,
    /// What this step means for the others of the group.
    pub(super) fallout: Option<Fallout>,
}

/// What an end means for the others of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fallout {
    /// It is started again: so are those whom the strategy names.
    Restart,
    /// It was one restart too many: the group is given up.
    GiveUp,
}

/// Where numbers come from that no two replicas may share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Source {
    pub(super) next_incarnation: Incarnation,
    pub(super) next_turn: u64,
    pub(super) chance: Chance,
}

impl Source {
    pub(super) fn incarnation(&mut self) -> Incarnation {
        let fresh = self.next_incarnation;
        self.next_incarnation = Incarnation(fresh.0 + 1);
        fresh
    }

    pub(super) fn turn(&mut self) -> Turn {
        self.next_turn += 1;
        Turn::First(self.next_turn)
    }
}

impl Phase {
    /// The end that is under way is to be followed by something else than was planned.
    pub(super) fn then(mut self, after: After) -> Self {
        if let Self::Stopping(_, why) | Self::Unkillable(_, why) = &mut self {
            why.after = after;
        }
        self
    }
}

impl Run {
    /// A run that has just been ordered.
    pub(super) fn ordered(incarnation: Incarnation, tries: u32) -> Self {
        Self {
            incarnation,
            tries,
            spawned: false,
            started: None,
            ready: None,
            signal: None,
            reread: None,
            care: None,
        }
    }

    pub(super) fn retry(&self) -> Retry {
        Retry { incarnation: self.incarnation, tries: self.tries.saturating_add(1) }
    }
}

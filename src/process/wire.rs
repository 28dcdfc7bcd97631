//! What is said on descriptor 3: the payloads that native processes and their hub add to those of protocol 1.

use serde::{Deserialize, Serialize};

use crate::mailbox::Exit;
use crate::message::{Down, Hello};
use crate::name::Realm;

/// The call that a process is started with: its payload are the arguments, its reply is the result.
pub(super) const THE_CALL: u64 = 1;

/// HELLO of the hub to a process that it has made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Welcome {
    /// With `peer`: who the process is.
    #[serde(flatten)]
    pub(super) hello: Hello,
    /// The hub's realm.
    pub(super) realm: Realm,
    /// What the process is to run.
    pub(super) function: Function,
}

/// Which function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Function {
    /// One of the same executable.
    Offset {
        /// The distance of its entry from a fixed function.
        offset: i64,
        /// Which executable that is.
        build: u64,
    },
    /// One that the program has given a name.
    Name {
        /// That name.
        name: String,
    },
}

/// SPAWN of a process to its hub: a native process is to be made. DATA with the same id follows, the arguments.
/// The answer is REPLY with [`Made`], or ERROR with the [`Exit`] in `data`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Start {
    /// What it is to run.
    pub(super) function: Function,
    /// What it is called in `ps`.
    pub(super) label: String,
    /// A monitor with the id of this frame.
    #[serde(default)]
    pub(super) monitor: bool,
    /// A link.
    #[serde(default)]
    pub(super) link: bool,
}

/// The answer to [`Start`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Made {
    pub(super) incarnation: u64,
}

/// CALL of a process to its hub. The answer is REPLY with [`Answer`], or ERROR.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub(super) enum Ask {
    /// Gives a process a name.
    Register { name: String, incarnation: u64 },
    /// Takes a name back.
    Unregister { name: String },
    /// Who has a name.
    Whereis { name: String },
    /// Whether the end of somebody linked is told rather than carried out.
    Trap { on: bool },
    /// Takes a link back.
    Unlink { incarnation: u64 },
    /// Ends a process by SIGKILL.
    Kill { incarnation: u64 },
}

/// The answer to [`Ask`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Answer {
    /// Who has the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) incarnation: Option<u64>,
    /// Whether anything was changed.
    #[serde(default)]
    pub(super) done: bool,
}

/// DOWN of the hub. With the id of a monitor it is that monitor's; with id 0 somebody has ended to whom
/// there is, or was asked, a socket, or with `linked` somebody who is linked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Told {
    #[serde(flatten)]
    pub(super) down: Down,
    /// All that is known of the end.
    pub(super) exit: Exit,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) linked: bool,
}

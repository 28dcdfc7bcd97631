//! services.yaml: as written, then as meant. All mistakes are found at once, each with its place.
//!
//! The way of a file: `load` reads it, `yaml` makes a tree of it, `check` holds the tree against
//! the `schema` of the `written` types, `merge` lays files, defaults and profiles over one
//! another, and `mean` fills in the rest. `diff`, `resolve` and `disk` look at the result. `keys` tells people what there is.

mod diff;
mod disk;
mod meant;

#[cfg(feature = "daemon")]
mod check;
#[cfg(feature = "daemon")]
mod dotenv;
#[cfg(feature = "daemon")]
mod env_file;
#[cfg(feature = "daemon")]
mod format;
#[cfg(feature = "daemon")]
mod interpolate;
#[cfg(feature = "daemon")]
mod keys;
#[cfg(feature = "daemon")]
mod load;
#[cfg(feature = "daemon")]
mod mean;
#[cfg(feature = "daemon")]
mod mean_depend;
#[cfg(feature = "daemon")]
mod mean_files;
#[cfg(feature = "daemon")]
mod mean_given;
#[cfg(feature = "daemon")]
mod mean_health;
#[cfg(feature = "daemon")]
mod mean_hook;
#[cfg(feature = "daemon")]
mod mean_port;
#[cfg(feature = "daemon")]
mod mean_rights;
#[cfg(feature = "daemon")]
mod merge;
#[cfg(feature = "daemon")]
mod mistake;
#[cfg(feature = "daemon")]
mod profile;
#[cfg(feature = "daemon")]
mod read;
#[cfg(feature = "daemon")]
mod resolve;
#[cfg(feature = "daemon")]
mod schema;
#[cfg(feature = "daemon")]
mod shape;
#[cfg(feature = "daemon")]
mod tree;
#[cfg(feature = "daemon")]
pub mod written;
#[cfg(feature = "daemon")]
mod yaml;

pub use diff::{
    Change, ChangeKind, Effect, changed_files, contents_number, diff, differing_around, effect,
    fingerprint,
};
pub use disk::disk_bound;
pub use meant::{
    BACKLOG, Banner, CHANNEL_NAME, CPU_GRACE, Capability, Cgroups, Channel, Check, Condition,
    Contents, Dependency, Digest, Endpoint, Eof, FIRST_DESCRIPTOR, Forward, Framing, Group,
    HOOK_TIMEOUT, Handshake, HealthFailure, Healthcheck, Hook, HookEvent, HttpUrl, IdPlace, IdType,
    JOURNALD, KillScope, LARGEST_SECRET, LONGEST_SOCKET, Limits, Listen, ListenAddress, Logging,
    Longer, MOST_GIVEN, Metrics, Missed, OnGiveUp, OnManagerExit, OnOom, OnProtocolError, Overlap,
    PacketWidth, Policy, Port, READY_INTERVAL, READY_TIMEOUT, Readiness, Ready, ReadyBy, Replies,
    Restart, Rhythm, Rights, SOCKET_MODE, START_TIMEOUT, SYSLOG, Schedule, Secret, SecretBy,
    Service, SignalName, Spec, Stop, Strategy, Stray, Unbuffer, WhenFull,
};
#[cfg(feature = "daemon")]
pub use {
    keys::{Key, Word, keys},
    load::{KnownProfile, known_profile, load, load_text, profile_names},
    mistake::{Mistake, Mistakes, Spot},
    profile::built_in_profiles,
    read::Loaded,
    resolve::{resolved, resolved_value},
    schema::{profile_schema, schema},
};

// The means of reading, for those who read what others wrote (`import`).
#[cfg(feature = "daemon")]
pub(crate) use {
    dotenv::read as read_dotenv,
    interpolate::interpolated,
    merge::{Rule, merge},
    mistake::{Found, Source, meant_instead},
    read::mistakes_in,
    resolve::quoted,
    schema::Keys,
    tree::{Entry, Kind, Node, Place},
    yaml::parse,
};

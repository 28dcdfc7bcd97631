//! What a program may do and how the kernel treats it, as meant: all of its identity but the user.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The identity of a program beside its user. Each is set or the start fails: nothing here is given up
/// silently.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rights {
    /// The file mode bits that are off in what it creates.
    pub umask: u32,
    /// Its scheduling priority, -20 (most favoured) to 19; `None` leaves the manager's own.
    pub nice: Option<i32>,
    /// How readily the kernel kills it when memory runs out, -1000 to 1000; `None` leaves the
    /// manager's own.
    pub oom_score_adj: Option<i32>,
    /// Further groups, by name or number.
    pub group_add: Vec<String>,
    /// Whether nothing that it executes can give it more rights than it has.
    pub no_new_privileges: bool,
    /// The capabilities that are taken from it.
    pub cap_drop: Vec<Capability>,
}

impl Default for Rights {
    fn default() -> Self {
        Self {
            umask: 0o022,
            nice: None,
            oom_score_adj: None,
            group_add: Vec::new(),
            no_new_privileges: false,
            cap_drop: Vec::new(),
        }
    }
}

/// A capability (capabilities(7)), or all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Capability(Which);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Which {
    All,
    One(u8),
}

/// By number, from `linux/capability.h`.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

impl Capability {
    /// All that the kernel has.
    pub const ALL: Self = Self(Which::All);

    /// `NET_RAW`, `CAP_NET_RAW` or `ALL`; `None` where there is none of that name.
    pub fn named(text: &str) -> Option<Self> {
        if text == "ALL" {
            return Some(Self::ALL);
        }
        let name = text.strip_prefix("CAP_").unwrap_or(text);
        let at = NAMES.iter().position(|known| *known == name)?;
        u8::try_from(at).ok().map(|number| Self(Which::One(number)))
    }

    /// The name of the one with this number, with `CAP_` in front.
    pub fn name_of(number: u8) -> Option<String> {
        NAMES.get(usize::from(number)).map(|name| format!("CAP_{name}"))
    }

    /// The names that can be written.
    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMES.into_iter().chain(std::iter::once("ALL"))
    }

    /// A bit for each that it stands for.
    pub fn mask(self) -> u64 {
        match self.0 {
            Which::All => u64::MAX,
            Which::One(number) => 1 << number,
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Which::All => "ALL",
            Which::One(number) => NAMES[usize::from(number)],
        })
    }
}

impl Serialize for Capability {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Capability {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        Self::named(&text)
            .ok_or_else(|| serde::de::Error::custom(format!("{text} is no capability")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_have_the_kernels_numbers() {
        for (text, mask) in [
            ("CHOWN", 1),
            ("CAP_NET_RAW", 1 << 13),
            ("SYS_ADMIN", 1 << 21),
            ("CHECKPOINT_RESTORE", 1 << 40),
            ("ALL", u64::MAX),
        ] {
            let capability = Capability::named(text).unwrap();
            assert_eq!(capability.mask(), mask, "{text}");
            assert_eq!(capability.to_string(), text.trim_start_matches("CAP_"));
            let json = serde_json::to_value(capability).unwrap();
            assert_eq!(serde_json::from_value::<Capability>(json).unwrap(), capability);
        }
        assert_eq!(Capability::named("NET_WORK"), None);
        assert_eq!(Capability::name_of(21).unwrap(), "CAP_SYS_ADMIN");
    }
}

//! The closed list of reasons: the word in records, metrics and monitors.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "daemon", derive(schemars::JsonSchema))]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// Every value, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word, as it stands in records, metrics and the API.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.pad(self.as_str()) }
        }

        impl FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                Self::ALL.iter().copied().find(|value| value.as_str() == text).ok_or_else(|| {
                    let all: Vec<_> = Self::ALL.iter().map(|value| value.as_str()).collect();
                    format!("{text:?} is none of {}", all.join(", "))
                })
            }
        }
    };
}
pub(super) use words;

words! {
    /// Why a run ended, as one of a closed list.
    Reason {
        /// Exited with a code in `success_exit_codes`.
        Completed = "completed",
        /// Exited with any other code.
        Failed = "failed",
        /// Ended by a signal.
        Signaled = "signaled",
        /// Ended by a signal that left a core dump.
        CoreDumped = "core_dumped",
        /// Ended by the kernel because memory ran out.
        OomKilled = "oom_killed",
        /// Ended by the kernel because a resource limit was exceeded (`SIGXCPU`, `SIGXFSZ`).
        ResourceLimit = "resource_limit",
        /// The program could not be executed.
        ExecFailed = "exec_failed",
        /// A step before executing the program failed.
        SetupFailed = "setup_failed",
        /// It was ended because what it wrote was not its port's protocol.
        ProtocolError = "protocol_error",
        /// A native process returned a value.
        Returned = "returned",
        /// A native process returned an error.
        ReturnedError = "returned_error",
        /// A native process panicked.
        Panicked = "panicked",
        /// It is gone and nobody saw how.
        Lost = "lost",
        /// Its node is gone.
        NodeDown = "node_down",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_json_agree() {
        for reason in Reason::ALL {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
            assert_eq!(reason.as_str().parse(), Ok(*reason));
        }
        assert!("exploded".parse::<Reason>().unwrap_err().contains("completed, failed"));
    }
}

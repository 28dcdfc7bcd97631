//! Who takes part, and what each of them does not have.

/// A supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// The least that can be called a supervisor: `benches/c/supervisor.c`.
    C,
    /// As it is without a word of configuration.
    Wharf,
    /// With everything in use that its configuration offers for every machine.
    Full,
    /// And with its memory and its number of processes limited by control groups.
    Limited,
    /// `benches/erlang/supervisor_bench.erl`.
    Erlang,
    Runit,
    Daemontools,
    S6,
    Supervisord,
    Circus,
    Pm2,
}

pub(crate) const ALL: [Peer; 11] = [
    Peer::C,
    Peer::Wharf,
    Peer::Full,
    Peer::Limited,
    Peer::Erlang,
    Peer::Runit,
    Peer::Daemontools,
    Peer::S6,
    Peer::Supervisord,
    Peer::Circus,
    Peer::Pm2,
];

/// wharf, in its ways to take part.
pub(crate) const OURS: [Peer; 3] = [Peer::Wharf, Peer::Full, Peer::Limited];

impl Peer {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::C => "C: vfork, exec, waitpid",
            Self::Wharf => "wharf",
            Self::Full => "wharf, everything in use",
            Self::Limited => "wharf, and control groups limit",
            Self::Erlang => "Erlang: port owners",
            Self::Runit => "runit",
            Self::Daemontools => "daemontools",
            Self::S6 => "s6",
            Self::Supervisord => "supervisord",
            Self::Circus => "circus",
            Self::Pm2 => "pm2",
        }
    }

    pub(crate) fn is_wharf(self) -> bool {
        OURS.contains(&self)
    }

    /// Whether it is somebody else's: neither ours nor the limit.
    pub(crate) fn is_other(self) -> bool {
        !self.is_wharf() && self != Self::C
    }

    /// Whether a restart takes it milliseconds, so that there is time for several in a round.
    pub(crate) fn is_brisk(self) -> bool {
        self.is_wharf() || matches!(self, Self::C | Self::Erlang)
    }

    /// Why nobody can be told by it that a program has ended.
    pub(crate) fn tells_nobody(self) -> Option<&'static str> {
        match self {
            Self::Runit | Self::Daemontools => Some("tells nobody; its state can be read"),
            Self::C
            | Self::Wharf
            | Self::Full
            | Self::Limited
            | Self::Erlang
            | Self::S6
            | Self::Supervisord
            | Self::Circus
            | Self::Pm2 => None,
        }
    }

    /// Why it does not take part with so many services.
    pub(crate) fn is_left_out(self, services: usize) -> Option<&'static str> {
        let is_slow = self == Self::Pm2 && services > 100;
        is_slow.then_some("a start takes minutes")
    }

    /// Why its programs are not ended with it.
    pub(crate) fn leaves_programs(self) -> Option<&'static str> {
        (self == Self::Erlang).then_some("its programs outlive it")
    }
}

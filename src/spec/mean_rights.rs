//! Limits and identity from written to meant, and the rules that a schema cannot see.

use std::time::Duration;

use super::mean::Subject;
use super::mistake::meant_instead;
use super::{Capability, Limits, OnOom, Rights, written};

/// The least memory, in bytes, in which a program can be executed at all.
const LEAST_MEMORY: u64 = 64 << 10;
/// The kernel shares processors out in tenths of a second and no finer than a millisecond of one.
const LEAST_CPUS: f64 = 0.01;

/// `limits:`.
pub(super) fn limits(subject: &mut Subject<'_, '_>, written: Option<written::Limits>) -> Limits {
    let Some(written) = written else { return Limits::default() };
    let memory = written.memory.map(|size| size.0);
    if memory.is_some_and(|memory| memory < LEAST_MEMORY) {
        subject.complain(&["limits", "memory"], "the size must be at least 64KiB");
    }
    if written.cpus.is_some_and(|cpus| cpus < LEAST_CPUS) {
        subject.complain(&["limits", "cpus"], "the number must be at least 0.01");
    }
    let cpu = written.cpu.map(|length| length.0);
    if cpu.is_some_and(|cpu| cpu < Duration::from_secs(1) || cpu.subsec_nanos() != 0) {
        subject.complain(&["limits", "cpu"], "the kernel counts whole seconds, at least 1s");
    }
    let size = |size: Option<written::CoreSize>| size.map(|size| size.0);
    Limits {
        memory,
        cpus: written.cpus,
        pids: written.pids,
        on_oom: match written.on_oom {
            None | Some(written::OnOom::Continue) => OnOom::Continue,
            Some(written::OnOom::Kill) => OnOom::Kill,
        },
        required: written.required.unwrap_or(false),
        core: size(written.core),
        nofile: written.nofile,
        nproc: written.nproc,
        stack: size(written.stack),
        address_space: size(written.address_space),
        data: size(written.data),
        fsize: size(written.fsize),
        memlock: size(written.memlock),
        cpu,
        msgqueue: size(written.msgqueue),
        sigpending: written.sigpending,
        rtprio: written.rtprio,
    }
}

/// The keys of a service's identity, but for its user.
pub(super) struct Written {
    pub(super) umask: Option<written::Octal>,
    pub(super) nice: Option<i32>,
    pub(super) oom_score_adj: Option<i32>,
    pub(super) group_add: Option<Vec<written::User>>,
    pub(super) no_new_privileges: Option<bool>,
    pub(super) cap_drop: Option<Vec<written::Capability>>,
}

/// `umask`, `nice`, `oom_score_adj`, `group_add`, `no_new_privileges`, `cap_drop`.
pub(super) fn rights(subject: &mut Subject<'_, '_>, written: Written) -> Rights {
    let usual = Rights::default();
    let octal = |text: &str| u32::from_str_radix(text.strip_prefix("0o").unwrap_or(text), 8);
    let umask = written.umask.and_then(|mode| octal(&mode.0).ok()).unwrap_or(usual.umask);
    if umask > 0o777 {
        subject.complain(&["umask"], "a mask has three octal digits");
    }
    let mut group_add = Vec::new();
    for group in written.group_add.unwrap_or_default() {
        if group.0.contains(':') {
            subject.complain(&["group_add"], format!("`{}` is not the name of one group", group.0));
        }
        group_add.push(group.0);
    }
    let mut cap_drop = Vec::new();
    for name in written.cap_drop.unwrap_or_default() {
        let Some(capability) = Capability::named(&name.0) else {
            let near = meant_instead(&name.0, Capability::names());
            let near = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
            let words = format!("`{}` is no capability{near}", name.0);
            subject.complain(&["cap_drop"], words);
            continue;
        };
        cap_drop.push(capability);
    }
    cap_drop.sort_unstable();
    cap_drop.dedup();
    Rights {
        umask,
        nice: written.nice,
        oom_score_adj: written.oom_score_adj,
        group_add,
        no_new_privileges: written.no_new_privileges.unwrap_or(usual.no_new_privileges),
        cap_drop,
    }
}

//! Why a step on the way to a program was refused, in words that say what to do about it.

use crate::exit::{Errno, Stage};
use crate::spec::{Capability, Service};

use super::confine::{resources, shown};

/// Says what a failed step was about, where stage and error do not say it. `which` is what the child
/// told beside them.
pub(super) fn why(service: &Service, stage: Stage, errno: Errno, which: u8) -> Option<String> {
    match stage {
        Stage::Limits => limit(service, errno, which),
        Stage::Priority if which == 0 => {
            let nice = service.rights.nice?;
            Some(format!(
                "nice {nice} is a higher priority than ours; that takes CAP_SYS_NICE or a limit RLIMIT_NICE that allows it"
            ))
        }
        Stage::Priority => {
            let adjustment = service.rights.oom_score_adj?;
            Some(format!(
                "oom_score_adj {adjustment} is lower than ours; that takes CAP_SYS_RESOURCE"
            ))
        }
        Stage::Privileges => {
            let name = Capability::name_of(which).unwrap_or_else(|| "a capability".to_owned());
            Some(format!(
                "{name} cannot be taken out of the bounding set without CAP_SETPCAP; an ordinary user writes `no_new_privileges: true` beside `cap_drop`, which has the same effect"
            ))
        }
        Stage::User if errno.0 == libc::EPERM => {
            let who = match &service.user {
                Some(user) => format!("becoming {user}"),
                None => format!("joining the groups {}", service.rights.group_add.join(", ")),
            };
            Some(format!("{who} takes CAP_SETUID and CAP_SETGID: run wharf as root"))
        }
        Stage::User if errno.0 == libc::ENOENT => {
            Some("there is no such user or group on this machine".to_owned())
        }
        Stage::Cgroup if errno.0 == libc::EAGAIN => {
            Some("a limit on processes of a group above it is reached".to_owned())
        }
        Stage::Clone
        | Stage::Descriptors
        | Stage::Session
        | Stage::Cgroup
        | Stage::User
        | Stage::WorkingDir
        | Stage::ParentDeath
        | Stage::Exec
        | Stage::Deadline
        | Stage::Listen
        | Stage::Secrets => None,
    }
}

fn limit(service: &Service, errno: Errno, which: u8) -> Option<String> {
    let (resource, value) = resources(&service.limits).into_iter().nth(usize::from(which))?;
    let name = resource.name();
    let shown = shown(resource, value);
    match errno.0 {
        libc::EPERM => Some(format!(
            "{name} {shown} is above the limit that wharf itself has (or, for descriptors, above \
             fs.nr_open); raising it takes CAP_SYS_RESOURCE"
        )),
        _ => Some(format!("{name} {shown} is refused")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::ServiceName;

    #[test]
    fn a_refusal_says_what_it_was_about() {
        let mut service = Service::new(ServiceName::new("web").unwrap());
        service.limits.core = Some(0);
        service.limits.nofile = Some(70_000);
        service.rights.nice = Some(-5);
        service.rights.oom_score_adj = Some(-900);
        service.user = Some("app".to_owned());
        let words = |stage, errno, which| why(&service, stage, Errno(errno), which).unwrap();
        assert!(words(Stage::Limits, libc::EPERM, 1).starts_with("RLIMIT_NOFILE 70000 is above"));
        assert!(words(Stage::Priority, libc::EACCES, 0).starts_with("nice -5 is a higher"));
        assert!(words(Stage::Priority, libc::EACCES, 1).starts_with("oom_score_adj -900 is lower"));
        assert!(words(Stage::Privileges, libc::EPERM, 13).starts_with("CAP_NET_RAW cannot"));
        assert!(words(Stage::User, libc::EPERM, 0).starts_with("becoming app takes"));
        assert_eq!(why(&service, Stage::Exec, Errno(2), 0), None);
    }
}

//! What this machine, or this user on it, will not do of what a configuration asks for, as far as that
//! can be foreseen. Nothing is changed to find out.

use crate::manager::foreseen;
use crate::os::cgroup::Controllers;
use crate::os::{limits, user};
use crate::spec::{Cgroups, Service, Spec};

/// The concerns, a sentence each.
pub(super) fn concerns(spec: &Spec) -> Vec<String> {
    let controllers = match spec.cgroups {
        Cgroups::Off => Controllers::none("cgroups: off"),
        Cgroups::Auto => Controllers::survey("wharf-check"),
    };
    let mut found = Vec::new();
    for service in spec.services.values() {
        let name = &service.name;
        for one in foreseen(&service.limits, &controllers) {
            let (limit, value) = (one.limit, one.value);
            let Some(why) = one.not_enforced else { continue };
            found.push(if service.limits.required {
                format!(
                    "{name} would not be started here: {limit} {value} cannot be enforced: {why}"
                )
            } else {
                format!("{limit} {value} of {name} is not enforced here: {why}")
            });
        }
        if user::current() != 0 {
            found.extend(refused(service).into_iter().map(|words| {
                format!("{name} would not be started here: {words}, which an ordinary user may not")
            }));
        }
    }
    found
}

/// What is refused to a user without rights.
fn refused(service: &Service) -> Vec<String> {
    let mut found = Vec::new();
    let rights = &service.rights;
    if let Some(name) = &service.user {
        let is_own = user::own().is_some_and(|(own, _)| own == *name)
            || *name == user::current().to_string();
        if !is_own {
            found.push(format!("`user: {name}` changes the user"));
        }
    }
    if rights.nice.is_some_and(|nice| nice < 0) {
        found.push("a negative `nice` raises its priority".to_owned());
    }
    if rights.oom_score_adj.is_some_and(|adjustment| adjustment < 0) {
        found.push("a negative `oom_score_adj` protects it".to_owned());
    }
    if !rights.cap_drop.is_empty() && !rights.no_new_privileges {
        found.push("`cap_drop` without `no_new_privileges` changes its bounding set".to_owned());
    }
    let most = limits::nofile().map_or(u64::MAX, |limit| limit.hard);
    if let Some(nofile) = service.limits.nofile.filter(|nofile| *nofile > most) {
        found.push(format!("`limits.nofile: {nofile}` is above the limit of {most}"));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::ServiceName;
    use crate::spec::Capability;

    #[test]
    fn what_takes_rights_is_foreseen() {
        let mut service = Service::new(ServiceName::new("web").unwrap());
        assert_eq!(refused(&service), [""; 0]);
        service.user = Some(user::current().to_string());
        service.rights.nice = Some(5);
        service.rights.cap_drop.push(Capability::ALL);
        service.rights.no_new_privileges = true;
        assert_eq!(refused(&service), [""; 0]);
        service.user = Some("somebody-else".to_owned());
        service.rights.nice = Some(-1);
        service.rights.oom_score_adj = Some(-1);
        service.rights.no_new_privileges = false;
        service.limits.nofile = Some(u64::MAX);
        assert!(refused(&service).len() >= 4, "{:?}", refused(&service));
    }
}

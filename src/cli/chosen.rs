//! What `wharf up` starts: services without profiles, those of the chosen ones, those that are named and
//! what they need. The rule is docker compose's: a dependency whose profile is not chosen is not started
//! behind anybody's back, but refused.

use std::collections::{BTreeSet, VecDeque};

use super::failure::Failure;
use crate::name::ServiceName;
use crate::spec::{Policy, Service, Spec, meant_instead};
use crate::state::Intent;

/// The profiles of the command line and of `WHARF_PROFILES`, where names are separated by commas. Each
/// of the command line has to exist; the variable may be meant for several files.
pub(super) fn profiles(
    spec: &Spec,
    asked: &[String],
    variable: Option<&str>,
) -> Result<Vec<String>, Failure> {
    let known: BTreeSet<&str> =
        spec.services.values().flat_map(|one| &one.profiles).map(String::as_str).collect();
    let mut chosen: Vec<String> = Vec::new();
    let listed =
        variable.unwrap_or_default().split(',').map(str::trim).filter(|one| !one.is_empty());
    for (name, is_asked) in
        asked.iter().map(|one| (one.as_str(), true)).chain(listed.map(|one| (one, false)))
    {
        if is_asked && !known.contains(name) {
            let near = meant_instead(name, known.iter().copied());
            let near = near.map(|near| format!(" (did you mean {near}?)")).unwrap_or_default();
            return Err(Failure::usage(format!("no service is in the profile {name}{near}")));
        }
        if !chosen.iter().any(|one| one == name) {
            chosen.push(name.to_owned());
        }
    }
    Ok(chosen)
}

/// What operators want at the beginning of an `up`: a stop outlives `down` only where the policy says so,
/// and who names services wants no others than these and what they need.
pub(super) fn intent(
    spec: &Spec,
    before: &Intent,
    names: &[ServiceName],
    profiles: Vec<String>,
) -> Result<Intent, Failure> {
    let stopped: BTreeSet<_> = before.stopped.iter().collect();
    let stays = |service: &Service| {
        stopped.contains(&service.name) && service.restart.policy == Policy::UnlessStopped
    };
    // Whoever is named is started whatever its profiles, which count as chosen for what it needs.
    let mut active = profiles.clone();
    let asked = names.iter().filter_map(|name| spec.services.get(name));
    active.extend(asked.flat_map(|service| service.profiles.iter().cloned()));
    let mut wanted: BTreeSet<ServiceName> = if names.is_empty() {
        let all = spec.services.values();
        all.filter(|service| service.is_chosen(&active)).map(|one| one.name.clone()).collect()
    } else {
        names.iter().cloned().collect()
    };
    let mut queue: VecDeque<_> = wanted.iter().cloned().collect();
    while let Some(name) = queue.pop_front() {
        for (needed, how) in &spec.services[&name].depends_on {
            let Some(service) = spec.services.get(needed).filter(|_| !wanted.contains(needed))
            else {
                continue;
            };
            if service.is_chosen(&active) {
                wanted.insert(needed.clone());
                queue.push_back(needed.clone());
            } else if how.required {
                return Err(Failure::usage(format!(
                    "{name} depends on {needed}, which is started only with a profile: choose it with \
                     --profile {}",
                    service.profiles.join(" or --profile ")
                )));
            }
        }
    }
    let down = |service: &&std::sync::Arc<Service>| {
        !wanted.contains(&service.name) || names.is_empty() && stays(service)
    };
    let stopped = spec.services.values().filter(down).map(|one| one.name.clone()).collect();
    Ok(Intent { stopped, profiles, ..Intent::default() })
}

/// Whether a service that everything is to end with can end for good at all; what is odd about that, in
/// words.
pub(super) fn ends(service: &Service, intent: &Intent) -> Result<Option<String>, Failure> {
    let name = &service.name;
    let never = |why: &str| Err(Failure::usage(format!("--exit-with {name}: {why}")));
    if intent.stopped.contains(name) {
        return never("it is not among what is started");
    }
    if service.schedule.is_some() {
        return never("it has a schedule, and so it never ends for good");
    }
    if service.replicas == 0 {
        return never("it has no replicas");
    }
    Ok(match service.restart.policy {
        Policy::No | Policy::OnFailure => None,
        Policy::Always | Policy::UnlessStopped => Some(format!(
            "warning: {name} is restarted whenever it ends; wharf ends with it only once it is given up"
        )),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "services:
  a: { command: [a], restart: unless-stopped }
  b: { command: [b], restart: always, depends_on: [a] }
  c: { command: [c], restart: unless-stopped, depends_on: { d: { required: false } } }
  d: { command: [d], profiles: [dev, test] }
  e: { command: [e], profiles: [dev], depends_on: [d] }
  f: { command: [f], profiles: [other], depends_on: [d] }
";

    fn spec() -> Spec {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("services.yaml");
        std::fs::write(&file, FILE).unwrap();
        crate::spec::load(&[file], &|_| None).unwrap().spec
    }

    fn names(words: &str) -> Vec<ServiceName> {
        words.split_whitespace().map(|word| word.parse().unwrap()).collect()
    }

    #[test]
    fn who_stays_down() {
        let spec = spec();
        for (before, named, profiles, after) in [
            ("", "", "", "d e f"),
            ("a b gone", "", "", "a d e f"),
            ("c b a", "", "", "a c d e f"),
            ("", "b", "", "c d e f"),
            ("a b", "a c", "", "b d e f"),
            ("", "", "dev", "f"),
            ("", "", "test", "e f"),
            ("", "", "dev other", ""),
            // Named, a service is started with the profiles it is in.
            ("", "e", "", "a b c f"),
            ("", "d", "", "a b c e f"),
            ("", "f", "test", "a b c e"),
        ] {
            let before = Intent { stopped: names(before), ..Intent::default() };
            let profiles: Vec<_> = profiles.split_whitespace().map(str::to_owned).collect();
            let intent = intent(&spec, &before, &names(named), profiles.clone()).unwrap();
            assert_eq!(intent.stopped, names(after), "{named:?} of {profiles:?}");
            assert_eq!(intent.profiles, profiles);
        }
    }

    #[test]
    fn a_dependency_in_a_profile_that_is_not_chosen_is_refused() {
        let spec = spec();
        for (named, profiles) in [("f", vec![]), ("", vec!["other".to_owned()])] {
            let refused = intent(&spec, &Intent::default(), &names(named), profiles).unwrap_err();
            let words = refused.to_string();
            assert!(
                words.ends_with(
                    "f depends on d, which is started only with a profile: choose it with \
                 --profile dev or --profile test"
                ),
                "{words}"
            );
        }
    }

    #[test]
    fn everything_can_end_only_with_what_can_end() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("services.yaml");
        let text = "services:
  web: { command: [x] }
  always: { command: [x], restart: always }
  daily: { command: [x], schedule: { every: 1d } }
  none: { command: [x], replicas: 0 }
  idle: { command: [x], profiles: [dev] }
";
        std::fs::write(&file, text).unwrap();
        let spec = crate::spec::load(&[file], &|_| None).unwrap().spec;
        let all = intent(&spec, &Intent::default(), &[], Vec::new()).unwrap();
        for (name, expected) in [
            ("web", "may"),
            ("always", "odd: only once it is given up"),
            ("daily", "refused: and so it never ends for good"),
            ("none", "refused: it has no replicas"),
            ("idle", "refused: it is not among what is started"),
        ] {
            let said = match ends(&spec.services[&names(name)[0]], &all) {
                Ok(None) => "may".to_owned(),
                Ok(Some(odd)) => format!("odd: {odd}"),
                Err(refused) => format!("refused: {refused}"),
            };
            let (kind, end) = expected.split_once(": ").unwrap_or((expected, ""));
            assert!(said.starts_with(kind) && said.ends_with(end), "{said}");
        }
    }

    #[test]
    fn profiles_come_from_the_command_line_and_the_environment() {
        let spec = spec();
        let asked =
            |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let chosen = profiles(&spec, &asked(&["dev"]), Some("test, dev,,elsewhere")).unwrap();
        assert_eq!(chosen, ["dev", "test", "elsewhere"]);
        assert_eq!(profiles(&spec, &[], None).unwrap(), [""; 0]);
        let refused = profiles(&spec, &asked(&["tset"]), None).unwrap_err().to_string();
        assert!(refused.ends_with("no service is in the profile tset (did you mean test?)"));
    }
}

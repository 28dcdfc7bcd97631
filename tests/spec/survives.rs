//! A configuration that is written out means the same when it is read again, and no text is too much.

use std::fs;
use std::sync::Arc;

use indexmap::IndexMap;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use wharf::spec::{self, Cgroups, Metrics, Spec};

use super::any::{any_service, in_a_row, some_groups};
use super::{environment, load_all};

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// What `wharf config` prints can be loaded again and means the same.
    #[test]
    fn a_configuration_survives_being_written_out(
        services in vec(any_service().boxed(), 0..4),
        metrics in option::of((any::<std::net::IpAddr>(), 1..=u16::MAX)),
        strategy in 0..3_usize,
        how in (0..2_usize, any::<bool>(), any::<bool>()),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("services.yaml");
        let services: IndexMap<_, _> =
            services.into_iter().map(|s| (s.name.clone(), Arc::new(s))).collect();
        let services = in_a_row(services, how);
        let metrics = metrics.map(|(host, port)| Metrics {
            listen: (host, port).into(),
            allow_remote: !host.is_loopback(),
        });
        let on_event = Vec::new();
        let groups = some_groups(&services, strategy);
        let files = vec![file.clone()];
        let spec = Spec { files, cgroups: Cgroups::Off, metrics, on_event, services, groups };
        let text = spec::resolved(&spec, false);
        fs::write(&file, &text).unwrap();
        match spec::load(&[file], &environment) {
            Ok(loaded) => prop_assert_eq!(loaded.spec, spec, "{}", text),
            Err(mistakes) => prop_assert!(false, "{}\n{}", mistakes, text),
        }
    }

    /// No file makes the reader panic or take for ever.
    #[test]
    fn any_text_is_read_or_refused(text in "[a-z:{}\\[\\]&*!|>'\"%@,#? \n\t$-]{0,80}") {
        if let Err(mistakes) = load_all(&[&text]) {
            prop_assert!(mistakes.total() > 0 && !mistakes.to_string().is_empty());
        }
    }
}

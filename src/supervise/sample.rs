//! A service to try things on, for the tests of this folder.

use std::collections::BTreeMap;

use crate::name::ServiceName;
use crate::spec::{Limits, Logging, Restart, START_TIMEOUT, Service, Stop};

/// A plain server with every default.
pub(super) fn service(name: &str) -> Service {
    Service {
        name: ServiceName::new(name).unwrap(),
        command: vec!["server".to_owned()],
        working_dir: "/".into(),
        environment: BTreeMap::new(),
        user: None,
        replicas: 1,
        port: None,
        restart: Restart::default(),
        start_timeout: START_TIMEOUT,
        stop: Stop::default(),
        logging: Logging::default(),
        limits: Limits::default(),
        labels: BTreeMap::new(),
    }
}

//! A service to try things on, for the tests of this folder.

use crate::name::ServiceName;
use crate::spec::Service;

/// A plain server with every default.
pub(super) fn service(name: &str) -> Service {
    let command = vec!["server".to_owned()];
    Service { command, ..Service::new(ServiceName::new(name).unwrap()) }
}

//! What is in `dashboards/`, held against its own rules, against promtool, against the catalogue of
//! metrics, and against a real Prometheus that scrapes a real wharf. Grafana itself is not needed.

#![expect(clippy::unwrap_used, reason = "a test stops where the world is not as it must be")]
#![expect(clippy::disallowed_types, reason = "tests start programs as a user would")]
#![expect(clippy::disallowed_methods, reason = "a test may look at the clock")]

#[path = "../blackbox/support.rs"]
#[expect(dead_code, reason = "made for the black-box tests; what is needed here is a part of it")]
mod support;

mod dashboard;
mod expression;
mod prometheus;

mod catalogue;
mod documents;
mod lint;
mod live;
mod promtool;

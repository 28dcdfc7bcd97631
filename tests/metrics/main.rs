//! Metrics from outside: the catalogue and its documents, real scrapes judged by Prometheus's own
//! tool, counters beside the journal, and what a scrape costs.

#![expect(clippy::unwrap_used, reason = "a test stops where the world is not as it must be")]
#![expect(clippy::disallowed_types, reason = "tests start the binary as a user would")]
#![expect(clippy::disallowed_methods, reason = "a test may look at the clock")]

#[path = "../blackbox/support.rs"]
#[expect(dead_code, reason = "it is shared with tests that need more of it")]
mod support;

mod catalogue;
mod cost;
mod counters;
mod listener;
mod scrape;
mod together;

//! Metrics from outside: the catalogue and its documents, real scrapes judged by Prometheus's own
//! tool, counters beside the journal, and what a scrape costs.

#![expect(clippy::unwrap_used, reason = "a test stops where the world is not as it must be")]

mod catalogue;

//! What can be measured: counters fed by the loop, what `/proc` tells, and the text of a scrape.
//!
//! It decides nothing, starts nothing and listens nowhere. The loop owns the counters and hands out
//! cheap copies of them; everything that costs time happens on the side of whoever scrapes.

mod catalogue;

pub use catalogue::{CATALOGUE, Kind, Metric, Of, PROTOCOL_FAULTS, catalogue_document};

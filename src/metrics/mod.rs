//! What can be measured: counters fed by the loop, what `/proc` tells, and the text of a scrape.
//!
//! It decides nothing, starts nothing and listens nowhere. The loop owns the counters and hands out
//! cheap copies of them; everything that costs time happens on the side of whoever scrapes.

mod catalogue;
mod counts;
mod look;
mod sample;
mod text;

pub use catalogue::{
    CATALOGUE, DETECTION, Kind, Metric, Of, PROTOCOL_FAULTS, REQUEST, SPAWN, catalogue_document,
};
pub use counts::{BOUNDS, Book, Counts, Ends, Histogram, PortCounts};
pub use look::{Look, Looker};
pub use sample::{
    LastSample, ManagerSample, PortSample, ProcessSample, ReplicaSample, Sample, ServiceSample,
};
pub use text::{CONTENT_TYPE, Pieces};

/// A count as a sample's value: exact up to 2^53, the nearest number beyond.
fn number(count: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "the format has no other numbers")]
    let number = count as f64;
    number
}

//! A growing file of lines with numbered older ones beside it: listed, read backwards, followed.
//!
//! What the exit journal and the programs' log files have in common. It knows nothing of what the
//! lines say, and it never writes one.

mod backward;
mod family;
mod follow;

pub(crate) use backward::{Backward, Text, end_of_lines};
pub(crate) use family::{Family, Form, Identity, Member};
pub(crate) use follow::Follow;

//! Ports: programs that are spoken to in messages.

pub mod exchange;

//! Ports: programs that are spoken to in messages.

//! Decides what happens to services: pure state machines from events to actions.

//! The `wharf` command. Everything it does is in the library; see `cli`.
fn main() {}

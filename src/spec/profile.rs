//! The profiles that are compiled in: how well-known programs are spoken to.
//!
//! The table is made from the folders of `ports/` by the build script; nothing here knows a program.

/// A folder of `ports/`.
struct BuiltIn {
    name: &'static str,
    /// Its `port.yaml`.
    port: &'static str,
    /// Its `README.md`.
    readme: &'static str,
}

const BUILT_IN: &[BuiltIn] = include!(concat!(env!("OUT_DIR"), "/profiles.rs"));

fn find(name: &str) -> Option<&'static BuiltIn> {
    BUILT_IN.iter().find(|known| known.name == name)
}

/// The text of a profile that is compiled in.
pub(super) fn built_in(name: &str) -> Option<&'static str> {
    find(name).map(|profile| profile.port)
}

/// The page of a profile that is compiled in.
pub(super) fn built_in_readme(name: &str) -> Option<&'static str> {
    find(name).map(|profile| profile.readme)
}

/// The names of the profiles that are compiled in, in the order of the alphabet.
pub fn built_in_profiles() -> impl Iterator<Item = &'static str> {
    BUILT_IN.iter().map(|profile| profile.name)
}

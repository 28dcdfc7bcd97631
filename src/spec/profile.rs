//! The profiles that are compiled in: how well-known programs are spoken to.

/// The folders of `ports/`, with the `port.yaml` of each.
const BUILT_IN: &[(&str, &str)] = &[
    ("awk", include_str!("../../ports/awk/port.yaml")),
    ("bc", include_str!("../../ports/bc/port.yaml")),
    ("git-cat-file", include_str!("../../ports/git-cat-file/port.yaml")),
];

/// The text of a profile that is compiled in.
pub(super) fn built_in(name: &str) -> Option<&'static str> {
    BUILT_IN.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

/// The names of the profiles that are compiled in.
pub fn built_in_profiles() -> impl Iterator<Item = &'static str> {
    BUILT_IN.iter().map(|(name, _)| *name)
}

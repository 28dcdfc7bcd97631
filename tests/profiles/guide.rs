//! The table of profiles in `docs/guide/ports.md`, made from their descriptions (`WHARF_BLESS=1`
//! rewrites it).

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use libtest_mimic::Trial;

use crate::transcript::names;

const DOCUMENT: &str = "docs/guide/ports.md";
const BEGIN: &str = "<!-- profiles -->\n";
const END: &str = "<!-- end of profiles -->";

pub(crate) fn tests() -> Vec<Trial> {
    vec![crate::test("guide::the_table_of_profiles_is_that_of_their_descriptions", table)]
}

fn table() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(DOCUMENT);
    let text = fs::read_to_string(&file).unwrap();
    let mut table = "| profile | program |\n|---|---|\n".to_owned();
    for name in names() {
        let profile = wharf::spec::known_profile(&[], &name).unwrap();
        let value = profile.value.unwrap();
        let told = value["description"].as_str().unwrap();
        assert!(!told.contains('|') && !told.ends_with('.'), "{name}: {told}");
        let _ = writeln!(table, "| `{name}` | {told}; [page](../../ports/{name}/README.md) |");
    }
    let (before, rest) = text.split_once(BEGIN).expect(BEGIN);
    let (_, after) = rest.split_once(END).expect(END);
    let made = format!("{before}{BEGIN}{table}{END}{after}");
    if std::env::var_os("WHARF_BLESS").is_some() {
        fs::write(&file, made).unwrap();
    } else {
        assert!(made == text, "{DOCUMENT} lists other profiles; WHARF_BLESS=1 rewrites it");
    }
}

//! The bodies of the fuzz targets, on stable: with streams made by chance from what each framing
//! looks for, and with the seeds, among which is every input that ever broke one.

#[expect(unreachable_pub, reason = "in `fuzz` it is the root of a library")]
#[path = "../fuzz/src/lib.rs"]
mod bodies;

use std::fs;
use std::path::{Path, PathBuf};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use bodies::{TARGETS, Target};

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// Inputs of a target: a limit, a cut, and a stream of its words and a few other bytes.
fn inputs(target: &Target) -> impl Strategy<Value = Vec<u8>> {
    let words = proptest::sample::select(target.words.to_vec()).prop_map(<[u8]>::to_vec);
    let piece = prop_oneof![4 => words, 1 => vec(any::<u8>(), 0..6)];
    let limit = prop_oneof![Just(0_u8), 1_u8..40, any::<u8>()];
    (limit, 0_u8..16, vec(piece, 0..24)).prop_map(|(limit, cut, pieces)| {
        let mut input = vec![limit, cut];
        input.extend(pieces.concat());
        input
    })
}

/// `WHARF_FUZZ` streams a framing, 400 unless it says otherwise.
#[test]
fn every_framing_keeps_its_promises_with_any_stream() {
    let cases = std::env::var("WHARF_FUZZ").ok().map_or(400, |text| text.parse().unwrap());
    for target in TARGETS {
        let config = Config { cases, failure_persistence: None, ..Config::default() };
        let run = TestRunner::new(config).run(&inputs(target), |input| {
            (target.body)(&input);
            Ok(())
        });
        run.unwrap_or_else(|error| panic!("{}: {error}", target.name));
    }
}

#[test]
fn every_framing_keeps_its_promises_with_its_seeds() {
    for target in TARGETS {
        let seeds = fs::read_dir(fuzz().join("seeds").join(target.name)).unwrap();
        let mut count = 0;
        for seed in seeds {
            let input = fs::read(seed.unwrap().path()).unwrap();
            assert!(input.len() > 2, "{}: a seed without a stream", target.name);
            (target.body)(&input);
            count += 1;
        }
        assert!(count > 0, "{} has no seed", target.name);
    }
}

#[test]
fn every_target_is_in_the_manifest_and_has_its_file() {
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    let listed: Vec<_> = manifest.lines().filter_map(|line| line.strip_prefix("path = ")).collect();
    let expected: Vec<_> =
        TARGETS.iter().map(|target| format!("\"targets/{}.rs\"", target.name)).collect();
    assert_eq!(listed, expected);
    for target in TARGETS {
        let file = fuzz().join("targets").join(target.name).with_extension("rs");
        let text = fs::read_to_string(file).unwrap();
        assert!(text.contains(&format!("wharf_fuzz::{}(data)", target.name)), "{}", target.name);
    }
}

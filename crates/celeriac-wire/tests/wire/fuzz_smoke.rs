//! Every fuzz target for a moment: its seeds, and mutations of them that are the same in each run.
//!
//! A real run is `scripts/fuzz.sh`; what it finds becomes a seed, and so a case of this test.

use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use crate::fuzzed::TARGETS;

/// Of all targets together.
const MUTATIONS: usize = 20_000;

/// Texts that have a meaning somewhere.
const PIECES: [&[u8]; 16] = [
    b"null",
    b"{}",
    b"[]",
    b"[[[[[[[[",
    b"1e999",
    b"-0",
    b"NaN",
    b"\\ud800",
    b"\\u0000",
    b"\"",
    b"{\"__type__\": \"base64\", \"__value__\": \"YQ==\"}",
    b"9999-12-31T24:00",
    b"&a [*a]",
    b"\xff\xfe",
    b"\0",
    b"18446744073709551616",
];

fn fuzz_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

/// The seeds of a target, in the order of their names.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = fuzz_folder().join("seeds").join(target);
    let entries = std::fs::read_dir(&folder).expect("the folder of its seeds");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("entry").path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("a seed")).collect()
}

/// `SplitMix64`: the same numbers on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// One to three changes of one seed.
fn mutated(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut input = seeds[random.below(seeds.len())].clone();
    for _ in 0..=random.below(3) {
        let start = random.below(input.len() + 1);
        let end = (start + random.below(9)).min(input.len());
        match random.below(6) {
            0 => {
                if let Some(byte) = input.get_mut(start) {
                    *byte ^= 1 << random.below(8);
                }
            }
            1 => drop(input.drain(start..end)),
            2 => drop(input.splice(start..end, PIECES[random.below(PIECES.len())].iter().copied())),
            3 => {
                let again = input[start..end].to_vec();
                drop(input.splice(start..start, again));
            }
            4 => input.truncate(start),
            _ => {
                let other = &seeds[random.below(seeds.len())];
                let from = random.below(other.len() + 1);
                drop(input.splice(start..end, other[from..].iter().copied().take(64)));
            }
        }
    }
    input
}

fn check(name: &str, target: fn(&[u8]), input: &[u8]) {
    let held = catch_unwind(|| target(input));
    assert!(held.is_ok(), "the fuzz target {name} fails for b\"{}\"", input.escape_ascii());
}

#[test]
fn every_target_holds_for_its_seeds_and_for_mutations_of_them() {
    for (name, target) in TARGETS {
        let program = fuzz_folder().join(format!("fuzz_targets/{name}.rs"));
        assert!(program.is_file(), "{name} has no program in fuzz/fuzz_targets");
        let seeds = seeds(name);
        assert!(!seeds.is_empty(), "{name} has no seeds");
        for seed in &seeds {
            check(name, target, seed);
        }
        let mut random = Random(0xce1e_71ac);
        for _ in 0..MUTATIONS / TARGETS.len() {
            check(name, target, &mutated(&seeds, &mut random));
        }
    }
}

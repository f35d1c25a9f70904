//! The targets of fuzz/, as ordinary tests: over their seeds, over changes of these, and over what fuzzing has found
//! (fuzz/regressions/TARGET).

use std::path::Path;

use proptest::prelude::*;

#[path = "../../../fuzz/src/lib.rs"]
mod targets;

type Target = fn(&[u8]);

const TARGETS: [(&str, Target); 6] = [
    ("sql", targets::sql),
    ("partial_header", targets::partial_header),
    ("partial_rows", targets::partial_rows),
    ("fold", targets::fold),
    ("manifest", targets::manifest),
    ("offset_metadata", targets::offset_metadata),
];

#[test]
fn every_seed_and_everything_that_was_found_has_an_answer() {
    let found = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/regressions");
    let seeds = targets::seeds();
    assert_eq!(seeds.len(), TARGETS.len());
    for (name, target) in TARGETS {
        let mut inputs: Vec<(String, Vec<u8>)> = seeds[name]
            .iter()
            .enumerate()
            .map(|(number, seed)| (format!("seed {number}"), seed.clone()))
            .collect();
        assert!(inputs.len() > 1, "{name}");
        for file in std::fs::read_dir(found.join(name)).into_iter().flatten() {
            let path = file.unwrap().path();
            inputs.push((path.display().to_string(), std::fs::read(&path).unwrap()));
        }
        for (input, bytes) in inputs {
            // A test that panics prints this.
            println!("{name}: {input}");
            target(&bytes);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_seed_with_some_bytes_changed_has_an_answer(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let seeds = targets::seeds();
        for (name, target) in TARGETS {
            let seeds = &seeds[name];
            let mut bytes = seeds[which.index(seeds.len())].clone();
            for (at, byte) in &changes {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            target(&bytes);
        }
    }
}

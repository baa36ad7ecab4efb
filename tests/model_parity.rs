//! Parity with transformers, PEFT, bitsandbytes and PyTorch: logits, losses, every adapter gradient and
//! a run of AdamW, on random tiny models that `fixtures/model/generate.py` saved with their answers.
//!
//! Every case is compared in every cell of weights × precision × arrangement of the rows. The answers
//! are computed in f64, so f32 and bf16 are held against the same numbers: f32 to its rounding, bf16 to
//! 1.5 times the distance of PyTorch's own bf16. Whole tensors are compared, and every failing one is
//! named with how far it moved.

#[path = "model_parity/arrangement.rs"]
mod arrangement;
#[path = "model_parity/cell.rs"]
mod cell;
#[path = "model_parity/fixture.rs"]
mod fixture;
#[path = "model_parity/run.rs"]
mod run;

use std::collections::BTreeSet;

use arrangement::Arrangement;
use cell::{BF16, Cell, LOSS, Pools, distance, length, row_losses};
use fixture::{CASES, Fixture, RUNS, Weights, entries};
use graft_kernels::Precision;
use graft_tests::parity::{Deviations, cases};

#[test]
fn every_fixture_is_there_and_none_is_left_over() {
    let found = entries(&cases("model"));
    let found: BTreeSet<String> =
        found.into_iter().filter(|(_, folder)| *folder).map(|(name, _)| name).collect();
    assert_eq!(found, CASES.map(str::to_owned).into());
    for case in CASES {
        let fixture = Fixture::open(case);
        let mut files = vec!["adapter", "config.json", "model.safetensors", "rows.safetensors"];
        files.extend(["dense.safetensors", "nf4.safetensors", "nf4_double.safetensors"]);
        if RUNS.contains(&case) {
            files.extend(["run.safetensors", "run_nf4_double.safetensors"]);
        }
        if fixture.is_whole_blocks() {
            files.extend(["bnb_nf4", "bnb_nf4_double"]);
        }
        let files: BTreeSet<String> = files.into_iter().map(str::to_owned).collect();
        assert_eq!(fixture.entries(), files, "{case}");
    }
}

/// The formats of the matrix. Every case has its rows in each of them, in every arrangement.
const FORMATS: [(Weights, Precision); 6] = [
    (Weights::Dense, Precision::F32),
    (Weights::Nf4, Precision::F32),
    (Weights::Nf4Double, Precision::F32),
    (Weights::Dense, Precision::Bf16),
    (Weights::Nf4, Precision::Bf16),
    (Weights::Nf4Double, Precision::Bf16),
];

fn compare(precision: Precision) {
    let mut deviations = Deviations::of("model");
    let (mut cells, mut notes) = (0, 0);
    let fixtures = CASES.map(Fixture::open);
    for (weights, _) in FORMATS.into_iter().filter(|format| format.1 == precision) {
        for arrangement in Arrangement::ALL {
            let mut pools = Pools::default();
            let mut row = String::new();
            for fixture in &fixtures {
                let cell = Cell { fixture, weights, precision, arrangement };
                notes += cell.compare(&mut deviations, &mut pools);
                cells += 1;
                row = format!("gradients, {cell}");
            }
            notes += pools.note(&row, &mut deviations);
        }
    }
    assert_eq!(cells, 12 * 3 * 4, "cells of the matrix in {}", precision.name());
    if precision == Precision::Bf16 {
        // Logits and pooled gradients of twelve cases, pooled gradients of seven projections' A, B and magnitudes, and of
        // what is trained of the two tables.
        assert_eq!(notes, 3 * 4 * (2 * 12 + 21 + 1));
    }
    deviations.finish(notes);
}

#[test]
fn f32_is_the_reference_to_its_rounding() {
    compare(Precision::F32);
}

#[test]
fn bf16_is_as_near_to_f64_as_that_of_pytorch() {
    compare(Precision::Bf16);
}

#[test]
fn the_loss_of_every_row_is_that_of_transformers() {
    let mut deviations = Deviations::of("model");
    let mut rows = 0;
    for (weights, precision) in FORMATS {
        let comparison = format!("row losses, {} in {}", weights.name(), precision.name());
        let [mut ours, mut pytorchs] = [0.0, 0.0];
        for fixture in CASES.map(Fixture::open) {
            let answers = fixture.tensors(weights.name());
            let expected = answers.floats("losses");
            let found = row_losses(&fixture.model(weights), &fixture.rows(), precision);
            assert_eq!(found.len(), expected.len(), "{}: rows", fixture.case);
            rows += found.len();
            ours += (distance(&found, &expected) / length(&expected)).powi(2);
            pytorchs += answers.number("bf16.losses").powi(2);
            if precision == Precision::F32 {
                for (row, (found, expected)) in found.iter().zip(&expected).enumerate() {
                    let moved = f64::from((found / expected - 1.0).abs());
                    deviations.note(
                        &comparison,
                        &format!("{}: row {row}", fixture.case),
                        moved,
                        LOSS,
                    );
                }
            }
        }
        if precision == Precision::Bf16 {
            // Of all cases together: errors of either sign may cancel in the few sums of one.
            deviations.note(&comparison, "all cases", (ours / pytorchs).sqrt(), BF16);
        }
    }
    // The rows are the same ones in all six formats.
    deviations.finish(rows / 2 + 3);
}

#[test]
fn a_folder_that_bitsandbytes_quantised_is_what_quantising_while_loading_makes() {
    let mut deviations = Deviations::of("model");
    let mut projections = 0;
    for fixture in CASES.map(Fixture::open).into_iter().filter(Fixture::is_whole_blocks) {
        for weights in [Weights::Nf4, Weights::Nf4Double] {
            let (ours, theirs) = (fixture.model(weights), fixture.bitsandbytes_model(weights));
            for (ours, theirs) in ours.blocks.iter().zip(&theirs.blocks) {
                for (ours, theirs) in ours.projections().into_iter().zip(theirs.projections()) {
                    let [found, expected] = [ours, theirs].map(|projection| {
                        let values = projection.base().weight().to_f32();
                        values.into_iter().map(f32::to_bits).collect::<Vec<_>>()
                    });
                    let what = format!("{}: {}", fixture.case, ours.base().site());
                    let comparison = format!("bitsandbytes folder, {}", weights.name());
                    deviations.exact(&comparison, &what, found == expected);
                    projections += 1;
                }
            }
        }
    }
    // All but `kv_heads_are_heads`, one of three layers, twice.
    assert_eq!(projections, (10 * 2 + 3) * 7 * 2);
    deviations.finish(projections);
}

//! How rows are put together changes nothing: neither the split into micro-batches, nor packing, nor
//! their places, nor padding.

use graft_data::{Batch, IGNORE, Sample, pack};
use graft_engine::Checkpointing;
use proptest::prelude::*;

use super::drawn::{Drawn, config, drawn};
use super::{Slope, collate, scores, slope};

/// Sums over tokens add the same terms in another order: some dozen roundings of 6e-8.
const REORDERED: f64 = 5e-6;

/// Rows without noise, which belongs to a place in a micro-batch.
fn quiet(rows: std::ops::Range<usize>) -> impl Strategy<Value = Drawn> {
    drawn(rows).prop_map(|drawn| Drawn { dropout: 0.0, ..drawn })
}

fn of_batches(drawn: &Drawn, batches: &[Batch]) -> Slope {
    slope(drawn, Checkpointing::Block, batches)
}

fn without_targets(row: &Sample) -> Sample {
    Sample { labels: vec![IGNORE; row.labels.len()], ..row.clone() }
}

proptest! {
    #![proptest_config(config(24))]

    #[test]
    fn micro_batches_equal_one_batch(drawn in quiet(2..7), size in 1_usize..4) {
        let rows = drawn.rows();
        let one = of_batches(&drawn, &[collate(&rows)]);
        let parts: Vec<Batch> = rows.chunks(size).map(collate).collect();
        let many = of_batches(&drawn, &parts);
        prop_assert!((one.loss - many.loss).abs() <= 1e-12 * one.loss, "{} and {}", one.loss, many.loss);
        let moved = one.distance(&many);
        prop_assert!(moved <= REORDERED, "the gradient moved by {moved}");
    }

    #[test]
    fn packed_rows_score_as_rows_alone_to_the_bit(drawn in quiet(1..8), room in 0_usize..60) {
        let rows = drawn.rows();
        let model = drawn.adapted(0.5);
        let alone: Vec<_> =
            rows.chunks(1).map(|row| scores(&model, drawn.precision, row)[0]).collect();
        for bin in pack(&drawn.lengths, 40 + room) {
            let packed: Vec<Sample> = bin.iter().map(|&row| rows[row].clone()).collect();
            let expected: Vec<_> = bin.iter().map(|&row| alone[row]).collect();
            prop_assert_eq!(scores(&model, drawn.precision, &packed), expected);
        }
    }

    #[test]
    fn a_packed_row_has_the_gradient_that_it_has_alone(drawn in quiet(2..5)) {
        let rows = drawn.rows();
        for (place, row) in rows.iter().enumerate() {
            let only = |(other, row): (usize, &Sample)| {
                if other == place { row.clone() } else { without_targets(row) }
            };
            let packed: Vec<Sample> = rows.iter().enumerate().map(only).collect();
            let packed = of_batches(&drawn, &[collate(&packed)]);
            let alone = of_batches(&drawn, &[collate(std::slice::from_ref(row))]);
            prop_assert_eq!(packed.loss.to_bits(), alone.loss.to_bits());
            let moved = alone.distance(&packed);
            prop_assert!(moved <= REORDERED, "the gradient of row {place} moved by {moved}");
        }
    }

    #[test]
    fn the_place_of_a_row_changes_nothing(drawn in quiet(2..6), by in 1_usize..6) {
        let rows = drawn.rows();
        let by = by % rows.len();
        let mut moved = rows.clone();
        moved.rotate_left(by);
        let model = drawn.adapted(0.5);
        let mut expected = scores(&model, drawn.precision, &rows);
        expected.rotate_left(by);
        prop_assert_eq!(scores(&model, drawn.precision, &moved), expected);
        let [here, there] = [rows, moved].map(|rows| of_batches(&drawn, &[collate(&rows)]));
        prop_assert!((here.loss - there.loss).abs() <= 1e-12 * here.loss);
        let moved = here.distance(&there);
        prop_assert!(moved <= REORDERED, "the gradient moved by {moved}");
    }

    #[test]
    fn padding_changes_nothing(drawn in quiet(1..4), multiple in 1_usize..70, pad in any::<u32>()) {
        let rows = drawn.rows();
        let rows: Vec<&Sample> = rows.iter().collect();
        let pad = pad % drawn.sizes.vocab as u32;
        let plain = of_batches(&drawn, &[Batch::collate(&rows, 1, 0)]);
        let padded = of_batches(&drawn, &[Batch::collate(&rows, multiple, pad)]);
        prop_assert_eq!(plain.loss.to_bits(), padded.loss.to_bits());
        let moved = plain.distance(&padded);
        prop_assert!(moved <= REORDERED, "the gradient moved by {moved}");
        let other = (pad + 1) % drawn.sizes.vocab as u32;
        let other = of_batches(&drawn, &[Batch::collate(&rows, multiple, other)]);
        prop_assert_eq!(padded.bits(), other.bits(), "the id of padding is seen");
    }
}

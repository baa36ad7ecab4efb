//! Rows side by side without padding: one long sequence whose documents do not see each other.

use std::ops::Range;

use crate::sample::{IGNORE, Sample};

/// The input of one forward pass.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// Ids, `[tokens]`: the rows one after the other, then padding.
    pub tokens: Vec<u32>,
    /// The id to predict after each position, or [`IGNORE`], `[tokens]`; the last position of every
    /// document and all padding are [`IGNORE`].
    pub labels: Vec<i32>,
    /// Position inside the document, from 0, `[tokens]`; 0 for padding.
    pub positions: Vec<u32>,
    /// Where each document lies; padding lies in none.
    pub documents: Vec<Range<usize>>,
}

impl Batch {
    /// Joins `samples`, and adds `pad` behind them only to reach a multiple of `multiple_of`
    /// (0 and 1 add nothing).
    ///
    /// Masks come from the place of a token and never from its id, so `pad` may be any id.
    pub fn collate(samples: &[&Sample], multiple_of: usize, pad: u32) -> Self {
        let length: usize = samples.iter().map(|sample| sample.tokens.len()).sum();
        let padded = length.next_multiple_of(multiple_of.max(1));
        let mut batch = Self {
            tokens: Vec::with_capacity(padded),
            labels: Vec::with_capacity(padded),
            positions: Vec::with_capacity(padded),
            documents: Vec::with_capacity(samples.len()),
        };
        for Sample { tokens, labels, .. } in samples {
            let start = batch.tokens.len();
            batch.tokens.extend_from_slice(tokens);
            batch.labels.extend(labels.iter().skip(1));
            batch.labels.resize(batch.tokens.len(), IGNORE);
            batch.positions.extend(0..tokens.len() as u32);
            batch.documents.push(start..batch.tokens.len());
        }
        batch.tokens.resize(padded, pad);
        batch.labels.resize(padded, IGNORE);
        batch.positions.resize(padded, 0);
        batch
    }

    /// How many positions count in the loss.
    pub fn targets(&self) -> usize {
        self.labels.iter().filter(|&&label| label != IGNORE).count()
    }

    /// How many positions there are, padding included.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there is no position.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::formats::Origin;

    fn sample(pairs: &[(u32, bool)]) -> Sample {
        Sample {
            tokens: pairs.iter().map(|&(id, _)| id).collect(),
            labels: pairs
                .iter()
                .map(|&(id, target)| if target { id as i32 } else { IGNORE })
                .collect(),
            origin: Origin { file: 0, line: 1, item: None },
        }
    }

    #[test]
    fn labels_are_the_next_token_and_padding_stands_outside() {
        let a = sample(&[(1, false), (2, true), (3, true)]);
        let b = sample(&[(4, true), (5, true)]);
        let batch = Batch::collate(&[&a, &b], 4, 3);
        assert_eq!(batch.tokens, [1, 2, 3, 4, 5, 3, 3, 3]);
        assert_eq!(batch.labels, [2, 3, IGNORE, 5, IGNORE, IGNORE, IGNORE, IGNORE]);
        assert_eq!(batch.positions, [0, 1, 2, 0, 1, 0, 0, 0]);
        assert_eq!(batch.documents, [0..3, 3..5]);
        assert_eq!(batch.targets(), 3);
        assert!(Batch::collate(&[], 8, 0).is_empty());
    }

    fn samples() -> impl Strategy<Value = Vec<Sample>> {
        let row = proptest::collection::vec((0_u32..50, any::<bool>()), 1..20);
        proptest::collection::vec(row.prop_map(|pairs| sample(&pairs)), 0..12)
    }

    proptest! {
        #[test]
        fn labels_never_cross_documents(samples in samples(), multiple in 0_usize..9) {
            let all: Vec<&Sample> = samples.iter().collect();
            let batch = Batch::collate(&all, multiple, 7);
            let end = batch.documents.last().map_or(0, |document| document.end);
            prop_assert!(batch.labels[end..].iter().all(|&label| label == IGNORE));
            prop_assert!(batch.len() - end < multiple.max(1));
            for (document, sample) in batch.documents.iter().zip(&samples) {
                prop_assert_eq!(&batch.tokens[document.clone()], &sample.tokens[..]);
                prop_assert_eq!(batch.labels[document.end - 1], IGNORE);
                for at in document.start..document.end - 1 {
                    let label = batch.labels[at];
                    prop_assert!(label == IGNORE || label == batch.tokens[at + 1] as i32);
                    prop_assert_eq!(batch.positions[at] as usize, at - document.start);
                }
            }
        }

        #[test]
        fn targets_of_micro_batches_add_up_to_those_of_the_batch(
            samples in samples(), size in 1_usize..5, multiple in 1_usize..5,
        ) {
            let all: Vec<&Sample> = samples.iter().collect();
            let parts = all.chunks(size).map(|part| Batch::collate(part, multiple, 0).targets());
            let own = samples.iter().map(Sample::targets).sum::<usize>();
            prop_assert_eq!(parts.sum::<usize>(), own);
            prop_assert_eq!(Batch::collate(&all, 1, 0).targets(), own);
        }
    }
}

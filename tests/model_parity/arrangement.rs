//! The ways in which rows go through a model together. The answers know nothing of them.

use graft_data::{Batch, IGNORE, Sample};

/// How rows become batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrangement {
    /// Documents of one row, with a little padding at its end.
    Packed,
    /// A micro-batch each.
    Alone,
    /// One batch, every row filled up to the longest behind its tokens, as the reference does.
    PaddedRight,
    /// One batch, every row filled up to the longest before its tokens.
    PaddedLeft,
}

impl Arrangement {
    /// All of them.
    pub(crate) const ALL: [Self; 4] =
        [Self::Packed, Self::Alone, Self::PaddedRight, Self::PaddedLeft];

    /// Its name in the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Packed => "packed",
            Self::Alone => "row by row",
            Self::PaddedRight => "padded on the right",
            Self::PaddedLeft => "padded on the left",
        }
    }

    /// The batches.
    pub(crate) fn batches(self, rows: &[Sample]) -> Vec<Batch> {
        // Any id: nothing may look at it.
        let pad = 5;
        let all: Vec<&Sample> = rows.iter().collect();
        match self {
            Self::Packed => vec![Batch::collate(&all, 32, pad)],
            Self::Alone => all.chunks(1).map(|row| Batch::collate(row, 1, pad)).collect(),
            Self::PaddedRight | Self::PaddedLeft => {
                let longest = rows.iter().map(|row| row.tokens.len()).max().unwrap_or(0);
                let mut batch = Batch::default();
                for row in all {
                    let row = Batch::collate(&[row], 1, pad);
                    let fill = longest - row.len();
                    let before = if self == Self::PaddedLeft { fill } else { 0 };
                    append(&mut batch, before, &row, fill - before, pad);
                }
                vec![batch]
            }
        }
    }
}

/// Adds a batch of one document with padding around it.
fn append(batch: &mut Batch, before: usize, row: &Batch, behind: usize, pad: u32) {
    let start = batch.len() + before;
    let end = start + row.len();
    batch.tokens.resize(start, pad);
    batch.labels.resize(start, IGNORE);
    batch.positions.resize(start, 0);
    batch.tokens.extend(&row.tokens);
    batch.labels.extend(&row.labels);
    batch.positions.extend(&row.positions);
    batch.documents.push(start..end);
    batch.tokens.resize(end + behind, pad);
    batch.labels.resize(end + behind, IGNORE);
    batch.positions.resize(end + behind, 0);
}

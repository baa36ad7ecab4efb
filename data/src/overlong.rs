//! What to do with rows longer than `max_seq_len`. Cutting silently is how answers get lost, so the
//! default refuses and shows the lengths.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, RowPlace};
use crate::sample::{IGNORE, Sample};
use crate::statistics::Histogram;

/// The policy for rows longer than `max_seq_len`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Overlong {
    /// Refuse the dataset and report the lengths.
    #[default]
    Error,
    /// Leave the row out.
    Drop,
    /// Keep `<|begin_of_text|>` and the end of the row.
    TruncateLeft,
    /// Keep the start of the row.
    TruncateRight,
    /// Cut into rows of `max_seq_len` that together hold every token.
    Split,
}

impl Overlong {
    /// Every policy.
    pub const ALL: [Self; 5] =
        [Self::Error, Self::Drop, Self::TruncateLeft, Self::TruncateRight, Self::Split];

    /// The name in recipes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Drop => "drop",
            Self::TruncateLeft => "truncate_left",
            Self::TruncateRight => "truncate_right",
            Self::Split => "split",
        }
    }

    /// The rows that a row longer than `max_seq_len` (at least 2) becomes; none where it is left out.
    pub(crate) fn apply(self, sample: Sample, max_seq_len: usize) -> Vec<Sample> {
        let Sample { mut tokens, mut labels, origin } = sample;
        let cut = tokens.len().saturating_sub(max_seq_len);
        match self {
            Self::Error | Self::Drop => return Vec::new(),
            Self::TruncateRight => {
                tokens.truncate(max_seq_len);
                labels.truncate(max_seq_len);
            }
            Self::TruncateLeft => {
                tokens.drain(1..=cut);
                labels.drain(1..=cut);
                // What stood before this token is gone: nothing could predict it.
                labels[1] = IGNORE;
            }
            Self::Split => {
                for first in labels.iter_mut().step_by(max_seq_len) {
                    // Nothing stands before it in its part that could predict it.
                    *first = IGNORE;
                }
                let chunks = tokens.chunks(max_seq_len).zip(labels.chunks(max_seq_len));
                let sample = |(tokens, labels): (&[u32], &[i32])| Sample {
                    tokens: tokens.to_vec(),
                    labels: labels.to_vec(),
                    origin,
                };
                return chunks.map(sample).collect();
            }
        }
        vec![Sample { tokens, labels, origin }]
    }
}

impl fmt::Display for Overlong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Overlong {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let known = Self::ALL.into_iter().find(|policy| policy.name() == name);
        known.ok_or_else(|| Error::UnknownOverlong { found: name.to_owned() })
    }
}

/// A row that is too long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverlongRow {
    /// Where it stands.
    pub place: RowPlace,
    /// How many tokens it has.
    pub tokens: usize,
}

/// Why `overlong: error` refused a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverlongReport {
    /// The first row that is too long.
    pub first: OverlongRow,
    /// The longest row.
    pub longest: OverlongRow,
    /// What is allowed, in tokens.
    pub max_seq_len: usize,
    /// How many rows are too long.
    pub overlong: usize,
    /// How many rows there are.
    pub rows: usize,
    /// The lengths of all rows.
    pub histogram: Histogram,
}

impl fmt::Display for OverlongReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first, longest, max_seq_len, overlong, rows, histogram } = self;
        writeln!(
            f,
            "{}: the row has {} tokens, but max_seq_len is {max_seq_len}; {overlong} of {rows} rows \
             are too long, the longest has {} ({})",
            first.place, first.tokens, longest.tokens, longest.place
        )?;
        write!(f, "{histogram}")?;
        write!(
            f,
            "raise `max_seq_len`, or choose what happens to them: `overlong: drop`, \
             `truncate_left`, `truncate_right` or `split`"
        )
    }
}

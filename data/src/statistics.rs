//! What a dataset holds, in numbers: rows, tokens, targets, lengths, and what was left out.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::shown::some;
use crate::visible::visible;

/// Numbers about an encoded dataset.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Statistics {
    /// Rows read from the files.
    pub rows: usize,
    /// Rows to train on: fewer where some were dropped, more where some were split.
    pub samples: usize,
    /// Tokens of the samples.
    pub tokens: usize,
    /// Tokens that are predicted and count in the loss.
    pub targets: usize,
    /// Lengths of the rows in tokens, before the overlong policy.
    pub lengths: Lengths,
    /// Rows left out because they are too long.
    pub dropped_overlong: usize,
    /// Rows left out because no target token is left in them.
    pub dropped_without_targets: usize,
    /// Rows left out because an answer in them says nothing.
    pub dropped_empty: usize,
    /// Rows left out because they say so (`weight: 0`).
    pub left_out_by_themselves: usize,
    /// What `data.hygiene` did to rows, and to how many; empty where it did nothing.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub cleaned: BTreeMap<String, usize>,
    /// Rows cut to `max_seq_len`.
    pub truncated: usize,
    /// Rows cut into several.
    pub split: usize,
    /// Parts of split rows left out because they hold no target token.
    pub parts_without_targets: usize,
    /// Rows with an answer that no token at which generation ends belongs to.
    pub answers_without_end: usize,
    /// Rows, tokens and notes of each file.
    pub files: Vec<FileStatistics>,
}

/// Numbers about one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStatistics {
    /// The file.
    pub path: PathBuf,
    /// Rows read from it.
    pub rows: usize,
    /// Tokens of its samples.
    pub tokens: usize,
    /// Tokens of its samples that are learnt.
    pub targets: usize,
    /// Fields that are notes about a row and not learnt from, and how many rows have each.
    pub notes: BTreeMap<String, usize>,
    /// What is to be said of it, such as parts that were left out as was allowed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<String>,
}

/// Percentiles (nearest rank) of row lengths, in tokens.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Lengths {
    /// The shortest.
    pub min: usize,
    /// Half of the rows are at most this long.
    pub p50: usize,
    /// 90 % of the rows are at most this long.
    pub p90: usize,
    /// 99 % of the rows are at most this long.
    pub p99: usize,
    /// The longest.
    pub max: usize,
    /// The average.
    pub mean: f64,
    /// How many rows have which length.
    pub histogram: Histogram,
}

impl Lengths {
    /// Of these lengths; all zero where there are none.
    pub fn of(lengths: &[usize]) -> Self {
        Self::of_counts(&counted(lengths))
    }

    /// Of these lengths, each with how many rows have it.
    pub(crate) fn of_counts(counts: &BTreeMap<usize, usize>) -> Self {
        let rows: usize = counts.values().sum();
        let rank = |percent: usize| {
            let rank = (rows * percent).div_ceil(100).max(1);
            let mut behind = 0;
            let mut reaches = |count: &usize| {
                behind += count;
                behind >= rank
            };
            counts.iter().find(|(_, count)| reaches(count)).map_or(0, |(&length, _)| length)
        };
        let sum: usize = counts.iter().map(|(length, count)| length * count).sum();
        let mean = sum as f64 / rows.max(1) as f64;
        Self {
            min: rank(0),
            p50: rank(50),
            p90: rank(90),
            p99: rank(99),
            max: rank(100),
            mean,
            histogram: Histogram::of_counts(counts),
        }
    }
}

fn counted(lengths: &[usize]) -> BTreeMap<usize, usize> {
    let mut counts = BTreeMap::new();
    for &length in lengths {
        *counts.entry(length).or_default() += 1;
    }
    counts
}

/// Rows per length, in ranges that double: 1–64, 65–128, 129–256, …
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Histogram {
    /// Highest length of a range and how many rows fall into it.
    pub ranges: Vec<(usize, usize)>,
}

const FIRST_RANGE: usize = 64;

impl Histogram {
    /// Of these lengths.
    pub fn of(lengths: &[usize]) -> Self {
        Self::of_counts(&counted(lengths))
    }

    /// Of these lengths, each with how many rows have it.
    pub(crate) fn of_counts(counts: &BTreeMap<usize, usize>) -> Self {
        let longest = counts.keys().next_back().copied().unwrap_or(0);
        let mut ranges = vec![(FIRST_RANGE, 0)];
        while ranges.last().is_some_and(|&(high, _)| high < longest) {
            ranges.push((FIRST_RANGE << ranges.len(), 0));
        }
        for (&length, count) in counts {
            let range = ranges.partition_point(|&(high, _)| high < length);
            ranges[range].1 += count;
        }
        Self { ranges }
    }
}

impl fmt::Display for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let most = self.ranges.iter().map(|&(_, rows)| rows).max().unwrap_or(0).max(1);
        let first = self.ranges.iter().position(|&(_, rows)| rows > 0).unwrap_or(0);
        writeln!(f, "       tokens      rows")?;
        for (index, &(high, rows)) in self.ranges.iter().enumerate().skip(first) {
            let low = if index == 0 { 1 } else { self.ranges[index - 1].0 + 1 };
            let bar = "█".repeat((rows * 30).div_ceil(most));
            let range = format!("{low}–{high}");
            writeln!(f, "{range:>13}{rows:>10} {bar}")?;
        }
        Ok(())
    }
}

/// How many rows were read, and what became of those that are not used whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowCounts {
    /// Rows read from the files.
    pub rows: usize,
    /// Samples that they became.
    pub samples: usize,
    /// What became of rows, and of how many; empty where each is a sample as it is.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub otherwise: BTreeMap<String, usize>,
    /// How many samples of each source an epoch has, by the source's key; empty where it has each once.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub epoch: BTreeMap<String, usize>,
}

impl RowCounts {
    /// Whether each row is a sample as it is, and an epoch has each once.
    pub fn are_plain(&self) -> bool {
        self.otherwise.is_empty() && self.epoch.is_empty()
    }
}

impl fmt::Display for RowCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rows, {} samples", self.rows, self.samples)?;
        self.otherwise.iter().try_for_each(|(what, count)| write!(f, "; {what}: {count}"))?;
        let mut before = "; an epoch has";
        for (key, samples) in &self.epoch {
            write!(f, "{before} {samples} of {key}")?;
            before = ",";
        }
        Ok(())
    }
}

impl Statistics {
    /// Rows and samples, and what was left out or cut.
    pub fn counts(&self) -> RowCounts {
        let otherwise = [
            (self.dropped_overlong, "rows dropped: too long"),
            (self.dropped_without_targets, "rows dropped: no target token"),
            (self.dropped_empty, "rows dropped: an empty answer"),
            (self.left_out_by_themselves, "rows left out: they say so (`weight: 0`)"),
            (self.truncated, "rows truncated"),
            (self.split, "rows split"),
            (self.parts_without_targets, "parts of split rows dropped: no target token"),
        ];
        let otherwise = otherwise.into_iter().filter(|(count, _)| *count > 0);
        let otherwise = otherwise.map(|(count, what)| (what.to_owned(), count));
        let cleaned = self.cleaned.iter().map(|(what, count)| (what.clone(), *count));
        RowCounts {
            rows: self.rows,
            samples: self.samples,
            otherwise: otherwise.chain(cleaned).collect(),
            epoch: BTreeMap::new(),
        }
    }
}

impl fmt::Display for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = 100.0 * self.targets as f64 / self.tokens.max(1) as f64;
        writeln!(f, "rows {}, samples {}", self.rows, self.samples)?;
        writeln!(f, "tokens {}, targets {} ({share:.1} %)", self.tokens, self.targets)?;
        let Lengths { min, p50, p90, p99, max, mean, histogram } = &self.lengths;
        writeln!(
            f,
            "length: mean {mean:.1}, min {min}, p50 {p50}, p90 {p90}, p99 {p99}, max {max}"
        )?;
        for (what, count) in self.counts().otherwise {
            writeln!(f, "{what}: {count}")?;
        }
        if self.answers_without_end > 0 {
            writeln!(
                f,
                "rows with an answer that no end token closes: {}",
                self.answers_without_end
            )?;
        }
        self.sources(f)?;
        write!(f, "{histogram}")
    }
}

impl Statistics {
    /// A line for each file, and what was met in it.
    fn sources(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// Files that somebody reads through.
        const MOST: usize = 40;
        let shown = &self.files[..self.files.len().min(MOST)];
        let names: Vec<String> =
            shown.iter().map(|file| shown_whole(&file.path.display().to_string())).collect();
        let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0).max(4);
        writeln!(
            f,
            "{:<width$}{:>10}{:>12}{:>12}{:>9}",
            "file", "rows", "tokens", "targets", "learnt"
        )?;
        for (name, file) in names.iter().zip(shown) {
            let FileStatistics { path: _, rows, tokens, targets, notes, remarks } = file;
            let share = 100.0 * *targets as f64 / (*tokens).max(1) as f64;
            writeln!(f, "{name:<width$}{rows:>10}{tokens:>12}{targets:>12}{share:>7.1} %")?;
            if !notes.is_empty() {
                let names = some(notes.keys().map(String::as_str));
                writeln!(f, "  not learnt from, as notes about the rows: {names}")?;
            }
            for remark in remarks {
                writeln!(f, "  {remark}")?;
            }
        }
        if self.files.len() > MOST {
            writeln!(f, "and {} more files", self.files.len() - MOST)?;
        }
        Ok(())
    }
}

/// A name on one line.
fn shown_whole(name: &str) -> String {
    visible(name).replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_lengths_that_occur() {
        let lengths: Vec<usize> = (1..=100).rev().collect();
        let Lengths { min, p50, p90, p99, max, mean, .. } = Lengths::of(&lengths);
        assert_eq!((min, p50, p90, p99, max), (1, 50, 90, 99, 100));
        assert!((mean - 50.5).abs() < 1e-12);
        assert_eq!(Lengths::of(&[]).max, 0);
    }

    #[test]
    fn the_histogram_counts_every_row_once() {
        let histogram = Histogram::of(&[1, 64, 65, 128, 129, 1000]);
        assert_eq!(histogram.ranges, [(64, 2), (128, 2), (256, 1), (512, 0), (1024, 1)]);
        insta::assert_snapshot!(histogram, @r"
               tokens      rows
                 1–64         2 ██████████████████████████████
               65–128         2 ██████████████████████████████
              129–256         1 ███████████████
              257–512         0 
             513–1024         1 ███████████████
        ");
    }
}

//! Stretches of words that stand in a measured row and in a row that is trained on: what the model has
//! learnt by heart is then asked of it, however different the rest of the two rows is. Thirteen words are
//! the usual length (Brown et al. 2020, appendix C).

use super::words::shingles;

/// Measured rows that share a stretch, above which it is taken for words of their form (a question that
/// all of them ask) and not looked for.
const MOST_SHARING: usize = 10;

/// Stretches of words of measured rows, each with the first row that has it.
#[derive(Default)]
pub(super) struct Stretches {
    words: usize,
    /// Sorted by hash once it is complete.
    entries: Vec<(u64, u32)>,
    /// A bit for the upper bits of each hash: most stretches that are not there end here.
    seen: Vec<u64>,
    shift: u32,
    /// Measured rows that are too short to have one.
    pub(super) short: usize,
    /// Stretches that are words of a form.
    pub(super) of_form: usize,
}

impl Stretches {
    pub(super) fn of_length(words: usize) -> Self {
        Self { words, ..Self::default() }
    }

    /// The different stretches of a row.
    pub(super) fn of_row(&self, words: &[u64]) -> Vec<u64> {
        let mut all = Vec::new();
        if words.len() >= self.words {
            shingles(words, self.words, |hash| all.push(hash));
        }
        all.sort_unstable();
        all.dedup();
        all
    }

    /// A measured row with these.
    pub(super) fn add(&mut self, row: u32, stretches: &[u64]) {
        self.short += usize::from(stretches.is_empty());
        self.entries.extend(stretches.iter().map(|&hash| (hash, row)));
    }

    /// Ends adding.
    pub(super) fn complete(&mut self) {
        self.entries.sort_unstable();
        let mut kept = Vec::new();
        for rows in self.entries.chunk_by(|a, b| a.0 == b.0) {
            if rows.len() > MOST_SHARING {
                self.of_form += 1;
            } else {
                kept.push(rows[0]);
            }
        }
        self.entries = kept;
        let bits = (self.entries.len() * 16).next_power_of_two().max(64);
        self.shift = 64 - bits.trailing_zeros();
        self.seen = vec![0; bits / 64];
        for (hash, _) in &self.entries {
            let at = (hash >> self.shift) as usize;
            self.seen[at / 64] |= 1 << (at % 64);
        }
    }

    /// The first measured row that shares a stretch with these words.
    pub(super) fn find(&self, words: &[u64]) -> Option<u32> {
        if self.entries.is_empty() || words.len() < self.words {
            return None;
        }
        let mut found: Option<u32> = None;
        shingles(words, self.words, |hash| {
            let at = (hash >> self.shift) as usize;
            if self.seen[at / 64] & (1 << (at % 64)) == 0 {
                return;
            }
            if let Ok(at) = self.entries.binary_search_by_key(&hash, |entry| entry.0) {
                let row = self.entries[at].1;
                found = Some(found.map_or(row, |before| before.min(row)));
            }
        });
        found
    }
}

#[cfg(test)]
mod tests {
    use super::super::words::words;
    use super::*;
    use crate::formats::Row;

    fn of(text: &str) -> Vec<u64> {
        words(&Row::Text(text.to_owned()))
    }

    #[test]
    fn a_row_that_has_a_stretch_of_a_measured_one_is_found_and_none_that_has_less() {
        let mut known = Stretches::of_length(4);
        let measured = ["one two three four five", "six seven eight nine ten", "too short here"];
        for (row, text) in measured.iter().enumerate() {
            let stretches = known.of_row(&of(text));
            known.add(row as u32, &stretches);
        }
        known.complete();
        assert_eq!(known.short, 1);
        assert_eq!(known.find(&of("before seven eight nine ten behind")), Some(1));
        assert_eq!(known.find(&of("Two, three, FOUR: five.")), Some(0));
        assert_eq!(known.find(&of("two three four and five")), None);
        assert_eq!(known.find(&of("too short here")), None);
        assert_eq!(known.find(&[]), None);
    }

    #[test]
    fn words_of_a_form_are_no_contamination() {
        let mut known = Stretches::of_length(3);
        for row in 0..=MOST_SHARING {
            let stretches = known.of_row(&of(&format!("translate this sentence {row}x own{row}")));
            known.add(row as u32, &stretches);
        }
        known.complete();
        assert_eq!(known.of_form, 1);
        assert_eq!(known.find(&of("translate this sentence other")), None);
        assert_eq!(known.find(&of("this sentence 3x own3")), Some(3));
    }
}

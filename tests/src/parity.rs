//! What the comparisons with reference implementations share: where their cases lie and how far off
//! is too far.
//!
//! The committed cases are in `fixtures/AREA`. The live comparison draws fresh ones: it points
//! `GRAFT_PARITY_CASES` at a folder of the same layout, and collects from the file that
//! `GRAFT_PARITY_TABLE` names, one JSON object a line, what was compared and how far off it was.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The cases of an area.
pub fn cases(area: &str) -> PathBuf {
    let committed = || Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    std::env::var_os("GRAFT_PARITY_CASES").map_or_else(committed, PathBuf::from).join(area)
}

/// Whether the cases are freshly drawn ones.
pub fn is_live() -> bool {
    std::env::var_os("GRAFT_PARITY_CASES").is_some()
}

struct Row {
    compared: usize,
    worst: f64,
    tolerance: f64,
}

/// Gathers how far results are from the reference's, a row a comparison; what lies too far off fails
/// at the end, all of it named.
pub struct Deviations {
    part: &'static str,
    rows: BTreeMap<String, Row>,
    problems: Vec<String>,
}

impl Deviations {
    /// Of a part of the comparison: `model`, `adapters`, …
    pub fn of(part: &'static str) -> Self {
        Self { part, rows: BTreeMap::new(), problems: Vec::new() }
    }

    /// Notes in the row `comparison` that `what` is `moved` off, in the unit of `tolerance`.
    pub fn note(&mut self, comparison: &str, what: &str, moved: f64, tolerance: f64) {
        let row = self.rows.entry(comparison.to_owned());
        let row = row.or_insert(Row { compared: 0, worst: 0.0, tolerance });
        row.compared += 1;
        if moved.is_nan() || moved > row.worst {
            row.worst = moved;
        }
        if moved.is_nan() || moved > tolerance {
            self.problems.push(format!(
                "{comparison}: {what} moved by {moved:.2e}, allowed is {tolerance:.1e}"
            ));
        }
    }

    /// Notes whether `what` is exactly the reference's.
    pub fn exact(&mut self, comparison: &str, what: &str, same: bool) {
        self.note(comparison, what, f64::from(u8::from(!same)), 0.0);
    }

    /// How many comparisons were noted.
    pub fn compared(&self) -> usize {
        self.rows.values().map(|row| row.compared).sum()
    }

    /// Adds the rows to the table where one is wanted.
    ///
    /// # Panics
    /// If anything lies too far off, or if not exactly `compared` comparisons were made: one that was
    /// skipped is no success.
    pub fn finish(self, compared: usize) {
        if let Some(path) = std::env::var_os("GRAFT_PARITY_TABLE") {
            let path = PathBuf::from(path);
            self.append(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
        let Self { ref problems, .. } = self;
        assert!(problems.is_empty(), "{} off:\n{}", problems.len(), problems.join("\n"));
        assert_eq!(self.compared(), compared, "comparisons made in {}", self.part);
    }

    fn append(&self, path: &Path) -> std::io::Result<()> {
        let line = |(comparison, row): (&String, &Row)| {
            let Row { compared, worst, tolerance } = row;
            let line = serde_json::json!({
                "part": self.part, "comparison": comparison, "compared": compared,
                "worst": worst, "tolerance": tolerance,
            });
            format!("{line}\n")
        };
        let lines: String = self.rows.iter().map(line).collect();
        // One write, so that tests that end together do not mix their lines.
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path)?;
        file.write_all(lines.as_bytes())
    }
}

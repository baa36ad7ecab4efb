//! What was found in documents, as a table, as JSON, and as the error that it is.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::ValueEnum as _;
use graft_documents::{Document, Left};
use serde_json::{Value, json};
use unicode_width::UnicodeWidthStr as _;

use crate::cli::documents_args::Allow;
use crate::cli::page::{counted, grouped};
use crate::document_rows::pages_without_text;

/// Something that could not be read.
pub(super) struct Problem {
    pub(super) path: PathBuf,
    pub(super) what: String,
    /// What lets it be left out.
    pub(super) allow: Allow,
}

impl Problem {
    pub(super) fn unreadable(path: &Path, what: String) -> Self {
        Self { path: path.to_path_buf(), what, allow: Allow::Unreadable }
    }
}

/// What came out of one file.
pub(super) struct File {
    path: PathBuf,
    kind: &'static str,
    sha256: String,
    bytes: u64,
    pages: Option<u32>,
    length: u64,
    rows: usize,
    left_out: BTreeMap<Left, u64>,
    textless: Vec<u32>,
    same_as: Option<PathBuf>,
}

impl File {
    pub(super) fn of(
        document: &Document,
        rows: usize,
        length: u64,
        same_as: Option<PathBuf>,
    ) -> Self {
        Self {
            path: document.path.clone(),
            kind: document.kind.name(),
            sha256: document.sha256.clone(),
            bytes: document.size,
            pages: document.pages,
            length,
            rows,
            left_out: document.left_out.clone(),
            textless: document.textless.clone(),
            same_as,
        }
    }

    fn json(&self, unit: &str) -> Value {
        json!({
            "path": self.path.to_string_lossy(),
            "kind": self.kind,
            "sha256": self.sha256,
            "bytes": self.bytes,
            "pages": self.pages,
            unit: self.length,
            "rows": self.rows,
            "left_out": self.left_out,
            "pages_without_text": self.textless,
            "same_content_as": self.same_as.as_ref().map(|path| path.to_string_lossy()),
        })
    }

    /// What is to be said of it beside numbers.
    fn remarks(&self) -> String {
        let mut remarks = Vec::new();
        if let Some(other) = &self.same_as {
            remarks.push(format!("the same content as {}", other.display()));
        }
        if !self.textless.is_empty() {
            remarks.push(pages_without_text(&self.textless));
        }
        if !self.left_out.is_empty() {
            remarks.push(format!("left out: {}", left_out(&self.left_out)));
        }
        remarks.join("; ")
    }
}

/// All that was found.
#[derive(Default)]
pub(super) struct Findings {
    pub(super) unit: &'static str,
    pub(super) files: Vec<File>,
    pub(super) problems: Vec<Problem>,
    pub(super) hidden: u64,
    pub(super) again: u64,
}

impl Findings {
    /// Problems that nobody allowed.
    pub(super) fn refused<'a>(&'a self, allowed: &'a [Allow]) -> impl Iterator<Item = &'a Problem> {
        self.problems.iter().filter(|problem| !allowed.contains(&problem.allow))
    }

    /// The error that the problems are, if they are one.
    pub(super) fn refusal(&self, allowed: &[Allow], files: usize, writes: bool) -> Option<String> {
        /// Lines that somebody reads at once.
        const SHOWN: usize = 40;
        let refused: Vec<&Problem> = self.refused(allowed).collect();
        if refused.is_empty() {
            return (self.files.is_empty()).then(|| "no file could be read".to_owned());
        }
        let files = counted(files as u64, "file");
        let mut text = match refused.len() {
            1 => format!("something could not be read in {files}"),
            several => format!("{several} things could not be read in {files}"),
        };
        text.push_str(if writes { ", and nothing was written:\n" } else { ":\n" });
        for problem in refused.iter().take(SHOWN) {
            let _ = writeln!(text, "  `{}`: {}", problem.path.display(), problem.what);
        }
        if refused.len() > SHOWN {
            let _ = writeln!(text, "  and {} more", refused.len() - SHOWN);
        }
        let ways: Vec<String> = Allow::value_variants()
            .iter()
            .filter(|allow| refused.iter().any(|problem| problem.allow == **allow))
            .filter_map(clap::ValueEnum::to_possible_value)
            .map(|value| format!("--allow {}", value.get_name()))
            .collect();
        let _ = write!(
            text,
            "Mend these, take them away, or leave them out, counted: {}",
            ways.join(" ")
        );
        Some(text)
    }

    pub(super) fn json(&self, out: Option<&Path>) -> Value {
        let files: Vec<Value> = self.files.iter().map(|file| file.json(self.unit)).collect();
        let problems: Vec<Value> = self
            .problems
            .iter()
            .map(|problem| json!({"path": problem.path.to_string_lossy(), "problem": problem.what}))
            .collect();
        json!({
            "files": files,
            "left_out": problems,
            "hidden": self.hidden,
            "named_again": self.again,
            "rows": self.rows(),
            self.unit: self.length(),
            "out": out.map(|out| out.to_string_lossy()),
        })
    }

    fn rows(&self) -> u64 {
        self.files.iter().map(|file| file.rows as u64).sum()
    }

    fn length(&self) -> u64 {
        self.files.iter().map(|file| file.length).sum()
    }

    /// A line a file, then totals.
    pub(super) fn text(&self, out: Option<&Path>) -> String {
        let mut lines = vec![["file", "kind", "pages", self.unit, "rows", ""].map(str::to_owned)];
        lines.extend(self.files.iter().map(|file| {
            [
                file.path.display().to_string(),
                file.kind.to_owned(),
                file.pages.map_or_else(String::new, |pages| grouped(pages.into())),
                grouped(file.length),
                grouped(file.rows as u64),
                file.remarks(),
            ]
        }));
        let mut text = columns(&lines);
        for problem in &self.problems {
            if problem.allow == Allow::Unreadable {
                let _ = writeln!(text, "left out  `{}`: {}", problem.path.display(), problem.what);
            }
        }
        text.push('\n');
        text.push_str(&crate::cli::page::table(&self.totals(out)));
        text
    }

    fn totals(&self, out: Option<&Path>) -> Vec<(&'static str, String)> {
        let mut rows = vec![
            ("files", grouped(self.files.len() as u64)),
            (self.unit, grouped(self.length())),
            ("rows", grouped(self.rows())),
        ];
        let mut all: BTreeMap<Left, u64> = BTreeMap::new();
        for (left, count) in self.files.iter().flat_map(|file| &file.left_out) {
            *all.entry(*left).or_default() += count;
        }
        if !all.is_empty() {
            rows.push(("left out", left_out(&all)));
        }
        let unread =
            self.problems.iter().filter(|problem| problem.allow == Allow::Unreadable).count();
        let textless: usize = self.files.iter().map(|file| file.textless.len()).sum();
        let doubles = self.files.iter().filter(|file| file.same_as.is_some()).count();
        let counted = [
            ("unreadable", unread as u64),
            ("without text", textless as u64),
            ("hidden", self.hidden),
            ("named twice", self.again),
            ("same content", doubles as u64),
        ];
        let said = [
            "left out, as allowed",
            "pages, as allowed",
            "left out",
            "read once",
            "their rows are there twice",
        ];
        for ((name, count), said) in counted.into_iter().zip(said) {
            if count > 0 {
                rows.push((name, format!("{}: {said}", grouped(count))));
            }
        }
        rows.extend(out.map(|out| ("written", out.display().to_string())));
        rows
    }
}

/// Cells below each other; numbers stand right, and nothing is filled behind the last.
fn columns(lines: &[[String; 6]]) -> String {
    let width = |column: usize| lines.iter().map(|line| line[column].width()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..5).map(width).collect();
    let mut text = String::new();
    for line in lines {
        let mut row = String::new();
        for (column, cell) in line.iter().enumerate() {
            let Some(width) = widths.get(column) else {
                row.push_str(cell);
                continue;
            };
            let space = " ".repeat(width - cell.width());
            let (before, behind) = if column < 2 { ("", &*space) } else { (&*space, "") };
            let _ = write!(row, "{before}{cell}{behind}  ");
        }
        text.push_str(row.trim_end());
        text.push('\n');
    }
    text
}

fn left_out(left: &BTreeMap<Left, u64>) -> String {
    let words = |(left, count): (&Left, &u64)| {
        let (one, several) = left.words();
        format!("{} {}", grouped(*count), if *count == 1 { one } else { several })
    };
    left.iter().map(words).collect::<Vec<_>>().join(", ")
}

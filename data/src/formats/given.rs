//! Files that no container of rows is for, such as documents: whoever reads them is handed in, and gives the
//! same values as a container does.

use std::fmt;
use std::path::Path;
use std::vec;

use serde_json::Value;

use super::containers::{FileDigest, Record, Records};
use crate::error::Error;

/// How long a text is, in tokens.
pub type Measure<'a> = &'a dyn Fn(&str) -> Result<usize, Error>;

/// Reads files as rows, each as a whole.
pub trait FileReader: fmt::Debug + Send + Sync {
    /// What it was told: two that were told the same read the same rows out of the same bytes.
    fn told(&self) -> String;

    /// The rows of a file. Without a measure they are not cut by length.
    ///
    /// # Errors
    /// The file cannot be read, or not all of it, and nobody allowed that.
    fn read(&self, path: &Path, measure: Option<Measure<'_>>) -> Result<FileContent, Error>;
}

/// What a file holds.
#[derive(Debug, Clone, PartialEq)]
pub struct FileContent {
    /// Its rows, in order.
    pub rows: Vec<Value>,
    /// Size and hash of the bytes that they were made of.
    pub digest: FileDigest,
    /// What is to be said of it: what was left out, as was allowed. A file without rows has one.
    pub remarks: Vec<String>,
}

/// The rows of such a file, one after the other.
#[derive(Debug)]
pub(super) struct Given {
    rows: vec::IntoIter<Value>,
    digest: FileDigest,
    remarks: Vec<String>,
    behind: usize,
}

impl Given {
    pub(super) fn new(content: FileContent) -> Self {
        let FileContent { rows, digest, remarks } = content;
        Self { rows: rows.into_iter(), digest, remarks, behind: 0 }
    }
}

impl Records for Given {
    fn next(&mut self) -> Result<Option<Record>, Error> {
        let Some(value) = self.rows.next() else { return Ok(None) };
        self.behind += 1;
        let bytes = value.get("text").and_then(Value::as_str).map_or(0, str::len);
        Ok(Some(Record { value, line: 0, item: Some(self.behind), bytes, of_texts: false }))
    }

    fn remarks(&mut self) -> Vec<String> {
        std::mem::take(&mut self.remarks)
    }

    fn digest(self: Box<Self>) -> Result<FileDigest, Error> {
        Ok(self.digest)
    }
}

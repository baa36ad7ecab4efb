//! Documents as rows of a run: read, cut by tokens, and each text with the place that it comes from.

use std::path::Path;
use std::sync::Arc;

use graft_data::hygiene::personal::Personal;
use graft_data::{Error, FileContent, FileDigest, FileReader, Measure};
use graft_documents::{Document, Limits};
use graft_files::{plain_file, sha256::of_reader};
use graft_recipes::DocumentsAllow;

/// How documents become rows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DocumentRows {
    /// The most tokens of a text.
    pub(crate) max_tokens: usize,
    /// Tokens that it repeats of the one before it, where a section had to be cut.
    pub(crate) overlap: usize,
    /// What is left out, rather than refused.
    pub(crate) allow: Vec<DocumentsAllow>,
    /// What is masked before a text is learnt: it is as long as it is then.
    pub(crate) masks: Option<Arc<Personal>>,
}

impl DocumentRows {
    /// Records something that could not be read, or refuses it.
    fn met(
        &self,
        path: &Path,
        what: String,
        allow: DocumentsAllow,
        remarks: &mut Vec<String>,
    ) -> Result<(), Error> {
        if self.allow.contains(&allow) {
            remarks.push(format!("left out: {what}"));
            return Ok(());
        }
        let what = format!(
            "{what}; mend it or take it away, or leave it out, counted: `documents: {{allow: [{}]}}`; `graft \
             documents` lists all such files",
            allow.name()
        );
        Err(Error::NotRows { path: path.to_owned(), what })
    }
}

impl FileReader for DocumentRows {
    fn told(&self) -> String {
        let Self { max_tokens, overlap, allow, masks: _ } = self;
        format!("documents of {max_tokens} tokens, {overlap} repeated, allowed {allow:?}")
    }

    fn read(&self, path: &Path, measure: Option<Measure<'_>>) -> Result<FileContent, Error> {
        let mut remarks = Vec::new();
        let document = match graft_documents::read(path, &Limits::default()) {
            Ok(document) => document,
            Err(error) => {
                let why = error.why.to_string();
                self.met(path, why, DocumentsAllow::Unreadable, &mut remarks)?;
                return Ok(FileContent { rows: Vec::new(), digest: digest(path)?, remarks });
            }
        };
        for what in &document.unread {
            self.met(path, what.clone(), DocumentsAllow::Unreadable, &mut remarks)?;
        }
        if !document.textless.is_empty() {
            let what = pages_without_text(&document.textless);
            self.met(path, what, DocumentsAllow::PagesWithoutText, &mut remarks)?;
        }
        let rows = self.rows(&document, measure)?;
        let digest = FileDigest { bytes: document.size, sha256: document.sha256 };
        Ok(FileContent { rows, digest, remarks })
    }
}

impl DocumentRows {
    fn rows(
        &self,
        document: &Document,
        measure: Option<Measure<'_>>,
    ) -> Result<Vec<serde_json::Value>, Error> {
        let length = |text: &str| {
            let learnt = self.masks.as_ref().map(|masks| masks.learnt(text));
            measure.map_or(Ok(0), |measure| measure(learnt.as_deref().unwrap_or(text)))
        };
        let chunks = document.try_chunks(&length, self.max_tokens, self.overlap)?;
        Ok(chunks.iter().map(|chunk| graft_documents::row(document, chunk)).collect())
    }
}

/// Size and hash of a file that is no document, however large.
fn digest(path: &Path) -> Result<FileDigest, Error> {
    let mut file = plain_file::open(path).map_err(|why| Error::unreadable(path, why))?;
    let (bytes, sha256) = of_reader(&mut file, |_| ())
        .map_err(|source| Error::Read { path: path.to_owned(), source })?;
    Ok(FileDigest { bytes, sha256 })
}

/// Which pages have no text, in words.
pub(crate) fn pages_without_text(pages: &[u32]) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for page in pages {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == *page => *last = *page,
            _ => ranges.push((*page, *page)),
        }
    }
    let range = |(first, last): &(u32, u32)| match last - first {
        0 => first.to_string(),
        _ => format!("{first} to {last}"),
    };
    let list: Vec<String> = ranges.iter().map(range).collect();
    match pages {
        [one] => format!("page {one} has no text"),
        _ => format!("pages {} have no text", list.join(", ")),
    }
}

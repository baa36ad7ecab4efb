//! The bookmarks of a PDF: its headings, with their levels, as whoever made it knew them.

use std::collections::{BTreeMap, BTreeSet};

use hayro_syntax::Pdf;
use hayro_syntax::object::{Dict, String as PdfString};

/// Bookmarks beyond these are not looked at.
const MOST: usize = 50_000;

/// The level of each title, by its words.
pub(super) type Titles = BTreeMap<String, u8>;

/// The titles of all bookmarks.
pub(super) fn titles(pdf: &Pdf) -> Titles {
    let mut titles = Titles::new();
    let root = pdf.xref().get::<Dict<'_>>(pdf.xref().root_id());
    let first = root
        .and_then(|root| root.get::<Dict<'_>>("Outlines"))
        .and_then(|outlines| outlines.get("First"));
    let mut open: Vec<(u8, Dict<'_>)> = first.map(|first| (1, first)).into_iter().collect();
    // Bookmarks may lead round in circles.
    let mut seen = BTreeSet::new();
    while let Some((level, mark)) = open.pop() {
        if seen.len() > MOST || !seen.insert(mark.data().as_ptr()) {
            continue;
        }
        if let Some(title) = mark.get::<PdfString<'_>>("Title") {
            let words = words(&decoded(title.as_bytes()));
            if !words.is_empty() {
                titles.entry(words).or_insert(level);
            }
        }
        open.extend(mark.get("Next").map(|next| (level, next)));
        open.extend(mark.get("First").filter(|_| level < 6).map(|first| (level + 1, first)));
    }
    titles
}

/// A title as letters and digits alone: spaces and signs are set otherwise on a page, and its number may be missing
/// in one place.
pub(super) fn words(title: &str) -> String {
    let plain =
        title.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.' || c.is_whitespace());
    let plain = if plain.is_empty() { title } else { plain };
    plain.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// Text beside the pages: UTF-16 or UTF-8 with a mark, else PDFDocEncoding, which is Latin-1 but for a few signs.
fn decoded(bytes: &[u8]) -> String {
    match encoding_rs::Encoding::for_bom(bytes) {
        Some((encoding, mark)) => {
            encoding.decode_without_bom_handling(&bytes[mark..]).0.into_owned()
        }
        None => bytes.iter().map(|byte| char::from(*byte)).collect(),
    }
}

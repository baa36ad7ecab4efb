//! A survey as bytes, so that the next start need not read the rows again to know what it found.
//!
//! ```text
//! bytes of the JSON, 8, little-endian
//! JSON: counts and findings, and for each file whether something is done to its rows
//! packed by Zstandard: 2 bytes for each row of such a file, and 40 for each pair of rows that are alike
//! ```
//!
//! Values are in it as their masks alone. It belongs to the sections and settings that it was made with: whoever keeps it has to know.

use std::io::Read;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::cleaning::{Cleaning, Verdict};
use super::report::{Check, Finding, Place, Report, RowId, What};
use super::survey::{Section, Survey};
use super::{Action, Hygiene};
use crate::formats::{FileDigest, Origin};
use crate::samples::number;

/// Of Zstandard: nearly all rows are kept as they are, and pack well at any.
const LEVEL: i32 = 1;
/// What is to be done to a row.
const WORD: usize = 2;
/// File, line and item of two rows.
const PAIR: usize = 2 * ORIGIN;
const ORIGIN: usize = 4 + 8 + 8;
/// The first word of those that stand for what is looked for in texts.
const FIRST_OF_TEXTS: u16 = 16;
/// What whole rows are left out for; their words are behind those of rows that stay.
const CHECKS: [Check; 5] =
    [Check::Duplicates, Check::NearDuplicates, Check::Leaks, Check::Contamination, Check::Personal];

#[derive(Serialize, Deserialize)]
struct Kept {
    /// Rows of each section.
    rows: Vec<usize>,
    findings: Vec<KeptFinding>,
    /// The files of each section.
    files: Vec<Vec<KeptFile>>,
    /// Pairs of rows that are alike.
    alike: usize,
}

#[derive(Serialize, Deserialize)]
struct KeptFile {
    bytes: u64,
    sha256: String,
    /// How many rows are said something of; `None` where nothing is done to any.
    rows: Option<usize>,
}

#[derive(Serialize, Deserialize)]
struct KeptFinding {
    key: String,
    check: Check,
    what: String,
    action: Action,
    rows: usize,
    values: Option<usize>,
    places: Vec<KeptPlace>,
    remarks: Vec<String>,
}

/// Number of a section, file, line and item.
type KeptRow = (usize, usize, usize, Option<usize>);

#[derive(Serialize, Deserialize)]
struct KeptPlace {
    row: KeptRow,
    what: KeptWhat,
}

#[derive(Serialize, Deserialize)]
enum KeptWhat {
    Like { other: KeptRow, likeness: Option<f32> },
    Value { mask: String },
}

/// A survey of these sections; `None` where something is looked for that has no number of two bytes.
pub(crate) fn to_bytes(survey: &Survey, sections: &[Section<'_>]) -> Option<Vec<u8>> {
    let Survey { report: Report { rows, findings }, cleanings, alike, files } = survey;
    let section = |id: &RowId| sections.iter().position(|section| section.key == id.section);
    let row = |id: &RowId| {
        let Origin { file, line, item } = id.origin;
        Some((section(id)?, file, line, item))
    };
    let place = |place: &Place| {
        let what = match &place.what {
            What::Like { id, other: _, likeness } => {
                KeptWhat::Like { other: row(id)?, likeness: *likeness }
            }
            What::Value { mask } => KeptWhat::Value { mask: mask.clone() },
        };
        Some(KeptPlace { row: row(&place.id)?, what })
    };
    let finding = |finding: &Finding| {
        let Finding { key, check, what, action, rows, values, places, remarks } = finding;
        Some(KeptFinding {
            key: key.clone(),
            check: *check,
            what: what.clone(),
            action: *action,
            rows: *rows,
            values: *values,
            places: places.iter().map(place).collect::<Option<_>>()?,
            remarks: remarks.clone(),
        })
    };
    let mut plain = Vec::new();
    let mut kept_files = Vec::new();
    for (files, cleanings) in files.iter().zip(cleanings) {
        let mut of_section = Vec::new();
        for (FileDigest { bytes, sha256 }, cleaning) in files.iter().zip(cleanings) {
            let verdicts = cleaning.as_ref().map(|cleaning| cleaning.verdicts());
            for verdict in verdicts.unwrap_or_default() {
                plain.extend(word(*verdict)?.to_le_bytes());
            }
            let (rows, sha256) = (verdicts.map(<[Verdict]>::len), sha256.clone());
            of_section.push(KeptFile { bytes: *bytes, sha256, rows });
        }
        kept_files.push(of_section);
    }
    for origin in alike.iter().flat_map(|(one, other)| [one, other]) {
        plain.extend((origin.file as u32).to_le_bytes());
        plain.extend((origin.line as u64).to_le_bytes());
        plain.extend(origin.item.map_or(0, |item| item as u64 + 1).to_le_bytes());
    }
    let json = serde_json::to_vec(&Kept {
        rows: rows.iter().map(|(_, rows)| *rows).collect(),
        findings: findings.iter().map(finding).collect::<Option<_>>()?,
        files: kept_files,
        alike: alike.len(),
    });
    let (json, packed) = (json.ok()?, zstd::bulk::compress(&plain, LEVEL).ok()?);
    Some([&(json.len() as u64).to_le_bytes()[..], &json, &packed].concat())
}

/// The survey of these sections; `None` where the bytes are none.
pub(crate) fn of_bytes(
    bytes: &[u8],
    sections: &[Section<'_>],
    hygiene: &Hygiene,
) -> Option<Survey> {
    let (length, rest) = bytes.split_at_checked(8)?;
    let (json, packed) = rest.split_at_checked(usize::try_from(number(length)).ok()?)?;
    let Kept { rows, findings, files, alike } = serde_json::from_slice(json).ok()?;
    if rows.len() != sections.len() || files.len() != sections.len() {
        return None;
    }
    let mut words = files.iter().flatten().filter_map(|file| file.rows);
    let words = words.try_fold(0_usize, usize::checked_add)?.checked_mul(WORD)?;
    let all = words.checked_add(alike.checked_mul(PAIR)?)?;
    let plain = unpacked(packed, all)?;
    let (mut words, pairs) = plain.split_at(words);
    let (mut cleanings, mut digests) = (Vec::new(), Vec::new());
    for files in files {
        let (mut of_section, mut of_files) = (Vec::new(), Vec::new());
        for KeptFile { bytes, sha256, rows } in files {
            let digest = FileDigest { bytes, sha256 };
            let cleaning = match rows {
                None => None,
                Some(rows) => {
                    let (own, behind) = words.split_at_checked(rows * WORD)?;
                    words = behind;
                    let verdict = |word: &[u8]| verdict(number(word) as u16, hygiene);
                    let verdicts = own.chunks_exact(WORD).map(verdict).collect::<Option<_>>()?;
                    let personal = Arc::clone(&hygiene.personal);
                    Some(Arc::new(Cleaning::new(verdicts, personal, digest.clone())))
                }
            };
            of_section.push(cleaning);
            of_files.push(digest);
        }
        cleanings.push(of_section);
        digests.push(of_files);
    }
    let keys = sections.iter().map(|section| section.key.to_owned());
    let findings = findings.into_iter().map(|found| finding(found, sections));
    Some(Survey {
        report: Report {
            rows: keys.zip(rows).collect(),
            findings: findings.collect::<Option<_>>()?,
        },
        cleanings,
        alike: pairs.chunks_exact(PAIR).map(pair).collect(),
        files: digests,
    })
}

/// Exactly so many bytes; `None` where there are others.
fn unpacked(packed: &[u8], length: usize) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    let decoder = zstd::stream::Decoder::new(packed).ok()?;
    decoder.take(length as u64 + 1).read_to_end(&mut plain).ok()?;
    (plain.len() == length).then_some(plain)
}

fn word(verdict: Verdict) -> Option<u16> {
    match verdict {
        Verdict::Keep => Some(0),
        Verdict::Mask => Some(1),
        Verdict::Drop(check) => {
            let at = CHECKS.iter().position(|known| *known == check)?;
            Some(2 + at as u16)
        }
        Verdict::DropFor(by) => by.checked_add(FIRST_OF_TEXTS),
    }
}

fn verdict(word: u16, hygiene: &Hygiene) -> Option<Verdict> {
    match word {
        0 => Some(Verdict::Keep),
        1 => Some(Verdict::Mask),
        FIRST_OF_TEXTS.. => {
            let by = word - FIRST_OF_TEXTS;
            (usize::from(by) < hygiene.personal.len()).then_some(Verdict::DropFor(by))
        }
        _ => CHECKS.get(usize::from(word) - 2).copied().map(Verdict::Drop),
    }
}

fn pair(bytes: &[u8]) -> (Origin, Origin) {
    let origin = |bytes: &[u8]| Origin {
        file: number(&bytes[..4]) as usize,
        line: number(&bytes[4..12]) as usize,
        item: (number(&bytes[12..]) as usize).checked_sub(1),
    };
    (origin(&bytes[..ORIGIN]), origin(&bytes[ORIGIN..]))
}

fn finding(finding: KeptFinding, sections: &[Section<'_>]) -> Option<Finding> {
    let KeptFinding { key, check, what, action, rows, values, places, remarks } = finding;
    let row = |(section, file, line, item): KeptRow| {
        let section = sections.get(section)?;
        let source = section.sources.get(file)?;
        let origin = Origin { file, line, item };
        let id = RowId { section: section.key.to_owned(), origin };
        Some((id, origin.place_in(&source.path)))
    };
    let place = |KeptPlace { row: of_row, what }: KeptPlace| {
        let (id, of_row) = row(of_row)?;
        let what = match what {
            KeptWhat::Like { other, likeness } => {
                let (id, other) = row(other)?;
                What::Like { id, other, likeness }
            }
            KeptWhat::Value { mask } => What::Value { mask },
        };
        Some(Place { id, row: of_row, what })
    };
    let places = places.into_iter().map(place).collect::<Option<_>>()?;
    Some(Finding { key, check, what, action, rows, values, places, remarks })
}

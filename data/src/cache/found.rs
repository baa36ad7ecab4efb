//! What was found in the rows of a run, kept beside the samples: a file `found-HASH`, whose hash is that of what was looked for and of
//! which files are read how. As with samples, a look at a file stands for its hash until it changes.
//!
//! ```text
//! a line that says what it is
//! CRC-32 of what follows, 4 bytes, little-endian
//! bytes of the looks, 8; the looks at all files, as JSON
//! the survey (hygiene/kept.rs)
//! ```

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use graft_files::plain_file;
use graft_files::sha256::{hexadecimal, sha256_hex};

use super::look::Look;
use super::{Cache, sealed, stored};
use crate::formats::SourceFile;
use crate::hygiene::{Hygiene, Section, Survey, Unread, of_bytes, survey, to_bytes};
use crate::samples::number;
use crate::tokenizer::Tokenizer;

/// Of the file and of what is found how: another one is made anew.
const FORM: &str = concat!("1 ", env!("CARGO_PKG_VERSION"));
const PREFIX: &str = "found-";
const BEGINNING: &[u8] = b"graft: what was found in rows\n";
const LARGEST: u64 = 1 << 30;

/// The looks at the files of each section; `None` for those that cannot be trusted.
type Looks = Vec<Vec<Option<Look>>>;

impl Cache {
    /// As [`survey`], but that what an earlier start found is taken where the files and what is looked for are the same.
    /// `told` is given what a person should know.
    ///
    /// # Errors
    /// As [`survey`].
    pub fn survey(
        &self,
        measured: &[Section<'_>],
        train: Section<'_>,
        hygiene: &Hygiene,
        told: &mut dyn FnMut(String),
    ) -> Result<Survey, Unread> {
        let sections = [measured, &[train]].concat();
        let place = self.folder.join(name(&sections, hygiene));
        let kept = match Kept::at(&place, &sections, hygiene) {
            Found::Whole(kept) => kept.of_now(&place, &sections),
            Found::Nothing => None,
            Found::Damaged => {
                told(format!(
                    "what was found in the rows is damaged in {}: they are looked through again",
                    place.display()
                ));
                None
            }
            Found::Foreign(what) => {
                told(format!(
                    "what is found in the rows is not kept, as {} {what}: take it away",
                    place.display()
                ));
                return survey(measured, train, hygiene);
            }
        };
        if let Some(survey) = kept {
            return Ok(survey);
        }
        let before = looks(&sections);
        let found = survey(measured, train, hygiene)?;
        let after = looks(&sections);
        let settled = |(before, after): (Option<Look>, Option<Look>)| {
            after.filter(|look| look.is_settled() && before == Some(*look))
        };
        let of_section = |(before, after): (Vec<_>, Vec<_>)| {
            before.into_iter().zip(after).map(settled).collect()
        };
        let looks = before.into_iter().zip(after).map(of_section).collect();
        if let Some(survey) = to_bytes(&found, &sections)
            && let Err(error) = self.try_writing().and_then(|()| write(&place, &looks, &survey))
        {
            told(format!(
                "what was found in the rows cannot be kept in {} ({error}): the next start looks through them again",
                place.display()
            ));
        }
        Ok(found)
    }
}

/// What is in the place of what was found.
enum Found {
    Whole(Kept),
    Nothing,
    Damaged,
    /// Somebody else's: what it is.
    Foreign(String),
}

struct Kept {
    looks: Looks,
    survey: Survey,
    /// The survey as it is stored.
    bytes: Vec<u8>,
}

impl Kept {
    fn at(place: &Path, sections: &[Section<'_>], hygiene: &Hygiene) -> Found {
        let bytes = match plain_file::read(place, LARGEST) {
            Ok(bytes) => bytes,
            Err(error) if error.is_missing() && place.symlink_metadata().is_err() => {
                return Found::Nothing;
            }
            Err(error) => return Found::Foreign(format!("cannot be read ({error})")),
        };
        let Some(rest) = bytes.strip_prefix(BEGINNING) else {
            return Found::Foreign("is no part of a cache".to_owned());
        };
        Self::read(rest, sections, hygiene).map_or(Found::Damaged, Found::Whole)
    }

    fn read(bytes: &[u8], sections: &[Section<'_>], hygiene: &Hygiene) -> Option<Self> {
        let (length, rest) = sealed::opened(bytes)?.split_at_checked(8)?;
        let (json, survey) = rest.split_at_checked(usize::try_from(number(length)).ok()?)?;
        let looks: Looks = serde_json::from_slice(json).ok()?;
        let bytes = survey.to_owned();
        let survey = of_bytes(survey, sections, hygiene)?;
        let asked: Vec<usize> = sections.iter().map(|section| section.sources.len()).collect();
        let looked: Vec<usize> = looks.iter().map(Vec::len).collect();
        let found: Vec<usize> = survey.files.iter().map(Vec::len).collect();
        (asked == looked && asked == found).then_some(Self { looks, survey, bytes })
    }

    /// The survey, if the files are those that were looked through. Where their hashes say so and the looks at
    /// them do not, new looks are kept.
    fn of_now(mut self, place: &Path, sections: &[Section<'_>]) -> Option<Survey> {
        let mut has_new = false;
        for ((section, looks), digests) in
            sections.iter().zip(&mut self.looks).zip(&self.survey.files)
        {
            for ((source, look), digest) in section.sources.iter().zip(looks).zip(digests) {
                // The name of the file has the hash of such a text.
                if source.embedded_text().is_some() {
                    continue;
                }
                let now = Look::at(&source.path).ok()?;
                if *look == Some(now) {
                    continue;
                }
                let is_same = now.bytes == digest.bytes
                    && stored::hash(&source.path).is_ok_and(|hash| hash == digest.sha256);
                if !is_same {
                    return None;
                }
                if now.is_settled() && Look::at(&source.path).is_ok_and(|after| after == now) {
                    (*look, has_new) = (Some(now), true);
                }
            }
        }
        if has_new {
            // Without it the files are hashed again, and no more.
            let _ = write(place, &self.looks, &self.bytes);
        }
        Some(self.survey)
    }
}

fn looks(sections: &[Section<'_>]) -> Looks {
    let look = |source: &SourceFile| Look::at(&source.path).ok();
    sections.iter().map(|section| section.sources.iter().map(look).collect()).collect()
}

/// Everything that decides what is found but the bytes of the files.
fn name(sections: &[Section<'_>], hygiene: &Hygiene) -> String {
    let mut text = format!("{FORM}\n{}\n", hygiene.identity());
    for Section { key, sources, leaves_out_empty, tokenizer } in sections {
        // Documents are cut by it, and nothing else is.
        let cut_by = tokenizer.filter(|_| sources.iter().any(|source| source.reader().is_some()));
        let cut_by = cut_by.map(Tokenizer::identity);
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{key} {leaves_out_empty} {cut_by:?}");
        for source in *sources {
            let path = source.path.canonicalize().unwrap_or_else(|_| source.path.clone());
            let path = hexadecimal(path.as_os_str().as_encoded_bytes());
            let _ = writeln!(text, "{path} {:?}", source.how_it_is_read());
        }
    }
    format!("{PREFIX}{}", &sha256_hex(text.as_bytes())[..32])
}

/// In the place of what is there, whole or not at all.
fn write(place: &Path, looks: &Looks, survey: &[u8]) -> io::Result<()> {
    let json = serde_json::to_vec(looks)?;
    let content = [&(json.len() as u64).to_le_bytes()[..], &json, survey].concat();
    sealed::write(place, PREFIX, BEGINNING, &content)
}

#[cfg(test)]
mod tests;

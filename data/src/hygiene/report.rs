//! What a survey found: how often, and where the first of it stands.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

use super::Action;
use crate::error::RowPlace;
use crate::formats::Origin;

/// Something that is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Check {
    /// Rows that say what an earlier one says.
    Duplicates,
    /// Rows that say nearly what an earlier one says.
    NearDuplicates,
    /// Rows that are measured, too.
    Leaks,
    /// Rows that share a stretch of words with a measured one.
    Contamination,
    /// Rows with personal data or secrets.
    Personal,
}

impl Check {
    /// The recipe's key for it.
    pub fn key(self) -> &'static str {
        match self {
            Self::Duplicates => "data.hygiene.duplicates",
            Self::NearDuplicates => "data.hygiene.near_duplicates",
            Self::Leaks => "data.hygiene.leaks",
            Self::Contamination => "data.hygiene.contamination",
            Self::Personal => "data.hygiene.personal",
        }
    }

    /// What such a row is, for people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Duplicates => "equal to an earlier one",
            Self::NearDuplicates => "nearly equal to an earlier one",
            Self::Leaks => "measured, too",
            Self::Contamination => "with a stretch of words of a measured one",
            Self::Personal => "with personal data or secrets",
        }
    }
}

/// A row: its section, and where it was read from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RowId {
    /// The section's key.
    pub section: String,
    /// Its place, with the number of its file in the section.
    pub origin: Origin,
}

/// A row in which something was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Place {
    /// Which one.
    #[serde(skip)]
    pub id: RowId,
    /// Where it stands.
    #[serde(serialize_with = "as_text")]
    pub row: RowPlace,
    /// What was found.
    #[serde(flatten)]
    pub what: What,
}

/// What was found in a row.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum What {
    /// It is like another one.
    Like {
        /// Which one.
        #[serde(skip)]
        id: RowId,
        /// Where that one stands.
        #[serde(serialize_with = "as_text")]
        other: RowPlace,
        /// The share of stretches of words that both have; `None` where that was not asked.
        likeness: Option<f32>,
    },
    /// A value, masked.
    Value {
        /// The mask of the first one in the row.
        mask: String,
    },
}

fn as_text<S: Serializer>(place: &RowPlace, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(place)
}

/// What was found of one kind.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// The recipe's key that asks for it.
    pub key: String,
    /// What was looked for.
    #[serde(skip)]
    pub check: Check,
    /// What was looked for, for people.
    pub what: String,
    /// What happens to it.
    pub action: Action,
    /// Rows in which it was found.
    pub rows: usize,
    /// How often it was found, where a row can have several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub values: Option<usize>,
    /// The first of the rows.
    pub places: Vec<Place>,
    /// What is to be known beside.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, rows, values, places, .. } = self;
        let plural = if *rows == 1 { "" } else { "s" };
        match values {
            None => write!(f, "{rows} row{plural} {what}")?,
            Some(values) => write!(f, "{what}: {values} in {rows} row{plural}")?,
        }
        let Some(Place { row, what, .. }) = places.first() else { return Ok(()) };
        match what {
            What::Like { other, likeness: Some(likeness), .. } if *likeness < 1.0 => {
                write!(f, " (the first: {row} and {other}, {:.0} % alike)", 100.0 * likeness)
            }
            What::Like { other, .. } => write!(f, " (the first: {row} and {other})"),
            What::Value { mask } => write!(f, " (the first: {row}, {mask})"),
        }
    }
}

/// What a survey found.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Report {
    /// Sections that were read, and how many rows of each.
    pub rows: Vec<(String, usize)>,
    /// One for each thing that was looked for, also where nothing was found.
    pub findings: Vec<Finding>,
}

impl Report {
    /// What forbids a run.
    pub fn errors(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.action == Action::Error && finding.rows > 0)
    }
}

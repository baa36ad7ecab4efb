//! What is shown of data: read as a run reads it, and looked through.

use std::collections::BTreeSet;
use std::sync::Arc;

use graft_data::hygiene::personal::{MaskKey, Personal};
use graft_data::hygiene::{Finding, Hygiene, RowId, Section, Survey, What, survey, texts_of};
use graft_data::{Dataset, SampleOptions, SourceFile, Tokenizer};

use crate::plan::{LookedThrough, TrainingData};
use crate::report::data_page::Pair;

/// Characters of a row that stand beside another.
const LONGEST_TEXT: usize = 6_000;
/// Pairs of each kind that are shown.
const MOST_PAIRS: usize = 12;

/// Data that was read.
pub(super) struct Look {
    /// The recipe's name, or the file's.
    pub(super) title: String,
    pub(super) tokenizer: Tokenizer,
    pub(super) dataset: Dataset,
    /// `None` where nobody looks through it.
    pub(super) through: Option<LookedThrough>,
}

impl Look {
    pub(super) fn of(title: String, data: TrainingData) -> Self {
        let TrainingData { tokenizer, dataset, looked: through } = data;
        Self { title, tokenizer, dataset, through }
    }

    /// Of the files of one source.
    pub(super) fn at_files(
        title: String,
        sources: Vec<SourceFile>,
        tokenizer: Tokenizer,
        options: &SampleOptions,
        closely: bool,
    ) -> anyhow::Result<Self> {
        let dataset = Dataset::load(&sources, &tokenizer, options)?;
        let mut look = Self { title, tokenizer, dataset, through: None };
        if closely {
            let asked = Hygiene::that_reports(MaskKey::of_seed(0));
            let train = Section {
                key: "data.train",
                sources: &sources,
                leaves_out_empty: options.allow_empty_targets,
                tokenizer: Some(&look.tokenizer),
            };
            let Survey { report, .. } =
                survey(&[], train, &asked).map_err(|unread| unread.error)?;
            let sections = vec![("data.train".to_owned(), sources)];
            let (personal, notes) = (asked.personal, Vec::new());
            look.through = Some(LookedThrough { report, personal, sections, notes });
        }
        Ok(look)
    }

    /// What was found; nothing where nobody looked.
    pub(super) fn findings(&self) -> &[Finding] {
        self.through.as_ref().map_or(&[], |through| &through.report.findings)
    }

    /// What nobody is to see.
    pub(super) fn masked(&self) -> Option<&Arc<Personal>> {
        self.through.as_ref().map(|through| &through.personal)
    }

    /// The first rows that are like others, with what they say, masked.
    pub(super) fn pairs(&self) -> anyhow::Result<Vec<Pair>> {
        let Some(LookedThrough { personal, sections, .. }) = &self.through else {
            return Ok(Vec::new());
        };
        let found = self.findings().iter().flat_map(|finding| {
            let places = finding.places.iter().take(MOST_PAIRS);
            places.filter_map(move |place| match &place.what {
                What::Like { id, other, likeness } => {
                    Some((finding, &place.id, &place.row, id, other, *likeness))
                }
                What::Value { .. } => None,
            })
        });
        let found: Vec<_> = found.collect();
        let wanted: BTreeSet<RowId> = found
            .iter()
            .flat_map(|(_, id, _, other, ..)| [(*id).clone(), (*other).clone()])
            .collect();
        let sections: Vec<Section<'_>> = sections
            .iter()
            .map(|(key, sources)| Section {
                key,
                sources,
                leaves_out_empty: true,
                tokenizer: Some(&self.tokenizer),
            })
            .collect();
        let texts = texts_of(&sections, &wanted).map_err(|unread| unread.error)?;
        let shown = |id: &RowId| {
            let text = texts.get(id).map_or("", String::as_str);
            cut(&personal.shown(text))
        };
        let pairs = found.iter().map(|(finding, id, row, of_other, other, likeness)| Pair {
            what: finding.what.clone(),
            likeness: *likeness,
            rows: [(other.to_string(), shown(of_other)), (row.to_string(), shown(id))],
        });
        Ok(pairs.collect())
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(LONGEST_TEXT) {
        None => text.to_owned(),
        Some((at, _)) => {
            let left = text[at..].chars().count();
            format!("{}\n… {left} characters are left out here …", &text[..at])
        }
    }
}

//! One source of rows: where they lie, what they are, and how much of them an epoch has.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use serde_json::{Value, json};

use crate::named::named;
use crate::paths::PathOrBuiltin;
use crate::section::{Section, list, text};
use crate::train_on::TrainOn;
use crate::tree::{self, Entry, Node};

named! {
    /// The form of the rows of a source.
    pub enum SourceFormat {
        /// `{"messages": [{"role", "content"}]}`; targets are the assistant's turns.
        Messages = "messages",
        /// `{"conversations": [{"from", "value"}]}`; targets are the assistant's turns.
        Sharegpt = "sharegpt",
        /// `{"instruction", "input", "output"}`; the target is the output.
        Alpaca = "alpaca",
        /// `{"prompt", "completion"}`; the target is the completion.
        Completion = "completion",
        /// `{"text"}` or plain files; everything is a target.
        Text = "text",
        /// Documents of any kind, cut into texts; everything is a target.
        Documents = "documents",
    }
}

impl SourceFormat {
    /// Whether its rows are texts, without a question and an answer.
    pub fn is_text(self) -> bool {
        matches!(self, Self::Text | Self::Documents)
    }
}

named! {
    /// What documents may lack.
    pub enum DocumentsAllow {
        /// Files, and attachments of mails, that are broken, locked, empty or of no kind that is read.
        Unreadable = "unreadable",
        /// Pages without text, of documents that have some: scanned, drawn or blank.
        PagesWithoutText = "pages-without-text",
    }
}

/// One source of rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// A file, a folder, a pattern of files, or `builtin:…`. Required.
    pub path: PathOrBuiltin,
    /// The form of its rows. Required.
    pub format: SourceFormat,
    /// Field of the form to the column of the file that it is read from. Default: they are called alike.
    pub columns: BTreeMap<String, String>,
    /// Columns of the file that nothing is learnt from. Default none.
    pub ignore_columns: Vec<String>,
    /// Field of a turn to the name that it has in the file. Default: they are called alike.
    pub turn_fields: BTreeMap<String, String>,
    /// Role to words that stand for it in the file, beside the form's own. Default none.
    pub roles: BTreeMap<String, Vec<String>>,
    /// Which turns of its chats are targets. Default: those that section `data` says.
    pub train_on: Option<TrainOn>,
    /// How documents become rows, where it is of documents.
    pub documents: Documents,
    /// How much of it an epoch has; of what is measured, all. Default: every row once.
    pub take: Take,
}

/// How much of a source an epoch has.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Take {
    /// `epochs`: every row so often. Above 0, by default 1.
    Epochs(f64),
    /// `rows`: about so many rows.
    Rows(NonZeroUsize),
    /// `weight`: as large a part of all rows of weighted sources as this is of all weights. Above 0.
    Weight(f64),
    /// `replay`: this share of the epoch's tokens. Above 0, below 1.
    Replay(f64),
}

/// Section `documents` of a source.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Documents {
    /// The most tokens of a text. Default: what `max_seq_len` has room for.
    pub max_tokens: Option<NonZeroUsize>,
    /// Tokens that a text repeats of the one before it, where a section had to be cut. Default 0.
    pub overlap: usize,
    /// What is left out and counted, rather than refused. Default nothing.
    pub allow: Vec<DocumentsAllow>,
}

impl Source {
    /// Reads a source that is trained on.
    pub(crate) fn trained(mut section: Section<'_>) -> Self {
        let take = Take::read(&mut section);
        Self { take, ..Self::measured(section) }
    }

    /// Reads a source of questions, whose last answer is asked for.
    pub(crate) fn asked(mut section: Section<'_>) -> Self {
        section
            .meaningless(&["train_on"], "the last answer of a row is what the model is asked for");
        Self { train_on: None, ..Self::measured(section) }
    }

    /// Reads a source that is measured, and so read once and whole.
    pub(crate) fn measured(mut section: Section<'_>) -> Self {
        let path = section.path_or_builtin(
            "path",
            "a file, a folder, `rows-*.jsonl` or `builtin:quickstart/train`",
        );
        if section.get("format").is_none() {
            section.missing("format", SourceFormat::LISTED);
        }
        let format = section.choice("format", SourceFormat::Messages, SourceFormat::ALL);
        let is_documents = format == SourceFormat::Documents;
        let documents = if is_documents {
            section.meaningless(
                &["columns", "ignore_columns", "turn_fields", "roles"],
                "documents have no columns: tables in them are text",
            );
            Documents::read(section.section("documents"))
        } else {
            section.meaningless(
                &["documents"],
                &format!("the source is of `format: {format}`, not `documents`"),
            );
            Documents::default()
        };
        let has_turns = !format.is_text() && format != SourceFormat::Completion;
        if !has_turns {
            let reason = format!("a row of `format: {format}` has no turns");
            section.meaningless(&["train_on"], &reason);
        }
        let is_said = has_turns && section.get("train_on").is_some();
        let train_on = is_said.then(|| TrainOn::read(section.section("train_on")));
        let source = Self {
            path,
            format,
            columns: section.names("columns", "a column for each field, `{prompt: question}`"),
            ignore_columns: section.texts("ignore_columns"),
            turn_fields: section
                .names("turn_fields", "a name for each field of a turn, `{content: utterance}`"),
            roles: read_roles(&mut section),
            train_on,
            documents,
            take: Take::default(),
        };
        section.close();
        source
    }

    /// The source as a recipe has it; keys that are as nobody wrote them are left out.
    pub fn to_value(&self) -> Value {
        let Self {
            path,
            format,
            columns,
            ignore_columns,
            turn_fields,
            roles,
            train_on,
            documents,
            take,
        } = self;
        let mut value = json!({"path": path.to_value(), "format": format.name()});
        if !columns.is_empty() {
            value["columns"] = json!(columns);
        }
        if !ignore_columns.is_empty() {
            value["ignore_columns"] = json!(ignore_columns);
        }
        if !turn_fields.is_empty() {
            value["turn_fields"] = json!(turn_fields);
        }
        if !roles.is_empty() {
            value["roles"] = json!(roles);
        }
        if let Some(train_on) = train_on {
            value["train_on"] = train_on.to_value();
        }
        if *documents != Documents::default() {
            value["documents"] = documents.to_value();
        }
        match take {
            take if *take == Take::default() => {}
            Take::Epochs(epochs) => value["epochs"] = json!(epochs),
            Take::Rows(rows) => value["rows"] = json!(rows),
            Take::Weight(weight) => value["weight"] = json!(weight),
            Take::Replay(share) => value["replay"] = json!(share),
        }
        value
    }
}

/// Words for each role; one word is a list of one.
fn read_roles(section: &mut Section<'_>) -> BTreeMap<String, Vec<String>> {
    const ALLOWED: &str = "words for each role, `{user: [customer], assistant: [agent]}`";
    let words = |node: &Node| -> Option<Vec<String>> {
        match list(node) {
            Some(items) => items.iter().map(|item| text(item).map(str::to_owned)).collect(),
            None => text(node).map(|word| vec![word.to_owned()]),
        }
    };
    section.value("roles", BTreeMap::new(), ALLOWED, |node| {
        let tree::Value::Map(entries) = &node.value else { return None };
        let named = |entry: &Entry| {
            let words = words(&entry.value).filter(|words| !words.is_empty())?;
            Some((entry.key.clone(), words))
        };
        entries.iter().map(named).collect()
    })
}

pub(crate) fn sources_to_value(sources: &[Source]) -> Value {
    sources.iter().map(Source::to_value).collect()
}

impl Documents {
    fn read(mut section: Section<'_>) -> Self {
        let documents = Self {
            max_tokens: section.get("max_tokens").is_some().then(|| section.count("max_tokens", 1)),
            overlap: usize::try_from(section.tally("overlap", 0)).unwrap_or(usize::MAX),
            allow: section.choices("allow", DocumentsAllow::ALL),
        };
        section.close();
        documents
    }

    fn to_value(&self) -> Value {
        let Self { max_tokens, overlap, allow } = self;
        let allow: Vec<&str> = allow.iter().map(|allow| allow.name()).collect();
        json!({"max_tokens": max_tokens, "overlap": overlap, "allow": allow})
    }
}

impl Default for Take {
    fn default() -> Self {
        Self::Epochs(1.0)
    }
}

impl Take {
    /// Most times that an epoch may have a row, and the largest of weights.
    const MOST: f64 = 1.0e6;
    const KEYS: [&'static str; 4] = ["epochs", "rows", "weight", "replay"];

    fn read(section: &mut Section<'_>) -> Self {
        for (at, first) in Self::KEYS.into_iter().enumerate() {
            for second in &Self::KEYS[at + 1..] {
                section.exclusive(first, second);
            }
        }
        let is_some = |number: f64| number > 0.0 && number <= Self::MOST;
        let number = "a number above 0, at most 1000000";
        let [epochs, rows, weight, replay] = Self::KEYS.map(|key| section.get(key).is_some());
        if epochs {
            Self::Epochs(section.number("epochs", 1.0, number, is_some))
        } else if rows {
            Self::Rows(section.count("rows", 1))
        } else if weight {
            Self::Weight(section.number("weight", 1.0, number, is_some))
        } else if replay {
            let is_share = |share| share > 0.0 && share < 1.0;
            let share = section.number("replay", 0.1, "a number above 0 and below 1", is_share);
            Self::Replay(share)
        } else {
            Self::default()
        }
    }
}

/// Records sources whose shares cannot all be had.
pub(crate) fn check_mixture(data: &Section<'_>, sources: &[Source]) {
    let takes = || sources.iter().map(|source| source.take);
    let problem = |index: Option<usize>, message: String, hint: &str| {
        let key = index.map_or("train".to_owned(), |index| format!("train.{index}"));
        data.problem(&key, data.written("train"), message, Some(hint.to_owned()));
    };
    let is_weighted = |take: &Take| matches!(take, Take::Weight(_));
    if takes().any(|take| is_weighted(&take))
        && let Some(index) =
            takes().position(|take| !is_weighted(&take) && !matches!(take, Take::Replay(_)))
    {
        let message = "it has no weight, but another source has one: what part of an epoch it is, nothing says";
        problem(Some(index), message.to_owned(), "give every source a `weight`, or a `replay`");
    }
    let shares: f64 =
        takes().map(|take| if let Take::Replay(share) = take { share } else { 0.0 }).sum();
    if shares >= 1.0 {
        let message = format!("replayed sources are {shares} of an epoch's tokens together");
        problem(None, message, "together they are below 1, so that there is something to learn");
    } else if shares > 0.0 && takes().all(|take| matches!(take, Take::Replay(_))) {
        let message = "every source is replayed, and there is none that they are beside".to_owned();
        problem(None, message, "take `replay` from what is to be learnt");
    }
}

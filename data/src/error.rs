//! Everything that can go wrong between a file of text and a batch of tokens, with the place and the way out.

use std::fmt;
use std::path::{Path, PathBuf};

use graft_files::plain_file::{FileKind, Unreadable};

use crate::formats::Format;
use crate::overlong::OverlongReport;

/// Why a file of rows was not opened, without its name.
#[derive(Debug, thiserror::Error)]
pub enum FileProblem {
    /// It never ends, or gives other bytes each time.
    #[error("it is {0}, and only plain files are read: write what it gives into a file first")]
    Endless(FileKind),
    /// It is a folder.
    #[error("it is a folder")]
    Folder,
    /// A link whose target was not copied with it.
    #[error(
        "it is a link to `{}`, which is not there: copy the files that the links of this folder \
         lead to, too (`cp -rL` does)",
        .0.display()
    )]
    Dangling(PathBuf),
}

/// What the name of a file that nobody knows ends in.
fn ends_in(extension: &str) -> String {
    if extension.is_empty() {
        "and this name ends in none of these, nor is it JSON or a table of several columns"
            .to_owned()
    } else {
        format!("not `{extension}`")
    }
}

/// A failure while reading, rendering, encoding or batching data.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file could not be opened or read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file is none that can be read safely.
    #[error("cannot read {}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: FileProblem,
    },
    /// The file holds no rows, but something else.
    #[error("{}: {what}", path.display())]
    NotRows {
        /// The file.
        path: PathBuf,
        /// What it is, and the way out.
        what: String,
    },
    /// A row has more bytes than are read of one.
    #[error(
        "{place}: the row is longer than {limit} bytes, the most that one may have; cut it into several"
    )]
    LongRow {
        /// Where the row stands.
        place: Box<RowPlace>,
        /// The most that is read.
        limit: usize,
    },
    /// A plain text has more bytes than are read of one.
    #[error(
        "{}: the document is longer than {limit} bytes, the most that one may have; cut it into \
         several files, or into lines of {{\"text\": …}}",
        path.display()
    )]
    LongDocument {
        /// The file.
        path: PathBuf,
        /// The most that is read.
        limit: usize,
    },
    /// A line, or a whole text file, is not UTF-8.
    #[error(
        "{}:{line}: not UTF-8: invalid byte at offset {offset} of the file; convert the file to UTF-8",
        path.display()
    )]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// Line, counted from 1.
        line: usize,
        /// Offset of the first invalid byte from the start of the file.
        offset: u64,
    },
    /// A line is not a row of the declared format.
    #[error("{place}: {problem}")]
    Row {
        /// Where the row stands.
        place: Box<RowPlace>,
        /// What is wrong with the row.
        problem: RowProblem,
    },
    /// A table by columns cannot be read.
    #[error("{}: it is {what}, and cannot be read: {problem}", path.display())]
    Table {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// Samples in files cannot be read again.
    #[error(
        "the cache of samples in {} is damaged: {problem}. Run the same command again, with `--resume` where a \
         run has begun: what is damaged is made again then",
        folder.display()
    )]
    Cache {
        /// The folder that holds them.
        folder: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A cache of samples cannot be written.
    #[error(
        "cannot write the cache of samples in {}: {source}. Name another folder (`data.cache: FOLDER`), or keep \
         them in memory (`data.cache: off`)",
        folder.display()
    )]
    CacheWrite {
        /// The folder that was to hold them.
        folder: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A sample is not what was kept.
    #[error(
        "samples in memory are damaged: the sum of a record is another. Start again, and test the machine's memory"
    )]
    DamagedMemory,
    /// A file holds no row at all.
    #[error("{} holds no rows", path.display())]
    EmptyFile {
        /// The file.
        path: PathBuf,
    },
    /// No file was given, or no row was left.
    #[error("the dataset is empty: {reason}")]
    EmptyDataset {
        /// Which of the two, and the way out.
        reason: String,
    },
    /// A plain file of an unknown kind was given for `format: text`.
    #[error(
        "{}: `format: text` reads {} (one document a file) and {} (one {{\"text\": …}} a line), {}",
        path.display(),
        Format::listed_endings(true),
        Format::listed_endings(false),
        ends_in(extension)
    )]
    UnknownExtension {
        /// The file.
        path: PathBuf,
        /// Its extension, empty when it has none.
        extension: String,
    },
    /// The name of a format is not known.
    #[error(
        "unknown data format `{found}`, expected one of: {}",
        Format::ALL.map(Format::name).join(", ")
    )]
    UnknownFormat {
        /// What was written.
        found: String,
    },
    /// The name of an overlong policy is not known.
    #[error(
        "unknown `overlong` policy `{found}`, expected one of: error, drop, truncate_left, \
         truncate_right, split"
    )]
    UnknownOverlong {
        /// What was written.
        found: String,
    },
    /// Rows are longer than `max_seq_len` and the policy is to refuse them.
    #[error("{0}")]
    Overlong(Box<OverlongReport>),
    /// A row has nothing to learn from.
    #[error(
        "{place}: no target token is left in this row ({tokens} tokens{cut}): nothing would be \
         learnt from it; fix the row, raise `max_seq_len`, or allow such rows to be dropped"
    )]
    NoTargets {
        /// Where the row stands.
        place: Box<RowPlace>,
        /// Tokens of the row as it would be trained on.
        tokens: usize,
        /// ", after truncation" where the row was cut.
        cut: &'static str,
    },
    /// Not one token of the dataset is a target.
    #[error(
        "all labels are masked: none of the {rows} rows has a target token, so there is no loss to train on"
    )]
    AllMasked {
        /// Rows that were read.
        rows: usize,
    },
    /// `max_seq_len` leaves no room for a prediction.
    #[error("max_seq_len is {found}, but a row needs at least 2 tokens to hold one prediction")]
    SequenceTooShort {
        /// The configured length.
        found: usize,
    },
    /// The validation fraction is not between 0 and 1.
    #[error("validation fraction is {found}, expected a number greater than 0 and less than 1")]
    Fraction {
        /// The configured fraction.
        found: f64,
    },
    /// Too few rows to hold some out.
    #[error(
        "cannot hold out validation rows from {rows} row(s), copies, and all rows of one document, counted once: \
         at least 2 are needed; give a separate validation file, or add rows"
    )]
    TooFewRows {
        /// Different rows in the dataset.
        rows: usize,
    },
    /// A line of a tokenizer.model is not what Llama 3's are made of.
    #[error("{origin}:{line}: {problem}")]
    TokenizerLine {
        /// The file.
        origin: String,
        /// Line, counted from 1.
        line: usize,
        /// What is wrong with the line.
        problem: String,
    },
    /// The file of the tokenizer could not be understood.
    #[error("{origin}: not a usable tokenizer: {message}")]
    Tokenizer {
        /// Where the tokenizer came from.
        origin: String,
        /// What is wrong.
        message: String,
    },
    /// A file beside the tokenizer says what cannot be read or meant.
    #[error("{origin}: {message}")]
    Settings {
        /// The file.
        origin: String,
        /// What is wrong, and what would do.
        message: String,
    },
    /// Control tokens that Graft's own chat format needs are absent.
    #[error(
        "{origin}: the tokenizer has no {tokens}, which Llama 3.1's chat format is made of; put the \
         model's own template beside it (`chat_template.jinja`), and leave `preamble: none` out"
    )]
    MissingSpecial {
        /// Where the tokenizer came from.
        origin: String,
        /// All of them, as a list.
        tokens: String,
    },
    /// Control tokens are declared as ordinary text, so data could spell them.
    #[error(
        "{origin}: not marked `\"special\": true`: {tokens}; text in the data could forge what Llama \
         3.1's chat format is made of; mark it as special in `added_tokens`"
    )]
    NotSpecial {
        /// Where the tokenizer came from.
        origin: String,
        /// All of them, as a list.
        tokens: String,
    },
    /// Text came out of the tokenizer as a control token.
    #[error("{origin}: the text {text:?} was encoded as the control token `{token}` ({id})")]
    ForgedSpecial {
        /// Where the tokenizer came from.
        origin: String,
        /// The start of the text.
        text: String,
        /// The token.
        token: String,
        /// Its id.
        id: u32,
    },
    /// A chat template, or the file it stands in, cannot be read.
    #[error("{origin}: line {line} of the chat template: {message}")]
    Template {
        /// The file.
        origin: String,
        /// Line of the template, counted from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// A conversation that does not come from a file cannot be rendered.
    #[error("cannot render the conversation: {0}")]
    Render(#[from] RowProblem),
}

/// Where a row stands, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowPlace {
    /// Its file.
    pub path: PathBuf,
    /// The line that it begins on, counted from 1.
    pub line: usize,
    /// Its number, counted from 1, where the file is one list.
    pub item: Option<usize>,
}

impl Error {
    /// Whether a file of rows is to be mended or put back, rather than what is asked of its rows.
    pub(crate) fn is_of_rows(&self) -> bool {
        matches!(
            self,
            Self::Read { .. }
                | Self::File { .. }
                | Self::NotRows { .. }
                | Self::LongRow { .. }
                | Self::LongDocument { .. }
                | Self::NotUtf8 { .. }
                | Self::Row { .. }
                | Self::Table { .. }
                | Self::EmptyFile { .. }
        )
    }

    /// What kept the file `path` from being opened.
    /// A file that the system, or what lies there, does not let be read.
    pub fn unreadable(path: &Path, why: Unreadable) -> Self {
        let path = path.to_path_buf();
        let problem = match why {
            Unreadable::NotPlain(FileKind::Folder) => FileProblem::Folder,
            Unreadable::NotPlain(kind) => FileProblem::Endless(kind),
            Unreadable::System(source) => match std::fs::read_link(&path) {
                Ok(target) if source.kind() == std::io::ErrorKind::NotFound => {
                    FileProblem::Dangling(target)
                }
                _ => return Self::Read { path, source },
            },
            // Asked only where a file is read whole, which files of rows are not.
            Unreadable::TooLarge { .. } => {
                return Self::Read { path, source: std::io::Error::other(why) };
            }
        };
        Self::File { path, problem }
    }
}

impl fmt::Display for RowPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, line, item } = self;
        match (line, item) {
            // Of a file that has no lines.
            (0, Some(item)) => write!(f, "{}, row {item}", path.display()),
            (line, Some(item)) => write!(f, "{}:{line}, row {item} of the list", path.display()),
            (line, None) => write!(f, "{}:{line}", path.display()),
        }
    }
}

/// What is wrong with one row, without its place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RowProblem {
    /// The line is not JSON.
    #[error("malformed JSON at column {column}: {message}")]
    Json {
        /// Line of the row, counted from 1: rows may go over several.
        line: usize,
        /// Column, counted from 1, in bytes.
        column: usize,
        /// What the parser said.
        message: String,
    },
    /// The line is JSON, but not an object.
    #[error("expected a JSON object with {expected}, found {found}{hint}")]
    NotAnObject {
        /// The keys of the format.
        expected: &'static str,
        /// What was found.
        found: String,
        /// What to do about it.
        hint: &'static str,
    },
    /// A required field is absent.
    #[error("`{field}` is missing{hint}")]
    Missing {
        /// Path of the field, such as `messages[2].content`.
        field: String,
        /// The fields that were found instead, or what to do.
        hint: String,
    },
    /// A field has another type than the format says.
    #[error("`{field}` must be {expected}, found {found}")]
    WrongType {
        /// Path of the field.
        field: String,
        /// What the format says.
        expected: &'static str,
        /// What was found; texts, which may be anybody's, by their kind alone.
        found: String,
    },
    /// A role nobody knows.
    #[error(
        "`{field}` is the unknown role {found:?}, expected one of: {expected}; say whose it is by \
         `roles: {{user: [WORD]}}` beside the source's `path`"
    )]
    UnknownRole {
        /// Path of the field.
        field: String,
        /// What was found.
        found: String,
        /// The known roles.
        expected: &'static str,
    },
    /// A list that must hold something is empty, or a text that must say something.
    #[error("`{field}` is empty")]
    Empty {
        /// Path of the field.
        field: String,
    },
    /// A key stands twice in an object.
    #[error("`{field}` stands twice; keep one of the two")]
    Twice {
        /// Path of the field.
        field: String,
    },
    /// An answer that is to be learnt says nothing.
    #[error(
        "{0} is empty: the model would learn to say nothing; remove the row, or allow such rows to \
         be dropped (`data.allow_empty_targets: true`)"
    )]
    EmptyAnswer(String),
    /// The conversation holds nothing to learn.
    #[error("the conversation has no turn of {roles}, so there is nothing to learn from it")]
    NothingToLearn {
        /// The roles that are learnt.
        roles: String,
    },
    /// A field or a combination that would change the meaning and is not supported.
    #[error("{0}")]
    Unsupported(String),
    /// The tokenizer cannot encode a text.
    #[error("{origin}: {message}")]
    Tokenizer {
        /// The file of the tokenizer.
        origin: String,
        /// What is wrong.
        message: String,
    },
    /// The model's chat template cannot render the conversation, or refuses to.
    #[error("{origin}, line {line} of the chat template: {message}")]
    Template {
        /// The file of the template.
        origin: String,
        /// Line of the template, counted from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
}

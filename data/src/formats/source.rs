//! A source of rows: a file on disk, or text that the program carries in itself.

use std::fs::File;
use std::io::{self, Read, Seek as _};
use std::path::PathBuf;
use std::sync::Arc;

use graft_files::plain_file;

use super::containers::Bytes;
use super::given::FileReader;
use super::{Columns, Format};
use crate::error::Error;
use crate::hygiene::Cleaning;
use crate::quickstart;
use crate::train_on::TrainOn;

/// What precedes the name of an embedded text.
const BUILTIN: &str = "builtin:";

/// The embedded texts; each is JSONL.
const EMBEDDED: [(&str, &str); 3] = [
    ("quickstart/train", quickstart::TRAIN),
    ("quickstart/held-out", quickstart::HELD_OUT),
    ("quickstart/general", quickstart::GENERAL),
];

/// A file or an embedded text, and how its rows are written.
#[derive(Debug, Clone)]
pub struct SourceFile {
    /// The file, or `builtin:NAME`.
    pub path: PathBuf,
    /// How its rows are written.
    pub format: Format,
    /// What their fields are called.
    pub columns: Columns,
    /// Which of the sources that somebody named it belongs to, counted from 0: one may be many files.
    pub entry: usize,
    /// Which of their turns are learnt.
    pub train_on: TrainOn,
    kept: Kept,
    cleaning: Option<Arc<Cleaning>>,
}

/// How the text of a source is come by.
#[derive(Debug, Clone)]
enum Kept {
    /// In a container of rows, on disk.
    File,
    /// In the program.
    Embedded(&'static str),
    /// In a file that somebody else reads.
    Given(Arc<dyn FileReader>),
    /// In a file without a name.
    Nameless(Arc<File>),
}

impl PartialEq for SourceFile {
    fn eq(&self, other: &Self) -> bool {
        let Self { path, format, columns, entry, train_on, kept, cleaning } = self;
        let is_kept_alike = match (kept, &other.kept) {
            (Kept::File, Kept::File) => true,
            (Kept::Embedded(one), Kept::Embedded(other)) => one == other,
            (Kept::Given(one), Kept::Given(other)) => one.told() == other.told(),
            (Kept::Nameless(one), Kept::Nameless(other)) => Arc::ptr_eq(one, other),
            _ => false,
        };
        is_kept_alike
            && cleaning == &other.cleaning
            && (path, format, columns, entry, train_on)
                == (&other.path, &other.format, &other.columns, &other.entry, &other.train_on)
    }
}

impl Eq for SourceFile {}

impl SourceFile {
    /// A file on disk.
    pub fn new(path: impl Into<PathBuf>, format: Format) -> Self {
        Self::kept(path.into(), format, Kept::File)
    }

    fn kept(path: PathBuf, format: Format, kept: Kept) -> Self {
        let (columns, train_on) = (Columns::default(), TrainOn::default());
        Self { path, format, columns, entry: 0, train_on, kept, cleaning: None }
    }

    /// The same file, whose columns are called so.
    #[must_use]
    pub fn with_columns(self, columns: Columns) -> Self {
        Self { columns, ..self }
    }

    /// The same file, which belongs to that source.
    #[must_use]
    pub fn of_entry(self, entry: usize) -> Self {
        Self { entry, ..self }
    }

    /// The same file, of whose turns these are learnt.
    #[must_use]
    pub fn with_train_on(self, train_on: TrainOn) -> Self {
        Self { train_on, ..self }
    }

    /// The same file, read by somebody else than a container of rows.
    #[must_use]
    pub fn read_by(self, reader: Arc<dyn FileReader>) -> Self {
        Self { kept: Kept::Given(reader), ..self }
    }

    /// The same file, whose rows are read as this has it; its rows are all read as they are with `None`.
    #[must_use]
    pub fn cleaned(self, cleaning: Option<Arc<Cleaning>>) -> Self {
        Self { cleaning, ..self }
    }

    /// What is done to its rows while they are read.
    pub fn cleaning(&self) -> Option<&Arc<Cleaning>> {
        self.cleaning.as_ref()
    }

    /// All that comes from a stream, kept until the program ends in a file without a name, so that it can be
    /// read again, and here and there; `name` is for messages.
    ///
    /// # Errors
    /// The stream, or the disk that temporary files are on.
    pub fn of_stream(name: &str, format: Format, stream: &mut dyn Read) -> io::Result<Self> {
        let mut file = tempfile::tempfile()?;
        io::copy(stream, &mut file)?;
        Ok(Self::kept(name.into(), format, Kept::Nameless(Arc::new(file))))
    }

    /// The embedded text of this name (`quickstart/train`); `None` where there is none.
    pub fn builtin(name: &str, format: Format) -> Option<Self> {
        let (name, text) = EMBEDDED.iter().find(|(known, _)| *known == name)?;
        let path = PathBuf::from(format!("{BUILTIN}{name}"));
        Some(Self::kept(path, format, Kept::Embedded(text)))
    }

    /// A text that stands for a file.
    #[cfg(test)]
    pub(super) fn embedded(name: &str, format: Format, text: &'static str) -> Self {
        Self::kept(name.into(), format, Kept::Embedded(text))
    }

    /// The names of all embedded texts as recipes write them, `builtin:quickstart/train`.
    pub fn builtin_names() -> impl Iterator<Item = String> {
        EMBEDDED.iter().map(|(name, _)| format!("{BUILTIN}{name}"))
    }

    /// The text, where the program carries it.
    pub fn embedded_text(&self) -> Option<&'static str> {
        match self.kept {
            Kept::Embedded(text) => Some(text),
            Kept::File | Kept::Given(_) | Kept::Nameless(_) => None,
        }
    }

    /// Opens the bytes; what has no name begins anew.
    pub(super) fn bytes(&self) -> Result<Bytes, Error> {
        match &self.kept {
            Kept::Embedded(text) => Ok(Bytes::Embedded(text.as_bytes())),
            Kept::Nameless(file) => {
                let again = || {
                    let mut file = file.try_clone()?;
                    file.rewind()?;
                    Ok(Bytes::File(file))
                };
                again().map_err(|source| Error::Read { path: self.path.clone(), source })
            }
            Kept::File | Kept::Given(_) => plain_file::open(&self.path)
                .map(Bytes::File)
                .map_err(|why| Error::unreadable(&self.path, why)),
        }
    }

    /// Whether its path leads to its bytes, at the next start, too.
    pub fn is_on_disk(&self) -> bool {
        matches!(self.kept, Kept::File | Kept::Given(_))
    }

    /// All that decides which rows its bytes become.
    pub(crate) fn how_it_is_read(&self) -> String {
        let Self { path: _, format, columns, entry: _, train_on, kept, cleaning } = self;
        let reader = match kept {
            Kept::File | Kept::Nameless(_) => String::new(),
            Kept::Embedded(text) => (*text).to_owned(),
            Kept::Given(reader) => reader.told(),
        };
        let cleaning = cleaning.as_ref().map(|cleaning| cleaning.sha256());
        format!("{format} {columns:?} {train_on:?} {reader:?} {cleaning:?}")
    }

    /// Who reads the file, where that is no container of rows.
    pub fn reader(&self) -> Option<&dyn FileReader> {
        match &self.kept {
            Kept::Given(reader) => Some(&**reader),
            Kept::File | Kept::Embedded(_) | Kept::Nameless(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::read_rows;

    #[test]
    fn every_embedded_text_is_read_like_a_file() {
        for (name, text) in EMBEDDED {
            let format = if name.ends_with("general") { Format::Text } else { Format::Messages };
            let source = SourceFile::builtin(name, format).unwrap();
            let rows = read_rows(std::slice::from_ref(&source)).unwrap().rows;
            assert_eq!(rows.len(), text.lines().count(), "{name}");
        }
        assert_eq!(SourceFile::builtin("quickstart/other", Format::Text), None);
    }

    #[test]
    fn a_stream_is_read_as_often_as_it_is_asked_for() {
        let mut text = "{\"text\": \"a\"}\n{\"text\": 1}\n".as_bytes();
        let source = SourceFile::of_stream("standard input", Format::Text, &mut text).unwrap();
        source.check().unwrap();
        let sources = [source.clone(), source];
        let [first, again] = [(); 2].map(|()| read_rows(&sources).unwrap_err().to_string());
        insta::assert_snapshot!(first, @"standard input:2: `text` must be a text, found the number 1");
        assert_eq!(again, first);
        let mut text = "{\"text\": \"a\"}\n".as_bytes();
        let source = SourceFile::of_stream("standard input", Format::Text, &mut text).unwrap();
        assert_eq!(read_rows(&[source.clone(), source]).unwrap().rows.len(), 2);
    }

    #[test]
    fn errors_in_an_embedded_text_name_it() {
        let source = SourceFile::builtin("quickstart/train", Format::Alpaca).unwrap();
        insta::assert_snapshot!(read_rows(&[source]).unwrap_err(), @"builtin:quickstart/train:1: `instruction` is missing (found: messages)");
    }
}

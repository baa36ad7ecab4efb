//! Zip archives: what DOCX, ODT, EPUB, XLSX and ODS are packed in. Nothing is unpacked beyond the budget, whatever
//! the archive says of its sizes.

use std::io::{Cursor, Read};

use zip::ZipArchive;
use zip::result::ZipError;

use crate::budget::Budget;
use crate::error::Why;
use crate::kind::Kind;

/// An archive in memory.
pub(crate) struct Archive<'a> {
    kind: Kind,
    budget: &'a Budget,
    zip: ZipArchive<Cursor<&'a [u8]>>,
}

/// Which kind of office file an archive is.
pub(crate) fn office_kind(bytes: &[u8]) -> Result<Kind, Why> {
    let unreadable = |error: ZipError| Why::Unknown(format!("a broken zip archive: {error}"));
    let mut zip = ZipArchive::new(Cursor::new(bytes)).map_err(unreadable)?;
    let has = |name: &str| zip.index_for_name(name).is_some();
    if has("word/document.xml") {
        return Ok(Kind::Docx);
    }
    if has("xl/workbook.xml") {
        return Ok(Kind::Xlsx);
    }
    if has("ppt/presentation.xml") {
        return Err(Why::Unknown("slides (PPTX): save them as PDF".to_owned()));
    }
    if has("xl/workbook.bin") {
        return Err(Why::Unknown("a binary workbook (XLSB): save it as XLSX".to_owned()));
    }
    let mut said = Vec::new();
    if let Ok(file) = zip.by_name("mimetype") {
        // Names of types are short.
        let _ = file.take(100).read_to_end(&mut said);
    }
    match said.trim_ascii() {
        b"application/epub+zip" => Ok(Kind::Epub),
        b"application/vnd.oasis.opendocument.text"
        | b"application/vnd.oasis.opendocument.text-template" => Ok(Kind::Odt),
        b"application/vnd.oasis.opendocument.spreadsheet"
        | b"application/vnd.oasis.opendocument.spreadsheet-template" => Ok(Kind::Ods),
        b"application/vnd.oasis.opendocument.presentation" => {
            Err(Why::Unknown("slides (ODP): save them as PDF".to_owned()))
        }
        b"" => Err(Why::Unknown("a zip archive: unpack it".to_owned())),
        other => Err(Why::Unknown(format!(
            "an archive of `{}`, which is not read",
            other.escape_ascii()
        ))),
    }
}

impl<'a> Archive<'a> {
    pub(crate) fn open(kind: Kind, bytes: &'a [u8], budget: &'a Budget) -> Result<Self, Why> {
        let zip = ZipArchive::new(Cursor::new(bytes)).map_err(|error| broken(kind, &error))?;
        budget.entries(zip.len())?;
        Ok(Self { kind, budget, zip })
    }

    /// The bytes of an entry, where there is one of the name.
    pub(crate) fn read(&mut self, name: &str) -> Result<Option<Vec<u8>>, Why> {
        let Some(index) = self.zip.index_for_name(name) else { return Ok(None) };
        let kind = self.kind;
        let file = match self.zip.by_index(index) {
            Ok(file) => file,
            Err(ZipError::UnsupportedArchive(ZipError::PASSWORD_REQUIRED)) => {
                return Err(Why::Encrypted { kind });
            }
            Err(error) => return Err(broken(kind, &error)),
        };
        let mut bytes = Vec::new();
        // One more, so that what is too much is known for it.
        let read = file.take(self.budget.unpacked_left() + 1).read_to_end(&mut bytes);
        self.budget.unpack(bytes.len() as u64)?;
        let what = |error| format!("`{name}` cannot be unpacked: {error}");
        read.map_err(|error| Why::Broken { kind, what: what(error) })?;
        Ok(Some(bytes))
    }

    /// The bytes of an entry that has to be there.
    pub(crate) fn needed(&mut self, name: &str) -> Result<Vec<u8>, Why> {
        let kind = self.kind;
        self.read(name)?.ok_or_else(|| Why::Broken { kind, what: format!("it has no `{name}`") })
    }

    /// How many entries have names of which this holds.
    pub(crate) fn count(&self, is: impl Fn(&str) -> bool) -> u64 {
        self.zip.file_names().flatten().filter(|name| is(name)).count() as u64
    }
}

fn broken(kind: Kind, error: &ZipError) -> Why {
    Why::Broken { kind, what: format!("its archive cannot be read: {error}") }
}

//! What a file is, as its content says. A name decides one thing alone: whether
//! text is Markdown.

use std::fmt;
use std::path::Path;

use serde::Serialize;

use crate::decode::decode;
use crate::error::Why;
use crate::readers::archive::office_kind;

/// A kind of document that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Plain text, in any encoding.
    Text,
    /// Markdown.
    Markdown,
    /// A web page, XHTML too.
    Html,
    /// A PDF.
    Pdf,
    /// A document of Word.
    Docx,
    /// A document of LibreOffice Writer and others.
    Odt,
    /// An electronic book.
    Epub,
    /// A workbook of Excel.
    Xlsx,
    /// A workbook of LibreOffice Calc and others.
    Ods,
    /// A mail.
    Mail,
    /// A box of mails.
    Mailbox,
}

impl Kind {
    /// Its name in tables and rows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Markdown => "markdown",
            Self::Html => "html",
            Self::Pdf => "pdf",
            Self::Docx => "docx",
            Self::Odt => "odt",
            Self::Epub => "epub",
            Self::Xlsx => "xlsx",
            Self::Ods => "ods",
            Self::Mail => "mail",
            Self::Mailbox => "mailbox",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Text => "text",
            Self::Markdown => "Markdown",
            Self::Html => "HTML page",
            Self::Pdf => "PDF",
            Self::Docx => "Word document (DOCX)",
            Self::Odt => "OpenDocument text (ODT)",
            Self::Epub => "EPUB",
            Self::Xlsx => "Excel workbook (XLSX)",
            Self::Ods => "OpenDocument workbook (ODS)",
            Self::Mail => "mail",
            Self::Mailbox => "mailbox (MBOX)",
        })
    }
}

/// How much of a file is looked at.
const HEAD: usize = 8 << 10;

/// First bytes of what is no document, with what it is and the way out.
const FOREIGN: [(&[u8], &str); 30] = [
    (b"\x1f\x8b", "a gzip archive: unpack it"),
    (b"BZh", "a bzip2 archive: unpack it"),
    (b"\xfd7zXZ\0", "an xz archive: unpack it"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive: unpack it"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it"),
    (b"Rar!\x1a\x07", "a RAR archive: unpack it"),
    (
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        "a file of an old Office (DOC, XLS, PPT, MSG), or one with a password: save it in the new form (DOCX, XLSX), a message as EML, without a password",
    ),
    (b"{\\rtf", "Rich Text (RTF): save it as DOCX or ODT"),
    (b"%!PS", "PostScript: make a PDF of it"),
    (b"\x89PNG", "a picture (PNG)"),
    (b"\xff\xd8\xff", "a picture (JPEG)"),
    (b"GIF8", "a picture (GIF)"),
    (b"II*\0", "a picture (TIFF)"),
    (b"MM\0*", "a picture (TIFF)"),
    (b"BM", "a picture (BMP)"),
    (b"RIFF", "sound, film or a picture (RIFF)"),
    (b"OggS", "sound or film (Ogg)"),
    (b"ID3", "sound (MP3)"),
    (b"fLaC", "sound (FLAC)"),
    (b"\x1aE\xdf\xa3", "film (Matroska)"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
    (b"\xca\xfe\xba\xbe", "a program"),
    (b"SQLite format 3\0", "a database (SQLite)"),
    (b"PAR1", "a table (Parquet): such rows are read with `format: text` or another form of rows"),
    (b"ARROW1", "a table (Arrow): such rows are read with `format: text` or another form of rows"),
    (b"\x93NUMPY", "an array (NumPy)"),
    (b"GGUF", "a model (GGUF)"),
    (
        b"version https://git-lfs.github.com/spec/",
        "a pointer of Git LFS: fetch the file itself (`git lfs pull`)",
    ),
    (b"!<arch>\n", "an archive of programs or a package: unpack it"),
];

/// What the bytes are; `path` only tells Markdown from text.
pub(crate) fn kind(path: &Path, bytes: &[u8]) -> Result<Kind, Why> {
    if bytes.is_empty() {
        return Err(Why::Empty("it is empty".to_owned()));
    }
    if is_pdf(bytes) {
        return Ok(Kind::Pdf);
    }
    if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"PK\x05\x06") {
        return office_kind(bytes);
    }
    let is_text = is_text(bytes);
    if let Some((_, what)) = FOREIGN.iter().find(|(first, _)| bytes.starts_with(first))
        // Short marks are words, too.
        && !(is_text && matches!(*what, "a program" | "a picture (BMP)" | "sound (MP3)"))
    {
        return Err(Why::Unknown((*what).to_owned()));
    }
    if bytes.len() > 262 && bytes[257..].starts_with(b"ustar") {
        return Err(Why::Unknown("a tar archive: unpack it".to_owned()));
    }
    if !is_text {
        return Err(Why::Unknown("of no kind that is read: its bytes are no text".to_owned()));
    }
    of_text(path, bytes)
}

/// Whether the mark of a PDF stands in its first bytes, behind nothing that anybody reads: a text may speak of it, and a
/// mail hold one.
fn is_pdf(bytes: &[u8]) -> bool {
    let head = &bytes[..bytes.len().min(1_024)];
    let Some(at) = head.windows(5).position(|window| window == b"%PDF-") else { return false };
    let before = &head[..at];
    before.contains(&0)
        || before.strip_prefix(b"\xef\xbb\xbf").unwrap_or(before).trim_ascii().is_empty()
}

/// Whether these are characters, but for a few: no zeros, hardly any control characters.
fn is_text(bytes: &[u8]) -> bool {
    let has_mark = encoding_rs::Encoding::for_bom(bytes).is_some();
    if !has_mark && bytes.contains(&0) {
        return false;
    }
    // Bytes that nobody wrote, as storage has them, would be a text of one letter.
    let start = &bytes[..bytes.len().min(HEAD)];
    if start.iter().map(|&byte| usize::from(byte == 0xff)).sum::<usize>() * 2 > start.len() {
        return false;
    }
    let head = decode(start, None).text;
    let strange = |c: &char| {
        c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\x0c' | '\x08' | '\x1b' | '\u{85}')
    };
    let characters = head.chars().count();
    // What is cut at its end may leave one that is none.
    head.chars().filter(strange).count() * 100 <= characters
}

fn of_text(path: &Path, bytes: &[u8]) -> Result<Kind, Why> {
    let head = decode(&bytes[..bytes.len().min(HEAD)], None).text;
    let start = head.trim_start();
    let ending = path.extension().map(|it| it.to_string_lossy().to_lowercase());
    let is_markdown = ending.is_some_and(|it| ["md", "markdown", "mkd", "mdown"].contains(&&*it));
    if let Some(kind) = of_markup(start)? {
        // Markdown may begin with an element, and no page says in its name that it is Markdown.
        return Ok(if is_markdown { Kind::Markdown } else { kind });
    }
    if start.starts_with(['{', '[']) && is_json(bytes, start) {
        let what = "JSON: rows of it are read with `format: text` or another form of rows, and no document";
        return Err(Why::Unknown(what.to_owned()));
    }
    // A line that is cut off looks like no field.
    let whole_lines = start.rsplit_once('\n').filter(|_| bytes.len() > HEAD);
    let start = whole_lines.map_or(start, |(whole, _)| whole);
    if is_mailbox(start) {
        return Ok(Kind::Mailbox);
    }
    if is_mail(start) {
        return Ok(Kind::Mail);
    }
    Ok(if is_markdown { Kind::Markdown } else { Kind::Text })
}

/// With which a page without a declaration begins.
const ELEMENTS: [&str; 24] = [
    "html", "head", "body", "title", "meta", "link", "script", "style", "div", "p", "h1", "h2",
    "h3", "table", "ul", "ol", "pre", "article", "section", "main", "nav", "header", "center",
    "base",
];

/// Pages, and XML that is none.
fn of_markup(start: &str) -> Result<Option<Kind>, Why> {
    let mut rest = start;
    let mut is_xml = false;
    // Declarations and comments may stand before the first element.
    loop {
        rest = rest.trim_start();
        let Some(inside) = rest.strip_prefix('<') else { return Ok(None) };
        let is_doctype = inside.get(..8).is_some_and(|it| it.eq_ignore_ascii_case("!doctype"));
        if is_doctype {
            let name = inside[8..].trim_start();
            if name.get(..4).is_some_and(|it| it.eq_ignore_ascii_case("html")) {
                return Ok(Some(Kind::Html));
            }
            is_xml = true;
        }
        let end = if inside.starts_with("!--") {
            inside.find("-->").map(|at| at + 3)
        } else if inside.starts_with('?') {
            is_xml |= inside.starts_with("?xml");
            inside.find("?>").map(|at| at + 2)
        } else if is_doctype {
            let subset = inside.find('[').filter(|at| inside.find('>').is_none_or(|end| *at < end));
            match subset {
                Some(_) => inside.find("]>").map(|at| at + 2),
                None => inside.find('>').map(|at| at + 1),
            }
        } else {
            break;
        };
        match end {
            Some(end) => rest = &inside[end..],
            None if is_xml => return Err(xml("")),
            None => return Ok(None),
        }
    }
    let name: String =
        rest[1..].chars().take_while(|c| c.is_alphanumeric() || ":-_.".contains(*c)).collect();
    let lower = name.to_lowercase();
    if ELEMENTS.contains(&&*lower) {
        return Ok(Some(Kind::Html));
    }
    if is_xml { Err(xml(&name)) } else { Ok(None) }
}

fn xml(root: &str) -> Why {
    let of = if root.is_empty() { String::new() } else { format!(" (`<{root}>`)") };
    Why::Unknown(format!("XML{of} of no kind that is read: save it as HTML or text"))
}

/// Whether it is a value of JSON, or one on each line.
fn is_json(bytes: &[u8], start: &str) -> bool {
    use serde::de::IgnoredAny;
    let first = start.lines().next().unwrap_or_default();
    let whole_line = serde_json::from_str::<IgnoredAny>(first).is_ok();
    whole_line && (start.starts_with('{') || first.contains('"'))
        || serde_json::from_slice::<IgnoredAny>(bytes.trim_ascii()).is_ok()
}

/// Names that stand at the head of mails.
const HEADERS: [&str; 22] = [
    "arc-authentication-results",
    "arc-seal",
    "authentication-results",
    "bcc",
    "cc",
    "content-transfer-encoding",
    "content-type",
    "date",
    "delivered-to",
    "dkim-signature",
    "from",
    "in-reply-to",
    "message-id",
    "mime-version",
    "received",
    "references",
    "reply-to",
    "return-path",
    "sender",
    "subject",
    "to",
    "user-agent",
];

/// Whether the text begins with the head of a mail: fields alone, a sender or message id and one more known field.
fn is_mail(start: &str) -> bool {
    let (mut known, mut sent, mut lines) = (0, false, 0);
    for line in start.lines() {
        if line.is_empty() {
            break;
        }
        lines += 1;
        if line.starts_with([' ', '\t']) && lines > 1 {
            continue;
        }
        let Some((name, _)) = line.split_once(':') else { return false };
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
            return false;
        }
        let name = name.to_ascii_lowercase();
        sent |= ["from", "message-id", "received", "return-path"].contains(&&*name);
        known += usize::from(HEADERS.contains(&&*name));
    }
    sent && known >= 2
}

/// Whether the text begins as a box does: a line `From …` and the head of a mail.
fn is_mailbox(start: &str) -> bool {
    let Some(rest) = start.strip_prefix("From ") else { return false };
    let Some((line, mail)) = rest.split_once('\n') else { return false };
    // The sender, then a date with a time.
    line.contains(':') && is_mail(mail.strip_prefix('>').unwrap_or(mail))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(name: &str, bytes: &[u8]) -> String {
        match kind(Path::new(name), bytes) {
            Ok(kind) => kind.name().to_owned(),
            Err(why) => why.to_string(),
        }
    }

    #[test]
    fn the_content_says_what_a_file_is_and_not_its_name() {
        for (bytes, expected) in [
            (&b"%PDF-1.4\n"[..], "pdf"),
            (b"\0\0junk%PDF-1.4\n", "pdf"),
            (b"\r\n%PDF-1.4\n", "pdf"),
            (b"A file begins with %PDF-1.4\n", "text"),
            (b"<!DOCTYPE html><p>a", "html"),
            (b"\xef\xbb\xbf \n<!-- a -->\n<HTML>", "html"),
            (b"<?xml version=\"1.0\"?>\n<!DOCTYPE html PUBLIC \"a\">", "html"),
            (b"<?xml version=\"1.0\"?><html xmlns=\"a\">", "html"),
            (b"\xff\xfe<\0h\0t\0m\0l\0>\0", "html"),
            (b"<p>a", "html"),
            (b"<a@example.org> wrote", "text"),
            (b"From: a@example.org\nSubject: b\n\nc", "mail"),
            (b"From a@example.org Mon Nov 30 10:00:00 2026\nFrom: a\nTo: b\n\nc", "mailbox"),
            (b"From here: on\nit goes", "text"),
            (b"Note: a\nTo: b\n\nc", "text"),
            (b"BMW cars", "text"),
            (b"[1] a footnote", "text"),
            (b"{\\b a}", "text"),
            ("Größe".as_bytes(), "text"),
            (b"Gr\xf6\xdfe", "text"),
        ] {
            assert_eq!(said("a.bin", bytes), expected, "{}", bytes.escape_ascii());
        }
        assert_eq!(said("a.MD", b"a"), "markdown");
        assert_eq!(said("a.md", b"<div>\n\n# a"), "markdown");
    }

    #[test]
    fn what_is_no_document_is_said_with_the_way_out() {
        insta::assert_snapshot!(said("a", b""), @"it is empty");
        insta::assert_snapshot!(said("a", b"\x1f\x8b\x08"), @"it is a gzip archive: unpack it");
        insta::assert_snapshot!(said("a", b"a\0b"), @"it is of no kind that is read: its bytes are no text");
        insta::assert_snapshot!(said("a", b"{\"text\": 1}\n{\"text\": 2}\n"), @"it is JSON: rows of it are read with `format: text` or another form of rows, and no document");
        insta::assert_snapshot!(said("a", b"<?xml version='1.0'?><book>"), @"it is XML (`<book>`) of no kind that is read: save it as HTML or text");
        insta::assert_snapshot!(said("a", b"{\\rtf1\\ansi a}"), @"it is Rich Text (RTF): save it as DOCX or ODT");
        insta::assert_snapshot!(said("a", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\0"), @"it is a file of an old Office (DOC, XLS, PPT, MSG), or one with a password: save it in the new form (DOCX, XLSX), a message as EML, without a password");
        for (first, what) in FOREIGN {
            let bytes = [first, &b"\0\x01\x02"[..]].concat();
            assert_eq!(said("a.txt", &bytes), format!("it is {what}"));
        }
    }
}

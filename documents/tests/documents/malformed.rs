//! Documents that are broken in ways that files break: each is an error that names the file and what is wrong
//! with it. With `GRAFT_MALFORMED=FOLDER` the files are kept there, to try a command on.

use std::collections::BTreeSet;
use std::io::{Cursor, Read as _, Write as _};
use std::path::PathBuf;

use graft_documents::{Limits, read};
use zip::write::SimpleFileOptions;

use super::kind;

/// Documents that are archives, and the entry of each that holds its text.
const ARCHIVES: [(&str, &str); 5] = [
    ("permits.docx", "word/document.xml"),
    ("permits.odt", "content.xml"),
    ("permits.epub", "META-INF/container.xml"),
    ("fees.xlsx", "xl/workbook.xml"),
    ("fees.ods", "content.xml"),
];

struct Broken {
    what: String,
    ending: &'static str,
    bytes: Vec<u8>,
}

fn broken(what: impl Into<String>, ending: &'static str, bytes: impl Into<Vec<u8>>) -> Broken {
    Broken { what: what.into(), ending, bytes: bytes.into() }
}

fn bytes_of(name: &str) -> Vec<u8> {
    graft_files::plain_file::read(&kind(name), 1 << 20).unwrap()
}

/// The archive with another text in one of its entries, or without the entry.
fn with_entry(archive: &[u8], entry: &str, change: impl Fn(Vec<u8>) -> Option<Vec<u8>>) -> Vec<u8> {
    let mut archive = zip::ZipArchive::new(Cursor::new(archive)).unwrap();
    let mut out = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for index in 0..archive.len() {
        let mut file = archive.by_index(index).unwrap();
        let name = file.name().unwrap().into_owned();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        let bytes = if name == entry { change(bytes) } else { Some(bytes) };
        if let Some(bytes) = bytes {
            out.start_file(name, SimpleFileOptions::default()).unwrap();
            out.write_all(&bytes).unwrap();
        }
    }
    out.finish().unwrap().into_inner()
}

fn archives() -> Vec<Broken> {
    let mut all = Vec::new();
    for (name, entry) in ARCHIVES {
        let whole = bytes_of(name);
        let ending = name.split('.').next_back().unwrap();
        let mut add = |what: String, bytes: Vec<u8>| {
            all.push(broken(format!("{name}: {what}"), ending, bytes));
        };
        for part in 1..=19 {
            add(format!("cut to {part} twentieths"), whole[..whole.len() * part / 20].to_vec());
        }
        // Where the archive says that its list of entries is.
        let end = whole.windows(4).rposition(|bytes| bytes == b"PK\x05\x06").unwrap();
        for value in [1_u32, 99, 0x7fff_ffff, u32::MAX - 1] {
            let mut bytes = whole.clone();
            bytes[end + 16..end + 20].copy_from_slice(&value.to_le_bytes());
            add(format!("entries at {value}"), bytes);
        }
        for part in 1..=8 {
            let cut = |text: Vec<u8>| Some(text[..text.len() * part / 10].to_vec());
            add(format!("{entry} cut to {part} tenths"), with_entry(&whole, entry, cut));
        }
        add(format!("no {entry}"), with_entry(&whole, entry, |_| None));
        add(format!("{entry} of nothing"), with_entry(&whole, entry, |_| Some(Vec::new())));
        add(
            format!("{entry} of zeros"),
            with_entry(&whole, entry, |text| Some(vec![0; text.len()])),
        );
        add(
            format!("{entry} of blanks"),
            with_entry(&whole, entry, |_| Some(vec![b' '; 300 << 20])),
        );
        for depth in [1_000, 100_000] {
            let deep = with_entry(&whole, entry, |_| Some(b"<a>".repeat(depth)));
            add(format!("{entry} {depth} levels deep"), deep);
        }
        let mut bytes = whole.clone();
        for start in positions(&whole, b"PK\x03\x04") {
            bytes[start + 8..start + 10].copy_from_slice(&99_u16.to_le_bytes());
        }
        for start in positions(&whole, b"PK\x01\x02") {
            bytes[start + 10..start + 12].copy_from_slice(&99_u16.to_le_bytes());
        }
        add("packed in an unknown way".to_owned(), bytes);
    }
    all
}

fn positions(bytes: &[u8], mark: &[u8]) -> Vec<usize> {
    (0..bytes.len() - mark.len()).filter(|&at| bytes[at..].starts_with(mark)).collect()
}

fn pdfs() -> Vec<Broken> {
    let mut all = Vec::new();
    let catalog = "1 0 obj\n<< /Type /Catalog /Pages 2 0 R >>\nendobj\n";
    let end = "trailer\n<< /Root 1 0 R >>\n";
    for (number, pages) in [
        "<< /Type /Pages /Count 9 /Kids [2 0 R 2 0 R] /Parent 2 0 R >>",
        "<< /Type /Pages /Count 9 /Kids [3 0 R] >>",
        "<< /Type /Pages /Count 0 /Kids [] >>",
        "<< /Type /Pages /Count -1 >>",
        "<< /Type /Pages /Kids 2 0 R >>",
        "2 0 R",
        "[ 2 0 R ]",
        "null",
        "(text)",
        "<< /Type /Pages /Kids [[[[2 0 R]]]] >>",
        "<< /Type",
        "<<<<<<<<",
    ]
    .into_iter()
    .enumerate()
    {
        let text = format!("%PDF-1.4\n{catalog}2 0 obj\n{pages}\nendobj\n{end}");
        all.push(broken(format!("pages {number}"), "pdf", text));
    }
    for (what, text) in [
        ("nothing", "%PDF-1.7\n".to_owned()),
        ("no root", format!("%PDF-1.4\n{catalog}trailer\n<< >>\n")),
        ("a root that is not there", format!("%PDF-1.4\n{catalog}trailer\n<< /Root 77 0 R >>\n")),
        ("deep lists", format!("%PDF-1.4\n1 0 obj\n{}\nendobj\n{end}", "[".repeat(100_000))),
        ("deep names", format!("%PDF-1.4\n1 0 obj\n{}\nendobj\n{end}", "<< /A ".repeat(100_000))),
        ("a table far away", "%PDF-1.4\nstartxref\n99999999999\n%%EOF\n".to_owned()),
        (
            "a table before itself",
            "%PDF-1.4\nxref\n0 1\ntrailer\n<< /Prev 9 >>\nstartxref\n9\n%%EOF\n".to_owned(),
        ),
    ] {
        all.push(broken(what, "pdf", text));
    }
    let whole = bytes_of("permits.pdf");
    for length in [20, 100, 300, 500, 700] {
        all.push(broken(format!("cut to {length} bytes"), "pdf", whole[..length].to_vec()));
    }
    all
}

fn mails_and_texts() -> Vec<Broken> {
    let mut all = Vec::new();
    let head = "From: a@example.org\nSubject: b\n";
    let nested = (0..200).fold(format!("{head}\nc"), |inner, _| {
        format!("{head}Content-Type: message/rfc822\n\n{inner}")
    });
    all.push(broken("mails in each other", "eml", nested));
    all.push(broken("parts without end", "eml", format!("{head}\n{}", "--b\n\n".repeat(200_001))));
    all.push(broken("a head without end", "eml", format!("{head}{}", "a: b\n".repeat(200_001))));
    let junk =
        "From a@example.org Mon Nov 30 10:00:00 2026\nFrom: a\nTo: b\n\n\u{1}\u{2}\n\n".repeat(99);
    all.push(broken("a box of junk", "mbox", junk));
    all.push(broken("blocks without end", "txt", b"a\n\n".repeat(1_000_001)));
    all.push(broken("one line", "txt", vec![b'a'; 65 << 20]));
    all.push(broken("one line", "md", vec![b'a'; 17 << 20]));
    for (what, bytes) in [
        ("nothing", &b""[..]),
        ("blanks", b" \n\t\n"),
        ("zeros", &[0; 4_096]),
        ("ones", &[0xff; 4_096]),
        ("noise", &[0x80, 0x01, 0xfe, 0x02, 0x90, 0x03, 0x81, 0x04]),
        ("a picture", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"),
        ("a photograph", b"\xff\xd8\xff\xe0\0\x10JFIF\0"),
        ("a program", b"\x7fELF\x02\x01\x01\0"),
        ("a database", b"SQLite format 3\0"),
        ("an old document", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"),
        ("gzip", b"\x1f\x8b\x08\0\0\0\0\0\0\x03"),
        ("half an archive", b"PK\x03\x04\x14\0\0\0\x08\0"),
        ("an empty archive", b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
    ] {
        for ending in ["txt", "md", "html", "pdf", "docx"] {
            all.push(broken(what, ending, bytes));
        }
    }
    all
}

#[test]
fn every_broken_document_is_an_error_that_names_it() {
    let kept = std::env::var_os("GRAFT_MALFORMED").map(PathBuf::from);
    let temporary = tempfile::tempdir().unwrap();
    let folder = kept.unwrap_or_else(|| temporary.path().to_owned());
    let mut distinct = BTreeSet::new();
    let mut was_read = Vec::new();
    let all = archives().into_iter().chain(pdfs()).chain(mails_and_texts());
    for (number, Broken { what, ending, bytes }) in all.enumerate() {
        let path = folder.join(format!("{number:03}.{ending}"));
        std::fs::File::create(&path).unwrap().write_all(&bytes).unwrap();
        match read(&path, &Limits::default()) {
            Ok(_) => was_read.push(format!("{}: {what}", path.display())),
            Err(error) => {
                let told = error.to_string();
                assert!(told.contains(&path.display().to_string()), "{what}: {told}");
                assert!(told.len() < 2_000, "{what}: {told}");
            }
        }
        distinct.insert(bytes);
    }
    assert_eq!(was_read, Vec::<String>::new(), "these were read");
    assert!(distinct.len() >= 230, "{} documents", distinct.len());
}

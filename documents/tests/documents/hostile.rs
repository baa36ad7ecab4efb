//! What is made to break readers: an error that says what is wrong, under every limit.

use std::io::Write as _;
use std::path::Path;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use graft_documents::{Limits, read, read_bytes};
use proptest::prelude::*;
use zip::write::SimpleFileOptions;

use super::kind;

/// Every small document.
const KINDS: [&str; 12] = [
    "box.mbox",
    "fees.ods",
    "fees.xlsx",
    "notice.html",
    "notice.md",
    "notice.txt",
    "permits.docx",
    "permits.epub",
    "permits.odt",
    "permits.pdf",
    "question.eml",
    "scanned.pdf",
];

fn bytes_of(name: &str) -> Vec<u8> {
    graft_files::plain_file::read(&kind(name), 1 << 20).unwrap()
}

fn said(name: &str, bytes: Vec<u8>) -> String {
    match read_bytes(Path::new(name), bytes, &Limits::default()) {
        Ok(document) => {
            format!("read: {} blocks, unread {:?}", document.blocks.len(), document.unread)
        }
        Err(error) => error.why.to_string(),
    }
}

fn packed(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        archive.start_file(*name, SimpleFileOptions::default()).unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

const W: &str = "http://schemas.openxmlformats.org/wordprocessingml/2006/main";

fn docx(body: &str) -> Vec<u8> {
    let text = format!("<w:document xmlns:w='{W}'><w:body>{body}</w:body></w:document>");
    packed(&[("word/document.xml", text.as_bytes())])
}

#[test]
fn archives_that_are_broken_or_made_of_nothing_are_refused() {
    let whole = bytes_of("permits.docx");
    insta::assert_snapshot!(said("a", whole[..whole.len() / 2].to_vec()), @"it is a broken zip archive: invalid Zip archive: Could not find EOCD");
    insta::assert_snapshot!(said("a", packed(&[("a.txt", b"a")])), @"it is a zip archive: unpack it");
    insta::assert_snapshot!(said("a", packed(&[("ppt/presentation.xml", b"")])), @"it is slides (PPTX): save them as PDF");
    insta::assert_snapshot!(said("a", packed(&[("mimetype", b"application/epub+zip")])), @"this EPUB is broken: it has no `META-INF/container.xml`");
    insta::assert_snapshot!(said("a", packed(&[("word/document.xml", &vec![b' '; 300 << 20])])), @"this Word document (DOCX) has more than 268435456 bytes unpacked; allowed: at most 268435456");
    let names: Vec<String> = (0..10_001).map(|number| number.to_string()).collect();
    let mut many: Vec<(&str, &[u8])> = names.iter().map(|name| (&**name, &b""[..])).collect();
    many.push(("word/document.xml", b""));
    insta::assert_snapshot!(said("a", packed(&many)), @"this Word document (DOCX) has more than 10000 entries; allowed: at most 10000");
    let locked = packed(&[
        ("mimetype", b"application/vnd.oasis.opendocument.text"),
        ("META-INF/manifest.xml", b"<m:encryption-data/>"),
        ("content.xml", b"\x01\x02"),
    ]);
    insta::assert_snapshot!(said("a", locked), @"this OpenDocument text (ODT) is encrypted: save it without a password");
}

#[test]
fn xml_that_is_broken_deep_or_full_of_entities_is_refused_or_read_as_it_stands() {
    insta::assert_snapshot!(said("a", docx("<w:p><w:r><w:t>a</w:r></w:p>")), @"this Word document (DOCX) is broken: `word/document.xml`, byte 107: ill-formed document: expected `</w:t>`, but `</w:r>` was found");
    insta::assert_snapshot!(said("a", docx("<w:p>")), @"this Word document (DOCX) is broken: `word/document.xml`, byte 96: ill-formed document: expected `</w:p>`, but `</w:body>` was found");
    insta::assert_snapshot!(said("a", docx(&"<w:tbl><w:tr><w:tc>".repeat(50_000))), @"this Word document (DOCX) has more than 512 levels of nesting; allowed: at most 512");
    insta::assert_snapshot!(said("a", docx("")), @"this Word document (DOCX) has no text");
    let laughs = "<!DOCTYPE x [<!ENTITY a 'ha'><!ENTITY b '&a;&a;&a;'>]>";
    let text = format!(
        "{laughs}<w:document xmlns:w='{W}'><w:body><w:p><w:r><w:t>&b;</w:t></w:r></w:p></w:body></w:document>"
    );
    let document = read_bytes(
        Path::new("a"),
        packed(&[("word/document.xml", text.as_bytes())]),
        &Limits::default(),
    );
    assert_eq!(document.unwrap().markdown(), "&b;");
    // A sheet that says it is larger than the world.
    let ods = "<o:a xmlns:o='urn:oasis:names:tc:opendocument:xmlns:office:1.0' \
               xmlns:table='urn:oasis:names:tc:opendocument:xmlns:table:1.0'><table:table table:name='a'>\
               <table:table-row table:number-rows-repeated='99999999999'><table:table-cell \
               table:number-columns-repeated='99999999999' office:value='1' xmlns:office='x'/></table:table-row>\
               </table:table></o:a>";
    let bytes = packed(&[
        ("mimetype", b"application/vnd.oasis.opendocument.spreadsheet"),
        ("content.xml", ods.as_bytes()),
    ]);
    insta::assert_snapshot!(said("a", bytes), @"this OpenDocument workbook (ODS) has more than 67108864 bytes of text; allowed: at most 67108864");
}

/// A PDF of these objects, from 1 on.
fn pdf(objects: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = b"%PDF-1.4\n".to_vec();
    for (number, object) in objects.iter().enumerate() {
        bytes.extend(format!("{} 0 obj\n", number + 1).as_bytes());
        bytes.extend(object);
        bytes.extend(b"\nendobj\n");
    }
    bytes.extend(b"trailer\n<< /Root 1 0 R >>\n");
    bytes
}

/// A PDF of one page with this program and these further objects, from 4 on.
fn page(program: &[u8], filter: &str, resources: &str, further: &[Vec<u8>]) -> Vec<u8> {
    let page = format!(
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] /Contents 4 0 R /Resources << {resources} >> >>"
    );
    let mut objects = vec![
        b"<< /Type /Catalog /Pages 2 0 R >>".to_vec(),
        b"<< /Type /Pages /Count 1 /Kids [3 0 R] >>".to_vec(),
        page.into_bytes(),
        stream(program, filter),
    ];
    objects.extend_from_slice(further);
    pdf(&objects)
}

fn stream(bytes: &[u8], rest: &str) -> Vec<u8> {
    let mut object = format!("<< /Length {} {rest} >>\nstream\n", bytes.len()).into_bytes();
    object.extend(bytes);
    object.extend(b"\nendstream");
    object
}

fn deflated(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn pdfs_that_loop_swell_or_hide_are_refused() {
    insta::assert_snapshot!(said("a", b"%PDF-1.4\n".to_vec()), @"this PDF is broken: no pages are found in it");
    let whole = bytes_of("permits.pdf");
    insta::assert_snapshot!(said("a", whole[..700].to_vec()), @"this PDF is broken: no pages are found in it");
    let bomb = deflated(&vec![b' '; 300 << 20]);
    insta::assert_snapshot!(said("a", page(&bomb, "/Filter /FlateDecode", "", &[])), @"this PDF has more than 268435456 bytes unpacked of one stream; allowed: at most 268435456");
    insta::assert_snapshot!(said("a", page(&deflated(&bomb), "/Filter [/FlateDecode /FlateDecode]", "", &[])), @"this PDF has more than 268435456 bytes unpacked of one stream; allowed: at most 268435456");
    let looping = pdf(&[
        b"<< /Type /Catalog /Pages 2 0 R >>".to_vec(),
        b"<< /Type /Pages /Count 9 /Kids [2 0 R 2 0 R] /Parent 2 0 R >>".to_vec(),
    ]);
    insta::assert_snapshot!(said("a", looping), @"this PDF is broken: no pages are found in it");
    // Forms that draw each other: ten times ten times ten times …
    let again = |number: usize| {
        let resources = format!(
            "/Type /XObject /Subtype /Form /BBox [0 0 9 9] /Resources << /XObject << /F {number} 0 R >> >>"
        );
        stream(&b"/F Do ".repeat(10), &resources)
    };
    let forms: Vec<Vec<u8>> = (0..12).map(|number| again(6 + number % 12)).collect();
    let limits = Limits { seconds: 1, ..Limits::default() };
    let drawn =
        read_bytes(Path::new("a"), page(b"/F Do", "", "/XObject << /F 5 0 R >>", &forms), &limits);
    insta::assert_snapshot!(drawn.unwrap_err().why, @"reading this PDF took longer than 1 seconds: it is damaged, or made to keep readers busy");
}

#[test]
fn mail_of_junk_and_of_mails_without_end_is_read_or_refused() {
    let nested = (0..200).fold("From: a@example.org\nSubject: b\n\nc".to_owned(), |inner, _| {
        format!("From: a@example.org\nSubject: b\nContent-Type: message/rfc822\n\n{inner}")
    });
    insta::assert_snapshot!(said("a", nested.into_bytes()), @"this mail has more than 8 documents in each other; allowed: at most 8");
    let parts = (0..5_000).fold(String::new(), |all, part| {
        format!("{all}\n--b{part}\nContent-Type: multipart/mixed; boundary=b{}\n", part + 1)
    });
    let mail = format!(
        "From: a@example.org\nSubject: b\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b0\n{parts}"
    );
    insta::assert_snapshot!(said("a", mail.into_bytes()), @"read: 2 blocks, unread []");
    let mail = format!("From: a@example.org\nSubject: b\n\n{}", "--b\n\n".repeat(200_001));
    insta::assert_snapshot!(said("a", mail.into_bytes()), @"this mail has more than 200000 parts; allowed: at most 200000");
    let mail = format!("From: a@example.org\nSubject: b\n{}", "a: b\n".repeat(200_001));
    insta::assert_snapshot!(said("a", mail.into_bytes()), @"this mail has more than 200000 lines before its text; allowed: at most 200000");
    let junk = "From a@example.org Mon Nov 30 10:00:00 2026\nFrom: a\nTo: b\n\n\u{1}\u{2}\n\n"
        .repeat(2_000);
    insta::assert_snapshot!(said("a", junk.into_bytes()), @"it is of no kind that is read: its bytes are no text");
    let broken = b"From: a@example.org\nSubject: b\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\ntext\n--b\nContent-Type: application/pdf; name=a.pdf\nContent-Disposition: attachment; filename=a.pdf\n\n%PDF-1.4 nothing\n--b--\n";
    insta::assert_snapshot!(said("a", broken.to_vec()), @r#"read: 3 blocks, unread ["`a.pdf`: this PDF is broken: no pages are found in it"]"#);
}

#[test]
fn a_mail_that_needs_a_key_is_named_and_no_row() {
    let sealed = |kind: &str, body: &str| {
        format!(
            "From: a@example.org\nSubject: b\nMIME-Version: 1.0\nContent-Type: {kind}\n\n{body}\n"
        )
    };
    let pgp = "--b\nContent-Type: application/pgp-encrypted\n\nVersion: 1\n--b\nContent-Type: application/octet-stream\n\n-----BEGIN PGP MESSAGE-----\n--b--";
    let all = [
        sealed("multipart/encrypted; protocol=\"application/pgp-encrypted\"; boundary=b", pgp),
        sealed("application/pkcs7-mime; smime-type=enveloped-data; name=smime.p7m", "MIAGCSqG"),
        sealed("application/x-pkcs7-mime", "MIAGCSqG"),
        sealed("text/plain", "-----BEGIN PGP MESSAGE-----\n\nhQEMA\n-----END PGP MESSAGE-----"),
    ];
    for mail in &all {
        insta::allow_duplicates! {
            insta::assert_snapshot!(said("a", mail.clone().into_bytes()), @"this mail is encrypted: save it without a password");
        }
    }
    // In a box, and within another mail, the others are read.
    let boxed = all.iter().fold(String::new(), |all, mail| {
        format!("{all}From a@example.org Mon Nov 30 10:00:00 2026\n{mail}\n")
    });
    let plain =
        "From a@example.org Mon Nov 30 10:00:00 2026\nFrom: a@example.org\nSubject: b\n\nHello.\n";
    insta::assert_snapshot!(said("a", format!("{boxed}{plain}").into_bytes()), @r#"read: 3 blocks, unread ["message 1: this mail is encrypted: save it without a password", "message 2: this mail is encrypted: save it without a password", "message 3: this mail is encrypted: save it without a password", "message 4: this mail is encrypted: save it without a password"]"#);
    let carried = format!(
        "From: a@example.org\nSubject: b\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=c\n\n--c\n\ntext\n--c\nContent-Type: message/rfc822\n\n{}\n--c--\n",
        all[1]
    );
    insta::assert_snapshot!(said("a", carried.into_bytes()), @r#"read: 3 blocks, unread ["`attachment 1`: this mail is encrypted: save it without a password"]"#);
}

#[test]
fn text_without_end_is_refused_at_its_limit() {
    insta::assert_snapshot!(said("a", vec![b'a'; 65 << 20]), @"this text has more than 67108864 bytes of text; allowed: at most 67108864");
    insta::assert_snapshot!(said("a.md", vec![b'a'; 17 << 20]), @"this Markdown has more than 16777216 bytes of Markdown; allowed: at most 16777216");
    insta::assert_snapshot!(said("a", b"a\n\n".repeat(1_000_001)), @"this text has more than 1000000 blocks; allowed: at most 1000000");
    let folder = tempfile::tempdir().unwrap();
    let sparse = folder.path().join("sparse");
    std::fs::File::create(&sparse).unwrap().set_len(1 << 30).unwrap();
    insta::assert_snapshot!(read(&sparse, &Limits::default()).unwrap_err().why, @"it has 1073741824 bytes; allowed: at most 134217728");
    insta::assert_snapshot!(read(folder.path(), &Limits::default()).unwrap_err().why, @"it is a folder, and only plain files are read");
    insta::assert_snapshot!(read(Path::new("/dev/zero"), &Limits::default()).unwrap_err().why, @"it is a device, and only plain files are read");
}

/// Reads changed bytes: whatever comes back, it is an answer within limits, and no fault of ours.
fn try_changed(name: &str, bytes: Vec<u8>) -> Result<(), TestCaseError> {
    let limits = Limits { seconds: 5, ..Limits::default() };
    match read_bytes(Path::new(name), bytes, &limits) {
        Ok(document) => {
            let chunks = document.chunks(&graft_documents::words, 50, 10);
            prop_assert!(chunks.iter().all(|chunk| chunk.length <= 50 && !chunk.text.is_empty()));
        }
        Err(error) => prop_assert!(error.to_string().len() < 2_000, "{error}"),
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_document_changed_anywhere_is_an_answer(
        kind in 0..KINDS.len(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
        cut in any::<prop::sample::Index>(),
        is_cut in any::<bool>(),
    ) {
        let mut bytes = bytes_of(KINDS[kind]);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if is_cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        try_changed(KINDS[kind], bytes)?;
    }

    #[test]
    fn any_bytes_behind_any_beginning_are_an_answer(
        kind in 0..KINDS.len(),
        kept in 0..200_usize,
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let mut whole = bytes_of(KINDS[kind]);
        whole.truncate(kept);
        whole.extend(bytes);
        try_changed(KINDS[kind], whole)?;
    }
}

//! One small document of each kind, which `tests/kinds/make.py` made.

use std::fmt::Write as _;

use graft_documents::{Limits, Unit, read, row, words};

use super::kind;

/// The Markdown of a document, what was left out of it, and what could not be read.
fn shown(name: &str) -> String {
    let document = match read(&kind(name), &Limits::default()) {
        Ok(document) => document,
        Err(error) => return error.why.to_string(),
    };
    let mut text = format!("{}\n== {}", document.markdown(), document.kind.name());
    for (left, count) in &document.left_out {
        let _ = write!(text, ", {count} {left}");
    }
    for (what, pages) in
        [("pages", document.pages), ("textless", document.textless.first().copied())]
    {
        if let Some(pages) = pages {
            let _ = write!(text, ", {what} {pages}");
        }
    }
    for unread in &document.unread {
        let _ = write!(text, "\n== unread: {unread}");
    }
    text
}

#[test]
fn plain_text_keeps_its_lines_in_any_encoding() {
    insta::assert_snapshot!(shown("notice.txt"), @"
    Die Behörde öffnet um neun.
    Sie schließt um zwölf.

    Anträge nimmt der Pförtner an.

    Nur werktags.
    == text, pages 2
    ");
}

#[test]
fn markdown_stays_as_it_is() {
    insta::assert_snapshot!(shown("notice.md"), @"
    # Hours

    1. nine
    2. twelve

    | a | b |
    |---|---|
    | 1 | 2 |

    ```sh
    open --gate
    ```

    [l]: x
    == markdown, 1 front matter
    ");
}

#[test]
fn a_page_is_read_in_the_encoding_that_it_names() {
    insta::assert_snapshot!(shown("notice.html"), @"
    # Gebühren

    Ein Stempel kostet zwei Mark fünfzig.

    | was | Preis |
    | --- | --- |
    | Boot | 5 |
    == html, 2 piece of navigation
    ");
}

#[test]
fn a_word_document_keeps_headings_lists_tables_code_and_notes() {
    insta::assert_snapshot!(shown("permits.docx"), @r"
    # Rules of the harbour office

    # Permits

    A permit costs five euros & a stamp[^2], always.

    - plans: two
    - maps:
      3. of the coast
      4. of the town

    > Said by the warden.

    | what | price |  |
    | --- | --- | --- |
    | boat\|ship | 5 | 7 |

    ```
    if late:
        pay(2)
    ```

    See the notice

    [^2]: Sold at the gate.
    == docx, 1 running head or foot, 1 hidden piece, 1 picture, 1 link's address, 1 comment, 1 deletion, 1 table of contents
    ");
}

#[test]
fn an_opendocument_text_keeps_headings_lists_tables_code_and_notes() {
    insta::assert_snapshot!(shown("permits.odt"), @r"
    # Rules of the harbour office

    # Permits

    A permit costs five  euros & a stamp[^1].
    See the notice

    - plans: two
    - maps:
      3. of the coast
      4. of the town

    > Said by the warden.

    | what | price |
    | --- | --- |
    | boat\|ship | 5 |

    ```
    if late:
        pay(2)
    ```

    [^1]: Sold at the gate.
    == odt, 1 running head or foot, 1 picture, 1 link's address, 1 comment, 1 deletion, 1 table of contents
    ");
}

#[test]
fn a_book_is_read_in_the_order_of_its_spine() {
    insta::assert_snapshot!(shown("permits.epub"), @"
    # Permits

    A permit costs five euros.

    # Hours

    1. Nine to twelve
    == epub, 1 picture, 1 table of contents
    ");
}

#[test]
fn sheets_are_tables_with_dates_and_shares_as_people_read_them() {
    insta::assert_snapshot!(shown("fees.xlsx"), @"
    ## Fees

    | what | from | tax |
    | --- | --- | --- |
    | boat | 2026-02-01 | 7.5% |

    | sum | 0.3 |
    | --- | --- |
    == xlsx, 1 hidden piece
    ");
    insta::assert_snapshot!(shown("fees.ods"), @"
    ## Fees

    | what | from | price |
    | --- | --- | --- |
    | boat | 01.02.26 | 5,50 € |
    == ods
    ");
}

#[test]
fn a_mail_is_its_head_its_text_and_the_documents_attached() {
    insta::assert_snapshot!(shown("question.eml"), @"
    # Gebühren

    From: Jörg <joerg@example.org>
    To: office@example.org
    Date: 2026-11-30T10:00:00+01:00

    What does a permit cost for the fähre?

    > It was five.

    # List

    of boats
    == mail, 1 attachment
    ");
}

#[test]
fn a_mailbox_is_its_mails() {
    insta::assert_snapshot!(shown("box.mbox"), @"
    # Gebühren

    From: Jörg <joerg@example.org>
    To: office@example.org
    Date: 2026-11-30T10:00:00+01:00

    What does a permit cost for the fähre?

    > It was five.

    # List

    of boats

    # Hours

    From: anna@example.org
    Date: 2026-11-30T11:00:00+01:00

    Open at nine?

    From here on it is late.
    == mailbox, 1 attachment
    ");
}

#[test]
fn a_pdf_loses_running_heads_and_cut_words_and_keeps_the_rest() {
    insta::assert_snapshot!(shown("permits.pdf"), @"
    # Permits

    A permit costs five euros and a stamp, which the warden sells at the gate. It is a long-term permit.

    Who comes late pays for a long-term permit twice. The next page tells the rest of this rule, in its own words.

    ## Hours of the office

    - nine to twelve
    - two to four, but not on days before a holiday

    ```
    if late:
      pay(2)
      go()
    ```

    The office is closed.
    == pdf, 3 running head or foot, 3 page number, 1 hyphen rejoined, pages 4, textless 3
    ");
}

#[test]
fn a_pdf_that_was_scanned_is_named() {
    insta::assert_snapshot!(shown("scanned.pdf"), @"none of its 2 pages has text: they are scanned or drawn; recognise their text (OCR) first");
}

#[test]
fn every_row_says_where_it_is_from() {
    let mut all = String::new();
    for name in ["notice.txt", "notice.md", "permits.pdf", "fees.xlsx", "box.mbox", "permits.epub"]
    {
        let mut document = read(&kind(name), &Limits::default()).unwrap();
        document.path = name.into();
        for chunk in document.chunks(&words, 40, 0) {
            let source = &row(&document, &chunk)["_source"];
            assert_eq!(source["sha256"].as_str().unwrap().len(), 64);
            let mut source = source.as_object().unwrap().clone();
            source.shift_remove("sha256");
            let _ = writeln!(all, "{}", serde_json::Value::Object(source));
        }
    }
    insta::assert_snapshot!(all, @r#"
    {"path":"notice.txt","kind":"text","pages":[1,2],"span":{"lines":[1,5]}}
    {"path":"notice.md","kind":"markdown","heading":["Hours"],"span":{"bytes":[18,110]}}
    {"path":"permits.pdf","kind":"pdf","page":1,"heading":["Permits"]}
    {"path":"permits.pdf","kind":"pdf","page":1,"heading":["Permits"]}
    {"path":"permits.pdf","kind":"pdf","pages":[2,4],"heading":["Permits","Hours of the office"]}
    {"path":"fees.xlsx","kind":"xlsx","heading":["Fees"],"member":"Fees","span":{"rows":[1,5]}}
    {"path":"box.mbox","kind":"mailbox","heading":["Gebühren"],"member":"message 1","span":{"bytes":[0,828]}}
    {"path":"box.mbox","kind":"mailbox","heading":["List"],"member":"message 1: list.html","span":{"lines":[1,1]}}
    {"path":"box.mbox","kind":"mailbox","heading":["Hours"],"member":"message 2","span":{"bytes":[828,1030]}}
    {"path":"permits.epub","kind":"epub","heading":["Permits"],"member":"book/text/one.xhtml","span":{"lines":[1,1]}}
    {"path":"permits.epub","kind":"epub","heading":["Hours"],"member":"book/text/two b.xhtml","span":{"lines":[1,1]}}
    "#);
}

#[test]
fn spans_of_bytes_are_those_of_the_file() {
    let text = "\u{feff}Größe und Maß.\n\nZweiter Absatz,\nzwei Zeilen.\n";
    for name in ["a.txt", "a.md"] {
        let bytes = text.as_bytes().to_vec();
        let document =
            graft_documents::read_bytes(name.as_ref(), bytes.clone(), &Limits::default()).unwrap();
        assert_eq!(document.blocks.len(), 2, "{name}");
        for block in &document.blocks {
            let span = block.place.span.unwrap();
            assert_eq!(span.unit, Unit::Bytes, "{name}");
            let stretch = &bytes[span.start as usize..span.end as usize];
            assert_eq!(std::str::from_utf8(stretch).unwrap(), block.text, "{name}");
        }
    }
}

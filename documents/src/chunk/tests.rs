use std::path::Path;

use super::*;
use crate::{Limits, read_bytes};

fn words(text: &str) -> usize {
    text.split_whitespace().count()
}

fn markdown(text: &str) -> Document {
    read_bytes(Path::new("a.md"), text.as_bytes().to_vec(), &Limits::default()).unwrap()
}

fn shown(chunks: &[Chunk]) -> String {
    let line = |chunk: &Chunk| {
        let span = chunk.span.map(|span| (span.start, span.end));
        format!("{} {:?} {:?}\n{}\n", chunk.length, chunk.headings, span, chunk.text)
    };
    chunks.iter().map(line).collect::<Vec<_>>().join("----\n")
}

const RULES: &str = "\
# Rules

All of it.

## Fees

Permits cost five. Copies cost one. Late ones cost seven.

- plans: two
- maps: three

## Hours

### Office

Nine to twelve.

### Archive

Ten to four.
";

#[test]
fn a_document_is_cut_at_its_highest_headings_first() {
    insta::assert_snapshot!(shown(&markdown(RULES).chunks(&words, 20, 0)), @r#"
    5 ["Rules"] Some((0, 19))
    # Rules

    All of it.
    ----
    18 ["Rules", "Fees"] Some((21, 115))
    ## Fees

    Permits cost five. Copies cost one. Late ones cost seven.

    - plans: two
    - maps: three
    ----
    12 ["Rules", "Hours"] Some((117, 181))
    ## Hours

    ### Office

    Nine to twelve.

    ### Archive

    Ten to four.
    "#);
}

#[test]
fn a_text_that_fits_is_one_chunk() {
    let document = markdown(RULES);
    let chunks = document.chunks(&words, 1_000, 10);
    assert_eq!(chunks.len(), 1);
    assert_eq!(chunks[0].text, document.markdown());
    assert_eq!(chunks[0].headings, ["Rules"]);
}

#[test]
fn a_section_that_is_cut_begins_with_the_last_of_what_stands_before() {
    let text = "# A\n\nOne two three. Four five six.\n\nSeven eight nine ten. Eleven twelve.";
    insta::assert_snapshot!(shown(&markdown(text).chunks(&words, 10, 3)), @r#"
    2 ["A"] Some((0, 3))
    # A
    ----
    6 ["A"] Some((5, 34))
    One two three. Four five six.
    ----
    9 ["A"] Some((36, 72))
    Four five six.

    Seven eight nine ten. Eleven twelve.
    "#);
}

#[test]
fn no_chunk_is_longer_than_allowed_and_no_word_is_lost() {
    let long =
        format!("{RULES}\n\n{}\n\n```\n{}\n```\n", "word ".repeat(200), "a b c\n".repeat(50));
    let document = markdown(&long);
    for max in 1..60 {
        for overlap in [0, 1, max / 3, max] {
            let chunks = document.chunks(&words, max, overlap);
            assert!(
                chunks.iter().all(|chunk| words(&chunk.text) <= max && chunk.length <= max),
                "{max}"
            );
            if overlap == 0 && max > 12 {
                let kept: usize =
                    chunks.iter().map(|chunk| chunk.text.matches("word").count()).sum();
                assert_eq!(kept, 200, "{max}");
            }
            assert_eq!(chunks, document.chunks(&words, max, overlap));
        }
    }
}

//! Mail addresses: what stands around an `@`, with a name of a host behind it that has a dot and ends in
//! letters.

use std::ops::Range;

/// Endings of pictures that are named `icon@2x.png`.
const PICTURES: [&str; 6] = ["png", "jpg", "jpeg", "gif", "svg", "webp"];
/// Bytes that a local part, and a host's name, may have (RFC 5321).
const LONGEST: [usize; 2] = [64, 255];

pub(super) fn find(text: &str, found: &mut Vec<Range<usize>>) {
    for at in memchr::memchr_iter(b'@', text.as_bytes()) {
        let start = local_start(&text[..at]);
        let end = at + 1 + host_length(&text[at + 1..]);
        if start < at && end > at + 1 && at - start <= LONGEST[0] {
            found.push(start..end);
        }
    }
}

/// Where the part before the `@` begins.
fn local_start(before: &str) -> usize {
    let allowed = |c: char| {
        c.is_ascii_alphanumeric()
            || "._%+-'&".contains(c)
            // Latin, Greek and Cyrillic letters; other scripts stand beside addresses without a blank.
            || (('\u{c0}'..'\u{530}').contains(&c) && c.is_alphabetic())
    };
    let rest = before.trim_end_matches(allowed);
    let local = &before[rest.len()..];
    before.len() - local.trim_start_matches(|c: char| !c.is_alphanumeric()).len()
}

/// How long the host's name is; 0 where none stands there.
fn host_length(behind: &str) -> usize {
    let allowed = |c: char| {
        c.is_ascii_alphanumeric() || c == '-' || c == '.' || ('\u{c0}'..'\u{530}').contains(&c)
    };
    let run = behind.find(|c| !allowed(c)).unwrap_or(behind.len()).min(LONGEST[1]);
    let Some(run) = behind.get(..run) else { return 0 };
    // A full stop or dash of the sentence.
    let host = run.trim_end_matches(['.', '-']);
    let labels: Vec<&str> = host.split('.').collect();
    let is_label =
        |label: &&str| !label.is_empty() && !label.starts_with('-') && !label.ends_with('-');
    let (Some(last), true) = (labels.last(), labels.len() > 1) else { return 0 };
    let is_top = last.chars().count() >= 2 && last.chars().all(char::is_alphabetic);
    let is_picture = PICTURES.contains(&last.to_lowercase().as_str());
    if is_top && !is_picture && labels.iter().all(is_label) { host.len() } else { 0 }
}

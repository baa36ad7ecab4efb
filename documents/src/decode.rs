//! Bytes to text: by the mark at their beginning, by what they declare, as UTF-8, or by what they look like.

use std::borrow::Cow;

use encoding_rs::{Encoding, UTF_8};

/// A text, and how it was had.
pub(crate) struct Decoded<'a> {
    pub(crate) text: Cow<'a, str>,
    /// Bytes before the text: its mark. `None` where offsets in the text are not offsets in the bytes.
    pub(crate) begins: Option<u64>,
    /// Characters that stand for bytes without a meaning.
    pub(crate) replaced: u64,
}

/// The text of `bytes`; `declared` is a label such as `iso-8859-1` that they carry.
pub(crate) fn decode<'a>(bytes: &'a [u8], declared: Option<&str>) -> Decoded<'a> {
    if let Some((encoding, mark)) = Encoding::for_bom(bytes) {
        return by(encoding, &bytes[mark..], mark as u64);
    }
    let declared = declared.and_then(|label| Encoding::for_label(label.trim().as_bytes()));
    // A page of bytes cannot declare, in bytes, that it is of two bytes a character.
    let declared = declared.map(Encoding::output_encoding);
    if let Some(encoding) = declared.filter(|encoding| *encoding != UTF_8) {
        return by(encoding, bytes, 0);
    }
    if std::str::from_utf8(bytes).is_ok() || declared.is_some() {
        return by(UTF_8, bytes, 0);
    }
    by(guessed(bytes), bytes, 0)
}

fn by<'a>(encoding: &'static Encoding, bytes: &'a [u8], begins: u64) -> Decoded<'a> {
    let (text, had_errors) = encoding.decode_without_bom_handling(bytes);
    let replaced = if had_errors { text.matches('\u{fffd}').count() as u64 } else { 0 };
    let begins = (encoding == UTF_8 && !had_errors).then_some(begins);
    Decoded { text, begins, replaced }
}

/// What bytes that are not UTF-8 look like, as Firefox guesses it.
fn guessed(bytes: &[u8]) -> &'static Encoding {
    /// Statistics do not get better with more.
    const ENOUGH: usize = 1 << 20;
    let mut detector = chardetng::EncodingDetector::new(chardetng::Iso2022JpDetection::Deny);
    detector.feed(&bytes[..bytes.len().min(ENOUGH)], true);
    detector.guess(None, chardetng::Utf8Detection::Deny)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &[u8], declared: Option<&str>) -> (String, Option<u64>, u64) {
        let Decoded { text, begins, replaced } = decode(bytes, declared);
        (text.into_owned(), begins, replaced)
    }

    #[test]
    fn a_mark_goes_before_what_is_declared_and_that_before_a_guess() {
        let is = |text: &str, begins, replaced| (text.to_owned(), begins, replaced);
        assert_eq!(text("Größe".as_bytes(), None), is("Größe", Some(0), 0));
        assert_eq!(text(b"\xef\xbb\xbfab", Some("latin1")), is("ab", Some(3), 0));
        assert_eq!(text(b"\xff\xfea\0\xdf\0", None), is("aß", None, 0));
        assert_eq!(text(b"\xfe\xff\0a", None), is("a", None, 0));
        assert_eq!(text(b"Gr\xf6\xdfe", Some("iso-8859-1")), is("Größe", None, 0));
        assert_eq!(text(b"Gr\xf6\xdfe", Some("utf-8")), is("Gr\u{fffd}\u{fffd}e", None, 2));
        let german = "Die Behörde öffnet um acht. Für Anträge gelten längere Fristen.";
        let (bytes, _, _) = encoding_rs::WINDOWS_1252.encode(german);
        assert_eq!(text(&bytes, None), is(german, None, 0));
        let russian = "Архив открыт по будням с девяти до двенадцати часов.";
        let (bytes, _, _) = encoding_rs::WINDOWS_1251.encode(russian);
        assert_eq!(text(&bytes, None), is(russian, None, 0));
    }
}

//! International bank account numbers, ISO 13616: a country, two check digits, and as many letters and
//! digits as the country has; in capitals or small letters, in one piece or in groups of four, also over line ends.

use std::ops::Range;

/// Country and length, from the registry of IBANs, release 99.
#[rustfmt::skip]
const COUNTRIES: [(&[u8; 2], usize); 89] = [
    (b"AD", 24), (b"AE", 23), (b"AL", 28), (b"AT", 20), (b"AZ", 28), (b"BA", 20), (b"BE", 16), (b"BG", 22), (b"BH", 22),
    (b"BI", 27), (b"BR", 29), (b"BY", 28), (b"CH", 21), (b"CR", 22), (b"CY", 28), (b"CZ", 24), (b"DE", 22), (b"DJ", 27),
    (b"DK", 18), (b"DO", 28), (b"EE", 20), (b"EG", 29), (b"ES", 24), (b"FI", 18), (b"FK", 18), (b"FO", 18), (b"FR", 27),
    (b"GB", 22), (b"GE", 22), (b"GI", 23), (b"GL", 18), (b"GR", 27), (b"GT", 28), (b"HN", 28), (b"HR", 21), (b"HU", 28),
    (b"IE", 22), (b"IL", 23), (b"IQ", 23), (b"IS", 26), (b"IT", 27), (b"JO", 30), (b"KW", 30), (b"KZ", 20), (b"LB", 28),
    (b"LC", 32), (b"LI", 21), (b"LT", 20), (b"LU", 20), (b"LV", 21), (b"LY", 25), (b"MC", 27), (b"MD", 24), (b"ME", 22),
    (b"MK", 19), (b"MN", 20), (b"MR", 27), (b"MT", 31), (b"MU", 30), (b"NI", 28), (b"NL", 18), (b"NO", 15), (b"OM", 23),
    (b"PK", 24), (b"PL", 28), (b"PS", 29), (b"PT", 25), (b"QA", 29), (b"RO", 24), (b"RS", 22), (b"RU", 33), (b"SA", 24),
    (b"SC", 31), (b"SD", 18), (b"SE", 24), (b"SI", 19), (b"SK", 24), (b"SM", 27), (b"SO", 23), (b"ST", 25), (b"SV", 28),
    (b"TL", 23), (b"TN", 24), (b"TR", 26), (b"UA", 29), (b"VA", 22), (b"VG", 24), (b"XK", 20), (b"YE", 30),
];

pub(super) fn find(text: &str, found: &mut Vec<Range<usize>>) {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at + 15 <= bytes.len() {
        if !bytes[at].is_ascii_alphabetic() {
            at += 1;
            continue;
        }
        match end(text, at) {
            Some(end) => {
                found.push(at..end);
                at = end;
            }
            None => at += 1,
        }
    }
}

/// Where the number ends that begins here, if one does.
fn end(text: &str, start: usize) -> Option<usize> {
    let bytes = &text.as_bytes()[start..];
    if !(bytes[1].is_ascii_alphabetic() && bytes[2].is_ascii_digit() && bytes[3].is_ascii_digit()) {
        return None;
    }
    let of_country = |(country, _): &&(&[u8; 2], usize)| bytes[..2].eq_ignore_ascii_case(*country);
    let (_, length) = COUNTRIES.iter().find(of_country)?;
    if !super::is_edge(text, start) {
        return None;
    }
    let (mut number, mut at) = (Vec::with_capacity(*length), 0);
    while number.len() < *length {
        match *bytes.get(at)? {
            byte if byte.is_ascii_alphanumeric() => {
                number.push(byte.to_ascii_uppercase());
                at += 1;
            }
            _ if number.len().is_multiple_of(4) => at += between(&bytes[at..])?,
            _ => return None,
        }
    }
    let end = start + at;
    (super::is_edge(text, end) && remainder(&number) == 1).then_some(end)
}

/// Bytes of what may stand between groups of four: a blank or hyphen, or a line end with the indentation behind it.
fn between(bytes: &[u8]) -> Option<usize> {
    let length = match bytes {
        [b' ' | b'-', ..] => 1,
        [0xc2, 0xa0, ..] => 2,
        _ => 0,
    };
    let length = length + super::line_end(&bytes[length..]);
    (length > 0 && bytes.get(length)?.is_ascii_alphanumeric()).then_some(length)
}

/// Of the number by 97, its first four characters behind the others and letters as two digits, ISO 7064.
fn remainder(number: &[u8]) -> u32 {
    let (first, rest) = number.split_at(4);
    rest.iter().chain(first).fold(0, |rest, &byte| match byte {
        b'0'..=b'9' => (rest * 10 + u32::from(byte - b'0')) % 97,
        letter => (rest * 100 + u32::from(letter - b'A') + 10) % 97,
    })
}

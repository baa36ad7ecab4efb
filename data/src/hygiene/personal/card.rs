//! Numbers of payment cards: a range and length that an issuer has, and the check digit of Luhn (ISO 7812); in one piece or in
//! groups, between two of which a line may end.

use std::ops::Range;

/// First and last of the beginnings of an issuer's numbers, and how many digits these may have.
#[rustfmt::skip]
const ISSUERS: [(u32, u32, &[usize]); 19] = [
    (4, 4, &[13, 16, 19]), // Visa
    (51, 55, &[16]), (2221, 2720, &[16]), // Mastercard
    (34, 34, &[15]), (37, 37, &[15]), // American Express
    (300, 305, &[14, 16]), (36, 36, &[14, 15, 16, 17, 18, 19]), (38, 39, &[14, 16]), // Diners Club
    (6011, 6011, &[16, 17, 18, 19]), (644, 649, &[16, 17, 18, 19]), (65, 65, &[16, 17, 18, 19]), // Discover
    (3528, 3589, &[16, 17, 18, 19]), // JCB
    (62, 62, &[16, 17, 18, 19]), // UnionPay
    (5018, 5020, &[12, 13, 14, 15, 16, 17, 18, 19]), (5038, 5038, &[12, 13, 14, 15, 16, 17, 18, 19]), // Maestro
    (5893, 5893, &[12, 13, 14, 15, 16, 17, 18, 19]), (6304, 6304, &[12, 13, 14, 15, 16, 17, 18, 19]),
    (6759, 6763, &[12, 13, 14, 15, 16, 17, 18, 19]), (2200, 2204, &[16, 17, 18, 19]), // Maestro, Mir
];

pub(super) fn find(text: &str, found: &mut Vec<Range<usize>>) {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at + 12 <= bytes.len() {
        if !bytes[at].is_ascii_digit() {
            at += 1;
            continue;
        }
        let line = Run::read(bytes, at, 0);
        let end = line.end;
        // What is one on its line is none over its end.
        let runs = [line, Run::read(bytes, at, 1)];
        match runs.iter().find(|run| is_card(text, run, at)) {
            Some(card) => {
                found.push(at..card.end);
                at = card.end;
            }
            None => at = end,
        }
    }
}

/// Digits that stand together, with single blanks or dashes between groups of them, or a line's end.
struct Run {
    digits: Vec<u8>,
    /// Sizes of the groups.
    groups: Vec<usize>,
    end: usize,
}

impl Run {
    /// Over the ends of so many lines.
    fn read(bytes: &[u8], start: usize, mut line_ends: usize) -> Self {
        let mut run = Self { digits: Vec::new(), groups: vec![0], end: start };
        let mut between = None;
        let mut at = start;
        while let Some(&byte) = bytes.get(at) {
            if byte.is_ascii_digit() {
                let last = run.groups.len() - 1;
                run.digits.push(byte - b'0');
                run.groups[last] += 1;
                run.end = at + 1;
                at += 1;
                continue;
            }
            let mark = (byte == b' ' || byte == b'-') && between.is_none_or(|other| other == byte);
            let behind = at + usize::from(mark);
            let line_end = if line_ends > 0 { super::line_end(&bytes[behind..]) } else { 0 };
            let next = behind + line_end;
            if next == at || !bytes.get(next).is_some_and(u8::is_ascii_digit) {
                break;
            }
            if mark {
                between = Some(byte);
            }
            line_ends -= usize::from(line_end > 0);
            run.groups.push(0);
            at = next;
        }
        run
    }
}

fn is_card(text: &str, Run { digits, groups, end }: &Run, start: usize) -> bool {
    let known = |(first, last, lengths): &(u32, u32, &[usize])| {
        let width = first.to_string().len();
        let beginning = digits.iter().take(width).fold(0, |n, &digit| n * 10 + u32::from(digit));
        (*first..=*last).contains(&beginning) && lengths.contains(&digits.len())
    };
    // In one piece, or in groups as they stand on cards: of four, or 4-6-5 and 4-6-4.
    let (last, others) = groups.split_last().expect("there is always a group");
    let in_fours = others.iter().all(|&size| size == 4) && *last <= 4;
    let is_grouped = groups.len() == 1 || in_fours || matches!(groups[..], [4, 6, 4 | 5]);
    let decimal = |at: Option<&u8>| at.is_some_and(|byte| matches!(byte, b'.' | b','));
    let bytes = text.as_bytes();
    let is_part = (start > 0 && decimal(bytes.get(start - 1)))
        || (decimal(bytes.get(*end)) && bytes.get(end + 1).is_some_and(u8::is_ascii_digit));
    is_grouped
        && !is_part
        && digits.len() >= 12
        && super::is_edge(text, start)
        && super::is_edge(text, *end)
        && ISSUERS.iter().any(known)
        && luhn(digits)
}

fn luhn(digits: &[u8]) -> bool {
    let doubled = |(at, &digit): (usize, &u8)| match (at % 2, digit * 2) {
        (0, _) => u32::from(digit),
        (_, twice) => u32::from(twice / 10 + twice % 10),
    };
    digits.iter().rev().enumerate().map(doubled).sum::<u32>().is_multiple_of(10)
}

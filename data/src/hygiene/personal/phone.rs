//! Telephone numbers: international ones with `+` or `00` and a country that there is (ITU-T E.164), North
//! American ones by their form, others with a leading 0 where they are written in groups, or behind a word
//! such as "Tel."; in one line, or with a line's end between two groups.
//!
//! Without a country nobody can say whether a national number is one; so far as their form goes, dates,
//! amounts and numbers of files are told from them, and what is left is stated as measured.

use std::ops::Range;

/// Words before a number that say what it is.
const WORDS: [&str; 10] =
    ["tel", "phone", "telefon", "fon", "fax", "mobil", "mobile", "handy", "call", "cell"];
/// Countries of two digits; those of one are 1 and 7, all others have three.
const OF_TWO: [u16; 43] = [
    20, 27, 30, 31, 32, 33, 34, 36, 39, 40, 41, 43, 44, 45, 46, 47, 48, 49, 51, 52, 53, 54, 55, 56,
    57, 58, 60, 61, 62, 63, 64, 65, 66, 81, 82, 84, 86, 90, 91, 92, 93, 94, 95,
];

pub(super) fn find(text: &str, found: &mut Vec<Range<usize>>) {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let byte = bytes[at];
        let begins = byte.is_ascii_digit() || byte == b'+' || byte == b'(';
        if !begins {
            at += 1;
            continue;
        }
        // What is one on its line is none over its end.
        let written = [0, 1].map(|line_ends| Written::read(text, at, line_ends));
        let is_phone =
            |it: &&Written| it.digits.len() >= 7 && !it.is_of_columns(text) && it.is_phone(text);
        if let Some(phone) = written.iter().find(is_phone) {
            found.push(at..phone.end);
            at = phone.end;
        } else {
            // Not in the midst of the same digits again.
            at += bytes[at..].iter().take_while(|byte| byte.is_ascii_digit()).count().max(1);
        }
    }
}

/// The digits of a number, without what only its form brings in.
pub(super) fn digits(value: &str) -> String {
    let value = value.replace("(0)", "");
    value.chars().filter(char::is_ascii_digit).collect()
}

/// Digits with blanks, dashes, points, strokes and brackets between them, or a line's end.
struct Written {
    start: usize,
    end: usize,
    plus: bool,
    digits: String,
    /// Sizes of the groups of digits.
    groups: Vec<usize>,
    /// What stands between them.
    between: String,
}

impl Written {
    /// Over the ends of so many lines.
    fn read(text: &str, start: usize, mut line_ends: usize) -> Self {
        let plus = text[start..].starts_with('+');
        let (digits, between) = (String::new(), String::new());
        let mut written = Self { start, end: start, plus, digits, groups: Vec::new(), between };
        let (mut gap, mut in_group) = (String::new(), false);
        for (at, character) in text[start..].char_indices().skip(usize::from(plus)) {
            match character {
                '0'..='9' => {
                    if !in_group {
                        written.groups.push(0);
                        written.between.push_str(&gap);
                        gap.clear();
                    }
                    in_group = true;
                    if let Some(group) = written.groups.last_mut() {
                        *group += 1;
                    }
                    written.digits.push(character);
                    written.end = start + at + 1;
                }
                ' ' | '-' | '.' | '/' | '(' | ')' | '\u{a0}' | '\u{202f}' | '\u{2011}'
                    if gap.len() < if gap.contains('\n') { 12 } else { 4 } =>
                {
                    in_group = false;
                    gap.push(character);
                }
                '\n' if line_ends > 0 => {
                    line_ends -= 1;
                    in_group = false;
                    gap.push(character);
                }
                '\r' if line_ends > 0 => gap.push(character),
                '\t' if gap.ends_with(['\n', '\t']) && gap.len() < 12 => gap.push(character),
                _ => break,
            }
            if written.digits.len() > 18 {
                break;
            }
        }
        written
    }

    fn is_phone(&self, text: &str) -> bool {
        let Self { start, end, plus, digits, .. } = self;
        let before = text[..*start].chars().next_back();
        // Part of a word, an amount, a path or a longer number.
        let within = |c: char| c.is_alphanumeric() || "_-.,/:=#$€£+".contains(c);
        let is_told = self.is_told(text);
        if before
            .is_some_and(|c| c.is_alphanumeric() || (within(c) && !(is_told && ":.".contains(c))))
        {
            return false;
        }
        let mut behind = text[*end..].chars();
        let goes_on = match (behind.next(), behind.next()) {
            (Some(c), _) if c.is_alphanumeric() || c == '_' || c == '%' => true,
            (Some('.' | ',' | ':' | '-'), Some(c)) => c.is_ascii_digit(),
            _ => false,
        };
        if goes_on {
            return false;
        }
        if *plus {
            return is_international(digits) && self.brackets_close();
        }
        if let Some(rest) = digits.strip_prefix("00") {
            return is_international(rest) && digits.len() >= 11;
        }
        if self.is_date() || !self.brackets_close() {
            return false;
        }
        self.is_north_american()
            || self.is_national()
            || (is_told && (7..=15).contains(&digits.len()))
    }

    /// Whether it goes over a line's end and may be two numbers of a column: nothing says that it is a telephone's, and it
    /// has no other groups, or stands first on its line without a sign of an area or country.
    fn is_of_columns(&self, text: &str) -> bool {
        let is_first = || {
            let line = text[..self.start].rsplit('\n').next().unwrap_or_default();
            line.trim().is_empty()
        };
        let has_area = text[self.start..].starts_with(['('])
            || self.between.contains('/')
            || self.digits.starts_with("00");
        self.between.contains('\n')
            && !(self.plus || self.is_told(text))
            && (self.groups.len() < 3 || (!has_area && is_first()))
    }

    /// Whether a word before it says that it is one.
    fn is_told(&self, text: &str) -> bool {
        let before =
            text[..self.start].trim_end_matches([' ', ':', '.', '\u{a0}', '(', '\r', '\n']);
        let word = before.rsplit(|c: char| !c.is_alphabetic()).next().unwrap_or_default();
        WORDS.contains(&word.to_lowercase().as_str())
    }

    fn brackets_close(&self) -> bool {
        let count = |bracket| self.between.matches(bracket).count();
        count('(') == count(')') && count('(') <= 1
    }

    fn is_date(&self) -> bool {
        let first: Vec<usize> = self.groups.iter().take(3).copied().collect();
        let of_three = matches!(first[..], [1 | 2, 1 | 2, 4] | [4, 1 | 2, 1 | 2]);
        of_three && self.between.starts_with(['.', '-', '/', ' ', '\r', '\n'])
    }

    /// `(555) 234-5678`, `555-234-5678`, `1 555 234 5678`.
    fn is_north_american(&self) -> bool {
        let groups = match &self.groups[..] {
            [1, rest @ ..] if self.digits.starts_with('1') => rest,
            groups => groups,
        };
        let own = &self.digits[self.digits.len().saturating_sub(10)..];
        let begins = |at: usize| matches!(own.as_bytes().get(at), Some(b'2'..=b'9'));
        groups == [3, 3, 4] && begins(0) && begins(3)
    }

    /// With a leading 0 and in groups: `089 1234567`, `(020) 7946 0018`, `0171/123 45 67`.
    fn is_national(&self) -> bool {
        let area = self.groups.first().copied().unwrap_or(0);
        let by_points =
            self.between.contains('.') && self.groups.iter().all(|&size| size <= 3) && area < 2;
        self.digits.starts_with('0')
            && !self.digits.starts_with("00")
            && (9..=12).contains(&self.digits.len())
            && (2..=6).contains(&self.groups.len())
            && (2..=6).contains(&area)
            && !by_points
    }
}

/// Whether digits begin with a country and have as many as a number may.
fn is_international(digits: &str) -> bool {
    let beginning = |length: usize| digits.get(..length).and_then(|text| text.parse::<u16>().ok());
    let country = match (beginning(1), beginning(2), beginning(3)) {
        (Some(1 | 7), ..) => 1,
        (_, Some(two), _) if OF_TWO.contains(&two) || two == 98 => 2,
        (_, _, Some(three)) if is_country(three) => 3,
        _ => return false,
    };
    // The whole has at most 15 digits.
    let own = digits[country..].trim_start_matches('0').len();
    digits.len() <= 16 && (6..=15 - country).contains(&own)
}

/// Countries of three digits.
fn is_country(three: u16) -> bool {
    matches!(
        three,
        211..=213 | 216 | 218 | 220..=269 | 290 | 291 | 297..=299 | 350..=359 | 370..=389 | 420 | 421 | 423
            | 500..=509 | 590..=599 | 670 | 672..=692 | 800 | 808 | 850 | 852 | 853 | 855 | 856 | 870 | 880..=883
            | 886 | 960..=968 | 970..=977 | 979 | 992..=998
    )
}

//! How the numbers of a workbook are shown: a date is a number with a format.

use std::collections::BTreeMap;

use super::super::archive::Archive;
use super::super::xml::{Token, Xml, text_of};
use crate::budget::Budget;
use crate::error::Why;
use crate::kind::Kind;

/// How a cell shows its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    AsKept,
    Percent,
    Date,
}

/// The formats of a workbook, by the numbers that cells name them by.
#[derive(Debug)]
pub(super) struct Formats {
    cells: Vec<Shown>,
    since_1904: bool,
}

impl Formats {
    pub(super) fn read(
        archive: &mut Archive<'_>,
        budget: &Budget,
        since_1904: bool,
    ) -> Result<Self, Why> {
        const MEMBER: &str = "xl/styles.xml";
        let mut formats = Self { cells: Vec::new(), since_1904 };
        let Some(bytes) = archive.read(MEMBER)? else { return Ok(formats) };
        let text = text_of(&bytes);
        let mut xml = Xml::new(Kind::Xlsx, MEMBER, &text, budget);
        let mut own: BTreeMap<usize, Shown> = BTreeMap::new();
        let mut of_cells = false;
        loop {
            match xml.next()? {
                Token::Open(element) => match &*element.name {
                    "x:numFmt" => {
                        if let Some((id, code)) =
                            element.number("numFmtId").zip(element.attribute("formatCode"))
                        {
                            own.insert(id, by_code(code));
                        }
                    }
                    "x:cellXfs" => of_cells = true,
                    "x:cellStyles" | "x:dxfs" | "x:cellStyleXfs" => of_cells = false,
                    "x:xf" if of_cells => {
                        let id = element.number("numFmtId").unwrap_or(0);
                        budget.nodes(formats.cells.len())?;
                        formats.cells.push(own.get(&id).copied().unwrap_or_else(|| by_id(id)));
                    }
                    _ => {}
                },
                Token::Close | Token::Text(_) => {}
                Token::End => return Ok(formats),
            }
        }
    }

    pub(super) fn shown(&self, format: usize) -> Shown {
        self.cells.get(format).copied().unwrap_or(Shown::AsKept)
    }

    /// A number of days as a date, with its time where it has one; less than a day is a time.
    pub(super) fn date(&self, value: &str) -> Option<String> {
        let days: f64 = value.trim().parse().ok()?;
        // The last day that Excel knows is in the year 9999.
        if !(0.0..2_958_466.0).contains(&days) {
            return None;
        }
        let seconds = (days.fract() * 86_400.0).round() as u32;
        let time =
            format!("{:02}:{:02}:{:02}", seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
        let whole = days.trunc() as i64 + i64::from(seconds == 86_400);
        if whole == 0 && !self.since_1904 {
            return Some(time);
        }
        // Days since 1970. Excel takes 1900 for a leap year, so that days up to its February count one less.
        let since_epoch = match (self.since_1904, whole) {
            (true, days) => days - 24_107,
            (false, ..=60) => whole - 25_568,
            (false, _) => whole - 25_569,
        };
        let date = civil(since_epoch);
        Some(if seconds.is_multiple_of(86_400) { date } else { format!("{date} {time}") })
    }
}

/// The formats that every workbook has.
fn by_id(id: usize) -> Shown {
    match id {
        9 | 10 => Shown::Percent,
        14..=22 | 27..=36 | 45..=47 | 50..=58 => Shown::Date,
        _ => Shown::AsKept,
    }
}

/// By the letters of a format outside of what it quotes and of colours and places in brackets.
fn by_code(code: &str) -> Shown {
    let mut plain = String::new();
    let mut characters = code.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => _ = characters.by_ref().find(|c| *c == '"'),
            '\\' | '_' | '*' => _ = characters.next(),
            '[' => {
                let inside: String = characters.by_ref().take_while(|c| *c != ']').collect();
                // Hours beyond a day.
                if ["h", "hh", "m", "mm", "s", "ss"].contains(&&*inside.to_lowercase()) {
                    plain.push('h');
                }
            }
            ';' => break,
            _ => plain.push(character.to_ascii_lowercase()),
        }
    }
    if plain.contains("general") {
        return Shown::AsKept;
    }
    if plain.contains(['y', 'd', 'h', 's']) || plain.contains('m') && !plain.contains(['0', '#']) {
        return Shown::Date;
    }
    if plain.contains('%') { Shown::Percent } else { Shown::AsKept }
}

/// The date of a day counted from 1970-01-01, as Hinnant's `civil_from_days` computes it.
fn civil(days: i64) -> String {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_dates_as_excel_shows_them() {
        let shown = |since_1904, value: &str| Formats { cells: Vec::new(), since_1904 }.date(value);
        for (value, date) in [
            ("1", "1900-01-01"),
            ("59", "1900-02-28"),
            ("61", "1900-03-01"),
            ("25569", "1970-01-01"),
            ("45351", "2024-02-29"),
            ("45351.5", "2024-02-29 12:00:00"),
            ("0.75", "18:00:00"),
            ("45351.999999999", "2024-03-01"),
        ] {
            assert_eq!(shown(false, value).as_deref(), Some(date), "{value}");
        }
        assert_eq!(shown(true, "0").as_deref(), Some("1904-01-01"));
        assert_eq!(shown(false, "-1"), None);
        assert_eq!(shown(false, "1e300"), None);
    }

    #[test]
    fn a_format_is_known_by_its_letters() {
        for (code, is) in [
            ("yyyy\\-mm\\-dd", Shown::Date),
            ("[$-407]d. mmmm yyyy", Shown::Date),
            ("[h]:mm", Shown::Date),
            ("mmm", Shown::Date),
            ("0.0%", Shown::Percent),
            ("#,##0.00 \"days\"", Shown::AsKept),
            ("[Red]0.00;-0.00", Shown::AsKept),
            ("General", Shown::AsKept),
        ] {
            assert_eq!(by_code(code), is, "{code}");
        }
    }
}

//! `strftime_now` of a pinned date: what Python's `datetime.strftime` writes for midnight of that day.

/// The months as `%B` writes them; `%b` takes three letters.
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

const DAYS: [&str; 7] =
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

const LONGEST_FORMAT: usize = 200;

/// A day of the Gregorian calendar.
#[derive(Clone, Copy)]
struct Day {
    year: u32,
    /// From 0.
    month: usize,
    /// Of the month, from 1.
    number: u32,
}

/// The date, written as `26 Jul 2024`, in the form that the template asks for.
pub(super) fn strftime(date: &str, format: &str) -> Result<String, String> {
    if format.len() > LONGEST_FORMAT {
        return Err(format!(
            "strftime_now: at most {LONGEST_FORMAT} bytes say how a date is written"
        ));
    }
    let day = parse(date).ok_or_else(|| {
        format!(
            "the template writes the date in a form of its own, and `{date}` is not written as \
             `26 Jul 2024`; set `data.chat.date` so"
        )
    })?;
    let mut out = String::new();
    let mut characters = format.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            out.push(character);
            continue;
        }
        let (padded, directive) = match characters.next() {
            Some('-') => (false, characters.next()),
            other => (true, other),
        };
        out += &match directive {
            Some(directive) => day.part(directive, padded),
            None => None,
        }
        .ok_or_else(|| format!("strftime_now({format:?}): only parts of a date are known here"))?;
    }
    Ok(out)
}

fn parse(date: &str) -> Option<Day> {
    let [day, month, year] = date.split(' ').collect::<Vec<_>>()[..] else { return None };
    let month = MONTHS.iter().position(|name| name[..3] == *month)?;
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let number = |text: &str| text.parse::<u32>().ok().filter(|_| digits(text));
    let day = Day { year: number(year).filter(|_| year.len() == 4)?, month, number: number(day)? };
    (day.year > 0 && (1..=day.days_of_month()).contains(&day.number)).then_some(day)
}

impl Day {
    fn is_leap_year(self) -> bool {
        let Self { year, .. } = self;
        year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400)
    }

    fn days_of_month(self) -> u32 {
        match self.month {
            1 if self.is_leap_year() => 29,
            1 => 28,
            3 | 5 | 8 | 10 => 30,
            _ => 31,
        }
    }

    /// From 1.
    fn of_year(self) -> u32 {
        let before = (0..self.month).map(|month| Self { month, ..self }.days_of_month());
        before.sum::<u32>() + self.number
    }

    /// From Sunday, 0.
    fn of_week(self) -> usize {
        let past = self.year - 1;
        ((past + past / 4 - past / 100 + past / 400 + self.of_year()) % 7) as usize
    }

    fn part(self, directive: char, padded: bool) -> Option<String> {
        let number = |value: u32, width: usize| {
            Some(if padded { format!("{value:0width$}") } else { value.to_string() })
        };
        let month = MONTHS[self.month];
        match directive {
            'd' => number(self.number, 2),
            'e' if padded => Some(format!("{:2}", self.number)),
            'm' => number(self.month as u32 + 1, 2),
            'b' | 'h' => Some(month[..3].to_owned()),
            'B' => Some(month.to_owned()),
            'Y' => Some(self.year.to_string()),
            'y' => number(self.year % 100, 2),
            'j' => number(self.of_year(), 3),
            'a' => Some(DAYS[self.of_week()][..3].to_owned()),
            'A' => Some(DAYS[self.of_week()].to_owned()),
            'F' => Some(format!("{}-{:02}-{:02}", self.year, self.month + 1, self.number)),
            'H' | 'M' | 'S' => number(0, 2),
            'I' => number(12, 2),
            'p' => Some("AM".to_owned()),
            '%' => Some("%".to_owned()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::strftime;

    #[test]
    fn dates_are_written_as_python_writes_them() {
        // datetime(2024, 7, 26).strftime(…) and so on
        let written = |date, format| strftime(date, format).unwrap();
        assert_eq!(written("26 Jul 2024", "%d %b %Y"), "26 Jul 2024");
        assert_eq!(written("26 Jul 2024", "%A, %B %-d %y %j %a"), "Friday, July 26 24 208 Fri");
        assert_eq!(
            written("1 Mar 2000", "%Y-%m-%d %H:%M:%S %I %p %% %j"),
            "2000-03-01 00:00:00 12 AM % 061"
        );
        assert_eq!(written("29 Feb 2024", "%F %e %A"), "2024-02-29 29 Thursday");
    }

    #[test]
    fn what_is_no_date_is_named() {
        for date in ["", "today", "30 Feb 2024", "29 Feb 2023", "1 January 2024", "+1 Jan 2024"] {
            assert!(strftime(date, "%d").unwrap_err().contains("26 Jul 2024"), "{date}");
        }
        assert!(strftime("1 Jan 2024", "%Q").is_err());
        assert!(strftime("1 Jan 2024", "100%").is_err());
        assert!(strftime("1 Jan 2024", &"%Y".repeat(1_000)).unwrap_err().contains("at most 200"));
    }
}

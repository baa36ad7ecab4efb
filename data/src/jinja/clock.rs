//! `strftime_now` of a pinned date: what Python's `datetime.strftime` writes for midnight of that day.

use jiff::civil::Date;
use jiff::fmt::strtime;

const LONGEST_FORMAT: usize = 200;

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
    let written = parts(format).and_then(|parts| strtime::format(parts, day.at(0, 0, 0, 0)).ok());
    written.ok_or_else(|| format!("strftime_now({format:?}): only parts of a date are known here"))
}

/// A day as it is written in recipes: zeros before its number may be there or not.
fn parse(date: &str) -> Option<Date> {
    let day = Date::strptime("%d %b %Y", date).ok().filter(|day| day.year() > 0)?;
    // What else the parser takes, such as other letters and blanks, is written otherwise here.
    let written = day.strftime("%-d %b %Y").to_string();
    (written == date.trim_start_matches('0')).then_some(day)
}

/// The format with those parts alone that Python knows, too, as Python on Linux writes them: no zeros before
/// years. `%-d` and its like leave out zeros of numbers.
fn parts(format: &str) -> Option<String> {
    let mut out = String::new();
    let mut characters = format.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            out.push(character);
            continue;
        }
        let (padded, directive) = match characters.next() {
            Some('-') => (false, characters.next()?),
            directive => (true, directive?),
        };
        match directive {
            'd' | 'm' | 'y' | 'j' | 'H' | 'M' | 'S' | 'I' => {
                out.push_str(if padded { "%" } else { "%-" });
                out.push(directive);
            }
            'e' if padded => out.push_str("%e"),
            'Y' => out.push_str("%-Y"),
            'F' => out.push_str("%-Y-%m-%d"),
            'b' | 'h' | 'B' | 'a' | 'A' | 'p' | '%' => out.extend(['%', directive]),
            _ => return None,
        }
    }
    Some(out)
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
        assert_eq!(written("05 Jan 0999", "%F|%e|%-m|%-b|%Y|%-j"), "999-01-05| 5|1|Jan|999|5");
    }

    #[test]
    fn what_is_no_date_is_named() {
        for date in [
            "",
            "today",
            "30 Feb 2024",
            "29 Feb 2023",
            "1 January 2024",
            "+1 Jan 2024",
            "1 JAN 2024",
            " 1 Jan 2024",
            "1  Jan 2024",
            "1 Jan 24",
            "1 Jan 0000",
            "0 Jan 2024",
            "1 Jan 12024",
            "1 Jan -2024",
            "1 Jan 2024 ",
            "1\tJan\t2024",
        ] {
            assert!(strftime(date, "%d").unwrap_err().contains("26 Jul 2024"), "{date}");
        }
        assert!(strftime("1 Jan 2024", "%Q").is_err());
        assert!(strftime("1 Jan 2024", "100%").is_err());
        assert!(strftime("1 Jan 2024", &"%Y".repeat(1_000)).unwrap_err().contains("at most 200"));
    }
}

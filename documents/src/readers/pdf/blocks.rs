//! Lines as headings, paragraphs, entries of lists and code: by their sizes, the gaps between them, and bookmarks.

use std::collections::BTreeMap;

use super::hyphens::Hyphenated;
use super::outline::{Titles, words};
use super::{Line, Page};
use crate::document::Left;
use crate::error::Why;
use crate::writer::Writer;

/// What all pages have in common.
struct Measures<'a> {
    /// The size of running text.
    body: f64,
    /// From line to line, by size in tenths of a point.
    leading: BTreeMap<i64, f64>,
    /// Sizes larger than the body's that headings have, from the largest on.
    larger: Vec<i64>,
    titles: &'a Titles,
}

/// What is written when it is whole.
enum Open {
    Nothing,
    Text { text: String, mark: Option<String>, page: u32, first: Line, count: usize },
    Code { lines: Vec<Line>, page: u32 },
    Heading { text: String, level: u8, page: u32 },
}

pub(super) fn write(pages: &[Page], titles: &Titles, writer: &mut Writer<'_>) -> Result<(), Why> {
    let measures = Measures::of(pages, titles);
    let hyphenated = Hyphenated::of(pages);
    let mut setting =
        Setting { measures, hyphenated, open: Open::Nothing, in_contents: false, writer };
    let mut before: Option<&Line> = None;
    for page in pages {
        for line in &page.lines {
            setting.line(line, before, page.number)?;
            before = Some(line);
        }
    }
    setting.close()?;
    writer.page = None;
    Ok(())
}

fn tenths(size: f64) -> i64 {
    (size * 10.0).round() as i64
}

/// The value that most weight stands behind.
fn most<K: Copy + Ord>(weights: &BTreeMap<K, usize>) -> Option<K> {
    weights.iter().max_by_key(|(_, weight)| **weight).map(|(key, _)| *key)
}

impl<'a> Measures<'a> {
    fn of(pages: &[Page], titles: &'a Titles) -> Self {
        let mut sizes: BTreeMap<i64, usize> = BTreeMap::new();
        let mut gaps: BTreeMap<i64, BTreeMap<i64, usize>> = BTreeMap::new();
        for page in pages {
            for line in &page.lines {
                *sizes.entry(tenths(line.size)).or_default() += line.text.len();
            }
            for pair in page.lines.windows(2) {
                let gap = pair[1].y - pair[0].y;
                if (pair[1].size - pair[0].size).abs() < 0.2
                    && gap > 0.8 * pair[0].size
                    && gap < 3.0 * pair[0].size
                {
                    *gaps
                        .entry(tenths(pair[0].size))
                        .or_default()
                        .entry(tenths(gap))
                        .or_default() += 1;
                }
            }
        }
        let body = most(&sizes).unwrap_or(100);
        let larger =
            sizes.keys().rev().copied().filter(|size| *size as f64 > 1.12 * body as f64).collect();
        let leading = gaps
            .iter()
            .filter_map(|(size, gaps)| Some((*size, most(gaps)? as f64 / 10.0)))
            .collect();
        Self { body: body as f64 / 10.0, leading, larger, titles }
    }

    /// The usual way from a line of a size to the next.
    fn leading(&self, size: f64) -> f64 {
        let usual = self.leading.get(&tenths(size)).copied().unwrap_or(1.2 * size);
        usual.clamp(size, 1.8 * size)
    }

    /// The level of a heading, if the line is one: by its bookmark, else by its size.
    fn heading(&self, line: &Line, stands_alone: bool) -> Option<u8> {
        /// A line longer than this heads nothing.
        const LONGEST: usize = 200;
        let has_words = line.text.chars().any(char::is_alphabetic);
        if !has_words || line.text.len() > LONGEST || line.text.contains('\t') || !line.is_level {
            return None;
        }
        let size = tenths(line.size);
        let is_larger = size as f64 > 1.12 * self.body * 10.0;
        if (is_larger || line.is_bold || stands_alone)
            && let Some(level) = self.titles.get(&words(&line.text))
        {
            return Some(*level);
        }
        if !is_larger {
            return None;
        }
        // Sizes that differ by a trifle are one.
        let mut rank = 1;
        let mut last = self.larger.first().copied()?;
        for larger in &self.larger {
            if *larger < size {
                break;
            }
            if (last - larger) as f64 > 0.04 * last as f64 {
                rank += 1;
                last = *larger;
            }
        }
        Some(rank.min(6))
    }
}

struct Setting<'a, 'w, 'b> {
    measures: Measures<'a>,
    hyphenated: Hyphenated,
    open: Open,
    in_contents: bool,
    writer: &'w mut Writer<'b>,
}

impl Setting<'_, '_, '_> {
    fn line(&mut self, line: &Line, before: Option<&Line>, page: u32) -> Result<(), Why> {
        if is_of_contents(&line.text) || self.in_contents && ends_with_number(&line.text) {
            self.close()?;
            self.writer.leave(Left::Contents, u64::from(!self.in_contents));
            self.in_contents = true;
            return Ok(());
        }
        if let Some(level) = self.measures.heading(line, !self.goes_on(line, before)) {
            // What a page of contents is called goes with it.
            if TITLES_OF_CONTENTS.contains(&&*words(&line.text)) {
                self.close()?;
                self.writer.leave(Left::Contents, 1);
                self.in_contents = true;
                return Ok(());
            }
            self.in_contents = false;
            return self.heading(line, level, before, page);
        }
        self.in_contents = false;
        if line.pitch.is_some()
            || matches!(&self.open, Open::Code { .. }) && is_code_sign(&line.text)
        {
            return self.code(line, page);
        }
        let mark = mark(&line.text);
        if mark.is_none()
            && self.goes_on(line, before)
            && let Open::Text { text, count, .. } = &mut self.open
        {
            let rejoined = self.hyphenated.join(text, &line.text.replace('\t', "  "));
            *count += 1;
            self.writer.leave(Left::Hyphen, u64::from(rejoined));
            return Ok(());
        }
        self.close()?;
        let (mark, text) = mark.map_or((None, &*line.text), |(mark, text)| (Some(mark), text));
        self.open = Open::Text {
            text: text.replace('\t', "  "),
            mark,
            page,
            first: line.clone(),
            count: 1,
        };
        Ok(())
    }

    /// Whether a line goes on with the paragraph that is open.
    fn goes_on(&self, line: &Line, before: Option<&Line>) -> bool {
        let Open::Text { text, mark, first, count, .. } = &self.open else { return false };
        let Some(before) = before else { return false };
        let ends = text.trim_end().ends_with(['.', '!', '?', ':', '”', '"', '。']);
        if (line.size - before.size).abs() > 0.08 * before.size || line.is_level != before.is_level
        {
            return false;
        }
        // Behind a mark of a list that was drawn by itself, on the same line.
        let down = line.y - before.y;
        if down.abs() < 0.3 * line.size && line.x >= before.end {
            return true;
        }
        if down <= 0.0 {
            // The next column or page: a sentence goes on there.
            return !ends && !line.text.starts_with(char::is_uppercase);
        }
        if down > 1.25 * self.measures.leading(line.size) {
            return false;
        }
        let is_hanging = mark.is_some() && *count == 1;
        let is_indented = line.x - before.x > 0.8 * line.size && !is_hanging;
        let is_back = mark.is_some() && line.x < first.x + 0.3 * line.size && *count > 1;
        !(ends && (is_indented || is_back))
    }

    fn heading(
        &mut self,
        line: &Line,
        level: u8,
        before: Option<&Line>,
        page: u32,
    ) -> Result<(), Why> {
        if let Open::Heading { text, level: open, page: open_page } = &mut self.open {
            let is_near = before.is_some_and(|before| {
                let down = line.y - before.y;
                (line.size - before.size).abs() < 0.3
                    && down > -0.3 * line.size
                    && down < 1.6 * line.size
            });
            if *open == level
                && *open_page == page
                && is_near
                && !self.measures.titles.contains_key(&words(text))
            {
                let rejoined = self.hyphenated.join(text, &line.text);
                self.writer.leave(Left::Hyphen, u64::from(rejoined));
                return Ok(());
            }
        }
        self.close()?;
        self.open = Open::Heading { text: line.text.clone(), level, page };
        Ok(())
    }

    fn code(&mut self, line: &Line, page: u32) -> Result<(), Why> {
        if let Open::Code { lines, .. } = &mut self.open {
            let down = lines.last().map_or(0.0, |last| line.y - last.y);
            // A further page goes on with it, too.
            if down < 3.0 * line.size {
                lines.push(line.clone());
                return Ok(());
            }
        }
        self.close()?;
        self.open = Open::Code { lines: vec![line.clone()], page };
        Ok(())
    }

    fn close(&mut self) -> Result<(), Why> {
        match std::mem::replace(&mut self.open, Open::Nothing) {
            Open::Nothing => Ok(()),
            Open::Heading { text, level, page } => {
                self.writer.page = Some(page);
                self.writer.heading(level, &text, None)
            }
            Open::Text { text, mark, page, .. } => {
                self.writer.page = Some(page);
                match mark {
                    Some(mark) => self.writer.item(0, Some(&mark), &text, None),
                    None => self.writer.paragraph(&text, None),
                }
            }
            Open::Code { lines, page } => {
                self.writer.page = Some(page);
                // One line alone is a word in another font more often than a program.
                if let [line] = &lines[..] {
                    return self.writer.paragraph(&line.text.replace('\t', "  "), None);
                }
                self.writer.code(&set_as_code(&lines), None)
            }
        }
    }
}

/// Code with its indents, and an empty line where a gap is.
fn set_as_code(lines: &[Line]) -> String {
    let left = lines.iter().map(|line| line.x).fold(f64::MAX, f64::min);
    let mut text = String::new();
    let mut before: Option<&Line> = None;
    for line in lines {
        if let Some(before) = before {
            let down = line.y - before.y;
            // What is drawn further right on the same line.
            if down.abs() < 0.3 * line.size && line.x >= before.end {
                text.push_str("  ");
                text.push_str(&line.text);
                continue;
            }
            text.push_str(if down > 1.9 * line.size { "\n\n" } else { "\n" });
        }
        let pitch = line.pitch.unwrap_or(0.6 * line.size);
        // Further right than any line of a program begins.
        let indent = ((line.x - left) / pitch).round().clamp(0.0, 120.0) as usize;
        text.push_str(&" ".repeat(indent));
        text.push_str(&line.text.replace('\t', "    "));
        before = Some(line);
    }
    text
}

/// Signs alone, such as a brace, which have no width to compare.
fn is_code_sign(text: &str) -> bool {
    text.len() == 1 && text.chars().all(|c| c.is_ascii_punctuation())
}

/// The mark of an entry of a list, and the text behind it.
fn mark(text: &str) -> Option<(String, &str)> {
    let first = text.chars().next()?;
    let behind = text[first.len_utf8()..].trim_start();
    if matches!(first, '•' | '◦' | '▪' | '‣' | '●' | '○' | '■' | '∙' | '⁃')
        || matches!(first, '–' | '—' | '-' | '*' | '·')
            && text[first.len_utf8()..].starts_with([' ', '\t'])
    {
        return Some(("-".to_owned(), behind));
    }
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let closing = text[digits..].strip_prefix(['.', ')'])?;
    let is_number = (1..=3).contains(&digits) && closing.starts_with([' ', '\t']);
    is_number.then(|| (format!("{}.", &text[..digits]), closing.trim_start()))
}

/// What tables of contents are called.
const TITLES_OF_CONTENTS: [&str; 8] = [
    "contents",
    "tableofcontents",
    "inhalt",
    "inhaltsverzeichnis",
    "sommaire",
    "tabledesmatières",
    "índice",
    "indice",
];

/// A number apart from the words before it.
fn ends_with_number(text: &str) -> bool {
    text.rsplit_once('\t').is_some_and(|(_, number)| {
        let number = number.trim();
        !number.is_empty() && number.chars().all(|c| c.is_ascii_digit() || "ivxlc".contains(c))
    })
}

/// A line of a table of contents: dots that lead to a number.
fn is_of_contents(text: &str) -> bool {
    let number = text.trim_end_matches(|c: char| c.is_ascii_digit() || "ivxlc".contains(c));
    if number.len() == text.len() {
        return false;
    }
    let dots = number.chars().rev().take_while(|c| matches!(c, '.' | ' ' | '·' | '…' | '\t'));
    dots.filter(|c| !c.is_whitespace()).count() >= 4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_of_lists_and_lines_of_contents_are_known() {
        let is = |mark: &str, text| Some((mark.to_owned(), text));
        assert_eq!(mark("• one"), is("-", "one"));
        assert_eq!(mark("– one"), is("-", "one"));
        assert_eq!(mark("12. one"), is("12.", "one"));
        assert_eq!(mark("3) one"), is("3.", "one"));
        for text in ["–one", "1.2 one", "2024. one", "one", ""] {
            assert_eq!(mark(text), None, "{text}");
        }
        for text in ["1 Scope . . . . . . 12", "Scope.......iv", "Scope ........\t3"] {
            assert!(is_of_contents(text), "{text}");
        }
        for text in ["It costs 12", "and so on... 12", "....", ""] {
            assert!(!is_of_contents(text), "{text}");
        }
    }
}

//! Running heads and feet: lines at the edge of a page that other pages have at the same place, but for numbers.

use std::collections::BTreeMap;

use super::{Line, Page};
use crate::document::Left;
use crate::writer::Writer;

/// The edge of a page, as a share of its height.
const EDGE: f64 = 0.12;

/// A line's place and its text, the numbers in it left out.
type Mark = (i64, String);

/// Takes running heads, feet and page numbers out of the pages, counted.
pub(super) fn take(pages: &mut [Page], writer: &mut Writer<'_>) {
    let mut seen: BTreeMap<Mark, u64> = BTreeMap::new();
    for page in pages.iter() {
        let mut of_page: Vec<Mark> = edge_lines(page).map(mark).collect();
        of_page.sort();
        of_page.dedup();
        for mark in of_page {
            *seen.entry(mark).or_default() += 1;
        }
    }
    let numbered = numbered(pages);
    // Twice may be chance in a long document, and is all there can be in a short one.
    let often = if pages.len() < 3 { 2 } else { 3 };
    for page in pages {
        let (mut running, mut numbers) = (0, 0);
        let height = page.height;
        page.lines.retain(|line| {
            if !is_at_edge(line, height) {
                return true;
            }
            if is_page_number(&line.text) {
                numbers += 1;
                return false;
            }
            let is_running = seen.get(&mark(line)).is_some_and(|count| *count >= often)
                || numbers_beside(line).any(|number| {
                    let place = (row(line), i64::from(page.number) - number);
                    numbered.get(&place).is_some_and(|count| *count >= 3)
                });
            running += u64::from(is_running);
            !is_running
        });
        writer.leave(Left::RunningLine, running);
        writer.leave(Left::PageNumber, numbers);
    }
}

/// How many pages have, on a row of their edge, the number of the page beside other words: by the row, and by how far
/// that number is from the page's place in the file.
fn numbered(pages: &[Page]) -> BTreeMap<(i64, i64), u64> {
    let mut counts = BTreeMap::new();
    for page in pages {
        for line in edge_lines(page) {
            for number in numbers_beside(line) {
                *counts.entry((row(line), i64::from(page.number) - number)).or_default() += 1;
            }
        }
    }
    counts
}

/// Numbers that a line begins or ends with, apart from its other words.
fn numbers_beside(line: &Line) -> impl Iterator<Item = i64> {
    let parts: Vec<&str> = line.text.split('\t').collect();
    let ends = if parts.len() > 1 { vec![parts[0], parts[parts.len() - 1]] } else { Vec::new() };
    let number =
        |part: &str| part.trim().parse::<i64>().ok().filter(|number| (0..100_000).contains(number));
    ends.into_iter().filter_map(number).collect::<Vec<_>>().into_iter()
}

/// The place of a line on its page: it differs by less than a line's height where a page is set a little otherwise.
fn row(line: &Line) -> i64 {
    (line.y / 4.0).round() as i64
}

fn edge_lines(page: &Page) -> impl Iterator<Item = &Line> {
    page.lines.iter().filter(|line| is_at_edge(line, page.height))
}

fn is_at_edge(line: &Line, height: f64) -> bool {
    line.is_level && (line.y < EDGE * height || line.y > (1.0 - EDGE) * height)
}

fn mark(line: &Line) -> Mark {
    let mut plain = String::with_capacity(line.text.len());
    for character in line.text.chars() {
        let character = if character.is_ascii_digit() { '#' } else { character };
        if !(character == '#' && plain.ends_with('#')) {
            plain.push(character);
        }
    }
    (row(line), plain)
}

/// `12`, `- 12 -`, `xii`, `Page 3 of 10`.
fn is_page_number(text: &str) -> bool {
    let plain =
        text.trim_matches(|c: char| c.is_whitespace() || "-–—|·[]().".contains(c)).to_lowercase();
    let is_number = |word: &str| {
        let is_roman = word.len() <= 7 && word.chars().all(|c| "ivxlcdm".contains(c));
        !word.is_empty()
            && (word.len() <= 5 && word.chars().all(|c| c.is_ascii_digit()) || is_roman)
    };
    let words: Vec<&str> = plain
        .split(|c: char| c.is_whitespace() || c == '/')
        .filter(|word| !word.is_empty())
        .collect();
    match words[..] {
        [number] => is_number(number),
        ["page" | "seite" | "p." | "s.", number] | [number, "of" | "von" | "/", _]
            if words.len() < 4 =>
        {
            is_number(number)
        }
        [first, second] => is_number(first) && is_number(second),
        ["page" | "seite", number, "of" | "von", all] => is_number(number) && is_number(all),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_pages_are_known_in_their_usual_forms() {
        for text in
            ["12", "- 12 -", "xii", "Page 3", "Page 3 of 10", "3 / 10", "Seite 3 von 10", "3 of 10"]
        {
            assert!(is_page_number(text), "{text}");
        }
        for text in
            ["", "1986 edition", "Chapter 3", "civilian", "123456", "Page of contents", "a 3"]
        {
            assert!(!is_page_number(text), "{text}");
        }
    }
}

//! What the styles and lists of a Word document mean: headings, code, quotations, bullets and numbers.

use std::collections::BTreeMap;

use super::super::archive::Archive;
use super::super::xml::{Token, Xml, text_of};
use crate::budget::Budget;
use crate::error::Why;
use crate::kind::Kind;

/// What a paragraph's style makes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Text,
    Heading(u8),
    Code,
    Quote,
    /// A line of a table of contents.
    Contents,
}

/// A style.
#[derive(Debug, Default, Clone)]
struct Style {
    name: String,
    based_on: Option<String>,
    outline: Option<usize>,
    list: Option<String>,
}

/// The styles of a document, by their ids.
#[derive(Debug, Default)]
pub(super) struct Styles(BTreeMap<String, Style>);

impl Styles {
    pub(super) fn read(archive: &mut Archive<'_>, budget: &Budget) -> Result<Self, Why> {
        const MEMBER: &str = "word/styles.xml";
        let mut styles = Self::default();
        let Some(bytes) = archive.read(MEMBER)? else { return Ok(styles) };
        let text = text_of(&bytes);
        let mut xml = Xml::new(Kind::Docx, MEMBER, &text, budget);
        let mut current: Option<(String, Style)> = None;
        loop {
            let element = match xml.next()? {
                Token::Open(element) => element,
                Token::End => break,
                Token::Close | Token::Text(_) => continue,
            };
            let value = || element.attribute("val").map(str::to_owned);
            if element.name == "w:style" {
                styles.0.extend(current.take());
                current = element.attribute("styleId").map(|id| (id.to_owned(), Style::default()));
            }
            let Some((_, style)) = &mut current else { continue };
            match &*element.name {
                "w:name" => style.name = value().unwrap_or_default().to_lowercase(),
                "w:basedOn" => style.based_on = value(),
                "w:outlineLvl" => style.outline = element.number("val"),
                "w:numId" => style.list = value(),
                _ => {}
            }
        }
        styles.0.extend(current);
        Ok(styles)
    }

    /// What the style of an id means, by itself or by those that it rests on.
    pub(super) fn role(&self, id: &str) -> Role {
        let mut id = id;
        // A circle of styles ends, too.
        for _ in 0..16 {
            let Some(style) = self.0.get(id) else { break };
            if let Some(role) = by_name(&style.name) {
                return role;
            }
            if let Some(level) = style.outline.filter(|level| *level < 9) {
                return Role::Heading((level + 1).min(6) as u8);
            }
            match &style.based_on {
                Some(below) => id = below,
                None => break,
            }
        }
        // A document without styles may still name them.
        by_name(&id.to_lowercase()).unwrap_or(Role::Text)
    }

    /// The list that the style puts its paragraphs into.
    pub(super) fn list(&self, id: &str) -> Option<&str> {
        self.0.get(id)?.list.as_deref()
    }
}

fn by_name(name: &str) -> Option<Role> {
    if let Some(level) = name.strip_prefix("heading") {
        let level = level.trim().parse::<u8>().ok().filter(|level| (1..=9).contains(level))?;
        return Some(Role::Heading(level.min(6)));
    }
    if name.starts_with("toc ") {
        return Some(Role::Contents);
    }
    match name {
        "title" => Some(Role::Heading(1)),
        "source code" | "sourcecode" | "code" | "code block" | "html preformatted"
        | "preformatted text" | "plain text" | "verbatim" | "macro text" => Some(Role::Code),
        "quote" | "intense quote" | "block text" | "blocktext" | "block quote" | "quotations" => {
            Some(Role::Quote)
        }
        _ => None,
    }
}

/// How a level of a list is marked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Mark {
    #[default]
    Bullet,
    Number {
        start: u64,
    },
    Nothing,
}

/// The lists of a document.
#[derive(Debug, Default)]
pub(super) struct Lists {
    abstracts: BTreeMap<String, BTreeMap<usize, Mark>>,
    of: BTreeMap<String, String>,
    counts: BTreeMap<(String, usize), u64>,
}

impl Lists {
    pub(super) fn read(archive: &mut Archive<'_>, budget: &Budget) -> Result<Self, Why> {
        const MEMBER: &str = "word/numbering.xml";
        let mut lists = Self::default();
        let Some(bytes) = archive.read(MEMBER)? else { return Ok(lists) };
        let text = text_of(&bytes);
        let mut xml = Xml::new(Kind::Docx, MEMBER, &text, budget);
        let (mut list, mut level, mut number) = (None, 0, None);
        loop {
            let element = match xml.next()? {
                Token::Open(element) => element,
                Token::End => return Ok(lists),
                Token::Close | Token::Text(_) => continue,
            };
            let value = || element.attribute("val").map(str::to_owned);
            match &*element.name {
                "w:abstractNum" => list = element.attribute("abstractNumId").map(str::to_owned),
                "w:num" => {
                    number = element.attribute("numId").map(str::to_owned);
                    list = None;
                }
                "w:abstractNumId" => {
                    if let Some((number, id)) = number.clone().zip(value()) {
                        lists.of.insert(number, id);
                    }
                }
                "w:lvl" => level = element.number("ilvl").unwrap_or(0),
                "w:start" | "w:numFmt" => {
                    let Some(list) = &list else { continue };
                    let levels = lists.abstracts.entry(list.clone()).or_default();
                    let mark = levels.entry(level).or_insert(Mark::Number { start: 1 });
                    match (&*element.name, value().as_deref()) {
                        ("w:numFmt", Some("bullet")) => *mark = Mark::Bullet,
                        ("w:numFmt", Some("none")) => *mark = Mark::Nothing,
                        ("w:start", Some(said)) => {
                            *mark = Mark::Number { start: said.trim().parse().unwrap_or(1) };
                        }
                        _ => {}
                    }
                }
                _ => {}
            }
        }
    }

    /// The mark of the next entry of a list at a level.
    pub(super) fn next(&mut self, list: &str, level: usize) -> Option<String> {
        let id = self.of.get(list).map_or(list, |id| &**id);
        let mark = self
            .abstracts
            .get(id)
            .and_then(|levels| levels.get(&level))
            .copied()
            .unwrap_or_default();
        // An entry further up begins those below anew.
        self.counts.retain(|(of, deeper), _| of != list || *deeper <= level);
        match mark {
            Mark::Bullet => Some("-".to_owned()),
            Mark::Nothing => None,
            Mark::Number { start } => {
                let count = self.counts.entry((list.to_owned(), level)).or_insert(start);
                let mark = format!("{count}.");
                *count = count.saturating_add(1);
                Some(mark)
            }
        }
    }
}

//! What the styles of an OpenDocument text mean: headings, code, quotations, bullets and numbers.

use std::collections::BTreeMap;

use super::super::xml::{Token, Xml};
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
}

#[derive(Debug, Default)]
pub(super) struct Styles {
    /// The style that each rests on.
    parents: BTreeMap<String, String>,
    /// Where the numbers of a list's level begin; `None` for bullets.
    lists: BTreeMap<(String, usize), Option<u64>>,
}

impl Styles {
    /// Adds those of a file, and gives how many running heads and feet it holds.
    pub(super) fn add(&mut self, member: &str, text: &str, budget: &Budget) -> Result<u64, Why> {
        let mut xml = Xml::new(Kind::Odt, member, text, budget);
        let (mut list, mut running) = (None, 0);
        loop {
            let element = match xml.next()? {
                Token::Open(element) => element,
                Token::Close | Token::Text(_) => continue,
                Token::End => return Ok(running),
            };
            let named = |attribute| element.attribute(attribute).map(str::to_owned);
            match &*element.name {
                // The matter itself.
                "office:body" => return Ok(running),
                "style:style" => {
                    if let Some((name, parent)) = named("name").zip(named("parent-style-name")) {
                        self.parents.insert(name, parent);
                    }
                }
                "style:header" | "style:footer" | "style:header-left" | "style:footer-left" => {
                    running += u64::from(!xml.text()?.trim().is_empty());
                }
                "text:list-style" => list = named("name"),
                "text:list-level-style-number"
                | "text:list-level-style-bullet"
                | "text:list-level-style-image" => {
                    let Some((list, level)) = list.clone().zip(element.number("level")) else {
                        continue;
                    };
                    let has_number = element.name.ends_with("number")
                        && element.attribute("num-format").is_some_and(|format| !format.is_empty());
                    let start = element.number("start-value").unwrap_or(1) as u64;
                    self.lists.insert((list, level), has_number.then_some(start));
                }
                _ => {}
            }
        }
    }

    pub(super) fn role(&self, style: &str) -> Role {
        let mut style = style;
        // A circle of styles ends, too.
        for _ in 0..16 {
            // Characters that no name may have stand in it by number.
            let plain = style.replace("_20_", " ").to_lowercase();
            match &*plain {
                "title" => return Role::Heading(1),
                "preformatted text" | "source code" | "sourcecode" | "code" => return Role::Code,
                "quotations" | "quote" | "block text" => return Role::Quote,
                _ => {}
            }
            match self.parents.get(style) {
                Some(parent) => style = parent,
                None => break,
            }
        }
        Role::Text
    }

    /// Where the numbers of a list begin, where it has numbers.
    pub(super) fn list_start(&self, style: Option<&str>, level: usize) -> Option<u64> {
        // Some write a style for each list within another, and describe its first level alone.
        let style = style?.to_owned();
        let first = (style.clone(), 1);
        self.lists.get(&(style, level)).or_else(|| self.lists.get(&first)).copied().flatten()
    }
}

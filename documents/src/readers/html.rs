//! HTML: what a reader of the page reads, without its menus, heads and feet.

mod inline;
mod table;
mod tree;
mod unread;
mod xhtml;

use crate::decode::decode;
use crate::document::{Left, Span, Unit};
use crate::error::Why;
use crate::writer::Writer;

use inline::Inline;
use tree::{At, Tree, What};
use unread::{Unread, unread};

pub(super) fn read(
    writer: &mut Writer<'_>,
    bytes: &[u8],
    declared: Option<&str>,
) -> Result<(), Why> {
    let said = declared_within(bytes);
    let decoded = decode(bytes, declared.or(said.as_deref()));
    writer.leave(Left::Undecodable, decoded.replaced);
    read_text(writer, &decoded.text)
}

/// Reads a page that is text already.
pub(super) fn read_text(writer: &mut Writer<'_>, text: &str) -> Result<(), Why> {
    let tree = Tree::of(&xhtml::as_html(text), writer.budget)?;
    let mut page = Page {
        writer,
        tree: &tree,
        line: Inline::default(),
        lists: Vec::new(),
        mark: None,
        in_cell: false,
        in_main: false,
        has_heading: false,
    };
    page.title()?;
    page.children(0, 0)?;
    page.flush()
}

/// The encoding that a page names in its first bytes.
fn declared_within(bytes: &[u8]) -> Option<String> {
    let head: Vec<u8> = bytes[..bytes.len().min(4 << 10)].to_ascii_lowercase();
    let head = String::from_utf8_lossy(&head);
    let label = |behind: &str| {
        let value = behind.trim_start().strip_prefix('=')?.trim_start();
        let value = value.trim_start_matches(['"', '\'']);
        let end = value.find(|c: char| c.is_whitespace() || "\"';/>?".contains(c))?;
        Some(value[..end].to_owned()).filter(|label| !label.is_empty())
    };
    if head.starts_with("<?xml")
        && let Some((declaration, _)) = head.split_once("?>")
        && let Some((_, behind)) = declaration.split_once("encoding")
    {
        return label(behind);
    }
    head.split("<meta").skip(1).find_map(|meta| {
        let (inside, _) = meta.split_once('>')?;
        label(&format!("{}>", inside.split_once("charset")?.1))
    })
}

/// A list that is read now: the number of its next entry, where it has numbers.
struct List {
    number: Option<u64>,
}

/// A walk over a page.
struct Page<'w, 'b, 't> {
    writer: &'w mut Writer<'b>,
    tree: &'t Tree,
    line: Inline,
    lists: Vec<List>,
    /// The mark of the entry of which nothing was written yet.
    mark: Option<String>,
    /// Whether all goes into one cell of a table.
    in_cell: bool,
    /// Whether this is within what the page says is its matter.
    in_main: bool,
    has_heading: bool,
}

impl Page<'_, '_, '_> {
    /// Where the page has no heading, its title is one.
    fn title(&mut self) -> Result<(), Why> {
        let (mut title, mut has_heading) = (None, false);
        for at in self.tree.below(0) {
            match self.tree.name(at) {
                Some("title") if title.is_none() => title = Some(at),
                Some("h1" | "h2" | "h3" | "h4" | "h5" | "h6") => has_heading = true,
                _ => {}
            }
        }
        self.has_heading = has_heading;
        let Some(title) = title.filter(|_| !has_heading) else { return Ok(()) };
        let line = self.tree.node(title).line;
        let text = self.text_of(title);
        self.writer.heading(1, &text, Some(lines(line, line)))
    }

    fn text_of(&self, at: At) -> String {
        let texts = self.tree.below(at).filter_map(|below| match &self.tree.node(below).what {
            What::Text(text) => Some(&**text),
            What::Element { .. } | What::Other => None,
        });
        texts.collect()
    }

    fn children(&mut self, at: At, depth: usize) -> Result<(), Why> {
        self.writer.budget.depth(depth)?;
        let tree = self.tree;
        for child in tree.children(at) {
            self.node(child, depth + 1)?;
        }
        Ok(())
    }

    fn node(&mut self, at: At, depth: usize) -> Result<(), Why> {
        let tree = self.tree;
        let node = tree.node(at);
        let name: &str = match &node.what {
            What::Other => return Ok(()),
            What::Text(text) => {
                self.line.push(text, node.line);
                return Ok(());
            }
            What::Element { name, .. } => name,
        };
        match unread(tree, at, name, self.in_main) {
            Unread::No => {}
            Unread::Nothing => return Ok(()),
            Unread::Counted(left) => {
                self.writer.leave(left, 1);
                return Ok(());
            }
            Unread::ButItsTitle => {
                self.writer.leave(Left::Navigation, 1);
                let title = tree.below(at).find(|below| tree.name(*below) == Some("h1"));
                return title.map_or(Ok(()), |title| self.node(title, depth));
            }
        }
        match name {
            "h1" | "h2" | "h3" | "h4" | "h5" | "h6" => {
                self.heading(at, name.as_bytes()[1] - b'0', depth)
            }
            "br" => {
                self.line.line_break();
                Ok(())
            }
            "pre" | "listing" | "xmp" | "plaintext" => self.code(at),
            "code" | "kbd" | "samp" | "tt" => {
                let begins = self.line.begin_code();
                self.children(at, depth)?;
                self.line.end_code(begins);
                Ok(())
            }
            "ul" | "menu" | "dir" => self.list(at, List { number: None }, depth),
            "ol" => {
                let start = tree.attribute(at, "start").and_then(|start| start.trim().parse().ok());
                self.list(at, List { number: Some(start.unwrap_or(1)) }, depth)
            }
            "li" => self.entry(at, depth),
            "dd" => {
                self.flush()?;
                self.lists.push(List { number: None });
                self.mark = Some(":".to_owned());
                self.children(at, depth)?;
                self.flush()?;
                self.lists.pop();
                self.mark = None;
                Ok(())
            }
            "table" => self.table(at, depth),
            "blockquote" => {
                self.flush()?;
                self.writer.quotes += 1;
                let read = self.children(at, depth).and_then(|()| self.flush());
                self.writer.quotes -= 1;
                read
            }
            "main" | "article" => {
                self.flush()?;
                let outside = std::mem::replace(&mut self.in_main, true);
                let read = self.children(at, depth).and_then(|()| self.flush());
                self.in_main = outside;
                read
            }
            "a" => {
                if tree.attribute(at, "href").is_some_and(|leads| !leads.starts_with('#')) {
                    self.writer.leave(Left::Link, 1);
                }
                self.children(at, depth)
            }
            "q" => {
                self.line.push("\"", node.line);
                self.children(at, depth)?;
                self.line.push("\"", node.line);
                Ok(())
            }
            _ if is_inline(name) => self.children(at, depth),
            _ => {
                self.flush()?;
                self.children(at, depth)?;
                self.flush()
            }
        }
    }

    /// Ends running text.
    fn flush(&mut self) -> Result<(), Why> {
        if self.in_cell {
            self.line.line_break();
            return Ok(());
        }
        let Some((text, span)) = self.line.take() else { return Ok(()) };
        if self.lists.is_empty() {
            return self.writer.paragraph(&text, span);
        }
        let mark = self.mark.take();
        self.writer.item(self.lists.len() - 1, mark.as_deref(), &text, span)
    }

    fn heading(&mut self, at: At, level: u8, depth: usize) -> Result<(), Why> {
        self.flush()?;
        self.children(at, depth)?;
        if self.in_cell {
            return self.flush();
        }
        match self.line.take() {
            Some((text, span)) => self.writer.heading(level, &text, span),
            None => Ok(()),
        }
    }

    fn list(&mut self, at: At, list: List, depth: usize) -> Result<(), Why> {
        self.flush()?;
        self.lists.push(list);
        let outer = self.mark.take();
        let read = self.children(at, depth).and_then(|()| self.flush());
        self.lists.pop();
        self.mark = outer;
        read
    }

    fn entry(&mut self, at: At, depth: usize) -> Result<(), Why> {
        self.flush()?;
        let is_alone = self.lists.is_empty();
        if is_alone {
            self.lists.push(List { number: None });
        }
        let list = self.lists.last_mut().expect("there is one, or it was just made");
        let mark = match &mut list.number {
            Some(number) => {
                let mark = format!("{number}.");
                *number = number.saturating_add(1);
                mark
            }
            None => "-".to_owned(),
        };
        if self.in_cell {
            self.line.push(&format!("{mark} "), self.tree.node(at).line);
        } else {
            self.mark = Some(mark);
        }
        let read = self.children(at, depth).and_then(|()| self.flush());
        self.mark = None;
        if is_alone {
            self.lists.pop();
        }
        read
    }

    /// Text whose lines and spaces count.
    fn code(&mut self, at: At) -> Result<(), Why> {
        let tree = self.tree;
        let line = tree.node(at).line;
        if self.in_cell {
            let text = self.text_of(at);
            self.line.push(&text, line);
            return Ok(());
        }
        self.flush()?;
        let mut text = String::new();
        let mut skipped: Option<At> = None;
        for below in tree.below(at) {
            if let Some(top) = skipped {
                if tree.below(top).any(|it| it == below) {
                    continue;
                }
                skipped = None;
            }
            match &tree.node(below).what {
                What::Text(more) => text.push_str(more),
                What::Element { name, .. } if &**name == "br" => text.push('\n'),
                What::Element { .. } if unread::is_line_number(tree, below) => {
                    skipped = Some(below);
                }
                What::Element { .. } | What::Other => {}
            }
        }
        let last = line.saturating_add(text.matches('\n').count() as u32);
        // The entry's mark stands before what the entry begins with.
        if let Some(mark) = self.mark.take() {
            let depth = self.lists.len().saturating_sub(1);
            let first = text.trim().lines().count() <= 1;
            if first {
                return self.writer.item(
                    depth,
                    Some(&mark),
                    &format!("`{}`", text.trim()),
                    Some(lines(line, last)),
                );
            }
        }
        self.writer.code(&text, Some(lines(line, last)))
    }
}

fn lines(start: u32, end: u32) -> Span {
    Span { unit: Unit::Lines, start: start.into(), end: end.max(start).into() }
}

/// Elements that stand within a line.
fn is_inline(name: &str) -> bool {
    const INLINE: [&str; 45] = [
        "abbr",
        "acronym",
        "annotation",
        "b",
        "basefont",
        "bdi",
        "bdo",
        "big",
        "cite",
        "data",
        "del",
        "dfn",
        "em",
        "font",
        "i",
        "ins",
        "label",
        "mark",
        "math",
        "mfrac",
        "mi",
        "mn",
        "mo",
        "mover",
        "mrow",
        "msqrt",
        "mstyle",
        "msub",
        "msup",
        "mtext",
        "munder",
        "nobr",
        "rp",
        "rt",
        "ruby",
        "s",
        "semantics",
        "small",
        "span",
        "strike",
        "strong",
        "sub",
        "sup",
        "time",
        "u",
    ];
    INLINE.contains(&name) || matches!(name, "var" | "wbr" | "slot" | "output" | "tbody")
}

#[cfg(test)]
mod tests;

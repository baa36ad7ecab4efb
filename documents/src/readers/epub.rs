//! EPUB 2 and 3: the pages of a book in the order of its spine.

use std::collections::BTreeMap;

use super::archive::Archive;
use super::html;
use super::xml::{Token, Xml, text_of};
use crate::document::Left;
use crate::error::Why;
use crate::kind::Kind;
use crate::writer::Writer;

const CONTAINER: &str = "META-INF/container.xml";

/// A file of the book.
struct Item {
    path: String,
    is_page: bool,
    is_contents: bool,
}

pub(super) fn read(writer: &mut Writer<'_>, bytes: &[u8]) -> Result<(), Why> {
    let mut archive = Archive::open(Kind::Epub, bytes, writer.budget)?;
    let package = package_path(&mut archive, writer)?;
    let text = text_of(&archive.needed(&package)?);
    let (items, spine) = package_of(&package, &text, writer)?;
    if let Some(locked) = archive.read("META-INF/encryption.xml")? {
        // Fonts may be disguised; a page that is locks the book.
        let locked = text_of(&locked);
        if spine.iter().filter_map(|id| items.get(id)).any(|item| locked.contains(&item.path)) {
            return Err(Why::Encrypted { kind: Kind::Epub });
        }
    }
    writer.leave(Left::Picture, items.values().filter(|item| !item.is_page).count() as u64);
    for id in spine {
        let Some(item) = items.get(&id) else {
            return Err(broken(format!(
                "`{package}` names `{id}` in its order, and no file of that name"
            )));
        };
        if item.is_contents {
            writer.leave(Left::Contents, 1);
            continue;
        }
        if !item.is_page {
            continue;
        }
        let page = archive.needed(&item.path)?;
        writer.member = Some(item.path.as_str().into());
        html::read(writer, &page, None)?;
    }
    writer.member = None;
    Ok(())
}

fn broken(what: String) -> Why {
    Why::Broken { kind: Kind::Epub, what }
}

/// Where the package's description lies.
fn package_path(archive: &mut Archive<'_>, writer: &Writer<'_>) -> Result<String, Why> {
    let text = text_of(&archive.needed(CONTAINER)?);
    let mut xml = Xml::new(Kind::Epub, CONTAINER, &text, writer.budget);
    loop {
        match xml.next()? {
            Token::Open(element) if element.name.ends_with("rootfile") => {
                if let Some(path) = element.attribute("full-path") {
                    return Ok(path.to_owned());
                }
            }
            Token::Open(_) | Token::Close | Token::Text(_) => {}
            Token::End => return Err(broken(format!("`{CONTAINER}` names no book"))),
        }
    }
}

/// The files of a book by their ids, those that are text or pictures; and the ids of its pages in order.
fn package_of(
    package: &str,
    text: &str,
    writer: &Writer<'_>,
) -> Result<(BTreeMap<String, Item>, Vec<String>), Why> {
    let mut xml = Xml::new(Kind::Epub, package, text, writer.budget);
    let (mut items, mut spine) = (BTreeMap::new(), Vec::new());
    loop {
        match xml.next()? {
            Token::Open(element) => match &*element.name {
                "opf:item" => {
                    let Some((id, href)) = element.attribute("id").zip(element.attribute("href"))
                    else {
                        continue;
                    };
                    let media = element.attribute("media-type").unwrap_or_default();
                    let is_page = media == "application/xhtml+xml" || media == "text/html";
                    if is_page || media.starts_with("image/") {
                        let properties = element.attribute("properties").unwrap_or_default();
                        let is_contents = properties.split_ascii_whitespace().any(|it| it == "nav");
                        let path = beside(package, href);
                        items.insert(id.to_owned(), Item { path, is_page, is_contents });
                    }
                }
                "opf:itemref" => {
                    writer.budget.entries(spine.len())?;
                    spine.extend(element.attribute("idref").map(str::to_owned));
                }
                _ => {}
            },
            Token::Close | Token::Text(_) => {}
            Token::End => return Ok((items, spine)),
        }
    }
}

/// The path of what a file names beside itself.
fn beside(file: &str, href: &str) -> String {
    let href = href.split(['#', '?']).next().unwrap_or_default();
    let mut parts: Vec<&str> = file.split('/').collect();
    parts.pop();
    let plain = percent_decoded(href);
    for part in plain.split('/') {
        match part {
            "." | "" => {}
            ".." => _ = parts.pop(),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, further @ ..] = rest {
        let code = further.get(..2).and_then(|code| std::str::from_utf8(code).ok());
        let code =
            code.filter(|_| *first == b'%').and_then(|code| u8::from_str_radix(code, 16).ok());
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &further[2..] } else { further };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_beside_the_package() {
        assert_eq!(beside("OEBPS/content.opf", "text/a%20b.xhtml#c"), "OEBPS/text/a b.xhtml");
        assert_eq!(beside("OEBPS/content.opf", "../a.xhtml"), "a.xhtml");
        assert_eq!(beside("content.opf", "./%zz"), "%zz");
    }
}

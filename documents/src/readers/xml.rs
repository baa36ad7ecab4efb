//! XML, a token at a time: names with the prefixes that everybody uses for their namespaces, whatever the file calls
//! them. No entity is expanded but the five of XML and characters by number.

use quick_xml::XmlVersion;
use quick_xml::events::{BytesStart, Event};
use quick_xml::name::ResolveResult;
use quick_xml::reader::NsReader;

use crate::budget::Budget;
use crate::decode::decode;
use crate::error::Why;
use crate::kind::Kind;

/// A step through a file of XML.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// An element begins.
    Open(Element),
    /// The innermost element ends.
    Close,
    /// Text within it; what stands together may come in pieces.
    Text(String),
    /// There is no more.
    End,
}

/// The beginning of an element.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Element {
    /// As `w:p`; without a prefix where the namespace is none that is known.
    pub(super) name: String,
    attributes: Vec<(String, String)>,
}

impl Element {
    /// The value of an attribute, its prefix left out.
    pub(super) fn attribute(&self, local: &str) -> Option<&str> {
        self.attributes.iter().find(|(name, _)| name == local).map(|(_, value)| &**value)
    }

    /// A number in an attribute.
    pub(super) fn number(&self, local: &str) -> Option<usize> {
        self.attribute(local)?.trim().parse().ok()
    }
}

/// Ends of namespaces, and what they are called here.
const NAMESPACES: [(&str, &str); 17] = [
    ("/wordprocessingml/2006/main", "w"),
    ("/ooxml/wordprocessingml/main", "w"),
    ("/spreadsheetml/2006/main", "x"),
    ("/ooxml/spreadsheetml/main", "x"),
    ("/officeDocument/2006/relationships", "r"),
    ("/ooxml/officeDocument/relationships", "r"),
    ("/package/2006/relationships", "rel"),
    ("/officeDocument/2006/math", "m"),
    ("/ooxml/officeDocument/math", "m"),
    ("/markup-compatibility/2006", "mc"),
    ("opendocument:xmlns:office:1.0", "office"),
    ("opendocument:xmlns:text:1.0", "text"),
    ("opendocument:xmlns:table:1.0", "table"),
    ("opendocument:xmlns:drawing:1.0", "draw"),
    ("opendocument:xmlns:style:1.0", "style"),
    ("opendocument:xmlns:container", "container"),
    ("www.idpf.org/2007/opf", "opf"),
];

/// A file of XML.
pub(super) struct Xml<'a> {
    reader: NsReader<&'a [u8]>,
    kind: Kind,
    member: &'a str,
    budget: &'a Budget,
    depth: usize,
}

/// The text of a file of XML.
pub(super) fn text_of(bytes: &[u8]) -> String {
    // Office programs write UTF-8, or UTF-16 with its mark.
    decode(bytes, Some("utf-8")).text.into_owned()
}

impl<'a> Xml<'a> {
    pub(super) fn new(kind: Kind, member: &'a str, text: &'a str, budget: &'a Budget) -> Self {
        let mut reader = NsReader::from_str(text);
        reader.config_mut().expand_empty_elements = true;
        Self { reader, kind, member, budget, depth: 0 }
    }

    /// The next step.
    pub(super) fn next(&mut self) -> Result<Token, Why> {
        loop {
            let at = self.reader.buffer_position();
            let read = self.reader.read_resolved_event();
            let (namespace, event) = match read {
                Ok(read) => read,
                Err(error) => return Err(self.broken(at, &error.to_string())),
            };
            match event {
                Event::Start(start) => {
                    let prefix = match namespace {
                        ResolveResult::Bound(namespace) => prefix(namespace.0),
                        ResolveResult::Unbound | ResolveResult::Unknown(_) => "",
                    };
                    self.depth += 1;
                    self.budget.depth(self.depth)?;
                    let element = element(prefix, &start);
                    return element.map(Token::Open).map_err(|what| self.broken(at, &what));
                }
                Event::End(_) => {
                    self.depth = self.depth.saturating_sub(1);
                    return Ok(Token::Close);
                }
                Event::Text(text) => return Ok(Token::Text(text.xml10_content().into_owned())),
                Event::CData(text) => return Ok(Token::Text(text.xml10_content().into_owned())),
                Event::GeneralRef(entity) => {
                    if let Ok(Some(character)) = entity.resolve_char_ref() {
                        return Ok(Token::Text(character.to_string()));
                    }
                    let name = entity.into_inner();
                    let known = match &*name {
                        "amp" => "&",
                        "lt" => "<",
                        "gt" => ">",
                        "quot" => "\"",
                        "apos" => "'",
                        // What a document type would say in its place, nobody here expands.
                        _ => return Ok(Token::Text(format!("&{name};"))),
                    };
                    return Ok(Token::Text(known.to_owned()));
                }
                Event::Eof if self.depth > 0 => {
                    return Err(self.broken(at, "it ends within an element"));
                }
                Event::Eof => return Ok(Token::End),
                Event::Empty(_)
                | Event::Comment(_)
                | Event::Decl(_)
                | Event::PI(_)
                | Event::DocType(_) => {}
            }
            self.budget.time()?;
        }
    }

    /// Passes all up to the end of the element that has just begun.
    pub(super) fn skip(&mut self) -> Result<(), Why> {
        let outside = self.depth.saturating_sub(1);
        while self.depth > outside {
            if self.next()? == Token::End {
                break;
            }
        }
        Ok(())
    }

    /// The text of the element that has just begun, with all in it.
    pub(super) fn text(&mut self) -> Result<String, Why> {
        let outside = self.depth.saturating_sub(1);
        let mut text = String::new();
        while self.depth > outside {
            match self.next()? {
                Token::Text(more) => text.push_str(&more),
                Token::Open(_) | Token::Close => {}
                Token::End => break,
            }
        }
        Ok(text)
    }

    /// Where the next token begins.
    pub(super) fn at(&self) -> u64 {
        self.reader.buffer_position()
    }

    fn broken(&self, at: u64, what: &str) -> Why {
        let member = self.member;
        Why::Broken { kind: self.kind, what: format!("`{member}`, byte {at}: {what}") }
    }
}

fn prefix(namespace: &str) -> &'static str {
    let found = NAMESPACES.iter().find(|(end, _)| namespace.ends_with(end));
    found.map_or("", |(_, prefix)| prefix)
}

fn element(prefix: &str, start: &BytesStart<'_>) -> Result<Element, String> {
    let local = start.local_name();
    let local: &str = local.as_ref();
    let name = if prefix.is_empty() { local.to_owned() } else { format!("{prefix}:{local}") };
    let mut attributes = Vec::new();
    for attribute in start.attributes() {
        let attribute = attribute.map_err(|error| error.to_string())?;
        let value = attribute.normalized_value(XmlVersion::Implicit1_0);
        let value = value.map_err(|error| error.to_string())?;
        let key: &str = attribute.key.0;
        let local = key.rsplit_once(':').map_or(key, |(_, local)| local);
        attributes.push((local.to_owned(), value.into_owned()));
    }
    Ok(Element { name, attributes })
}

//! Markdown stays as it was written; a parser says where its blocks are.

use pulldown_cmark::{Event, HeadingLevel, MetadataBlockKind, Options, Parser, Tag, TagEnd};

use crate::decode::decode;
use crate::document::{Form, Left, Span, Unit};
use crate::error::Why;
use crate::writer::Writer;

/// Longer texts are no one's Markdown.
const MOST: usize = 16 << 20;

pub(super) fn read(writer: &mut Writer<'_>, bytes: &[u8]) -> Result<(), Why> {
    let decoded = decode(bytes, None);
    writer.leave(Left::Undecodable, decoded.replaced);
    let text: &str = &decoded.text;
    // The parser's tree takes up to forty times its text.
    writer.budget.at_once("bytes of Markdown", text.len(), MOST)?;
    let options = Options::ENABLE_TABLES
        | Options::ENABLE_FOOTNOTES
        | Options::ENABLE_YAML_STYLE_METADATA_BLOCKS
        | Options::ENABLE_PLUSES_DELIMITED_METADATA_BLOCKS;
    let lines = LineNumbers::of(text);
    let mut depth = 0_usize;
    let (mut list_depth, mut before) = (0_usize, 0_usize);
    for (event, range) in Parser::new_ext(text, options).into_offset_iter() {
        match event {
            Event::Start(tag) => {
                depth += 1;
                // Entries of a list are blocks, so that a long one can be cut between them.
                if depth == 1 && matches!(tag, Tag::List(_)) {
                    list_depth = 1;
                    continue;
                }
                if depth != list_depth + 1 {
                    continue;
                }
                let form = match &tag {
                    Tag::MetadataBlock(
                        MetadataBlockKind::YamlStyle | MetadataBlockKind::PlusesStyle,
                    ) => {
                        writer.leave(Left::FrontMatter, 1);
                        before = range.end;
                        continue;
                    }
                    Tag::Heading { level, .. } => Form::Heading(level_number(*level)),
                    Tag::CodeBlock(_) => Form::Code,
                    Tag::Table(_) => Form::Table,
                    Tag::Item => Form::Item,
                    _ => Form::Paragraph,
                };
                // What the parser takes no notice of, such as definitions of links, is kept, too.
                other(writer, text, before..range.start, decoded.begins, &lines)?;
                let piece = from_line_start(text, range.start)..range.end;
                before = range.end;
                block(writer, form, text, piece, decoded.begins, &lines)?;
            }
            Event::End(tag) => {
                if depth == 1 && matches!(tag, TagEnd::List(_)) {
                    list_depth = 0;
                }
                depth -= 1;
            }
            Event::Rule if depth == 0 => before = range.end,
            _ => {}
        }
    }
    other(writer, text, before..text.len(), decoded.begins, &lines)
}

fn level_number(level: HeadingLevel) -> u8 {
    level as u8
}

/// The beginning of an indented block's first line.
fn from_line_start(text: &str, at: usize) -> usize {
    let start = text[..at].rfind('\n').map_or(0, |before| before + 1);
    if text[start..at].trim().is_empty() { start } else { at }
}

/// What stands between two blocks.
fn other(
    writer: &mut Writer<'_>,
    text: &str,
    range: std::ops::Range<usize>,
    begins: Option<u64>,
    lines: &LineNumbers,
) -> Result<(), Why> {
    if range.is_empty() || text[range.clone()].trim().is_empty() {
        return Ok(());
    }
    block(writer, Form::Paragraph, text, range, begins, lines)
}

fn block(
    writer: &mut Writer<'_>,
    form: Form,
    text: &str,
    range: std::ops::Range<usize>,
    begins: Option<u64>,
    lines: &LineNumbers,
) -> Result<(), Why> {
    let whole = &text[range.clone()];
    let kept = whole.trim_end();
    let lead = kept.len() - kept.trim_start_matches(['\n', '\r']).len();
    let kept = &kept[lead..];
    let (start, end) = (range.start + lead, range.start + lead + kept.len());
    if kept.trim().is_empty() {
        return Ok(());
    }
    let span = match begins {
        Some(begins) => {
            Span { unit: Unit::Bytes, start: begins + start as u64, end: begins + end as u64 }
        }
        None => Span { unit: Unit::Lines, start: lines.at(start), end: lines.at(end - 1) },
    };
    match form {
        // A heading underlined, or closed with marks, is written as all others are.
        Form::Heading(level) => {
            let first = kept.lines().next().unwrap_or_default();
            let words = if first.trim_start().starts_with('#') {
                first.trim().trim_matches('#').trim().to_owned()
            } else {
                let lines: Vec<&str> = kept.lines().collect();
                lines[..lines.len() - 1].join(" ")
            };
            writer.heading(level, &words, Some(span))
        }
        _ => writer.raw(form, kept.replace("\r\n", "\n"), Some(span)),
    }
}

/// Where lines begin.
struct LineNumbers(Vec<usize>);

impl LineNumbers {
    fn of(text: &str) -> Self {
        Self(text.match_indices('\n').map(|(at, _)| at).collect())
    }

    /// The number of the line at an offset, counted from 1.
    fn at(&self, offset: usize) -> u64 {
        self.0.partition_point(|end| *end < offset) as u64 + 1
    }
}

//! EML and MBOX: subject, sender and date, then the text; of HTML alone, what it says. Attachments that are
//! documents are read, all others counted.

use std::path::Path;
use std::sync::Arc;

use mail_parser::{Address, Message, MessageParser, MessagePart, MimeHeaders, PartType};

use super::{html, into, text};
use crate::document::{Left, Span, Unit};
use crate::error::Why;
use crate::kind::{Kind, kind};
use crate::writer::Writer;

/// Documents in mails in mails further than this are made to keep readers busy.
const DEEPEST: usize = 8;

/// Parts of one mail, lines that look like their borders counted.
const PARTS: usize = 200_000;

/// Lines of a mail's head.
const FIELDS: usize = 200_000;

pub(super) fn read(writer: &mut Writer<'_>, bytes: &[u8], within: usize) -> Result<(), Why> {
    // The parser keeps all parts and fields, however little they hold.
    writer.budget.at_once("parts", memchr::memmem::find_iter(bytes, b"\n--").count(), PARTS)?;
    let head =
        memchr::memmem::find(bytes, b"\n\n").or_else(|| memchr::memmem::find(bytes, b"\n\r\n"));
    let fields = memchr::memchr_iter(b'\n', &bytes[..head.unwrap_or(bytes.len())]).count();
    writer.budget.at_once("lines before its text", fields, FIELDS)?;
    let parsed = MessageParser::default().parse(bytes);
    let Some(message) = parsed else {
        return Err(Why::Broken { kind: Kind::Mail, what: "it has no head".to_owned() });
    };
    let outer = writer.fixed;
    // Where in the file a line of a decoded body stands, nobody knows.
    writer.fixed = outer.or(Some(Span { unit: Unit::Bytes, start: 0, end: bytes.len() as u64 }));
    let read = read_message(writer, &message, within);
    writer.fixed = outer;
    read
}

/// Each message of a box, which is parted by lines that begin with `From ` behind an empty one.
pub(super) fn read_box(writer: &mut Writer<'_>, bytes: &[u8], within: usize) -> Result<(), Why> {
    let outer = writer.member.clone();
    let mut starts: Vec<usize> = if bytes.starts_with(b"From ") { vec![0] } else { Vec::new() };
    for at in memchr::memmem::find_iter(bytes, b"\nFrom ") {
        let line = &bytes[at + 1..];
        let line = &line[..memchr::memchr(b'\n', line).unwrap_or(line.len())];
        let is_behind_empty = bytes[..at].ends_with(b"\n")
            || bytes[..at].ends_with(b"\n\r")
            || bytes[..at].ends_with(b"\r\n\r");
        if is_behind_empty && line.contains(&b':') {
            starts.push(at + 1);
        }
    }
    for (number, start) in starts.iter().enumerate() {
        writer.budget.time()?;
        let end = starts.get(number + 1).copied().unwrap_or(bytes.len());
        let message = &bytes[*start..end];
        let head = memchr::memchr(b'\n', message).map_or(message.len(), |at| at + 1);
        let message = unquoted(&message[head..]);
        writer.member = Some(inside(outer.as_deref(), &format!("message {}", number + 1)));
        writer.fixed = Some(Span { unit: Unit::Bytes, start: *start as u64, end: end as u64 });
        let read = read(writer, &message, within);
        writer.fixed = None;
        match read {
            Err(Why::Broken { what, .. }) => {
                writer.unread.push(format!("message {} cannot be read: {what}", number + 1));
            }
            Err(why @ Why::Encrypted { .. }) => {
                writer.unread.push(format!("message {}: {why}", number + 1));
            }
            other => other?,
        }
    }
    writer.member = outer;
    Ok(())
}

/// A message without the marks that keep its own lines `From ` from being taken for another's.
fn unquoted(message: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(message.len());
    for line in message.split_inclusive(|byte| *byte == b'\n') {
        let marks = line.iter().take_while(|byte| **byte == b'>').count();
        plain.extend_from_slice(if marks > 0 && line[marks..].starts_with(b"From ") {
            &line[1..]
        } else {
            line
        });
    }
    plain
}

/// The name of what lies in something.
fn inside(outer: Option<&str>, name: &str) -> Arc<str> {
    outer.map_or_else(|| name.into(), |outer| format!("{outer}: {name}").into())
}

fn read_message(writer: &mut Writer<'_>, message: &Message<'_>, within: usize) -> Result<(), Why> {
    if is_sealed(message) {
        return Err(Why::Encrypted { kind: Kind::Mail });
    }
    head(writer, message)?;
    for part in message.text_bodies() {
        match &part.body {
            PartType::Text(body) => text::read(writer, body.as_bytes(), Some("utf-8"))?,
            PartType::Html(body) => page(writer, body)?,
            PartType::Binary(_)
            | PartType::InlineBinary(_)
            | PartType::Message(_)
            | PartType::Multipart(_) => {}
        }
        if part.is_encoding_problem {
            writer.leave(Left::Undecodable, 1);
        }
    }
    let (member, fixed) = (writer.member.clone(), writer.fixed);
    for (number, part) in message.attachments().enumerate() {
        let name = part
            .attachment_name()
            .map_or_else(|| format!("attachment {}", number + 1), str::to_owned);
        writer.member = Some(inside(member.as_deref(), &name));
        writer.fixed = fixed.filter(|_| matches!(part.body, PartType::Message(_)));
        attachment(writer, part, &name, within)?;
    }
    (writer.member, writer.fixed) = (member, fixed);
    Ok(())
}

/// Whether a key is needed to read it: OpenPGP's `multipart/encrypted` (RFC 3156) or S/MIME's `application/pkcs7-mime`
/// (RFC 8551), or a body that is such a message as text.
fn is_sealed(message: &Message<'_>) -> bool {
    let is = |whole: &str, part: &str| {
        message.content_type().is_some_and(|kind| {
            kind.ctype().eq_ignore_ascii_case(whole)
                && kind.subtype().is_some_and(|found| found.eq_ignore_ascii_case(part))
        })
    };
    let is_armoured = |part: &MessagePart<'_>| match &part.body {
        PartType::Text(body) => body.trim_start().starts_with("-----BEGIN PGP MESSAGE-----"),
        _ => false,
    };
    is("multipart", "encrypted")
        || is("application", "pkcs7-mime")
        || is("application", "x-pkcs7-mime")
        || message.text_bodies().any(is_armoured)
}

/// HTML within a mail: a page that is beyond what is read is no reason to lose the others.
fn page(writer: &mut Writer<'_>, body: &str) -> Result<(), Why> {
    html::read_text(writer, body)
}

fn head(writer: &mut Writer<'_>, message: &Message<'_>) -> Result<(), Why> {
    writer.heading(1, message.subject().unwrap_or_default(), None)?;
    let mut lines = Vec::new();
    for (name, address) in [("From", message.from()), ("To", message.to())] {
        if let Some(all) = address.map(addresses).filter(|all| !all.is_empty()) {
            lines.push(format!("{name}: {all}"));
        }
    }
    lines.extend(message.date().map(|date| format!("Date: {}", date.to_rfc3339())));
    writer.paragraph(&lines.join("\n"), None)
}

fn addresses(address: &Address<'_>) -> String {
    let one = |address: &mail_parser::Addr<'_>| match (address.name(), address.address()) {
        (Some(name), Some(address)) => format!("{name} <{address}>"),
        (Some(only), None) | (None, Some(only)) => only.to_owned(),
        (None, None) => String::new(),
    };
    let all: Vec<String> = address.iter().map(one).filter(|one| !one.is_empty()).collect();
    all.join(", ")
}

fn attachment(
    writer: &mut Writer<'_>,
    part: &MessagePart<'_>,
    name: &str,
    within: usize,
) -> Result<(), Why> {
    if within >= DEEPEST {
        return Err(writer.budget.too_deep("documents in each other", DEEPEST));
    }
    if let PartType::Message(message) = &part.body {
        return match read_message(writer, message, within + 1) {
            Err(why @ Why::Encrypted { .. }) => {
                writer.unread.push(format!("`{name}`: {why}"));
                Ok(())
            }
            other => other,
        };
    }
    let bytes = part.contents();
    let Ok(found) = kind(Path::new(name), bytes) else {
        writer.leave(Left::Attachment, 1);
        return Ok(());
    };
    let (blocks, pages) = (writer.blocks.len(), writer.pages.take());
    let read = into(writer, found, bytes, within + 1);
    writer.pages = pages;
    match read {
        Ok(()) if writer.blocks.len() > blocks => Ok(()),
        Ok(()) => {
            writer.unread.push(format!("`{name}`: this {found} has no text"));
            Ok(())
        }
        Err(
            why @ (Why::Broken { .. } | Why::Encrypted { .. } | Why::Empty(_) | Why::Unknown(_)),
        ) => {
            writer.unread.push(format!("`{name}`: {why}"));
            Ok(())
        }
        Err(other) => Err(other),
    }
}

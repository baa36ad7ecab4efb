//! Rows as text, to be read beside each other.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::report::RowId;
use super::survey::{Section, Unread, reader};
use crate::conversation::{Content, Message};
use crate::formats::Row;
use crate::template_json::compact;

/// Reads the sections again for the texts of these rows. Sections that none of them is of are not read, nor
/// what stands behind the last.
///
/// # Errors
/// A file can no longer be read.
pub fn texts_of(
    sections: &[Section<'_>],
    wanted: &BTreeSet<RowId>,
) -> Result<BTreeMap<RowId, String>, Unread> {
    let mut texts = BTreeMap::new();
    for section in sections {
        let of_section = wanted.iter().filter(|id| id.section == section.key);
        let mut left: BTreeSet<_> = of_section.map(|id| id.origin).collect();
        if left.is_empty() {
            continue;
        }
        for read in reader(section) {
            let (row, origin) =
                read.map_err(|error| Unread { key: section.key.to_owned(), error })?;
            if left.remove(&origin) {
                texts.insert(RowId { section: section.key.to_owned(), origin }, text(&row));
            }
            if left.is_empty() {
                break;
            }
        }
    }
    Ok(texts)
}

/// What a row says; of a conversation each turn behind its role.
fn text(row: &Row) -> String {
    let turn = |Message { role, content, .. }: &Message| {
        let said = match content {
            Content::Text(text) => text.clone(),
            Content::ToolCall { name, arguments } => {
                format!("{name} {}", compact(&Value::Object(arguments.clone())))
            }
            Content::ToolResult(value) => compact(value),
        };
        format!("{}: {said}", role.header())
    };
    match row {
        Row::Text(text) => text.clone(),
        Row::Completion { prompt, completion } => format!("{prompt}\n→ {completion}"),
        Row::Conversation(conversation) => {
            conversation.messages.iter().map(turn).collect::<Vec<_>>().join("\n")
        }
    }
}

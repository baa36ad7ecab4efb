//! Which part of a rendered conversation is the assistant's, and the ids of both parts.

use std::ops::Range;

use minijinja::value::Kwargs;
use minijinja::{Error as TemplateError, State};
use serde_json::Value as Json;

use super::ModelTemplate;
use super::values::Wording;
use crate::conversation::{Conversation, Message, Role};
use crate::error::{Error, RowProblem};
use crate::tokenizer::Tokenizer;

/// What a `{% generation %}` block becomes a call of.
pub(super) const FUNCTION: &str = "graft_generation";

/// The variable that holds the sign to put around such a block.
pub(super) const SIGN: &str = "graft_sign";

/// The template with line ends as Jinja2 reads them and with `{% generation %}` blocks as calls, and
/// whether there are any. In transformers, too, such a block is a call that gives back its own text.
pub(super) fn prepare(text: &str) -> (String, bool) {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let (mut out, mut rest, mut marks) = (String::with_capacity(text.len()), &text[..], false);
    while let Some(start) = rest.find("{%") {
        // Behind the tag's own first sign: `{%}` is no whole tag.
        let Some(end) = rest[start + 2..].find("%}").map(|end| start + 2 + end) else { break };
        let inner = &rest[start + 2..end];
        let signs = |c: char| c == '-' || c == '+';
        let name = inner.trim_start_matches(signs).trim_end_matches(signs).trim();
        let call = match name {
            "generation" => Some(format!("call {FUNCTION}()")),
            "endgeneration" => Some("endcall".to_owned()),
            _ => None,
        };
        if let Some(call) = call {
            marks = true;
            out.push_str(&rest[..start + 2]);
            out.push_str(&inner.replacen(name, &call, 1));
            out.push_str("%}");
            rest = &rest[end + 2..];
        } else {
            out.push_str(&rest[..start + 2]);
            rest = &rest[start + 2..];
        }
    }
    (out + rest, marks)
}

/// The block's text between two signs.
pub(super) fn generation(state: &State<'_, '_>, named: Kwargs) -> Result<String, TemplateError> {
    let block: minijinja::Value = named.get("caller")?;
    let sign = state.lookup(SIGN).unwrap_or_default();
    let sign = sign.as_str().unwrap_or_default();
    Ok(format!("{sign}{}{sign}", block.call(state, &[])?))
}

/// The text without signs, and what stood between them.
pub(super) fn marked(text: &str, sign: char) -> (String, Vec<Range<usize>>) {
    let (mut plain, mut spans, mut open) = (String::with_capacity(text.len()), Vec::new(), None);
    for (index, part) in text.split(sign).enumerate() {
        if index > 0 {
            open = match open {
                None => Some(plain.len()),
                Some(start) => {
                    spans.push(start..plain.len());
                    None
                }
            };
        }
        plain.push_str(part);
    }
    (plain, spans)
}

/// The marked parts of turns that are learnt, where some turns of the assistant are not.
pub(super) fn of_learnt(
    spans: Vec<Range<usize>>,
    conversation: &Conversation,
) -> Result<Vec<Range<usize>>, RowProblem> {
    let turns = conversation.messages.iter().filter(|turn| turn.role == Role::Assistant);
    let learnt: Vec<bool> = turns.map(|turn| turn.learnt).collect();
    if learnt.iter().all(|&learnt| learnt) {
        return Ok(spans);
    }
    if learnt.len() != spans.len() {
        return Err(RowProblem::Unsupported(format!(
            "the template marks {} parts of {} turns of the assistant with `{{% generation %}}`, so \
             which belong to the turn with `weight: 0` cannot be told",
            spans.len(),
            learnt.len()
        )));
    }
    let kept = spans.into_iter().zip(learnt).filter(|(_, learnt)| *learnt);
    Ok(kept.map(|(span, _)| span).collect())
}

/// # Errors
/// The conversation has too many turns for [`by_prefixes`].
pub(super) fn check_turns(
    template: &ModelTemplate,
    wording: &Wording,
    conversation: &Conversation,
) -> Result<(), RowProblem> {
    let marks = template.source(conversation).marks;
    let is_told =
        |message: &&Message| message.learnt && !(marks && message.role == Role::Assistant);
    let told = conversation.messages.iter().filter(is_told).count();
    let why = "telling which tokens are the assistant's takes two renderings for each of its turns, unless \
               the template says it with `{% generation %}`";
    template.check_effort(conversation, wording, 2 * told, why)
}

/// For each turn that is learnt and is not the assistant's, its content and the control token behind it:
/// they stand where the rendering changes with the content.
pub(super) fn of_others(
    template: &ModelTemplate,
    wording: &Wording,
    conversation: &Conversation,
    date: &str,
    whole: &str,
    tokenizer: &Tokenizer,
) -> Result<Vec<Range<usize>>, RowProblem> {
    // They differ in their first and in their last character.
    const CONTENTS: [&str; 2] = ["70817", "81708"];
    let mut spans = Vec::new();
    for (index, message) in conversation.messages.iter().enumerate() {
        if !message.learnt || message.role == Role::Assistant {
            continue;
        }
        let with = |content: &str| {
            let mut turns = wording.messages().to_vec();
            turns[index]["content"] = Json::from(content);
            let rendered = template.render(wording, &turns, date, false)?;
            Ok::<_, RowProblem>(marked(&rendered, wording.mark).0)
        };
        let [one, other] = [with(CONTENTS[0])?, with(CONTENTS[1])?];
        if one == other {
            // The template leaves it out, and was allowed to.
            continue;
        }
        let pairs = [(&*one, &*other), (&*one, whole), (&*other, whole)];
        let start = pairs.iter().map(|(a, b)| common_start(a, b)).min().unwrap_or(0);
        let rest = pairs.map(|(a, b)| common_end(&a[start..], &b[start..]));
        let behind = rest.into_iter().min().unwrap_or(0);
        let altered = one[start..one.len() - behind].trim_matches('"');
        if altered != CONTENTS[0] {
            let (origin, number) = (template.source(conversation).origin.clone(), index + 1);
            let message = format!(
                "which tokens of turn {number} are the {}'s cannot be told: what it says changes more of the \
                 rendering than one place; leave the role out of `data.train_on.roles`, or use the built-in \
                 format (`data.chat.preamble: none`)",
                message.role.name()
            );
            return Err(RowProblem::Template { origin, line: 1, message });
        }
        let end = whole.len() - behind;
        spans.push(start..end + closing(&whole[end..], tokenizer));
    }
    Ok(spans)
}

/// Bytes that two texts begin with alike, whole characters.
fn common_start(a: &str, b: &str) -> usize {
    let alike = a.chars().zip(b.chars()).take_while(|(a, b)| a == b);
    alike.map(|(character, _)| character.len_utf8()).sum()
}

/// Bytes that they end with alike.
fn common_end(a: &str, b: &str) -> usize {
    let alike = a.chars().rev().zip(b.chars().rev()).take_while(|(a, b)| a == b);
    alike.map(|(character, _)| character.len_utf8()).sum()
}

/// How far a control token goes that a turn ends with, behind its content.
fn closing(rest: &str, tokenizer: &Tokenizer) -> usize {
    for (range, mark) in tokenizer.marks().pieces(rest, |_| true) {
        match mark {
            Some(_) => return range.end,
            None if rest[range.clone()].trim().trim_matches('"').is_empty() => {}
            None => break,
        }
    }
    0
}

/// For each turn that is learnt, what the template adds for it to the turns before it.
pub(super) fn by_prefixes(
    template: &ModelTemplate,
    wording: &Wording,
    conversation: &Conversation,
    date: &str,
    whole: &str,
    tokenizer: &Tokenizer,
) -> Result<Vec<Range<usize>>, Error> {
    let mut spans = Vec::new();
    let turns = wording.messages();
    for (index, message) in conversation.messages.iter().enumerate() {
        if !message.learnt || message.role != Role::Assistant {
            continue;
        }
        let before = template.render(wording, &turns[..index], date, true)?;
        let last = index + 1 == turns.len();
        let after = if last {
            whole.to_owned()
        } else {
            template.render(wording, &turns[..=index], date, false)?
        };
        let why = if !after.starts_with(&before) {
            "does not begin with the template's own generation prompt"
        } else if !whole.starts_with(&after) {
            "is written in another way once other turns follow it"
        } else {
            spans.push(before.len()..closed(&after, before.len(), tokenizer));
            continue;
        };
        let (origin, number) = (template.source(conversation).origin.clone(), index + 1);
        return Err(RowProblem::Template {
            origin,
            line: 1,
            message: format!(
                "which tokens of turn {number} are the assistant's cannot be told: the turn {why}; \
                 put `{{% generation %}}` and `{{% endgeneration %}}` around what the model writes in \
                 the template, or use the built-in format (`data.chat.preamble: none`)"
            ),
        }
        .into());
    }
    Ok(spans)
}

/// Where a turn that began at `start` ends: behind its last control token, if only white space follows.
fn closed(text: &str, start: usize, tokenizer: &Tokenizer) -> usize {
    let end = tokenizer
        .marks()
        .pieces(&text[start..], |_| true)
        .into_iter()
        .rev()
        .find_map(|(range, mark)| mark.map(|_| start + range.end));
    match end {
        Some(end) if text[end..].trim().is_empty() => end,
        _ => text.len(),
    }
}

/// Ids of the text, of which `breaker` is no part, and whether each touches a span.
pub(super) fn encode(
    text: &str,
    spans: &[Range<usize>],
    breaker: char,
    tokenizer: &Tokenizer,
) -> Result<(Vec<u32>, Vec<bool>), Error> {
    let (mut ids, mut targets) = (Vec::new(), Vec::new());
    // Spans follow each other.
    let touched = |range: &Range<usize>| {
        let next = spans.partition_point(|span| span.end <= range.start);
        spans.get(next).is_some_and(|span| span.start < range.end)
    };
    for (range, mark) in tokenizer.marks().pieces(text, |_| true) {
        if let Some(mark) = mark {
            ids.push(mark.id);
            targets.push(touched(&range));
            continue;
        }
        let piece = &text[range.clone()];
        // Where each byte that is encoded stands in the text.
        let places: Vec<usize> = piece
            .char_indices()
            .filter(|(_, character)| *character != breaker)
            .flat_map(|(at, character)| (at..at + character.len_utf8()).map(|at| range.start + at))
            .collect();
        for (id, bytes) in
            tokenizer.encode_with_offsets(&piece.replace(breaker, ""), range.start == 0)?
        {
            let first = places.get(bytes.start).copied().unwrap_or(range.end);
            let last =
                bytes.end.checked_sub(1).and_then(|at| places.get(at)).map_or(first, |at| *at);
            ids.push(id);
            // Some tokenizers leave blanks out of a token's range, which can make it empty.
            targets.push(touched(&(first..last.max(first) + 1)));
        }
    }
    Ok((ids, targets))
}

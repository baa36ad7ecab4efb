//! What scoring takes, before, while and after a model is trained: `graft_engine::score`, `graft_engine::generate`.

use super::{F32, decoded, group, logit_rows, on_the_way, operand_bytes, tensors, widths};
use crate::ledger::Entry;
use crate::ledger::asked::Asked;

/// Rows whose targets are scored.
pub(super) fn scoring(asked: &Asked) -> Vec<Entry> {
    let tokens = asked.scoring.tokens;
    if tokens == 0 {
        return Vec::new();
    }
    // One after the other.
    let (pass, logits) = (pass(asked, "scoring pass", tokens), logits(asked, tokens));
    let mut lines = vec![if pass.bytes > logits.bytes { pass } else { logits }];
    lines.extend(decoded(asked));
    lines.extend(on_the_way(asked));
    lines
}

/// Questions that are answered together.
pub(super) fn answering(asked: &Asked) -> Vec<Entry> {
    if asked.scoring.prompts == 0 {
        return Vec::new();
    }
    let mut lines = vec![cache(asked), attended(asked), reading_or_next_tokens(asked)];
    lines.extend(decoded(asked));
    lines.extend(on_the_way(asked));
    lines
}

/// A pass without a tape: the stream and what is added to it, angles, and of the wider branch the norm's
/// output, and gate, up and their product, or queries, keys, values and their sums, and what an update has for a
/// moment.
pub(super) fn pass(asked: &Asked, name: &'static str, tokens: usize) -> Entry {
    let config = &asked.config;
    let [queries, keys] = widths(asked);
    let each = operand_bytes(asked);
    let branch = each * (config.d_model + (3 * config.d_ff).max(2 * queries + 2 * keys));
    let bytes = branch + F32 * (2 * config.d_model + config.head_dim) + asked.most_of_a_moment();
    let arithmetic = format!("{} tokens · {} bytes", group(tokens), group(bytes));
    tensors(asked, name, tokens * bytes, arithmetic)
}

/// The hidden states, those of the targets, and a chunk of their logits.
fn logits(asked: &Asked, tokens: usize) -> Entry {
    let targets = asked.scoring.targets;
    let (rows, vocab) = (logit_rows(asked, targets), asked.config.vocab_size);
    let d_model = asked.config.d_model;
    let arithmetic = format!(
        "{} rows · {} tokens · {F32} + ({} + {} targets) · {} · {F32}",
        group(rows),
        group(vocab),
        group(tokens),
        group(targets + rows),
        group(d_model)
    );
    let hidden = (tokens + targets + rows) * d_model;
    tensors(asked, "scored logits", (rows * vocab + hidden) * F32, arithmetic)
}

/// Keys and values of the questions that are answered together.
fn cache(asked: &Asked) -> Entry {
    let each = operand_bytes(asked);
    let (tokens, width) = (asked.scoring.cached, 2 * widths(asked)[1]);
    let layers = asked.config.layers;
    let arithmetic =
        format!("{} tokens · {layers} blocks · {} · {each}", group(tokens), group(width));
    tensors(asked, "keys and values", tokens * layers * width * each, arithmetic)
}

/// Those of a block, one behind the other for its attention.
fn attended(asked: &Asked) -> Entry {
    let each = operand_bytes(asked);
    let (tokens, width) = (asked.scoring.cached, 2 * widths(asked)[1]);
    let arithmetic = format!("{} tokens · {} · {each}", group(tokens), group(width));
    tensors(asked, "of the block at hand", tokens * width * each, arithmetic)
}

/// Prompts are read some at a time, sums and updates in f32 before they are rounded; then each pass has a token
/// of every answer, and its logits here and as they are chosen from.
fn reading_or_next_tokens(asked: &Asked) -> Entry {
    let config = &asked.config;
    let (tokens, prompts) = (asked.scoring.prefill, asked.scoring.prompts);
    let branch = operand_bytes(asked) * (config.d_model + config.d_ff) + 2 * F32 * config.d_ff;
    let bytes = branch + F32 * (2 * config.d_model + config.head_dim) + asked.most_of_a_moment();
    let logits = 2 * prompts * config.vocab_size * F32;
    if tokens * bytes >= logits {
        let arithmetic = format!("{} tokens · {} bytes", group(tokens), group(bytes));
        return tensors(asked, "reading of prompts", tokens * bytes, arithmetic);
    }
    let arithmetic = format!("2 · {prompts} · {} tokens · {F32}", group(config.vocab_size));
    tensors(asked, "next tokens' logits", logits, arithmetic)
}

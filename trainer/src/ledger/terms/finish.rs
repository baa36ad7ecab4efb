//! What is taken beside the model while something is written, and while a merged model is compared: one tensor
//! at a time, some rows of it where that is enough.

use graft_adapters::Learns;
use graft_adapters::merge::BUFFER;
use graft_model::Seat;

use super::{F32, anonymous, band, group, largest_projection, scores};
use crate::ledger::asked::{Asked, Merging};
use crate::ledger::{Entry, Medium};
use crate::plan::parameters;
use graft_engine::probe::{self, TOKENS};

/// A checkpoint: the largest trained tensor, and its bytes as they are written.
pub(super) fn saving(asked: &Asked) -> Vec<Entry> {
    let largest = asked.trained().into_iter().max().unwrap_or(0);
    vec![anonymous(
        "tensor on its way",
        2 * largest * F32,
        format!("2 · {} · {F32}", group(largest)),
    )]
}

/// The model, or a merged one.
pub(super) fn writing(asked: &Asked) -> Vec<Entry> {
    match asked.method.learns() {
        Learns::Model => saving(asked),
        Learns::Adapter => merging(asked),
    }
}

fn merging(asked: &Asked) -> Vec<Entry> {
    let quantises = match asked.merging {
        Merging::Nothing => return Vec::new(),
        Merging::Stored => 0,
        Merging::Dequantised => 1,
    };
    let [out, inner] = largest_projection(asked);
    let weights = out * inner;
    let rank = asked.widest_update();
    let update = rank * (out + inner) * F32;
    let rows = BUFFER.min(weights * asked.merged_bytes_a_weight());
    let buffer = rows + 2 * asked.threads * inner * F32;
    let quantised = quantises * (weights * 5 / 8 + asked.threads * (1 << 20));
    // The folder is read through a map of its own.
    let each = asked.stored.map_or(0, |stored| stored.projection);
    let read = (weights as u128 * each as u128 / 1_000_000) as usize;
    // An embedding, which is copied in pieces, may be larger than a projection.
    let table = asked.stored.map_or(0, |stored| stored.table) as u128;
    let table = (asked.config.vocab_size * asked.config.d_model) as u128 * table / 1_000_000;
    vec![
        anonymous(
            "an update",
            update,
            format!("{rank} · ({} + {}) · {F32}", group(out), group(inner)),
        ),
        of_tables(asked),
        anonymous(
            "merged rows",
            buffer,
            format!("{} + 2 · {} threads · {} · {F32}", group(rows), asked.threads, group(inner)),
        ),
        anonymous(
            "a tensor in NF4",
            quantised,
            format!("{} · 5 / 8 + {} threads · 1 MiB", group(weights), asked.threads),
        ),
        Entry::new(
            "a tensor read again",
            Medium::Mapped,
            read.max(BUFFER.min(table as usize)),
            format!("{} weights", group(weights)),
        ),
    ]
}

/// Tokens of the largest pass of the comparison.
pub(super) fn probed(asked: &Asked) -> usize {
    if asked.merging == Merging::Nothing { 0 } else { asked.longest_row().min(TOKENS) }
}

/// Both models' last hidden states, and their logits at a few positions.
pub(super) fn comparing(asked: &Asked) -> Vec<Entry> {
    if asked.merging == Merging::Nothing {
        return Vec::new();
    }
    let config = &asked.config;
    let (vocab, d_model) = (config.vocab_size, config.d_model);
    let tokens = TOKENS.min(asked.tokens.max(1));
    let band = band(asked);
    let rows = tokens.min((probe::CHUNK / band).max(1));
    let pass = scores::pass(asked, "comparing pass", probed(asked));
    let logits = anonymous(
        "logits of both",
        3 * rows * band * F32,
        format!("3 · {} rows · {} tokens · {F32}", group(rows), group(band)),
    );
    // One after the other. The merged model is mapped, and goes by block by block, on the CPU.
    let is_pass = pass.bytes > logits.bytes;
    let blocks = if is_pass { config.layers.min(3) } else { 1 };
    let each = asked.merged_bytes_a_weight();
    let mapped = each * (blocks * asked.block_weights() + vocab * d_model);
    vec![
        if is_pass { Entry { place: Medium::Anonymous, ..pass } } else { logits },
        anonymous(
            "hidden states",
            2 * tokens * d_model * F32,
            format!("2 · {} tokens · {} · {F32}", group(tokens), group(d_model)),
        ),
        Entry::new(
            "merged model",
            Medium::Mapped,
            mapped,
            format!("({blocks} blocks · {} weights + head) · {each}", group(asked.block_weights())),
        ),
    ]
}

/// The adapter as it is, as it is given and as it is written; one block of the base at a time, in which both are asked;
/// rows of a merged model.
pub(super) fn giving(asked: &Asked) -> Vec<Entry> {
    if asked.given + asked.models_given == 0 {
        return Vec::new();
    }
    let config = &asked.config;
    let values: usize = asked.trained().into_iter().sum();
    let [out, inner] = largest_projection(asked);
    let block = asked.block_weights();
    // Held in NF4, a block goes through it again.
    let quantised = usize::from(asked.stored.is_some_and(|it| it.projection < 1_000_000));
    let band = band(asked);
    let tokens = TOKENS.min(config.vocab_size) / 4;
    let rows = tokens.min((probe::CHUNK / band).max(1));
    let buffer = 2 * BUFFER * asked.models_given;
    let all = parameters(config) as usize;
    // Of an embedding that is no head some rows are read again.
    let rest = if config.tied { 0 } else { config.vocab_size * config.d_model };
    let again = all - rest;
    let each = asked.stored.map_or(2, |stored| stored.table / 1_000_000);
    vec![
        anonymous(
            "adapters on their way",
            3 * values * F32,
            format!("3 · {} · {F32}", group(values)),
        ),
        anonymous(
            "a block of the base",
            quantised * block * 5 / 8 + out * inner * F32,
            format!(
                "{quantised} · {} · 5 / 8 + {} · {} · {F32}",
                group(block),
                group(out),
                group(inner)
            ),
        ),
        anonymous(
            "both models' answers",
            (3 * rows * band + 8 * tokens * (config.d_model + config.d_ff)) * F32 + buffer,
            format!(
                "(3 · {} rows · {} tokens + 8 · {} · ({} + {})) · {F32} + {}",
                group(rows),
                group(band),
                group(tokens),
                group(config.d_model),
                group(config.d_ff),
                group(buffer)
            ),
        ),
        super::tokenizer(asked, true),
        // Through maps of their own, so that what is in memory of the base counts again.
        Entry::new(
            "the base read again",
            Medium::Mapped,
            again * each,
            format!("{} weights · {each}", group(again)),
        ),
        Entry::new(
            "the model as a GGUF file",
            Medium::Mapped,
            2 * all * asked.models_given,
            format!("{} weights · 2", group(all)),
        ),
    ]
}

/// What is trained of embedding and head beside them: it is read whole.
fn of_tables(asked: &Asked) -> Entry {
    let beside = |seat| if asked.trains_all_of(seat) { 0 } else { asked.trained_at(seat) };
    let most = beside(Seat::Embedding).max(beside(Seat::Head));
    // As it is in the file, too, where that is the other way round.
    anonymous("of a table", 2 * most * F32, format!("2 · {} · {F32}", group(most)))
}

//! The lines of memory, one function each: `trainer/src/engine`, `kernels/src/flex` and
//! `kernels/src/cube` say why.

use graft_kernels::Precision;
use graft_recipes::Checkpointing;

use super::asked::Asked;
use super::{Entry, Place};
use crate::cli::page::grouped;
use graft_model::table::BAND;
use graft_model::{ProjectionKind, Site};

use crate::engine::loss::CHUNK;
use crate::plan::Adapter;

const F32: usize = 4;

fn group(number: usize) -> String {
    grouped(number as u64)
}

fn anonymous(name: &'static str, bytes: usize, arithmetic: String) -> Entry {
    Entry::new(name, Place::Anonymous, bytes, arithmetic)
}

/// A line of what is computed with: in the GPU's memory, where one computes.
fn tensors(asked: &Asked, name: &'static str, bytes: usize, arithmetic: String) -> Entry {
    Entry::new(name, asked.tensors(), bytes, arithmetic)
}

/// Frozen weights that are read from their files: where they stay, or on their way to a GPU.
pub(super) fn mapped(asked: &Asked) -> Vec<Entry> {
    weights(asked).into_iter().filter(|line| line.place == Place::Mapped).collect()
}

/// What is held from the start to the end.
pub(super) fn held(asked: &Asked) -> Vec<Entry> {
    let held = weights(asked).into_iter().filter(|line| line.place == asked.tensors());
    let others = [norms(asked), values(asked), moments(asked), dataset(asked), program(asked)];
    held.chain(others).collect()
}

/// What a step takes beside it, at the larger of its two moments: at the head, and in a branch.
pub(super) fn step(asked: &Asked) -> Vec<Entry> {
    let mut lines = vec![gradient(asked), stream(asked)];
    lines.extend(match asked.checkpointing {
        Checkpointing::Block => vec![block_inputs(asked)],
        Checkpointing::Auto | Checkpointing::Selective => {
            vec![block_inputs(asked), products(asked)]
        }
        Checkpointing::None => vec![tapes(asked)],
    });
    lines.push(operand(asked));
    lines.extend(on_the_way(asked));
    let moments = [vec![last_tape(asked), logits(asked)], vec![waiting_tape(asked), branch(asked)]];
    let sum = |lines: &Vec<Entry>| lines.iter().map(|line| line.bytes).sum::<u64>();
    lines.extend(moments.into_iter().max_by_key(sum).unwrap_or_default());
    lines
}

/// What scoring takes instead.
pub(super) fn scoring(asked: &Asked) -> Vec<Entry> {
    let mut lines = vec![scoring_pass(asked), cache(asked)];
    if asked.tensors() == Place::Device {
        lines.push(decoded(asked));
        lines.extend(on_the_way(asked));
    }
    lines
}

/// Memory of the smaller of the two that the allocator has not handed back when the larger comes: see
/// `crate::memory::keep_freed_memory`.
pub(super) fn kept(other: u64) -> Entry {
    const MOST: u64 = crate::memory::LARGEST_KEPT as u64;
    let arithmetic =
        if other == 0 { String::new() } else { "of scoring or step, at most 64 MiB".to_owned() };
    anonymous("kept by the allocator", other.min(MOST) as usize, arithmetic)
}

/// Projections, and embedding with head.
fn weights(asked: &Asked) -> Vec<Entry> {
    let Some(stored) = asked.stored else { return Vec::new() };
    let config = &asked.config;
    let places = |private: bool, streams: bool| match asked.tensors() {
        Place::Device if private && streams => vec![Place::Anonymous],
        Place::Device if private => vec![Place::Device],
        Place::Device if streams => vec![Place::Mapped],
        Place::Device => vec![Place::Device, Place::Mapped],
        _ if private => vec![Place::Anonymous],
        _ => vec![Place::Mapped],
    };
    let each = |millionths: usize| {
        let text = format!("{:.4}", millionths as f64 * 1e-6);
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    let bytes =
        |count: usize, millionths: usize| (count as u128 * millionths as u128 / 1_000_000) as usize;
    let projections = config.layers * asked.block_weights();
    let tables = if config.tied { 1 } else { 2 };
    let table = tables * config.vocab_size * config.d_model;
    let projections = Entry::new(
        "frozen projections",
        Place::Mapped,
        bytes(projections, stored.projection),
        format!(
            "{} weights · {} bytes ({})",
            group(projections),
            each(stored.projection),
            stored.form
        ),
    );
    let table = Entry::new(
        if config.tied { "embedding" } else { "embedding, head" },
        Place::Mapped,
        bytes(table, stored.table),
        format!(
            "{tables} · {} tokens · {} · {} bytes",
            group(config.vocab_size),
            group(config.d_model),
            each(stored.table)
        ),
    );
    let of = |line: Entry, private, streams| {
        let lines = places(private, streams).into_iter();
        lines.map(move |place| Entry { place, ..line.clone() })
    };
    let projections = of(projections, stored.projections_are_private, asked.streams);
    projections.chain(of(table, stored.tables_are_private, false)).collect()
}

fn norms(asked: &Asked) -> Entry {
    let (layers, d_model) = (asked.config.layers, asked.config.d_model);
    let frozen = usize::from(asked.adapter != Adapter::Full);
    let arithmetic = format!("({layers} · 2 + 1) · {} · {F32}", group(d_model));
    tensors(asked, "norms", frozen * (2 * layers + 1) * d_model * F32, arithmetic)
}

fn trained(asked: &Asked) -> usize {
    asked.trained().iter().sum()
}

fn values(asked: &Asked) -> Entry {
    let count = trained(asked);
    tensors(asked, "trained values", count * F32, format!("{} · {F32}", group(count)))
}

fn gradient(asked: &Asked) -> Entry {
    let count = trained(asked);
    tensors(asked, "their gradient", count * F32, format!("{} · {F32}", group(count)))
}

fn moments(asked: &Asked) -> Entry {
    let sizes = asked.trained();
    let bytes: u64 = sizes.iter().map(|&len| asked.states.bytes(len)).sum();
    let count = sizes.iter().sum::<usize>();
    let each = bytes as f64 / (count.max(1)) as f64;
    tensors(asked, "optimizer states", bytes as usize, format!("{} · {each:.2}", group(count)))
}

fn dataset(asked: &Asked) -> Entry {
    /// Two vectors and where the row stands.
    const SAMPLE: usize = 96;
    let (tokens, samples) = (asked.tokens, asked.samples);
    let arithmetic =
        format!("{} tokens · 8 + {} samples · {SAMPLE}", group(tokens), group(samples));
    anonymous("data", tokens * 8 + samples * SAMPLE, arithmetic)
}

/// The tokenizer's tables, the threads with their panels, the program itself.
fn program(asked: &Asked) -> Entry {
    const ALONE: usize = 12 << 20;
    const THREAD: usize = 1 << 20;
    const TOKEN: usize = 420;
    let (threads, vocab) = (asked.threads, asked.vocabulary);
    let arithmetic =
        format!("12 MiB + {threads} threads · 1 MiB + {} tokens · {TOKEN}", group(vocab));
    anonymous("program", ALONE + threads * THREAD + vocab * TOKEN, arithmetic)
}

/// What enters every branch above the lowest trained tensor.
fn block_inputs(asked: &Asked) -> Entry {
    let (blocks, tokens, d_model) =
        (asked.trained_blocks(), asked.visit_tokens(), asked.config.d_model);
    let arithmetic =
        format!("2 · {blocks} blocks · {} tokens · {} · {F32}", group(tokens), group(d_model));
    Entry::new("block inputs", asked.inputs(), 2 * blocks * tokens * d_model * F32, arithmetic)
}

/// The residual stream, and its sum with a branch.
fn stream(asked: &Asked) -> Entry {
    let (tokens, d_model) = (asked.visit_tokens(), asked.config.d_model);
    let arithmetic = format!("2 · {} tokens · {} · {F32}", group(tokens), group(d_model));
    tensors(asked, "residual stream", 2 * tokens * d_model * F32, arithmetic)
}

/// What a block's attention is called wide: queries, and keys or values.
fn widths(asked: &Asked) -> [usize; 2] {
    let config = &asked.config;
    [config.heads, config.kv_heads].map(|heads| heads * config.head_dim)
}

/// Values a token on attention's tape: the norm's output, rotated queries and keys, values, the output.
fn attention_tape(asked: &Asked) -> usize {
    let [queries, keys] = widths(asked);
    asked.config.d_model + 2 * queries + 2 * keys
}

/// Values a token on the feed-forward tape: the norm's output, gate, up and their product.
fn feed_forward_tape(asked: &Asked) -> usize {
    asked.config.d_model + 3 * asked.config.d_ff
}

/// Results of products above the lowest trained tensor, rounded as their operands are.
fn products(asked: &Asked) -> Entry {
    let each = if asked.precision == Precision::Bf16 { 2 } else { F32 };
    let [queries, keys] = widths(asked);
    let values = 2 * queries + 2 * keys + 2 * asked.config.d_ff;
    let blocks = asked.trained_blocks();
    let tokens = asked.visit_tokens();
    let arithmetic =
        format!("{blocks} blocks · {} tokens · {} values · {each}", group(tokens), group(values));
    tensors(asked, "kept products", blocks * tokens * values * each, arithmetic)
}

/// The last block's tapes, kept where it is the next to go back through.
fn last_tape(asked: &Asked) -> Entry {
    let kept = usize::from(asked.keeps_last_tape());
    let tokens = asked.micro_batch_tokens();
    let values = attention_tape(asked) + feed_forward_tape(asked);
    let arithmetic = format!("{} tokens · {} values · {F32}", group(tokens), group(values));
    tensors(asked, "last block's tape", kept * tokens * values * F32, arithmetic)
}

/// Of these, attention's is there while the other is gone through.
fn waiting_tape(asked: &Asked) -> Entry {
    let kept = usize::from(asked.keeps_last_tape());
    let (tokens, values) = (asked.micro_batch_tokens(), attention_tape(asked));
    let arithmetic = format!("{} tokens · {} values · {F32}", group(tokens), group(values));
    tensors(asked, "last attention's tape", kept * tokens * values * F32, arithmetic)
}

/// All tapes, with the branches' inputs.
fn tapes(asked: &Asked) -> Entry {
    let values = attention_tape(asked) + feed_forward_tape(asked) + 2 * asked.config.d_model;
    let (blocks, tokens) = (asked.trained_blocks(), asked.visit_tokens());
    let arithmetic =
        format!("{blocks} blocks · {} tokens · {} values · {F32}", group(tokens), group(values));
    tensors(asked, "tapes of all blocks", blocks * tokens * values * F32, arithmetic)
}

/// The branch with the most values on its way back: gate, up, their product and the gradients of all
/// three, or queries, keys, values and theirs; norm, output and gradients of the stream beside them.
fn branch(asked: &Asked) -> Entry {
    let config = &asked.config;
    let dropout = match &asked.adapter {
        Adapter::Lora { config: lora, init_from: _ } if lora.dropout > 0.0 => 1,
        Adapter::Lora { .. } | Adapter::Full => 0,
    };
    let (d_model, d_ff) = (config.d_model, config.d_ff);
    // Factors, and inputs times these, of every adapted projection.
    let feed_forward = 6 * d_ff + 4 * d_model + 2 * dropout * (2 * d_model + d_ff);
    let heads = (config.heads + config.kv_heads) * config.head_dim;
    let attention = 4 * heads + 6 * d_model + 2 * dropout * 4 * d_model;
    let (tokens, values) = (asked.micro_batch_tokens(), feed_forward.max(attention));
    let arithmetic = format!("{} tokens · {} values · {F32}", group(tokens), group(values));
    tensors(asked, "largest branch", tokens * values * F32, arithmetic)
}

/// Rows of logits that exist at a time.
fn logit_rows(asked: &Asked) -> usize {
    asked.micro_batch_targets().min((CHUNK / asked.config.vocab_size).max(1))
}

/// A chunk of logits, and the hidden states of all targets on their way to and fro.
fn logits(asked: &Asked) -> Entry {
    const HIDDEN: usize = 5;
    let (rows, vocab) = (logit_rows(asked), asked.config.vocab_size);
    let (targets, d_model) = (asked.micro_batch_targets(), asked.config.d_model);
    let arithmetic = format!(
        "{} rows · {} tokens · {F32} + {HIDDEN} · {} targets · {} · {F32}",
        group(rows),
        group(vocab),
        group(targets),
        group(d_model)
    );
    tensors(asked, "logits", (rows * vocab + HIDDEN * targets * d_model) * F32, arithmetic)
}

/// Projections that wait on the host, as a GPU has them: the block at hand and the next one.
fn on_the_way(asked: &Asked) -> Vec<Entry> {
    let Some(stored) = asked.stored.filter(|_| asked.streams) else { return Vec::new() };
    let (blocks, weights) = (asked.config.layers.min(2), asked.block_weights());
    let each = stored.projection as f64 * 1e-6;
    let bytes = ((blocks * weights) as f64 * each) as usize;
    let arithmetic = format!("{blocks} blocks · {} weights · {each:.4}", group(weights));
    // The driver takes them from private memory.
    let copies = anonymous("copies on their way", bytes, arithmetic.clone());
    vec![tensors(asked, "projections on their way", bytes, arithmetic), copies]
}

/// What a product makes of an operand before it begins.
fn operand(asked: &Asked) -> Entry {
    if asked.tensors() == Place::Device { decoded(asked) } else { packed(asked) }
}

/// The largest left operand of a product, packed.
fn packed(asked: &Asked) -> Entry {
    let each = asked.precision.packed_bytes();
    let (head, branch) = (
        [logit_rows(asked), asked.config.vocab_size.min(BAND / asked.config.d_model)],
        [asked.micro_batch_tokens(), asked.config.d_ff],
    );
    let [rows, depth] = if head[0] * head[1] > branch[0] * branch[1] { head } else { branch };
    let arithmetic = format!("{} rows · {} · {each}", group(rows), group(depth));
    tensors(asked, "packed operand", rows * depth * each, arithmetic)
}

/// The largest matrix as a GPU multiplies it, where that is not how it is held.
fn decoded(asked: &Asked) -> Entry {
    let each = if asked.precision == Precision::Bf16 { 2 } else { F32 };
    // Every weight that trains is f32.
    let held = asked.stored.map_or(F32 * 1_000_000, |stored| stored.projection);
    let differs = usize::from(held != each * 1_000_000);
    let sides = ProjectionKind::ALL
        .map(|kind| Site { layer: 0, kind }.weight_shape(&asked.config))
        .into_iter()
        .max_by_key(|sides| sides.iter().product::<usize>());
    let [rows, cols] = sides.unwrap_or_default();
    let arithmetic = format!("{} · {} · {each}", group(rows), group(cols));
    tensors(asked, "decoded matrix", differs * rows * cols * each, arithmetic)
}

/// A forward pass over rows that are scored together, with their logits.
fn scoring_pass(asked: &Asked) -> Entry {
    let config = &asked.config;
    let tokens = asked.scoring.tokens;
    let values = 3 * config.d_ff + 4 * config.d_model;
    let rows = tokens.min((CHUNK / config.vocab_size).max(1));
    let arithmetic = format!(
        "{} tokens · {} values · {F32} + {} rows · {} tokens · {F32}",
        group(tokens),
        group(values),
        group(rows),
        group(config.vocab_size)
    );
    tensors(asked, "scoring pass", (tokens * values + rows * config.vocab_size) * F32, arithmetic)
}

/// Keys and values of the questions that are answered together.
fn cache(asked: &Asked) -> Entry {
    let config = &asked.config;
    let (tokens, width) = (asked.scoring.cached, 2 * config.kv_heads * config.head_dim);
    let arithmetic =
        format!("{} tokens · {} blocks · {} · {F32}", group(tokens), config.layers, group(width));
    tensors(asked, "keys and values", tokens * config.layers * width * F32, arithmetic)
}

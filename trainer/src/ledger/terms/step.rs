//! What a step takes: what is kept for the way back, and the largest of its moments.

use std::collections::BTreeMap;

use graft_adapters::TokenBytes;
use graft_kernels::Precision;
use graft_model::table::NARROW_BAND;
use graft_model::{ProjectionKind, Seat, Site};
use graft_recipes::Checkpointing;

use super::{
    F32, band, decoded, dropped, group, logit_rows, on_the_way, operand_bytes, tensors, trained,
    widths,
};
use crate::ledger::asked::Asked;
use crate::ledger::{Entry, Medium};

/// All lines of a step.
pub(super) fn lines(asked: &Asked) -> Vec<Entry> {
    let mut lines = vec![gradient(asked), stream(asked), positions(asked)];
    lines.extend(match asked.checkpointing {
        Checkpointing::Block => vec![block_inputs(asked)],
        Checkpointing::Auto | Checkpointing::Selective => {
            vec![block_inputs(asked), products(asked)]
        }
        Checkpointing::None => vec![tapes(asked)],
    });
    lines.extend(decoded(asked));
    lines.extend(on_the_way(asked));
    lines.extend(packed_update(asked));
    let moments = [
        vec![last_tape(asked), logits(asked), head_gradient(asked)],
        vec![waiting_tape(asked), branch(asked), weight_gradients(asked)],
        vec![embedding_gradient(asked)],
    ];
    let sum = |lines: &Vec<Entry>| lines.iter().map(|line| line.bytes).sum::<u64>();
    lines.extend(moments.into_iter().max_by_key(sum).unwrap_or_default());
    lines
}

fn gradient(asked: &Asked) -> Entry {
    let count = trained(asked);
    tensors(asked, "their gradient", count * F32, format!("{} · {F32}", group(count)))
}

/// The largest matrix of an update, in the order in which a product reads it.
fn packed_update(asked: &Asked) -> Option<Entry> {
    if asked.tensors() == Medium::Device || asked.widest_low() == 0 {
        return None;
    }
    let most = asked.trained().into_iter().max().unwrap_or(0);
    Some(tensors(asked, "packed update", most * F32, format!("{} · {F32}", group(most))))
}

/// What enters every branch above the lowest trained tensor.
fn block_inputs(asked: &Asked) -> Entry {
    let (blocks, tokens, d_model) =
        (asked.trained_blocks(), asked.visit_tokens(), asked.config.d_model);
    let arithmetic =
        format!("2 · {blocks} blocks · {} tokens · {} · {F32}", group(tokens), group(d_model));
    Entry::new("block inputs", asked.inputs(), 2 * blocks * tokens * d_model * F32, arithmetic)
}

/// The residual stream, or its gradient.
fn stream(asked: &Asked) -> Entry {
    let (tokens, d_model) = (asked.visit_tokens(), asked.config.d_model);
    let arithmetic = format!("{} tokens · {} · {F32}", group(tokens), group(d_model));
    tensors(asked, "residual stream", tokens * d_model * F32, arithmetic)
}

/// Angles of the rotation, and what a batch says of its tokens.
fn positions(asked: &Asked) -> Entry {
    const BATCH: usize = 32;
    let (tokens, head_dim) = (asked.visit_tokens(), asked.config.head_dim);
    let arithmetic = format!("{} tokens · ({head_dim} · {F32} + {BATCH})", group(tokens));
    tensors(asked, "positions", tokens * (head_dim * F32 + BATCH), arithmetic)
}

/// Values a token on attention's tape: the norm's output where it is read, rotated queries and keys, values, the
/// output.
fn attention_tape(asked: &Asked) -> usize {
    let [queries, keys] = widths(asked);
    let input = inputs_read(asked, &[ProjectionKind::Q, ProjectionKind::K, ProjectionKind::V]);
    input + 2 * queries + 2 * keys
}

/// Values a token on the feed-forward tape: the norm's output where it is read, gate, up, and their product where
/// that is.
fn feed_forward_tape(asked: &Asked) -> usize {
    let input = inputs_read(asked, &[ProjectionKind::Gate, ProjectionKind::Up]);
    input + inputs_read(asked, &[ProjectionKind::Down]) + 2 * asked.config.d_ff
}

/// Width of the input that projections of these kinds have together, where the gradient of any reads it.
fn inputs_read(asked: &Asked, kinds: &[ProjectionKind]) -> usize {
    let sites = Site::all(&asked.config).filter(|site| kinds.contains(&site.kind));
    let read = sites.filter(|&site| asked.token_bytes(site).reads_input);
    read.map(|site| site.kind.in_features(&asked.config)).max().unwrap_or(0)
}

/// Bytes a token that the updates of all blocks keep with the products: what is beside these, and the product that
/// ends a branch, where their gradient reads that. What gives operands of further products is kept anyway.
fn kept_with_products(asked: &Asked) -> usize {
    let kept = |site: Site| {
        let of = asked.token_bytes(site);
        let ends_a_branch = site.kind.ends_a_branch();
        let is_kept = ends_a_branch && of.reads_product;
        let product = if is_kept { F32 * site.kind.out_features(&asked.config) } else { 0 };
        of.beside + product
    };
    Site::all(&asked.config).map(kept).sum()
}

/// Bytes a token that they keep on the tapes of all blocks.
fn kept_on_tapes(asked: &Asked) -> usize {
    let of_site = |site| asked.token_bytes(site);
    Site::all(&asked.config).map(of_site).map(|of| of.beside + of.tape).sum()
}

/// What the updates of a branch take of a token, where a block has most of it.
struct OfBranch {
    beside: usize,
    tape: usize,
    beside_products: usize,
    /// One update's, with the gradient of what it has beside its product.
    moment: usize,
}

impl OfBranch {
    /// Of attention and of the feed-forward branch.
    fn both(asked: &Asked) -> [Self; 2] {
        let (attention, feed_forward) = ProjectionKind::ALL.split_at(4);
        [attention, feed_forward].map(|kinds| {
            let of_block =
                |layer| kinds.iter().map(move |&kind| asked.token_bytes(Site { layer, kind }));
            let layers = 0..asked.config.layers;
            let most = |bytes: fn(TokenBytes) -> usize| {
                let sum = |layer| of_block(layer).map(bytes).sum::<usize>();
                layers.clone().map(sum).max().unwrap_or(0)
            };
            let moment = |of: TokenBytes| of.beside + of.moment;
            Self {
                beside: most(|of| of.beside),
                tape: most(|of| of.tape),
                beside_products: most(|of| of.beside_products),
                moment: layers.clone().flat_map(of_block).map(moment).max().unwrap_or(0),
            }
        })
    }
}

/// Bytes a token that dropout takes for a moment on the way back through the branches of a block: a GPU has
/// an update's part of the gradient by itself, as wide as the input that it is of. A processor leaves values
/// out where it reads them.
fn apart(asked: &Asked) -> [usize; 2] {
    let widest = |kinds: &[ProjectionKind]| {
        let sites = dropped(asked).filter(|site| kinds.contains(&site.kind));
        sites.map(|site| site.kind.in_features(&asked.config)).max().unwrap_or(0)
    };
    let each = if asked.tensors() == Medium::Device { F32 } else { 0 };
    let (attention, feed_forward) = ProjectionKind::ALL.split_at(4);
    [attention, feed_forward].map(|kinds| each * widest(kinds))
}

/// Results of products above the lowest trained tensor, rounded as their operands are.
fn products(asked: &Asked) -> Entry {
    let each = if asked.precision == Precision::Bf16 { 2 } else { F32 };
    let [queries, keys] = widths(asked);
    let values = 2 * queries + 2 * keys + 2 * asked.config.d_ff;
    let (blocks, tokens) = (asked.trained_blocks(), asked.visit_tokens());
    let of_updates = kept_with_products(asked);
    let arithmetic = format!(
        "{} tokens · ({blocks} blocks · {} values · {each} + {} of updates)",
        group(tokens),
        group(values),
        group(of_updates)
    );
    tensors(asked, "kept products", tokens * (blocks * values * each + of_updates), arithmetic)
}

/// Bytes a token of both branches' tapes that are kept, with what the branches gave, but without updates.
fn kept_tapes(asked: &Asked) -> [usize; 2] {
    let each = operand_bytes(asked);
    let given = F32 * asked.config.d_model;
    [attention_tape(asked), feed_forward_tape(asked)].map(|values| values * each + given)
}

/// The last block's tapes, kept where it is the next to go back through.
fn last_tape(asked: &Asked) -> Entry {
    let of_updates = OfBranch::both(asked).iter().map(|of| of.beside + of.tape).sum::<usize>();
    tape(asked, "last block's tape", kept_tapes(asked).iter().sum::<usize>() + of_updates)
}

/// Of these, attention's is there while the other is gone through.
fn waiting_tape(asked: &Asked) -> Entry {
    let [of_attention, _] = OfBranch::both(asked);
    tape(
        asked,
        "last attention's tape",
        kept_tapes(asked)[0] + of_attention.beside + of_attention.tape,
    )
}

fn tape(asked: &Asked, name: &'static str, bytes: usize) -> Entry {
    let kept = usize::from(asked.keeps_last_tape());
    let tokens = asked.micro_batch_tokens();
    let arithmetic = format!("{} tokens · {} bytes", group(tokens), group(bytes));
    tensors(asked, name, kept * tokens * bytes, arithmetic)
}

/// All tapes, with the branches' inputs.
fn tapes(asked: &Asked) -> Entry {
    let each = kept_tapes(asked).iter().sum::<usize>() + 2 * asked.config.d_model * F32;
    let (blocks, tokens) = (asked.trained_blocks(), asked.visit_tokens());
    let of_updates = kept_on_tapes(asked);
    let arithmetic = format!(
        "{} tokens · ({blocks} blocks · {} bytes + {} of updates)",
        group(tokens),
        group(each),
        group(of_updates)
    );
    tensors(asked, "tapes of all blocks", tokens * (blocks * each + of_updates), arithmetic)
}

/// The branch with the most bytes on its way back, beyond what is kept of it anyway: its tape, the gradient
/// of what its last product read, those of gate and up, or of queries, keys and values.
fn branch(asked: &Asked) -> Entry {
    let each = operand_bytes(asked);
    let (d_model, d_ff) = (asked.config.d_model, asked.config.d_ff);
    let [queries, keys] = widths(asked);
    let apart = apart(asked);
    // Both: what is on the tape, of that what products keep, and gradients.
    let feed_forward =
        [each * feed_forward_tape(asked), each * 2 * d_ff, F32 * d_ff + each * d_ff + apart[1]];
    let attention = [
        each * attention_tape(asked),
        each * (queries + keys),
        2 * F32 * (queries + keys) + apart[0],
    ];
    let [of_attention, of_feed_forward] = OfBranch::both(asked);
    let beyond = |[tape, products, gradients]: [usize; 3], of: OfBranch| {
        of.moment
            + match asked.checkpointing {
                Checkpointing::Block => tape + gradients + of.beside + of.tape,
                Checkpointing::Auto | Checkpointing::Selective => {
                    tape - products + gradients + of.beside_products
                }
                Checkpointing::None => gradients,
            }
    };
    let most = beyond(feed_forward, of_feed_forward).max(beyond(attention, of_attention));
    let most = most + 2 * F32 * d_model;
    let tokens = asked.micro_batch_tokens();
    let arithmetic = format!("{} tokens · {} bytes", group(tokens), group(most));
    tensors(asked, "largest branch", tokens * most, arithmetic)
}

/// A chunk of logits, and the hidden states of all targets on their way to and fro.
fn logits(asked: &Asked) -> Entry {
    const HIDDEN: usize = 4;
    let targets = asked.micro_batch_targets();
    let (rows, vocab) = (logit_rows(asked, targets), asked.config.vocab_size);
    let d_model = asked.config.d_model;
    let arithmetic = format!(
        "{} rows · {} tokens · {F32} + {HIDDEN} · {} targets · {} · {F32}",
        group(rows),
        group(vocab),
        group(targets),
        group(d_model)
    );
    tensors(asked, "logits", (rows * vocab + HIDDEN * targets * d_model) * F32, arithmetic)
}

/// The gradient of a head that is trained, before it joins the others.
fn head_gradient(asked: &Asked) -> Entry {
    const NAME: &str = "the head's gradient";
    let seat = if asked.config.tied { Seat::Embedding } else { Seat::Head };
    if !asked.trains(seat) || asked.trains_all_of(seat) {
        return table_gradient(asked, NAME, seat, band(asked));
    }
    // Of an update or of rows; logits of a band, and their gradient, are there once more.
    let (trained, d_model) = (asked.trained_at(seat), asked.config.d_model);
    let rows = logit_rows(asked, asked.micro_batch_targets());
    let band = (NARROW_BAND / d_model).min(asked.config.vocab_size);
    let times = if asked.updates(seat) { 2 } else { 1 };
    let arithmetic = format!(
        "{} · {F32} + {times} · {} rows · {} · {F32}",
        group(trained),
        group(rows),
        group(band)
    );
    tensors(asked, NAME, (trained + times * rows * band) * F32, arithmetic)
}

/// The embedding's, last of all.
fn embedding_gradient(asked: &Asked) -> Entry {
    table_gradient(asked, "the embedding's gradient", Seat::Embedding, asked.config.vocab_size)
}

fn table_gradient(asked: &Asked, name: &'static str, seat: Seat, rows: usize) -> Entry {
    let d_model = asked.config.d_model;
    let trained = asked.trained_at(seat);
    if trained > 0 && trained < rows * d_model {
        // An update of it, or some rows.
        return tensors(asked, name, trained * F32, format!("{} · {F32}", group(trained)));
    }
    let arithmetic = format!("{} tokens · {} · {F32}", group(rows), group(d_model));
    tensors(asked, name, usize::from(trained > 0) * rows * d_model * F32, arithmetic)
}

/// The gradients of what trains of a branch, before they join the others: its weights, or the two matrices of
/// each update.
fn weight_gradients(asked: &Asked) -> Entry {
    let mut branches: BTreeMap<_, usize> = BTreeMap::new();
    for tensor in asked.method.trained(&asked.config) {
        if let Seat::Projection(_) = tensor.seat {
            *branches.entry(tensor.seat.branch()).or_default() += tensor.len();
        }
    }
    let most = branches.into_values().max().unwrap_or(0);
    let arithmetic = format!("{} · {F32}", group(most));
    tensors(asked, "a branch's gradients", most * F32, arithmetic)
}

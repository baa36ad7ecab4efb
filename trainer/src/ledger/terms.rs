//! The lines of memory, one function each: `engine/src`, `kernels/src/flex` and
//! `kernels/src/cube` say why. Here is what is held from the start to the end; `step`, `scores` and `finish`
//! have what comes and goes.

mod finish;
mod scores;
mod step;

use std::fmt::Write as _;

use graft_kernels::Precision;
use graft_model::table::{BAND, NARROW_BAND};
use graft_model::{ProjectionKind, Seat, Site};

use super::asked::Asked;
use super::{Entry, Medium, Moment};
use crate::quantity::grouped;
use graft_engine::loss::CHUNK;

const F32: usize = 4;

fn group(number: usize) -> String {
    grouped(number as u64)
}

fn anonymous(name: &'static str, bytes: usize, arithmetic: String) -> Entry {
    Entry::new(name, Medium::Anonymous, bytes, arithmetic)
}

/// A line of what is computed with: in the GPU's memory, where one computes.
fn tensors(asked: &Asked, name: &'static str, bytes: usize, arithmetic: String) -> Entry {
    Entry::new(name, asked.tensors(), bytes, arithmetic)
}

/// Frozen weights that are read from their files: where they stay, or on their way to a GPU.
pub(super) fn mapped(asked: &Asked) -> Vec<Entry> {
    // What is run of the program, and the libraries of the system.
    const RUN: usize = 24 << 20;
    let own = Entry::new("the program's file", Medium::Mapped, RUN, "24 MiB".to_owned());
    let weights = weights(asked).into_iter().filter(|line| line.place == Medium::Mapped);
    weights.chain([own]).collect()
}

/// What is held from the start to the end.
pub(super) fn held(asked: &Asked) -> Vec<Entry> {
    let held = weights(asked).into_iter().filter(|line| line.place == asked.tensors());
    let others = [
        norms(asked),
        values(asked),
        moments(asked),
        dataset(asked),
        program(asked),
        tokenizer(asked, asked.asks),
    ];
    held.chain(others).chain(began(asked)).chain(packed(asked)).chain(dropout(asked)).collect()
}

/// What comes and goes: one of these at a time.
pub(super) fn coming_and_going(asked: &Asked) -> Vec<Moment> {
    let moment = |name, lines| Moment { name, lines };
    vec![
        moment("a step", step::lines(asked)),
        moment("reading the data", vec![tokenizer(asked, !asked.asks)]),
        moment("scoring", scores::scoring(asked)),
        moment("answering questions", scores::answering(asked)),
        moment("a checkpoint", finish::saving(asked)),
        moment("writing the result", finish::writing(asked)),
        moment("comparing the merged model", finish::comparing(asked)),
        moment("what programs take", finish::giving(asked)),
    ]
}

/// What the allocator cannot use again between blocks of other sizes: measured, up to 7 % of them.
pub(super) fn gaps(lines: &[Entry]) -> Entry {
    const SHARE: u64 = 12;
    let sum: u64 =
        lines.iter().filter(|line| line.place == Medium::Anonymous).map(|l| l.bytes).sum();
    let arithmetic = format!("{} / {SHARE}", grouped(sum));
    anonymous("gaps between blocks", (sum / SHARE) as usize, arithmetic)
}

/// Projections, and embedding with head.
fn weights(asked: &Asked) -> Vec<Entry> {
    let Some(stored) = asked.stored else { return Vec::new() };
    let config = &asked.config;
    let places = |private: bool, streams: bool| match asked.tensors() {
        Medium::Device if private && streams => vec![Medium::Anonymous],
        Medium::Device if private => vec![Medium::Device],
        Medium::Device if streams => vec![Medium::Mapped],
        Medium::Device => vec![Medium::Device, Medium::Mapped],
        _ if private => vec![Medium::Anonymous],
        _ => vec![Medium::Mapped],
    };
    let each = |millionths: usize| {
        let text = format!("{:.4}", millionths as f64 * 1e-6);
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    let bytes =
        |count: usize, millionths: usize| (count as u128 * millionths as u128 / 1_000_000) as usize;
    let projections = config.layers * asked.block_weights();
    let table = config.vocab_size * config.d_model;
    let projections = Entry::new(
        "frozen projections",
        Medium::Mapped,
        bytes(projections, stored.projection),
        format!(
            "{} weights · {} bytes ({})",
            group(projections),
            each(stored.projection),
            stored.form
        ),
    );
    let arithmetic = format!(
        "{} tokens · {} · {} bytes",
        group(config.vocab_size),
        group(config.d_model),
        each(stored.table)
    );
    let table =
        |name| Entry::new(name, Medium::Mapped, bytes(table, stored.table), arithmetic.clone());
    let embedding = !asked.trains_all_of(Seat::Embedding);
    // Where the base has one table for both, it is there once.
    let once = embedding && asked.one_table && asked.tensors() != Medium::Device;
    let head = !config.tied && !asked.trains_all_of(Seat::Head) && !once;
    let embedding = embedding.then(|| table("embedding"));
    let head = head.then(|| table("head"));
    let of = |line: Entry, private, streams| {
        let lines = places(private, streams).into_iter();
        lines.map(move |place| Entry { place, ..line.clone() })
    };
    let projections = of(projections, stored.projections_are_private, asked.streams);
    let tables = embedding.into_iter().chain(head);
    let tables = tables.flat_map(|line| of(line, stored.tables_are_private, false));
    projections.chain(tables.map(|line| touched(asked, line))).collect()
}

/// Of a mapped embedding that is no head, too, rows are read here and there: the pages of those that come up.
fn touched(asked: &Asked, line: Entry) -> Entry {
    let bytes = asked.embedded as u64;
    let is_head = asked.config.tied || asked.one_table || line.name != "embedding";
    // A GPU is given the whole table.
    let is_read_whole = asked.tensors() == Medium::Device || line.place != Medium::Mapped;
    if is_head || is_read_whole || bytes >= line.bytes {
        return line;
    }
    Entry {
        bytes,
        arithmetic: format!("of {}: pages of the tokens that come up", line.arithmetic),
        ..line
    }
}

fn norms(asked: &Asked) -> Entry {
    let (layers, d_model) = (asked.config.layers, asked.config.d_model);
    let frozen = usize::from(!asked.trains(Seat::LastNorm));
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

/// What adapters began as, where that is a part of the weights.
fn began(asked: &Asked) -> Option<Entry> {
    let tables = asked.trained_at(Seat::Embedding) + asked.trained_at(Seat::Head);
    let count = trained(asked) - tables;
    let line = || anonymous("first values", count * F32, format!("{} · {F32}", group(count)));
    asked.method.takes_from_weights().then(line)
}

fn moments(asked: &Asked) -> Entry {
    let sizes = asked.trained();
    let bytes: u64 = sizes.iter().map(|&len| asked.states.bytes(len)).sum();
    let count = sizes.iter().sum::<usize>();
    let each = bytes as f64 / (count.max(1)) as f64;
    tensors(asked, "optimizer states", bytes as usize, format!("{} · {each:.2}", group(count)))
}

fn dataset(asked: &Asked) -> Entry {
    /// Its length and targets, its place in an order and in a bin, and its row where that is in memory.
    const SAMPLE: usize = 96;
    let ([memory, files], samples) = (asked.kept, asked.samples);
    let memory = usize::try_from(memory).unwrap_or(usize::MAX);
    let mut arithmetic =
        format!("{} bytes of records + {} samples · {SAMPLE}", group(memory), group(samples));
    if files > 0 {
        let files = group(usize::try_from(files).unwrap_or(usize::MAX));
        let _ = write!(arithmetic, "; {files} bytes are in the cache's files");
    }
    anonymous("data", memory.saturating_add(samples * SAMPLE), arithmetic)
}

/// The program itself, and its threads with the panels of products and attention.
fn program(asked: &Asked) -> Entry {
    const ALONE: usize = 9 << 20;
    const THREAD: usize = 3 << 19;
    let threads = asked.threads;
    let arithmetic = format!("9 MiB + {threads} threads · 1.5 MiB");
    anonymous("program", ALONE + threads * THREAD, arithmetic)
}

/// The tables of the tokenizer, from the start to the end where answers are read.
fn tokenizer(asked: &Asked, is_there: bool) -> Entry {
    const TOKEN: usize = 520;
    let vocab = asked.vocabulary;
    let arithmetic = format!("{} tokens · {TOKEN}", group(vocab));
    anonymous("tokenizer", usize::from(is_there) * vocab * TOKEN, arithmetic)
}

/// What a block's attention is called wide: queries, and keys or values.
fn widths(asked: &Asked) -> [usize; 2] {
    let config = &asked.config;
    [config.heads, config.kv_heads].map(|heads| heads * config.head_dim)
}

/// Bytes of a value that is an operand and nothing else.
fn operand_bytes(asked: &Asked) -> usize {
    // A GPU may keep them as they come.
    let is_half = asked.precision == Precision::Bf16 && asked.tensors() == Medium::Anonymous;
    if is_half { 2 } else { F32 }
}

/// Rows of logits that exist at a time: chunks are of one size.
fn logit_rows(asked: &Asked, rows: usize) -> usize {
    let most = (CHUNK / asked.config.vocab_size).max(1);
    rows.div_ceil(rows.div_ceil(most).max(1))
}

/// Rows of a band of the head that are multiplied at a time: a head that is trained is one band.
fn band(asked: &Asked) -> usize {
    let vocab = asked.config.vocab_size;
    let head = if asked.config.tied { Seat::Embedding } else { Seat::Head };
    let values = match (asked.trains(head), asked.trains_all_of(head)) {
        (false, _) => BAND,
        (true, false) => NARROW_BAND,
        (true, true) => return vocab,
    };
    vocab.min((values / asked.config.d_model).max(1))
}

/// Tokens of the largest pass: the left side of its widest product is packed, and the memory kept for the
/// next one.
fn packed(asked: &Asked) -> Option<Entry> {
    if asked.tensors() == Medium::Device {
        return None;
    }
    let each = asked.precision.packed_bytes();
    let config = &asked.config;
    let widest = widths(asked)[0].max(config.d_ff).max(config.d_model).max(asked.widest_low());
    let tokens = [
        asked.micro_batch_tokens(),
        asked.scoring.tokens,
        asked.scoring.prefill,
        finish::probed(asked),
    ];
    let tokens = tokens.into_iter().max().unwrap_or(0);
    let targets = asked.micro_batch_targets();
    let head = [logit_rows(asked, targets), band(asked)];
    let [rows, depth] = [[tokens, widest], head].into_iter().max_by_key(|[a, b]| a * b)?;
    let arithmetic = format!("{} rows · {} · {each}", group(rows), group(depth));
    Some(anonymous("packed operand", rows * depth * each, arithmetic))
}

/// Projections whose inputs dropout thins, in the order of a pass.
fn dropped(asked: &Asked) -> impl Iterator<Item = Site> + '_ {
    Site::all(&asked.config).filter(|&site| asked.method.drops(site))
}

/// What dropout keeps on the host: a bit for each value of the last four inputs that it thinned. Without
/// masked lanes their narrow products have them packed, too, beside what the wide products read.
fn dropout(asked: &Asked) -> Vec<Entry> {
    const INPUTS: usize = 4;
    let width = |site: Site| site.kind.in_features(&asked.config);
    let Some(widest) = dropped(asked).map(width).max() else { return Vec::new() };
    if asked.tensors() == Medium::Device {
        return Vec::new();
    }
    // A block's inputs follow one another, and after them the same come again.
    let of_block = |layer| {
        let sites = dropped(asked).filter(|site| site.layer == layer);
        let rows: Vec<usize> = sites.map(|site| width(site).div_ceil(64) * 8).collect();
        let from = |first| rows.iter().cycle().skip(first).take(INPUTS).sum::<usize>();
        (0..rows.len()).map(from).max().unwrap_or(0)
    };
    let bits = (0..asked.config.layers).map(of_block).max().unwrap_or(0);
    let packed = if asked.masks { 0 } else { widest * asked.precision.packed_bytes() };
    let tokens = asked.micro_batch_tokens();
    let line = |name, each| {
        let arithmetic = format!("{} tokens · {} bytes", group(tokens), group(each));
        anonymous(name, tokens * each, arithmetic)
    };
    vec![line("dropout's bits", bits), line("dropout's packed operand", packed)]
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

/// The largest matrix as a GPU multiplies it, where that is not how it is held.
fn decoded(asked: &Asked) -> Vec<Entry> {
    if asked.tensors() == Medium::Anonymous {
        return Vec::new();
    }
    let each = if asked.precision == Precision::Bf16 { 2 } else { F32 };
    // Every weight that trains is f32.
    let held = asked.stored.map_or(F32 * 1_000_000, |stored| stored.projection);
    let differs = usize::from(held != each * 1_000_000);
    let [rows, cols] = largest_projection(asked);
    let arithmetic = format!("{} · {} · {each}", group(rows), group(cols));
    vec![tensors(asked, "decoded matrix", differs * rows * cols * each, arithmetic)]
}

/// The sides of the projection with the most weights.
fn largest_projection(asked: &Asked) -> [usize; 2] {
    let shape = |kind| Site { layer: 0, kind }.weight_shape(&asked.config);
    let shapes = ProjectionKind::ALL.map(shape).into_iter();
    shapes.max_by_key(|sides| sides.iter().product::<usize>()).unwrap_or_default()
}

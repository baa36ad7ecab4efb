//! Every key a recipe knows, in the order of the schema: for `graft recipes keys`, and for hints.

use serde::Serialize;

use crate::adapter::MethodName;
use crate::elsewhere;
use crate::problem::nearest;
use crate::source::SourceFormat;

/// What there is to know about a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Key {
    /// The key in full; `[]` stands for the index of a list's item.
    pub path: &'static str,
    /// What its value may be.
    pub kind: &'static str,
    /// What it is when nobody gives it: YAML, `required`, or `–` for a key that only exists once
    /// it is given.
    pub default: &'static str,
    /// A value other than the default, as YAML.
    pub example: &'static str,
    /// What it does, in a line.
    pub doc: &'static str,
}

const fn key(
    path: &'static str,
    kind: &'static str,
    default: &'static str,
    example: &'static str,
    doc: &'static str,
) -> Key {
    Key { path, kind, default, example, doc }
}

/// One key a line: path, kind, default, example, doc.
#[rustfmt::skip]
const KEYS: &[Key] = &[
    key("name", "text", "the file's name", "mine", "What the run is called; never inherited."),
    key("model.path", "folder, file or builtin:…", "required", "models/other", "The model: a Hugging Face folder, a GGUF file, or `builtin:quickstart`."),
    key("model.tokenizer", "folder", "null", "models/tokenizer", "The tokenizer's folder, where it is not the model's own."),
    key("model.preset", "llama3.1-8b, llama3.1-70b, llama3.1-405b, llama3.2-1b, llama3.2-3b, llama3.3-70b", "null", "llama3.2-1b", "The release whose shape the model folder must have."),
    key("model.init", "checkpoint, random", "checkpoint", "random", "Whether weights are the checkpoint's or drawn from the seed."),
    key("quantization.format", "none, nf4", "none", "nf4", "How frozen weights are kept; `quantization: nf4` is short for it."),
    key("quantization.double", "flag", "true", "false", "Whether the scales of nf4 blocks are quantised too."),
    key("adapter.method", MethodName::LISTED, "lora", "full", "Adapters beside frozen weights, or every weight."),
    key("adapter.rank", "count", "16", "8", "Width between A and B."),
    key("adapter.alpha", "number above 0", "twice the rank", "20.5", "The update is scaled by alpha / rank."),
    key("adapter.dropout", "number in [0, 1)", "0.0", "0.05", "Share of the adapters' inputs dropped in training."),
    key("adapter.rslora", "flag", "false", "true", "Scale by alpha / sqrt(rank) instead."),
    key("adapter.dora", "flag", "false", "true", "Train the length of each row of a weight apart from its direction (DoRA)."),
    key("adapter.loraplus_lr_ratio", "number above 0", "1.0", "16.0", "B learns at so many times the rate of A (LoRA+)."),
    key("adapter.target_modules", "all-linear or list", "all-linear", "[q_proj, v_proj]", "What gets adapters: projections, `embed_tokens`, `lm_head`."),
    key("adapter.layers", "all, {last: n} or list", "all", "[0, 3]", "The blocks that get adapters."),
    key("adapter.layers.last", "count", "–", "2", "Only the last so many blocks get adapters."),
    key("adapter.rank_pattern", "rank by pattern", "{}", "{down_proj: 8}", "Other ranks for projections whose name ends with a match."),
    key("adapter.alpha_pattern", "alpha by pattern", "{}", "{down_proj: 16.0}", "Other alphas, as well."),
    key("adapter.modules_to_save", "list of embed_tokens, lm_head", "[]", "[lm_head]", "Tables that are trained whole, in f32."),
    key("adapter.trainable_token_indices", "list of tokens, or such a list by table", "{}", "[<|reserved_special_token_0|>, 128003]", "Tokens whose rows of the embedding, or of `{embed_tokens: […], lm_head: […]}`, are trained."),
    key("adapter.init", "kaiming, pissa, olora", "kaiming", "pissa", "How an adapter begins: as nothing, or as a part of each weight."),
    key("adapter.init_from", "folder", "null", "runs/first/adapter", "A PEFT adapter to go on from."),
    key("data.train", "list of sources", "required", "[{path: other.jsonl, format: alpaca}]", "What is trained on."),
    key("data.train[].path", "file, folder, pattern or builtin:…", "required", "other.jsonl", "A file of rows, a folder of them, or a pattern such as `rows-*.parquet`."),
    key("data.train[].format", SourceFormat::LISTED, "required", "completion", "The form of its rows."),
    key("data.train[].columns", "field: column, …", "–", "{prompt: question}", "Which columns of the file the form's fields are read from."),
    key("data.train[].ignore_columns", "list of texts", "–", "[comment]", "Columns of the file that nothing is learnt from; `messages.mood` is a field of turns."),
    key("data.train[].turn_fields", "field: name, …", "–", "{content: utterance}", "What the fields of a chat's turns are called in the file."),
    key("data.train[].roles", "role: words, …", "–", "{user: [customer], assistant: [agent]}", "Words of the file for who speaks, beside the form's own."),
    key("data.train[].train_on.roles", "list of system, user, assistant, tool", "–", "[user, assistant]", "Whose turns of the source's chats are targets, in place of data.train_on's."),
    key("data.train[].train_on.turns", "all, last", "–", "last", "Whether all of those turns are targets, or a chat's last one."),
    key("data.train[].documents.max_tokens", "count", "–", "512", "Most tokens of a text that documents are cut into; otherwise what max_seq_len has room for."),
    key("data.train[].documents.overlap", "whole number", "0", "64", "Tokens that a text repeats of the one before it, where a section had to be cut."),
    key("data.train[].documents.allow", "list of unreadable, pages-without-text", "[]", "[unreadable]", "What of documents is left out and counted, rather than refused."),
    key("data.train[].epochs", "number above 0", "1", "2", "How often an epoch has each row of the source."),
    key("data.train[].rows", "count", "–", "1000", "About how many rows of the source an epoch has, in its place."),
    key("data.train[].weight", "number above 0", "–", "0.3", "Its part of an epoch's rows, among the weights of all sources."),
    key("data.train[].replay", "number in (0, 1)", "–", "0.1", "Its share of an epoch's tokens, beside the other sources: general text, against forgetting."),
    key("data.validation", "none, {fraction} or list", "none", "[{path: v.jsonl, format: messages}]", "What the loss is measured on while training."),
    key("data.validation.fraction", "number in (0, 1)", "–", "0.25", "Share of the training rows kept out of training and measured."),
    key("data.validation[].path", "file, folder, pattern or builtin:…", "required", "v.jsonl", "A file of rows that are measured, never trained on."),
    key("data.validation[].format", SourceFormat::LISTED, "required", "completion", "The form of its rows."),
    key("data.validation[].columns", "field: column, …", "–", "{prompt: question}", "Which columns of the file the form's fields are read from."),
    key("data.validation[].ignore_columns", "list of texts", "–", "[comment]", "Columns of the file that nothing is learnt from; `messages.mood` is a field of turns."),
    key("data.validation[].turn_fields", "field: name, …", "–", "{content: utterance}", "What the fields of a chat's turns are called in the file."),
    key("data.validation[].roles", "role: words, …", "–", "{user: [customer], assistant: [agent]}", "Words of the file for who speaks, beside the form's own."),
    key("data.validation[].train_on.roles", "list of system, user, assistant, tool", "–", "[user, assistant]", "Whose turns of the source's chats are targets, in place of data.train_on's."),
    key("data.validation[].train_on.turns", "all, last", "–", "last", "Whether all of those turns are targets, or a chat's last one."),
    key("data.validation[].documents.max_tokens", "count", "–", "512", "Most tokens of a text that documents are cut into; otherwise what max_seq_len has room for."),
    key("data.validation[].documents.overlap", "whole number", "0", "64", "Tokens that a text repeats of the one before it, where a section had to be cut."),
    key("data.validation[].documents.allow", "list of unreadable, pages-without-text", "[]", "[unreadable]", "What of documents is left out and counted, rather than refused."),
    key("data.chat.preamble", "official, none", "official", "none", "The system block that opens a chat."),
    key("data.chat.date", "text", "26 Jul 2024", "1 Jan 2025", "Today's date as the official preamble gives it."),
    key("data.chat.losses", "error, allow", "error", "allow", "Whether the model's chat template may leave out parts of a conversation."),
    key("data.system_prompt", "text", "null", "Be brief.", "Added to chats whose rows bring no system prompt."),
    key("data.train_on.roles", "list of system, user, assistant, tool", "[assistant]", "[user, assistant]", "Whose turns of chats are targets; a row takes turns out by `weight: 0`."),
    key("data.train_on.turns", "all, last", "all", "last", "Whether all of those turns are targets, or a chat's last one."),
    key("data.max_seq_len", "count", "2048", "512", "Tokens a row may have."),
    key("data.packing", "flag", "true", "false", "Whether short rows share one sequence, unseen by each other."),
    key("data.overlong", "error, drop, truncate_left, truncate_right, split", "error", "split", "What happens to longer rows."),
    key("data.train_on_inputs", "flag", "false", "true", "Whether prompts are targets too."),
    key("data.shuffle", "flag", "true", "false", "Whether rows are shuffled anew each epoch."),
    key("data.allow_empty_targets", "flag", "false", "true", "Whether rows without a target are left out, rather than refused."),
    key("data.cache", "auto, off or folder", "auto", "cache", "Where samples are kept: large ones in files that the next start reads again, or all in memory."),
    key("data.hygiene.duplicates", "off, report, drop, error", "off", "drop", "What happens to rows that are equal to an earlier one."),
    key("data.hygiene.near_duplicates.action", "off, report, drop, error", "off", "drop", "What happens to rows that are nearly equal to an earlier one; `near_duplicates: drop` is short for it."),
    key("data.hygiene.near_duplicates.threshold", "number from 0.5 to 1", "0.8", "0.9", "The share of common stretches of three words from which on rows are nearly equal."),
    key("data.hygiene.contamination.action", "off, report, drop, error", "off", "error", "What happens to rows that share a stretch of words with a measured one; `contamination: error` is short for it."),
    key("data.hygiene.contamination.ngram", "count", "13", "8", "Words of such a stretch."),
    key("data.hygiene.leaks", "report, drop, error", "report", "error", "What happens to rows that are both trained on and measured."),
    key("data.hygiene.personal.mail", "off, report, mask, drop, error", "off", "mask", "What happens to mail addresses; `personal: mask` is short for all kinds."),
    key("data.hygiene.personal.phone", "off, report, mask, drop, error", "off", "mask", "What happens to telephone numbers."),
    key("data.hygiene.personal.iban", "off, report, mask, drop, error", "off", "mask", "What happens to IBANs, held to their checksum."),
    key("data.hygiene.personal.card", "off, report, mask, drop, error", "off", "mask", "What happens to numbers of payment cards, held to their check digit."),
    key("data.hygiene.personal.ip", "off, report, mask, drop, error", "off", "mask", "What happens to IP addresses."),
    key("data.hygiene.personal.secret", "off, report, mask, drop, error", "off", "mask", "What happens to keys of services, tokens and private keys."),
    key("data.hygiene.personal.password", "off, report, mask, drop, error", "off", "mask", "What happens to passwords within URLs."),
    key("data.hygiene.patterns", "list of {name, regex, action}", "[]", "[{name: case, regex: 'AZ-[0-9]+', action: mask}]", "Patterns of one's own that are looked for in all texts."),
    key("data.hygiene.patterns[].name", "text", "required", "file", "What its masks are called."),
    key("data.hygiene.patterns[].regex", "regular expression", "required", "'BZ-[0-9]+'", "What it finds."),
    key("data.hygiene.patterns[].action", "off, report, mask, drop, error", "required", "drop", "What happens to what it finds."),
    key("data.hygiene.names", "list of {path, action}", "[]", "[{path: staff.txt, action: mask}]", "Lists of names that are looked for in all texts."),
    key("data.hygiene.names[].path", "file", "required", "others.txt", "A file with a name a line."),
    key("data.hygiene.names[].action", "off, report, mask, drop, error", "required", "drop", "What happens to them."),
    key("data.hygiene.mask_key", "file", "null", "secret.key", "Secret bytes that masks are made with, rather than the run's seed."),
    key("training.epochs", "count", "3", "2", "Passes over the data; excludes max_steps."),
    key("training.max_steps", "count", "–", "50", "Optimizer steps; excludes epochs."),
    key("training.micro_batch_size", "count", "1", "4", "Rows a forward pass."),
    key("training.gradient_accumulation_steps", "count", "1", "8", "Forward passes an optimizer step."),
    key("training.micro_batches_per_visit", "count", "1", "8", "Micro-batches of a step that share one visit of a block: one read of a model larger than memory."),
    key("training.learning_rate", "number in (0, 1]", "0.0002", "0.001", "The rate after warm-up."),
    key("training.schedule", "constant, linear, cosine", "cosine", "constant", "The rate over the steps, as a name or as {name: {…}}."),
    key("training.schedule.constant.warmup_ratio", "number in [0, 1]", "0.0", "0.1", "Share of the steps in which the rate rises."),
    key("training.schedule.constant.warmup_steps", "whole number", "–", "5", "Steps in which the rate rises; excludes warmup_ratio."),
    key("training.schedule.linear.warmup_ratio", "number in [0, 1]", "0.0", "0.1", "Share of the steps in which the rate rises."),
    key("training.schedule.linear.warmup_steps", "whole number", "–", "5", "Steps in which the rate rises; excludes warmup_ratio."),
    key("training.schedule.linear.final_ratio", "number in [0, 1]", "0.0", "0.2", "The last step's share of the rate."),
    key("training.schedule.cosine.warmup_ratio", "number in [0, 1]", "0.0", "0.1", "Share of the steps in which the rate rises."),
    key("training.schedule.cosine.warmup_steps", "whole number", "–", "5", "Steps in which the rate rises; excludes warmup_ratio."),
    key("training.schedule.cosine.final_ratio", "number in [0, 1]", "0.0", "0.2", "The last step's share of the rate."),
    key("training.optimizer", "adamw, adamw_8bit", "adamw", "adamw_8bit", "The rule of the steps, as a name or as {name: {…}}; adamw_8bit keeps its memory in a quarter of the bytes."),
    key("training.optimizer.adamw.beta1", "number in [0, 1)", "0.9", "0.8", "Memory of the gradients' mean."),
    key("training.optimizer.adamw.beta2", "number in [0, 1)", "0.999", "0.95", "Memory of the gradients' mean square."),
    key("training.optimizer.adamw.eps", "number in (0, 1]", "1.0e-8", "1.0e-6", "Added to the root of the mean square."),
    key("training.optimizer.adamw.weight_decay", "number, at least 0", "0.01", "0.1", "Decay of the trained weights a step, times the rate."),
    key("training.optimizer.adamw_8bit.beta1", "number in [0, 1)", "0.9", "0.8", "Memory of the gradients' mean, kept in 8 bits."),
    key("training.optimizer.adamw_8bit.beta2", "number in [0, 1)", "0.999", "0.95", "Memory of the gradients' mean square, kept in 8 bits."),
    key("training.optimizer.adamw_8bit.eps", "number in (0, 1]", "1.0e-8", "1.0e-6", "Added to the root of the mean square."),
    key("training.optimizer.adamw_8bit.weight_decay", "number, at least 0", "0.01", "0.1", "Decay of the trained weights a step, times the rate."),
    key("training.max_grad_norm", "number above 0, or none", "1.0", "none", "The global gradient norm is clipped to this."),
    key("training.checkpointing", "auto, block, selective, none", "auto", "none", "What the backward pass replays rather than keeps."),
    key("training.activation_offload", "none, host, disk", "none", "disk", "Where the inputs of blocks wait for the backward pass: where they were computed, in the host's memory if that was a GPU, or in a file without a name in the run folder."),
    key("training.compute_dtype", "auto, bf16, f32", "auto", "f32", "The type activations are computed in."),
    key("training.seed", "whole number", "7", "8", "The root of all randomness."),
    key("training.threads", "auto or count", "auto", "2", "CPU threads; results do not depend on them."),
    key("evaluation.every_steps", "count or none", "none", "10", "Steps between measurements of the validation loss."),
    key("evaluation.held_out", "list of sources", "[]", "[{path: q.jsonl, format: completion}]", "Questions with answers, scored by exact match before and after."),
    key("evaluation.held_out[].path", "file, folder, pattern or builtin:…", "required", "q.jsonl", "A file of questions with answers."),
    key("evaluation.held_out[].format", SourceFormat::LISTED, "required", "completion", "The form of its rows."),
    key("evaluation.held_out[].columns", "field: column, …", "–", "{prompt: question}", "Which columns of the file the form's fields are read from."),
    key("evaluation.held_out[].ignore_columns", "list of texts", "–", "[comment]", "Columns of the file that nothing is learnt from; `messages.mood` is a field of turns."),
    key("evaluation.held_out[].turn_fields", "field: name, …", "–", "{content: utterance}", "What the fields of a chat's turns are called in the file."),
    key("evaluation.held_out[].roles", "role: words, …", "–", "{user: [customer], assistant: [agent]}", "Words of the file for who speaks, beside the form's own."),
    key("evaluation.general", "list of sources", "[]", "[{path: g.txt, format: text}]", "Text whose perplexity shows what the tuned model has forgotten."),
    key("evaluation.general[].path", "file, folder, pattern or builtin:…", "required", "general.jsonl", "A file of general text."),
    key("evaluation.general[].format", SourceFormat::LISTED, "required", "completion", "The form of its rows."),
    key("evaluation.general[].columns", "field: column, …", "–", "{prompt: question}", "Which columns of the file the form's fields are read from."),
    key("evaluation.general[].ignore_columns", "list of texts", "–", "[comment]", "Columns of the file that nothing is learnt from; `messages.mood` is a field of turns."),
    key("evaluation.general[].turn_fields", "field: name, …", "–", "{content: utterance}", "What the fields of a chat's turns are called in the file."),
    key("evaluation.general[].roles", "role: words, …", "–", "{user: [customer], assistant: [agent]}", "Words of the file for who speaks, beside the form's own."),
    key("evaluation.general[].train_on.roles", "list of system, user, assistant, tool", "–", "[user, assistant]", "Whose turns of the source's chats are targets, in place of data.train_on's."),
    key("evaluation.general[].train_on.turns", "all, last", "–", "last", "Whether all of those turns are targets, or a chat's last one."),
    key("evaluation.general[].documents.max_tokens", "count", "–", "512", "Most tokens of a text that documents are cut into; otherwise what max_seq_len has room for."),
    key("evaluation.general[].documents.overlap", "whole number", "0", "64", "Tokens that a text repeats of the one before it, where a section had to be cut."),
    key("evaluation.general[].documents.allow", "list of unreadable, pages-without-text", "[]", "[unreadable]", "What of documents is left out and counted, rather than refused."),
    key("evaluation.max_new_tokens", "count", "64", "32", "Tokens an answer may have."),
    key("evaluation.samples", "whole number", "8", "0", "Answers shown side by side in the report."),
    key("checkpoint.every_steps", "count or none", "100", "none", "Steps between checkpoints."),
    key("checkpoint.keep", "count", "3", "1", "Checkpoints kept; older ones are removed."),
    key("logging.log_every", "count", "1", "10", "Steps between lines of metrics.jsonl."),
    key("logging.tensorboard", "flag", "true", "false", "Whether TensorBoard event files are written."),
    key("finish.merge", "flag", "false", "true", "Whether the merged model is written, too."),
    key("finish.onto", "dequantised, original", "dequantised", "original", "Which weights the adapter is merged onto."),
    key("finish.for", "list of peft, peft-portable, vllm, llama.cpp, ollama, mistral.rs, tensorrt-llm", "[]", "[vllm]", "Programs whose files are written, too: what each of them takes is checked first."),
    key("finish.prompts", "list of texts", "[]", "[Why?]", "Questions the base and the tuned model answer in the report."),
    key("output_dir", "folder", "runs/ and the name", "elsewhere", "The run folder; never inherited."),
];

/// Every key, in the order of the schema.
pub fn keys() -> &'static [Key] {
    KEYS
}

/// Whether `path`, with indexes as numbers, is a key or has keys below it.
pub(crate) fn is_known(path: &str) -> bool {
    let path = general(path);
    KEYS.iter().any(|key| {
        key.path
            .strip_prefix(path.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.') || rest.starts_with("[]"))
    })
}

/// `data.train.0.path` as `data.train[].path`.
fn general(path: &str) -> String {
    let mut general = String::new();
    for step in path.split('.') {
        if step.parse::<usize>().is_ok() {
            general.push_str("[]");
        } else {
            if !general.is_empty() {
                general.push('.');
            }
            general.push_str(step);
        }
    }
    general
}

/// The way out for someone who wrote `key`, wherever it stands: what it is called here, that there
/// is nothing like it, or the key that was most likely meant.
pub fn hint(key: &str) -> Option<String> {
    elsewhere::hint(key).or_else(|| suggest(key).map(|key| format!("did you mean `{key}`?")))
}

/// The key that someone who wrote `key` most likely meant.
fn suggest(key: &str) -> Option<&'static str> {
    let last = key.rsplit('.').next().unwrap_or(key);
    let ends = |end: &str| {
        let mut paths = KEYS.iter().map(|key| key.path);
        paths.find(|path| path.rsplit('.').next() == Some(end))
    };
    if let Some(path) = ends(last) {
        return Some(path);
    }
    nearest(key, KEYS.iter().map(|key| key.path)).or_else(|| {
        nearest(last, KEYS.iter().filter_map(|key| key.path.rsplit('.').next())).and_then(ends)
    })
}

//! A byte-level BPE tokenizer in the two forms: Hugging Face's `tokenizer.json`, and the keys `tokenizer.ggml.…`.
//!
//! Follows `get_vocab_base` of llama.cpp's converter and `llama_vocab::impl::load` of `src/llama-vocab.cpp`. A GGUF file
//! names how texts are split and says nothing more of it, so only splits that both sides are known to mean alike are
//! taken ([`Split`]).

mod split;
mod to_json;
mod to_keys;

pub use split::Split;
pub use to_json::{tokenizer_json, vocabulary};
pub use to_keys::{Ids, keys};

/// The keys of a tokenizer begin so.
pub const PREFIX: &str = "tokenizer.ggml.";

/// Why a tokenizer cannot be taken from one form to the other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what each field is")]
pub enum TokenizerProblem {
    #[error("`{key}` is {found}, but must be {allowed}")]
    Wrong { key: String, found: String, allowed: String },
    #[error(
        "it splits texts by a rule that llama.cpp has no name for: `pre_tokenizer` is {found}; known are those of {}",
        Split::names()
    )]
    Split { found: String },
    #[error("the token {token:?} stands at id {first} and at id {second}")]
    TwoIds { token: String, first: usize, second: usize },
    #[error(
        "`tokenizer.json` gives ids up to {highest}, but the model's vocab_size is {vocab_size}"
    )]
    Vocabulary { highest: usize, vocab_size: usize },
    #[error("two tokens have the id {id}: {first:?} and {second:?}")]
    TwoTokens { id: usize, first: String, second: String },
}

/// What a token is: `enum llama_token_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the reference's names")]
pub enum TokenKind {
    Normal = 1,
    Unknown = 2,
    Control = 3,
    UserDefined = 4,
    Unused = 5,
    Byte = 6,
}

/// The spelling of a row of the embedding that is no token.
fn padding(id: usize) -> String {
    format!("[PAD{id}]")
}

//! Meta's `tokenizer.model`: one line `base64(token) rank` for each token of a byte-level BPE, as tiktoken reads it.
//!
//! A rank is the token's id and its place in the order of merges at once, so the merges of a
//! `tokenizer.json` follow from it: whichever way a token falls into two known ones is a merge, and
//! those of lower ranks come first. That is what transformers' `TikTokenConverter` does to make the
//! `tokenizer.json` of the release. Split expression and special tokens are not in the file: they
//! are Llama 3's ([`llama3_tokenizer`](crate::llama3_tokenizer)).

use std::collections::HashMap;

use tokenizers::AddedToken;
use tokenizers::models::bpe::{BPE, Merges, Vocab};

use crate::error::Error;
use crate::llama3_tokenizer::{skeleton, special_tokens};
use crate::tokenizer::{Alphabet, ByteLevel, Outline, Tokenizer};

/// Llama 3's longest token has 128 bytes; finding merges takes the square of the length.
const LONGEST_TOKEN: usize = 512;

/// Llama 3's has 2 MB.
const LARGEST_FILE: usize = 64 << 20;

/// A token's rank and line.
struct Ranked {
    rank: usize,
    line: usize,
}

impl Tokenizer {
    /// Reads the bytes of Meta's `tokenizer.model`, the file of a Llama 3 release in Meta's own
    /// layout; `origin` names it in messages.
    ///
    /// The 256 special tokens stand behind the file's ranks and have the names of Llama 3.1. The
    /// file of Llama 3.0 is the same one, and its release has no use for the ids that are named
    /// `<|finetune_right_pad_id|>` and `<|eom_id|>` here.
    ///
    /// # Errors
    /// A line is not one token in base64 and its rank, a token or a rank stands there twice, ranks
    /// are missing, a byte has no token of its own, or a token spells a special one.
    pub fn from_tiktoken(bytes: &[u8], origin: &str) -> Result<Self, Error> {
        let fail = |message: String| Error::Tokenizer { origin: origin.to_owned(), message };
        if bytes.len() > LARGEST_FILE {
            let found = bytes.len();
            return Err(fail(format!(
                "the file has {found} bytes, and at most {LARGEST_FILE} are read"
            )));
        }
        let tokens = read_ranks(bytes, origin)?;
        if tokens.is_empty() {
            return Err(fail(
                "the file holds no tokens; copy it again from the release".to_owned(),
            ));
        }
        let ordered = in_order(&tokens, origin)?;
        if let Some(byte) = (0..=u8::MAX).find(|&byte| !tokens.contains_key(&[byte][..])) {
            return Err(fail(format!(
                "the byte 0x{byte:02x} has no token of its own, so not every text could be \
                 encoded; a Llama 3 tokenizer.model is needed"
            )));
        }
        let special = special_tokens();
        if let Some(name) = special.iter().find(|name| tokens.contains_key(name.as_bytes())) {
            let line = tokens[name.as_bytes()].line;
            let problem = format!("the token spells the special token `{name}`");
            return Err(Error::TokenizerLine { origin: origin.to_owned(), line, problem });
        }
        let merges = merges(&ordered, &tokens);
        let byte_level = ByteLevel::of_ranks(&ordered, &merges);
        let inner = convert(&ordered, merges, special).map_err(|error| fail(error.to_string()))?;
        let mut outline = Outline::default();
        outline.byte_level = byte_level;
        Self::assemble(inner, outline, bytes, origin)
    }
}

/// The lines of the file, by token.
fn read_ranks(bytes: &[u8], origin: &str) -> Result<HashMap<Vec<u8>, Ranked>, Error> {
    let mut tokens: HashMap<Vec<u8>, Ranked> = HashMap::new();
    for (index, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
        let number = index + 1;
        let fail = |problem: String| Error::TokenizerLine {
            origin: origin.to_owned(),
            line: number,
            problem,
        };
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            continue;
        }
        let (token, rank) = read_line(line).map_err(|problem| fail(problem + hint(bytes)))?;
        if let Some(first) = tokens.get(&token) {
            let problem = format!("the token of rank {rank} is that of line {} again", first.line);
            return Err(fail(problem));
        }
        tokens.insert(token, Ranked { rank, line: number });
    }
    Ok(tokens)
}

/// One line, without its end.
fn read_line(line: &[u8]) -> Result<(Vec<u8>, usize), String> {
    let text = std::str::from_utf8(line).map_err(|_| "the line is not UTF-8".to_owned())?;
    let Some((token, rank)) = text.split_once(' ') else {
        return Err("expected a token in base64, one blank and its rank".to_owned());
    };
    let shown = |text: &str| text.chars().take(40).collect::<String>();
    let token =
        base64(token.as_bytes()).ok_or_else(|| format!("{:?} is not base64", shown(token)))?;
    if token.is_empty() || token.len() > LONGEST_TOKEN {
        let found = token.len();
        return Err(format!("the token has {found} bytes, expected 1 to {LONGEST_TOKEN}"));
    }
    // `parse` alone would take a sign.
    let digits = rank.bytes().all(|byte| byte.is_ascii_digit());
    let value: Option<u32> = rank.parse().ok().filter(|_| digits);
    let value = value.ok_or_else(|| format!("the rank {:?} is not a number", shown(rank)))?;
    Ok((token, value as usize))
}

/// Where the file is another model's of the same name.
fn hint(bytes: &[u8]) -> &'static str {
    // SentencePiece's file is a protocol buffer that opens with field 1, the first piece.
    if bytes.first() == Some(&b'\n') && bytes.windows(5).take(64).any(|part| part == b"<unk>") {
        "; this is a SentencePiece model, as Llama 2 has: Graft is for Llama 3"
    } else {
        "; a Llama 3 tokenizer.model is needed"
    }
}

/// The tokens by rank, which must be 0, 1, 2 and so on.
fn in_order<'a>(
    tokens: &'a HashMap<Vec<u8>, Ranked>,
    origin: &str,
) -> Result<Vec<&'a [u8]>, Error> {
    let mut entries: Vec<(&[u8], &Ranked)> =
        tokens.iter().map(|(token, entry)| (token.as_slice(), entry)).collect();
    entries.sort_unstable_by_key(|(_, entry)| (entry.rank, entry.line));
    for (expected, (_, Ranked { rank, line })) in entries.iter().enumerate() {
        if *rank != expected {
            let problem = if *rank < expected {
                format!("rank {rank} is that of line {} again", entries[expected - 1].1.line)
            } else {
                format!("rank {rank} stands here, but no line has rank {expected}")
            };
            return Err(Error::TokenizerLine { origin: origin.to_owned(), line: *line, problem });
        }
    }
    Ok(entries.into_iter().map(|(token, _)| token).collect())
}

/// The tokenizer of these ranks, with the special tokens behind them.
fn convert(
    ordered: &[&[u8]],
    merges: Vec<(usize, usize)>,
    special: Vec<String>,
) -> tokenizers::Result<tokenizers::Tokenizer> {
    let alphabet = Alphabet::new();
    let spelled: Vec<String> = ordered.iter().map(|token| alphabet.spell(token)).collect();
    let merges: Merges = merges
        .into_iter()
        .map(|(left, right)| (spelled[left].clone(), spelled[right].clone()))
        .collect();
    let vocabulary: Vocab = spelled.into_iter().zip(0..).collect();
    let model = BPE::builder().vocab_and_merges(vocabulary, merges).ignore_merges(true).build()?;
    let mut tokenizer = tokenizers::Tokenizer::from_bytes(skeleton(ordered.len()).to_string())?;
    tokenizer.with_model(model);
    let special: Vec<AddedToken> =
        special.into_iter().map(|name| AddedToken::from(name, true).normalized(false)).collect();
    tokenizer.add_special_tokens(&special);
    Ok(tokenizer)
}

/// Every pair of ranks that joins into a token: by the rank of that token, then by their own.
fn merges(ordered: &[&[u8]], tokens: &HashMap<Vec<u8>, Ranked>) -> Vec<(usize, usize)> {
    let rank = |token: &[u8]| tokens.get(token).map(|entry| entry.rank);
    let mut merges = Vec::with_capacity(2 * ordered.len());
    for token in ordered {
        let first = merges.len();
        merges.extend((1..token.len()).filter_map(|cut| {
            let (left, right) = token.split_at(cut);
            Some((rank(left)?, rank(right)?))
        }));
        merges[first..].sort_unstable();
    }
    merges
}

/// RFC 4648 section 4, with padding and nothing else: no blanks, no bits left over.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let padding = text.iter().rev().take(2).take_while(|&&byte| byte == b'=').count();
    let digits = &text[..text.len() - padding];
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for group in digits.chunks(4) {
        let mut bits = 0_u32;
        for (place, &digit) in group.iter().enumerate() {
            let value = match digit {
                b'A'..=b'Z' => digit - b'A',
                b'a'..=b'z' => digit - b'a' + 26,
                b'0'..=b'9' => digit - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return None,
            };
            bits |= u32::from(value) << (26 - 6 * place);
        }
        let decoded = bits.to_be_bytes();
        let (whole, rest) = decoded.split_at(group.len() * 6 / 8);
        if rest.iter().any(|&byte| byte != 0) {
            return None;
        }
        bytes.extend(whole);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests;

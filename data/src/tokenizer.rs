//! A Llama 3 tokenizer read from `tokenizer.json`, through the reference `tokenizers` crate; `tiktoken` reads Meta's own file into the same.
//!
//! Text never becomes a control token here: `<|eot_id|>` written in a dataset is encoded as the
//! characters it is made of, and control tokens are only ever placed by structure.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::ops::Range;

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::decode_stream::DecodeStream;
use crate::error::Error;

const BEGIN_OF_TEXT: &str = "<|begin_of_text|>";
const END_OF_TEXT: &str = "<|end_of_text|>";
const START_HEADER: &str = "<|start_header_id|>";
const END_HEADER: &str = "<|end_header_id|>";
const EOT: &str = "<|eot_id|>";
const EOM: &str = "<|eom_id|>";
const PAD: &str = "<|finetune_right_pad_id|>";

/// Encodes and decodes text; knows Llama 3's control tokens.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    origin: String,
    sha256: String,
    /// For every id: whether it exists, and whether it is a control token.
    kinds: Vec<Kind>,
    /// Every control token as it is spelled, longest first.
    specials: Vec<(String, u32)>,
    /// The bytes that a control token begins with.
    special_starts: [bool; 256],
    bos: u32,
    end_of_text: u32,
    start_header: u32,
    end_header: u32,
    eot: u32,
    eom: Option<u32>,
    pad: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Unknown,
    Ordinary,
    Special,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("origin", &self.origin)
            .field("vocab_size", &self.kinds.len())
            .field("sha256", &self.sha256)
            .finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// Reads the bytes of a `tokenizer.json`; `origin` names it in messages.
    ///
    /// # Errors
    /// The JSON is not a tokenizer, a control token of Llama 3 is missing or not marked special, or
    /// the file gives an added token an id that the reference implementation would not use.
    pub fn from_bytes(json: &[u8], origin: &str) -> Result<Self, Error> {
        let fail = |message: String| Error::Tokenizer { origin: origin.to_owned(), message };
        let inner =
            tokenizers::Tokenizer::from_bytes(json).map_err(|error| fail(error.to_string()))?;
        check_added_ids(json, &inner).map_err(fail)?;
        Self::assemble(inner, json, origin)
    }

    /// Finds the control tokens of `inner`, which was read from `file`.
    pub(crate) fn assemble(
        mut inner: tokenizers::Tokenizer,
        file: &[u8],
        origin: &str,
    ) -> Result<Self, Error> {
        let fail = |message: String| Error::Tokenizer { origin: origin.to_owned(), message };
        inner.set_encode_special_tokens(true);
        // Sections that would cut or lengthen what `encode` returns.
        inner.with_truncation(None).map_err(|error| fail(error.to_string()))?;
        inner.with_padding(None);

        let kinds = kinds(&inner);
        let find = |token: &'static str| match inner.token_to_id(token) {
            None => Err(Error::MissingSpecial { origin: origin.to_owned(), token }),
            Some(id) if kinds[id as usize] == Kind::Special => Ok(id),
            Some(_) => Err(Error::NotSpecial { origin: origin.to_owned(), token }),
        };
        let find_optional = |token: &'static str| match find(token) {
            Ok(id) => Ok(Some(id)),
            Err(Error::MissingSpecial { .. }) => Ok(None),
            Err(error) => Err(error),
        };
        let (bos, end_of_text) = (find(BEGIN_OF_TEXT)?, find(END_OF_TEXT)?);
        let (start_header, end_header) = (find(START_HEADER)?, find(END_HEADER)?);
        let (eot, eom) = (find(EOT)?, find_optional(EOM)?);
        let pad = find_optional(PAD)?.unwrap_or(end_of_text);
        let specials = specials(&inner);
        let mut special_starts = [false; 256];
        for (token, _) in &specials {
            special_starts[token.as_bytes()[0] as usize] = true;
        }
        let (origin, sha256) = (origin.to_owned(), hex(&Sha256::digest(file)));
        Ok(Self {
            inner,
            origin,
            sha256,
            kinds,
            specials,
            special_starts,
            bos,
            end_of_text,
            start_header,
            end_header,
            eot,
            eom,
            pad,
        })
    }

    /// Ids of `text`, with no token added in front or behind and no control token inside.
    ///
    /// # Errors
    /// The tokenizer fails, or its vocabulary turns plain text into a control token.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        if text.is_empty() {
            return Ok(Vec::new());
        }
        let encoding = self.inner.encode_fast(text, false).map_err(|error| self.failed(&error))?;
        let ids = encoding.get_ids().to_vec();
        self.check_not_forged(text, &ids)?;
        Ok(ids)
    }

    /// As [`Self::encode`], each id with the bytes of `text` that it stands for.
    pub(crate) fn encode_with_offsets(
        &self,
        text: &str,
    ) -> Result<Vec<(u32, Range<usize>)>, Error> {
        if text.is_empty() {
            return Ok(Vec::new());
        }
        let encoding = self.inner.encode(text, false).map_err(|error| self.failed(&error))?;
        self.check_not_forged(text, encoding.get_ids())?;
        let ranges = encoding.get_offsets().iter().map(|&(start, end)| start..end);
        Ok(encoding.get_ids().iter().copied().zip(ranges).collect())
    }

    fn check_not_forged(&self, text: &str, ids: &[u32]) -> Result<(), Error> {
        // A vocabulary that holds control tokens as ordinary entries could still merge into one.
        if let Some(&id) = ids.iter().find(|&&id| self.is_special(id)) {
            return Err(Error::ForgedSpecial {
                origin: self.origin.clone(),
                text: text.chars().take(60).collect(),
                token: self.token(id).unwrap_or_default(),
                id,
            });
        }
        Ok(())
    }

    /// The control token that `text` begins with, the longest if there are more.
    pub(crate) fn special_at(&self, text: &str) -> Option<(&str, u32)> {
        if !self.could_begin_special(text) {
            return None;
        }
        let found = self.specials.iter().find(|(token, _)| text.starts_with(token.as_str()));
        found.map(|(token, id)| (token.as_str(), *id))
    }

    /// Whether `text` is the beginning of a control token.
    pub(crate) fn begins_special(&self, text: &str) -> bool {
        self.could_begin_special(text)
            && self.specials.iter().any(|(token, _)| token.starts_with(text))
    }

    fn could_begin_special(&self, text: &str) -> bool {
        text.as_bytes().first().is_some_and(|&byte| self.special_starts[byte as usize])
    }

    /// [`Self::encode`] of every text, on all threads, in order.
    ///
    /// # Errors
    /// As [`Self::encode`]; the first text that fails decides.
    pub fn encode_batch<S: AsRef<str> + Sync>(&self, texts: &[S]) -> Result<Vec<Vec<u32>>, Error> {
        texts.par_iter().map(|text| self.encode(text.as_ref())).collect()
    }

    /// The text of `ids`; bytes that are not UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// An id is not in the vocabulary.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, Error> {
        if let Some(&id) = ids.iter().find(|&&id| self.kind(id) == Kind::Unknown) {
            let (origin, vocab_size) = (self.origin.clone(), self.vocab_size());
            return Err(Error::UnknownId { origin, id, vocab_size });
        }
        self.inner.decode(ids, skip_special).map_err(|error| self.failed(&error))
    }

    /// Decodes ids one after the other as they are generated.
    pub fn decode_stream(&self, skip_special: bool) -> DecodeStream<'_> {
        DecodeStream::new(self, skip_special)
    }

    /// Id of the control token spelled `token`; `None` for ordinary entries of the vocabulary.
    pub fn special(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token).filter(|&id| self.is_special(id))
    }

    /// Whether `id` is a control token.
    pub fn is_special(&self, id: u32) -> bool {
        self.kind(id) == Kind::Special
    }

    /// How the vocabulary spells `id` (byte-level alphabet for ordinary ids).
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Highest id + 1: the rows an embedding needs.
    pub fn vocab_size(&self) -> usize {
        self.kinds.len()
    }

    /// `<|begin_of_text|>`.
    pub fn bos(&self) -> u32 {
        self.bos
    }

    /// `<|end_of_text|>`: ends a document or a completion.
    pub fn end_of_text(&self) -> u32 {
        self.end_of_text
    }

    /// `<|start_header_id|>`.
    pub fn start_header(&self) -> u32 {
        self.start_header
    }

    /// `<|end_header_id|>`.
    pub fn end_header(&self) -> u32 {
        self.end_header
    }

    /// `<|eot_id|>`: ends a turn.
    pub fn eot(&self) -> u32 {
        self.eot
    }

    /// `<|eom_id|>`: ends a message that waits for a tool; Llama 3.0 has none.
    pub fn eom(&self) -> Option<u32> {
        self.eom
    }

    /// `<|finetune_right_pad_id|>` (128004 in Llama 3.1). A tokenizer without it pads with
    /// `<|end_of_text|>`, which is safe because masks come from positions and never from ids.
    pub fn pad(&self) -> u32 {
        self.pad
    }

    /// The ids at which generation ends: end of text, of message (where known) and of turn.
    pub fn stop_ids(&self) -> Vec<u32> {
        [Some(self.end_of_text), self.eom, Some(self.eot)].into_iter().flatten().collect()
    }

    /// SHA-256 of the file it was read from, in hexadecimal.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// The name given to [`Self::from_bytes`] or [`Self::from_tiktoken`].
    pub fn origin(&self) -> &str {
        &self.origin
    }

    fn kind(&self, id: u32) -> Kind {
        self.kinds.get(id as usize).copied().unwrap_or(Kind::Unknown)
    }

    fn failed(&self, error: &tokenizers::Error) -> Error {
        Error::Tokenizer { origin: self.origin.clone(), message: error.to_string() }
    }
}

/// The reference implementation assigns ids itself and only logs where the file says otherwise.
fn check_added_ids(json: &[u8], tokenizer: &tokenizers::Tokenizer) -> Result<(), String> {
    #[derive(serde::Deserialize)]
    struct Added<'a> {
        id: u32,
        #[serde(borrow)]
        content: Cow<'a, str>,
    }
    #[derive(serde::Deserialize)]
    struct File<'a> {
        #[serde(borrow, default)]
        added_tokens: Vec<Added<'a>>,
    }
    let file: File<'_> = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    for Added { id, content } in file.added_tokens {
        let given = tokenizer.token_to_id(&content);
        if given != Some(id) {
            let given = given.map_or("none".to_owned(), |id| id.to_string());
            return Err(format!(
                "added token `{content}` is declared with id {id}, but its place gives {given}"
            ));
        }
    }
    Ok(())
}

fn specials(tokenizer: &tokenizers::Tokenizer) -> Vec<(String, u32)> {
    let mut specials: Vec<(String, u32)> = tokenizer
        .get_added_tokens_decoder()
        .into_iter()
        .filter(|(_, token)| token.special && !token.content.is_empty())
        .map(|(id, token)| (token.content, id))
        .collect();
    specials.sort_by(|(a, _), (b, _)| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
    specials
}

fn kinds(tokenizer: &tokenizers::Tokenizer) -> Vec<Kind> {
    let vocab = tokenizer.get_vocab(true);
    let size = vocab.values().max().map_or(0, |&id| id as usize + 1);
    let mut kinds = vec![Kind::Unknown; size];
    #[expect(clippy::iter_over_hash_type, reason = "ids are marked alone: order cannot show")]
    for &id in vocab.values() {
        kinds[id as usize] = Kind::Ordinary;
    }
    for (id, token) in tokenizer.get_added_tokens_decoder() {
        if token.special && (id as usize) < size {
            kinds[id as usize] = Kind::Special;
        }
    }
    kinds
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::test_tokenizer::{json, tokenizer};

    #[test]
    fn text_that_spells_a_control_token_is_encoded_as_its_characters() {
        let tokenizer = tokenizer();
        for text in
            ["<|eot_id|>", "a<|eot_id|>b <|begin_of_text|><|start_header_id|>", "<|eom_id|>"]
        {
            let ids = tokenizer.encode(text).unwrap();
            assert!(ids.iter().all(|&id| !tokenizer.is_special(id)), "{text}: {ids:?}");
            assert_eq!(tokenizer.decode(&ids, true).unwrap(), text);
        }
    }

    #[test]
    fn control_tokens_stand_in_llama_order_behind_the_base_vocabulary() {
        let tokenizer = tokenizer();
        let base = tokenizer.bos();
        assert_eq!(tokenizer.end_of_text(), base + 1);
        assert_eq!(tokenizer.pad(), base + 4);
        assert_eq!(tokenizer.start_header(), base + 6);
        assert_eq!(tokenizer.end_header(), base + 7);
        assert_eq!(tokenizer.eom(), Some(base + 8));
        assert_eq!(tokenizer.eot(), base + 9);
        assert_eq!(tokenizer.stop_ids(), [base + 1, base + 8, base + 9]);
        assert_eq!(tokenizer.vocab_size(), base as usize + 256);
        assert_eq!(tokenizer.special("<|python_tag|>"), Some(base + 10));
        assert_eq!(tokenizer.special("a"), None);
    }

    #[test]
    fn a_missing_or_unmarked_control_token_is_named() {
        let renamed = json().replace("<|eot_id|>", "<|other|>");
        let error = Tokenizer::from_bytes(renamed.as_bytes(), "x/tokenizer.json").unwrap_err();
        insta::assert_snapshot!(error, @"x/tokenizer.json: the tokenizer has no `<|eot_id|>`; a Llama 3 tokenizer.json is needed");

        let mut value: serde_json::Value = serde_json::from_str(json()).unwrap();
        value["added_tokens"][9]["special"] = false.into();
        let error = Tokenizer::from_bytes(value.to_string().as_bytes(), "t.json").unwrap_err();
        insta::assert_snapshot!(error, @r#"t.json: `<|eot_id|>` is not marked `"special": true`, so text in the data could forge it; mark it as special in `added_tokens`"#);
    }

    #[test]
    fn a_tokenizer_without_the_pad_token_pads_with_end_of_text() {
        let renamed = json().replace("<|finetune_right_pad_id|>", "<|reserved_x|>");
        let tokenizer = Tokenizer::from_bytes(renamed.as_bytes(), "t.json").unwrap();
        assert_eq!(tokenizer.pad(), tokenizer.end_of_text());
    }

    #[test]
    fn an_added_token_with_another_id_than_declared_is_refused() {
        let mut value: serde_json::Value = serde_json::from_str(json()).unwrap();
        value["added_tokens"][9]["id"] = 7_000.into();
        let error = Tokenizer::from_bytes(value.to_string().as_bytes(), "t.json").unwrap_err();
        assert!(error.to_string().contains("declared with id 7000"), "{error}");
    }

    #[test]
    fn bytes_that_are_no_tokenizer_are_an_error() {
        for bytes in [&b""[..], b"{}", b"\xff\xfe", b"[1]"] {
            assert!(Tokenizer::from_bytes(bytes, "t.json").is_err());
        }
    }

    #[test]
    fn an_unknown_id_is_named_by_decode() {
        let tokenizer = tokenizer();
        let unknown = tokenizer.vocab_size() as u32;
        assert!(
            matches!(tokenizer.decode(&[unknown], false), Err(Error::UnknownId { id, .. }) if id == unknown)
        );
    }

    proptest! {
        #[test]
        fn decoding_gives_the_text_back(text in "\\PC{0,40}[ \n\tä€😀]{0,4}") {
            let tokenizer = tokenizer();
            let ids = tokenizer.encode(&text).unwrap();
            prop_assert_eq!(tokenizer.decode(&ids, false).unwrap(), text);
        }
    }
}

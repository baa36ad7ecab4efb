//! A tokenizer read from `tokenizer.json`, through the reference `tokenizers` crate; `tiktoken` reads Meta's own file into the same.
//! Texts of Llama 3's kind are encoded by `byte_level`, with the same ids, all others by that crate.
//!
//! Text never becomes a control token here: `<|eot_id|>` written in a dataset is encoded as the
//! characters it is made of, and control tokens are only ever placed by structure. Llama 3's names for
//! them are needed by Graft's own chat format and by nothing else.

mod bounds;
mod byte_level;
mod expression;
mod kind;
mod llama3;
mod marks;
mod outline;
mod roles;

use std::ops::Range;
use std::sync::Arc;

use graft_files::sha256::sha256_hex;
use rayon::prelude::*;

use crate::decode_stream::DecodeStream;
use crate::error::{Error, RowProblem};
use bounds::{Bounds, Offsets, guarded};
pub(crate) use byte_level::{Alphabet, ByteLevel};
use llama3::{Llama3, Missing};
pub(crate) use marks::Speaker;
use marks::{Mark, Marks};
pub(crate) use outline::Outline;
pub use roles::TokenizerFiles;

const PAD: &str = "<|finetune_right_pad_id|>";

/// Encodes and decodes text; knows the model's control tokens.
pub struct Tokenizer {
    inner: Arc<tokenizers::Tokenizer>,
    /// For text that does not stand at the beginning, where that makes a difference.
    later: Option<Arc<tokenizers::Tokenizer>>,
    /// What encodes texts in place of `inner`, where they are split and merged as Llama 3's.
    byte_level: Option<ByteLevel>,
    /// Added tokens that `inner` finds in a text.
    ordinary: Marks,
    /// The ranges of `inner` leave out blanks.
    trims_ranges: bool,
    origin: String,
    sha256: String,
    /// For every id: whether it exists, and whether it is a control token.
    kinds: Vec<Kind>,
    /// What must not arise from text.
    marks: Marks,
    /// What Graft's own chat format places, or what of it is missing.
    llama3: Result<Llama3, Missing>,
    bos: Option<u32>,
    eos: Option<u32>,
    pad: u32,
    frame: Frame,
    stops: Vec<u32>,
    bounds: Bounds,
}

/// What stands around a text.
#[derive(Debug, Clone, Default)]
struct Frame {
    front: Vec<u32>,
    back: Vec<u32>,
    /// The tokenizer itself puts `back` there.
    own_back: bool,
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
    /// The JSON is not a tokenizer, asks for something that is not sound, or gives an added token an
    /// id that the reference implementation would not use.
    pub fn from_bytes(json: &[u8], origin: &str) -> Result<Self, Error> {
        let fail = |message: String| Error::Tokenizer { origin: origin.to_owned(), message };
        let outline = Outline::read(json).map_err(fail)?;
        let inner = guarded(|| tokenizers::Tokenizer::from_bytes(json)).map_err(fail)?;
        outline.check_ids(|token| inner.token_to_id(token)).map_err(fail)?;
        Self::assemble(inner, outline, json, origin)
    }

    /// Finds the control tokens of `inner`, which was read from `file`.
    pub(crate) fn assemble(
        mut inner: tokenizers::Tokenizer,
        outline: Outline,
        file: &[u8],
        origin: &str,
    ) -> Result<Self, Error> {
        let fail = |message: String| Error::Tokenizer { origin: origin.to_owned(), message };
        inner.set_encode_special_tokens(true);
        // Sections that would cut or lengthen what `encode` returns.
        inner.with_truncation(None).map_err(|error| fail(error.to_string()))?;
        inner.with_padding(None);
        let kinds = kinds(&inner);
        if kinds.is_empty() {
            return Err(fail("it has no tokens".to_owned()));
        }
        let llama3 = Llama3::find(&inner, &kinds);
        let later = outline.blank_at_start.then(|| without_blank(&inner).map(Arc::new)).flatten();
        let Outline { front, back, growth, byte_level, trims_ranges, .. } = outline;
        let (bos, eos, frame) = if let Ok(Llama3 { bos, end_of_text, .. }) = llama3 {
            // Llama 3's tokenizer begins every text, also where its file does not say so.
            let (front, back) = (vec![bos], vec![end_of_text]);
            (Some(bos), Some(end_of_text), Frame { front, back, own_back: false })
        } else {
            let (bos, eos) = (front.first().copied(), back.last().copied());
            let own_back = !back.is_empty();
            (bos, eos, Frame { front, back, own_back })
        };
        let pad = inner.token_to_id(PAD).or(eos).or(bos).unwrap_or(0);
        let mut tokenizer = Self {
            marks: Marks::of(&inner, true),
            ordinary: Marks::of(&inner, false),
            inner: Arc::new(inner),
            later,
            byte_level,
            trims_ranges,
            origin: origin.to_owned(),
            sha256: sha256_hex(file),
            kinds,
            llama3,
            bos,
            eos,
            pad,
            frame,
            stops: Vec::new(),
            bounds: Bounds::of(growth),
        };
        let stops = match &tokenizer.llama3 {
            Ok(tokens) => [Some(tokens.end_of_text), tokens.eom, Some(tokens.eot)]
                .into_iter()
                .flatten()
                .collect(),
            Err(_) => eos.into_iter().collect::<Vec<_>>(),
        };
        tokenizer.note_stops(&stops);
        Ok(tokenizer)
    }

    /// Ids of `text`, with no token added in front or behind and no control token inside.
    ///
    /// # Errors
    /// The tokenizer fails, or its vocabulary turns plain text into a control token.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        if self.marks.are_all_special() {
            return self.encode_part(text, true);
        }
        // Tokens of a template that the tokenizer itself takes for text: no structure stands here
        // that they could forge.
        let mut ids = Vec::new();
        for (range, mark) in self.marks.pieces(text, |mark| !mark.special) {
            match mark {
                Some(mark) => ids.push(mark.id),
                None => ids.extend(self.encode_part(&text[range.clone()], range.start == 0)?),
            }
        }
        Ok(ids)
    }

    fn encode_part(&self, text: &str, at_start: bool) -> Result<Vec<u32>, Error> {
        if text.is_empty() {
            return Ok(Vec::new());
        }
        let ids = match self.byte_level_for(text) {
            Some(byte_level) => {
                let encode = || byte_level.encode(text);
                self.bounds.within(text, encode).map_err(|message| self.failed(message))?
            }
            None => self.read(text, at_start, Offsets::No)?.get_ids().to_vec(),
        };
        self.check_not_forged(text, &ids)?;
        Ok(ids)
    }

    /// What encodes a text that holds no added token.
    fn byte_level_for(&self, text: &str) -> Option<&ByteLevel> {
        self.byte_level.as_ref().filter(|_| !self.ordinary.occur_in(text))
    }

    /// Ids of a part of a text that holds no control token, each with the bytes that it stands for;
    /// `at_start` where nothing stands before it.
    pub(crate) fn encode_with_offsets(
        &self,
        text: &str,
        at_start: bool,
    ) -> Result<Vec<(u32, Range<usize>)>, Error> {
        if text.is_empty() {
            return Ok(Vec::new());
        }
        if let Some(byte_level) = self.byte_level_for(text).filter(|_| !self.trims_ranges) {
            let encode = || byte_level.encode_with_offsets(text);
            let found = self.bounds.within(text, encode).map_err(|message| self.failed(message))?;
            self.check_not_forged(text, found.iter().map(|(id, _)| id))?;
            return Ok(found);
        }
        let encoding = self.read(text, at_start, Offsets::Yes)?;
        self.check_not_forged(text, encoding.get_ids())?;
        let ranges = encoding.get_offsets().iter().map(|&(start, end)| start..end);
        Ok(encoding.get_ids().iter().copied().zip(ranges).collect())
    }

    fn read(
        &self,
        text: &str,
        at_start: bool,
        offsets: Offsets,
    ) -> Result<tokenizers::Encoding, Error> {
        let reader = self.later.as_ref().filter(|_| !at_start).unwrap_or(&self.inner);
        self.bounds.encode(reader, text, offsets).map_err(|message| self.failed(message))
    }

    fn check_not_forged<'a>(
        &self,
        text: &str,
        ids: impl IntoIterator<Item = &'a u32>,
    ) -> Result<(), Error> {
        // A vocabulary that holds control tokens as ordinary entries could still merge into one.
        if let Some(&id) = ids.into_iter().find(|&&id| self.is_special(id)) {
            return Err(Error::ForgedSpecial {
                origin: self.origin.clone(),
                text: text.chars().take(60).collect(),
                token: self.token(id).unwrap_or_default(),
                id,
            });
        }
        Ok(())
    }

    /// What must not arise from text.
    pub(crate) fn marks(&self) -> &Marks {
        &self.marks
    }

    /// Makes marks of the added tokens that are `written` and not special ones.
    fn protect(&mut self, written: impl Fn(&str) -> bool) {
        let tokens: Vec<(u32, tokenizers::AddedToken)> = self
            .inner
            .get_added_tokens_decoder()
            .into_iter()
            .filter(|(_, token)| !token.special && written(&token.content))
            .collect();
        for (id, token) in tokens {
            self.marks.add(Mark::of(id, &token));
            // Marked special to the reader, so that it leaves them alone in texts.
            let token = [token.special(true)];
            Arc::make_mut(&mut self.inner).add_special_tokens(&token);
            if let Some(later) = &mut self.later {
                Arc::make_mut(later).add_special_tokens(&token);
            }
        }
    }

    /// The token that closes turns is no text in any of them.
    fn note_closing(&mut self, closing: Option<u32>) {
        self.marks.close(closing);
    }

    fn note_stops(&mut self, ids: &[u32]) {
        for &id in ids {
            if !self.stops.contains(&id) {
                self.stops.push(id);
            }
        }
    }

    /// [`Self::encode`] of every text, on all threads, in order.
    ///
    /// # Errors
    /// As [`Self::encode`]; the first text that fails decides.
    pub fn encode_batch<S: AsRef<str> + Sync>(&self, texts: &[S]) -> Result<Vec<Vec<u32>>, Error> {
        texts.par_iter().map(|text| self.encode(text.as_ref())).collect()
    }

    /// The text of `ids`; bytes that are not UTF-8 become U+FFFD. Models have more rows than their
    /// tokenizers have tokens: an id without a token is no text, as in transformers.
    ///
    /// # Errors
    /// The decoder fails.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, Error> {
        let shown = |id: &u32| match self.kind(*id) {
            Kind::Unknown => false,
            Kind::Ordinary => true,
            Kind::Special => !skip_special,
        };
        let ids: Vec<u32> = ids.iter().copied().filter(shown).collect();
        guarded(|| self.inner.decode(&ids, false)).map_err(|message| self.failed(message))
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

    /// Bytes of the tables that encode in place of the reference crate; `None` where that encodes.
    pub fn table_bytes(&self) -> Option<usize> {
        self.byte_level.as_ref().map(ByteLevel::size)
    }

    /// How the vocabulary spells `id` (byte-level alphabet for ordinary ids).
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Highest id + 1: the rows an embedding needs.
    pub fn vocab_size(&self) -> usize {
        self.kinds.len()
    }

    /// Id of a token by its spelling, whatever its kind.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The token that begins texts, if there is one.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// Ids in front of a text that stands by itself.
    pub fn opening(&self) -> &[u32] {
        &self.frame.front
    }

    /// Ids behind a text that stands by itself.
    pub fn closing(&self) -> &[u32] {
        &self.frame.back
    }

    /// What stands behind short rows. Masks come from positions and never from ids, so any token does.
    pub fn pad(&self) -> u32 {
        self.pad
    }

    /// The ids at which generation ends.
    pub fn stop_ids(&self) -> Vec<u32> {
        self.stops.clone()
    }

    /// SHA-256 of the file it was read from, in hexadecimal.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// All that decides which ids a row becomes.
    pub(crate) fn identity(&self) -> String {
        let Self { sha256, bos, eos, pad, frame, stops, marks, .. } = self;
        format!("{sha256} {bos:?} {eos:?} {pad} {frame:?} {stops:?} {marks:?}")
    }

    /// As the text of a tokenizer.json, of whatever file it was read from.
    ///
    /// # Errors
    /// It has no such form.
    pub fn to_json(&self) -> Result<String, Error> {
        self.inner.to_string(false).map_err(|error| Error::Tokenizer {
            origin: self.origin.clone(),
            message: error.to_string(),
        })
    }

    /// The name given to [`Self::from_bytes`] or [`Self::from_tiktoken`].
    pub fn origin(&self) -> &str {
        &self.origin
    }

    fn kind(&self, id: u32) -> Kind {
        self.kinds.get(id as usize).copied().unwrap_or(Kind::Unknown)
    }

    /// Names the row, where there is one.
    fn failed(&self, message: String) -> Error {
        RowProblem::Tokenizer { origin: self.origin.clone(), message }.into()
    }
}

/// As it reads text that follows other text: no blank is put in front.
fn without_blank(tokenizer: &tokenizers::Tokenizer) -> Option<tokenizers::Tokenizer> {
    use tokenizers::pre_tokenizers::PreTokenizerWrapper as Part;
    use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
    use tokenizers::pre_tokenizers::sequence::Sequence;
    fn later(part: Part) -> Part {
        match part {
            Part::Metaspace(part) if part.prepend_scheme == PrependScheme::First => {
                Part::Metaspace(Metaspace::new(
                    part.get_replacement(),
                    PrependScheme::Never,
                    part.split,
                ))
            }
            Part::Sequence(parts) => {
                Part::Sequence(Sequence::new(parts.as_ref().iter().cloned().map(later).collect()))
            }
            other => other,
        }
    }
    let mut copy = tokenizer.clone();
    copy.with_pre_tokenizer(Some(later(tokenizer.get_pre_tokenizer()?.clone())));
    Some(copy)
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

#[cfg(test)]
mod tests;

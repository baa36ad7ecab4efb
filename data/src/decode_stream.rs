//! Text of generated ids as they come, never cutting a UTF-8 character in two.
//!
//! A byte-level token may hold part of a character. Ids are decoded together with the last ones
//! already shown, and nothing is shown while the decoded text ends in U+FFFD.

use crate::error::Error;
use crate::tokenizer::Tokenizer;

/// Decodes one id after the other; see [`Tokenizer::decode_stream`].
#[derive(Debug)]
pub struct DecodeStream<'a> {
    tokenizer: &'a Tokenizer,
    skip_special: bool,
    /// Ids shown last (context for decoders that look back), then ids not shown yet.
    ids: Vec<u32>,
    /// How many of `ids` were shown.
    shown: usize,
}

impl<'a> DecodeStream<'a> {
    pub(crate) fn new(tokenizer: &'a Tokenizer, skip_special: bool) -> Self {
        Self { tokenizer, skip_special, ids: Vec::new(), shown: 0 }
    }

    /// Adds an id; gives the text that became complete, `None` while a character is unfinished.
    ///
    /// # Errors
    /// The id is not in the vocabulary.
    pub fn push(&mut self, id: u32) -> Result<Option<String>, Error> {
        self.ids.push(id);
        let text = self.pending()?;
        if text.is_empty() || text.ends_with(char::REPLACEMENT_CHARACTER) {
            return Ok(None);
        }
        self.ids.drain(..self.shown);
        self.shown = self.ids.len();
        Ok(Some(text))
    }

    /// Whatever is left, with U+FFFD for a character that never became complete.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub fn finish(&mut self) -> Result<String, Error> {
        let text = self.pending()?;
        self.ids.clear();
        self.shown = 0;
        Ok(text)
    }

    fn pending(&self) -> Result<String, Error> {
        let before = self.tokenizer.decode(&self.ids[..self.shown], self.skip_special)?;
        let all = self.tokenizer.decode(&self.ids, self.skip_special)?;
        Ok(all.get(before.len()..).unwrap_or_default().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use crate::test_tokenizer::tokenizer;

    #[test]
    fn pieces_join_to_the_whole_and_no_piece_holds_half_a_character() {
        let tokenizer = tokenizer();
        let text = "Größe: 12 € — 😀👍🏽 日本語\n\nend";
        let mut stream = tokenizer.decode_stream(false);
        let mut pieces = Vec::new();
        for id in tokenizer.encode(text).unwrap() {
            pieces.extend(stream.push(id).unwrap());
        }
        pieces.push(stream.finish().unwrap());
        assert!(pieces.iter().all(|piece| !piece.contains('\u{fffd}')), "{pieces:?}");
        assert_eq!(pieces.concat(), text);
    }

    #[test]
    fn an_unfinished_character_is_kept_for_the_end() {
        let tokenizer = tokenizer();
        let ids = tokenizer.encode("😀").unwrap();
        assert!(ids.len() > 1, "the small vocabulary has no whole emoji");
        let mut stream = tokenizer.decode_stream(true);
        assert_eq!(stream.push(ids[0]).unwrap(), None);
        assert_eq!(stream.finish().unwrap(), "\u{fffd}");
    }

    #[test]
    fn control_tokens_are_hidden_on_request() {
        let tokenizer = tokenizer();
        let ids =
            [tokenizer.bos().unwrap(), tokenizer.encode("a").unwrap()[0], tokenizer.eot().unwrap()];
        let shown = |skip| {
            let mut stream = tokenizer.decode_stream(skip);
            let mut text: String = ids.iter().filter_map(|&id| stream.push(id).unwrap()).collect();
            text.push_str(&stream.finish().unwrap());
            text
        };
        assert_eq!(shown(true), "a");
        assert_eq!(shown(false), "<|begin_of_text|>a<|eot_id|>");
    }
}

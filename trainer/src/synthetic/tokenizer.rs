//! The built-in tokenizer with as many ids as a shape has: text is encoded as by the built-in one, ids
//! that it lacks have names of their own, and the control tokens come last, as in the releases.

use serde_json::{Map, Value};

/// Control tokens at the end of the ids: as many as Llama 3.x has.
const CONTROL: u32 = 256;

/// A tokenizer's files before and after: its control tokens move up by `shift`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Growth {
    first: u32,
    shift: u32,
}

impl Growth {
    /// From control tokens at `first` to those of `vocab_size` ids, which are not fewer.
    pub(super) fn new(first: u32, vocab_size: usize) -> Self {
        let vocab_size = u32::try_from(vocab_size).expect("ids are 32 bits");
        let shift = vocab_size.checked_sub(first + CONTROL);
        Self { first, shift: shift.expect("every shape has more ids than the built-in tokenizer") }
    }

    /// The new id of a token.
    pub(super) fn moved(self, id: u32) -> u32 {
        if id < self.first { id } else { id + self.shift }
    }

    /// `tokenizer.json`, `tokenizer_config.json` or `generation_config.json` with the new ids.
    ///
    /// # Errors
    /// The file is not JSON.
    pub(super) fn file(self, bytes: &[u8]) -> Result<Vec<u8>, serde_json::Error> {
        let mut file: Value = serde_json::from_slice(bytes)?;
        if self.shift > 0 {
            if let Some(Value::Object(known)) = file.pointer_mut("/model/vocab") {
                self.name_unused(known);
            }
            if let Some(Value::Object(decoder)) = file.get_mut("added_tokens_decoder") {
                *decoder = self.keys(std::mem::take(decoder));
            }
            let holders = ["bos_token_id", "eos_token_id", "pad_token_id"];
            for key in holders.into_iter().chain(["added_tokens", "post_processor"]) {
                if let Some(ids) = file.get_mut(key) {
                    self.ids(ids);
                }
            }
        }
        let mut text = serde_json::to_vec(&file)?;
        text.push(b'\n');
        Ok(text)
    }

    /// Names for the ids between the built-in tokens and the control tokens. No text is one of them:
    /// the tokenizer cuts between letters and digits.
    fn name_unused(self, known: &mut Map<String, Value>) {
        let unused = self.first..self.first + self.shift;
        known.extend(unused.map(|id| (format!("unused{id}"), Value::from(id))));
    }

    /// Moves every `id`, `ids` and bare number.
    fn ids(self, value: &mut Value) {
        match value {
            Value::Number(_) => {
                if let Some(id) = value.as_u64().and_then(|id| u32::try_from(id).ok()) {
                    *value = Value::from(self.moved(id));
                }
            }
            Value::Array(list) => list.iter_mut().for_each(|value| self.ids(value)),
            Value::Object(object) => {
                // `type_id` is a number, and no token.
                let inner = object.iter_mut().filter(|(key, _)| *key != "type_id");
                inner.for_each(|(_, value)| self.ids(value));
            }
            _ => {}
        }
    }

    fn keys(self, decoder: Map<String, Value>) -> Map<String, Value> {
        let moved = |key: String| key.parse().map_or(key, |id| self.moved(id).to_string());
        decoder.into_iter().map(|(key, value)| (moved(key), value)).collect()
    }
}

#[cfg(test)]
mod tests {
    use graft_data::Tokenizer;
    use graft_model::folder::ModelFolder;

    use super::*;

    #[test]
    fn text_keeps_its_ids_and_control_tokens_are_those_of_the_releases() {
        let builtin = ModelFolder::open("builtin:quickstart").unwrap();
        let bytes = builtin.required("tokenizer.json").unwrap();
        let small = Tokenizer::from_bytes(&bytes, "small").unwrap();
        let grown = Growth::new(small.bos().unwrap(), 128_256).file(&bytes).unwrap();
        let grown = Tokenizer::from_bytes(&grown, "grown").unwrap();
        assert_eq!((grown.vocab_size(), grown.bos()), (128_256, Some(128_000)));
        assert_eq!(grown.stop_ids(), [128_001, 128_008, 128_009]);
        let text = "When is the archive open? unused2000, unused 5,000 <|eot_id|>";
        assert_eq!(grown.encode(text).unwrap(), small.encode(text).unwrap());
        assert_eq!(grown.decode(&[5_000], false).unwrap(), "unused5000");
    }
}

//! Which tokens begin and end texts, and at which an answer ends: what the files beside the tokenizer
//! say of it, as transformers reads them.
//!
//! In this order: tokenizer_config.json and special_tokens_map.json by name, then config.json and
//! generation_config.json by id. What stands around a text is what the tokenizer's post-processor puts
//! there, unless `add_bos_token` or `add_eos_token` says otherwise.

use serde_json::Value as Json;

use super::{Frame, Tokenizer};
use crate::error::Error;
use crate::jinja::{ModelTemplate, NamedFile};

/// What a model folder says about the tokens of its tokenizer.
#[derive(Debug, Clone, Copy, Default)]
pub struct TokenizerFiles<'a> {
    /// `tokenizer_config.json`.
    pub tokenizer_config: Option<NamedFile<'a>>,
    /// `special_tokens_map.json`.
    pub special_tokens_map: Option<NamedFile<'a>>,
    /// `generation_config.json`.
    pub generation_config: Option<NamedFile<'a>>,
    /// `bos_token_id` of config.json.
    pub bos_token_id: Option<u32>,
    /// `eos_token_id` of config.json: each ends an answer.
    pub eos_token_ids: &'a [u32],
}

impl Tokenizer {
    /// With what the files beside it say about its tokens.
    ///
    /// # Errors
    /// A file is not JSON, or names a first or last token that the tokenizer lacks.
    pub fn with_files(mut self, files: TokenizerFiles<'_>) -> Result<Self, Error> {
        let TokenizerFiles {
            tokenizer_config,
            special_tokens_map,
            generation_config,
            bos_token_id,
            eos_token_ids,
        } = files;
        let config = Read::of(tokenizer_config)?;
        let map = Read::of(special_tokens_map)?;
        let generation = Read::of(generation_config)?;
        let generated = generation.ids("eos_token_id")?;
        // A file that says null says that there is none.
        let named = |key: &str| match config.json.get(key) {
            Some(Json::Null) => Ok(Named::None),
            Some(_) => config.token(key, &self),
            None => map.token(key, &self),
        };
        let known = |id: &u32| self.token(*id).is_some();
        let bos = match named("bos_token")? {
            Named::Token(id) => Some(id),
            Named::None => None,
            Named::Unsaid => bos_token_id.filter(known).or(self.bos),
        };
        let first = generated.iter().chain(eos_token_ids).copied().find(known);
        let eos = match named("eos_token")? {
            Named::Token(id) => Some(id),
            Named::None => None,
            Named::Unsaid => first.or(self.eos),
        };
        let pad = match named("pad_token") {
            Ok(Named::Token(id)) => Some(id),
            // Rows are never padded with what is looked at, so another one does.
            _ => None,
        };
        let stops = eos.iter().chain(&generated).chain(eos_token_ids);
        let stops: Vec<u32> = stops.copied().collect();
        if self.llama3.is_err() {
            (self.bos, self.eos) = (bos, eos);
            self.pad = pad.or(eos).or(bos).unwrap_or(self.pad);
            self.frame = self.frame.with_end(eos);
        }
        let (begins, ends) = (config.flag("add_bos_token")?, config.flag("add_eos_token")?);
        self.frame = self.frame.told(begins, ends, self.bos, self.eos);
        self.note_stops(&stops);
        Ok(self)
    }

    /// With what the model's own template makes of its tokens: the one that closes a turn ends an
    /// answer, and none of those that the template writes arises from a text of the data.
    #[must_use]
    pub fn with_template(mut self, template: &ModelTemplate) -> Self {
        self.protect(|token| template.writes(token));
        let closing = template.closing(&self);
        self.note_closing(closing);
        self.note_stops(&closing.into_iter().collect::<Vec<_>>());
        self
    }
}

/// A file, parsed.
struct Read<'a> {
    json: Json,
    origin: &'a str,
}

/// What a file says of a token.
enum Named {
    Token(u32),
    None,
    Unsaid,
}

impl<'a> Read<'a> {
    fn of(file: Option<NamedFile<'a>>) -> Result<Self, Error> {
        let Some(NamedFile { bytes, origin }) = file else {
            return Ok(Self { json: Json::Null, origin: "" });
        };
        let json: Json = serde_json::from_slice(bytes).map_err(|error| Error::Settings {
            origin: origin.to_owned(),
            message: format!("malformed JSON: {error}"),
        })?;
        let read = Self { json, origin };
        if read.json.is_object() {
            return Ok(read);
        }
        Err(read.wrong("the file", &read.json, "an object `{…}`"))
    }

    fn wrong(&self, what: &str, found: &Json, expected: &str) -> Error {
        let found: String = found.to_string().chars().take(60).collect();
        let message = format!("{what} is {found}, but must be {expected}");
        Error::Settings { origin: self.origin.to_owned(), message }
    }

    /// `true` or `false`; `None` where the file says neither.
    fn flag(&self, key: &str) -> Result<Option<bool>, Error> {
        match self.json.get(key) {
            None | Some(Json::Null) => Ok(None),
            Some(Json::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(self.wrong(&format!("`{key}`"), other, "true or false")),
        }
    }

    /// A number or a list of them; none where the file says none.
    fn ids(&self, key: &str) -> Result<Vec<u32>, Error> {
        let id = |value: &Json| {
            let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
            let expected =
                "the id of a token, a whole number from 0 to 4294967295, or a list of such";
            id.ok_or_else(|| self.wrong(&format!("`{key}`"), value, expected))
        };
        match self.json.get(key) {
            None | Some(Json::Null) => Ok(Vec::new()),
            Some(Json::Array(list)) => list.iter().map(id).collect(),
            Some(other) => Ok(vec![id(other)?]),
        }
    }

    /// Written as a text, or as an object whose `content` is the text.
    fn token(&self, key: &str, tokenizer: &Tokenizer) -> Result<Named, Error> {
        let Some(value) = self.json.get(key) else { return Ok(Named::Unsaid) };
        let Some(text) = value.as_str().or_else(|| value.get("content")?.as_str()) else {
            return Ok(Named::None);
        };
        match tokenizer.id(text) {
            Some(id) => Ok(Named::Token(id)),
            None => Err(Error::Tokenizer {
                origin: self.origin.to_owned(),
                message: format!(
                    "`{key}` is `{}`, which `{}` does not have: they are not of one model",
                    text.chars().take(60).collect::<String>(),
                    tokenizer.origin()
                ),
            }),
        }
    }
}

impl Frame {
    /// Ends with the token that ends texts, unless the tokenizer puts something there itself.
    fn with_end(mut self, eos: Option<u32>) -> Self {
        if !self.own_back {
            self.back = eos.into_iter().collect();
        }
        self
    }

    /// As `add_bos_token` and `add_eos_token` say.
    fn told(
        mut self,
        begins: Option<bool>,
        ends: Option<bool>,
        bos: Option<u32>,
        eos: Option<u32>,
    ) -> Self {
        match (begins, bos) {
            (Some(false), Some(bos)) if self.front.first() == Some(&bos) => {
                self.front.remove(0);
            }
            (Some(true), Some(bos)) if self.front.first() != Some(&bos) => {
                self.front.insert(0, bos);
            }
            _ => {}
        }
        if let (Some(true), Some(eos)) = (ends, eos)
            && self.back.last() != Some(&eos)
        {
            self.back.push(eos);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_tokenizer::json;

    #[test]
    fn what_the_files_beside_say_is_meant_or_refused_with_the_file_and_both_values() {
        let read = |name: &str, text: &str| {
            let file = Some(NamedFile { bytes: text.as_bytes(), origin: name });
            let files = match name {
                "generation_config.json" => {
                    TokenizerFiles { generation_config: file, ..TokenizerFiles::default() }
                }
                _ => TokenizerFiles { tokenizer_config: file, ..TokenizerFiles::default() },
            };
            let tokenizer = Tokenizer::from_bytes(json().as_bytes(), "tokenizer.json").unwrap();
            tokenizer.with_files(files)
        };
        let generation = "generation_config.json";
        for fine in [r#"{"eos_token_id": null}"#, "{}", r#"{"eos_token_id": [1, 2]}"#] {
            read(generation, fine).unwrap();
        }
        let shown = [
            (generation, r#"{"eos_token_id": "x"}"#),
            (generation, r#"{"eos_token_id": [1, 1000000000000]}"#),
            (generation, "[1]"),
            (generation, "{"),
            ("tokenizer_config.json", r#"{"add_bos_token": "yes"}"#),
            ("tokenizer_config.json", "{\n\"a\": ,"),
        ]
        .map(|(name, text)| read(name, text).unwrap_err().to_string());
        insta::assert_snapshot!(shown.join("\n"), @r#"
        generation_config.json: `eos_token_id` is "x", but must be the id of a token, a whole number from 0 to 4294967295, or a list of such
        generation_config.json: `eos_token_id` is 1000000000000, but must be the id of a token, a whole number from 0 to 4294967295, or a list of such
        generation_config.json: the file is [1], but must be an object `{…}`
        generation_config.json: malformed JSON: EOF while parsing an object at line 1 column 1
        tokenizer_config.json: `add_bos_token` is "yes", but must be true or false
        tokenizer_config.json: malformed JSON: expected value at line 2 column 6
        "#);
    }
}

//! What a `tokenizer.json` asks its reader to do, looked at before the reader does it.
//!
//! Such a file is a little program: normalizers, expressions that split, decoders. The reader (crate
//! `tokenizers`) panics on some of them, never returns from others, and draws lots for one. Only kinds
//! and parameters that are known to be sound are let through; everything else is refused by name.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::byte_level::{ByteLevel, Spelled};
use super::expression;
use super::kind::{MergeList, Text, splits_as_llama3};

/// Larger than any release's: Llama 3's has 9 MB, the largest known 35 MB.
const LARGEST_FILE: usize = 256 << 20;
/// More ids than any release has: a list as long as the highest one is kept.
const HIGHEST_ID: u64 = 1 << 22;
/// A list in a list and no deeper.
const DEEPEST_SEQUENCE: usize = 4;
/// Of a text by replacements, one after the other; releases stay below 4, or below 12 with NFKC.
const MOST_GROWTH: f64 = 64.0;
/// Bytes of a text that stands in place of another one.
const LONGEST_TEXT: usize = 64;

/// What else is read from the file here.
#[derive(Debug, Default)]
pub(crate) struct Outline {
    /// Ids that the file puts in front of a text.
    pub front: Vec<u32>,
    /// Ids that it puts behind.
    pub back: Vec<u32>,
    /// A marked blank stands in front of the first word of a text, and of no other.
    pub blank_at_start: bool,
    /// How much longer a text becomes before it is split.
    pub growth: Growth,
    /// Where the file is of Llama 3's kind: what encodes its texts.
    pub byte_level: Option<ByteLevel>,
    /// A token's range leaves out the blanks at its ends.
    pub trims_ranges: bool,
    /// The added tokens, with the ids that the file says they have.
    added: Vec<(u64, String)>,
}

/// How many times as long a text can become by what is replaced in it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Growth {
    pub bytes: f64,
    /// Words and signs, of which there are at most as many as characters.
    pub pieces: f64,
    /// What is cut into single characters.
    pub single: Single,
}

/// Characters of which each may be a piece of its own, and not a run of them.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Single {
    pub digits: bool,
    pub signs: bool,
    /// These, and all others.
    pub all: bool,
}

impl Single {
    /// What a part of a pre-tokenizer cuts so; an expression that repeats nothing may cut anywhere.
    fn note(&mut self, kind: &str, part: &Map<String, Value>) {
        match kind {
            "Digits" => self.digits |= part.get("individual_digits") == Some(&Value::Bool(true)),
            "Punctuation" => self.signs = true,
            "Split" => {
                let regex = part.get("pattern").and_then(|pattern| pattern.get("Regex"));
                let regex = regex.and_then(Value::as_str);
                self.all |= !regex.is_some_and(|regex| regex.contains(['+', '*']));
            }
            _ => {}
        }
    }
}

impl Default for Growth {
    fn default() -> Self {
        Self { bytes: 1.0, pieces: 1.0, single: Single::default() }
    }
}

impl Growth {
    /// # Errors
    /// One replacement after the other makes texts far longer than any release does.
    fn note(&mut self, section: &str, kind: &str, part: &Map<String, Value>) -> Result<(), String> {
        match kind {
            // U+FDFA, of 3 bytes, becomes 18 letters.
            "NFKC" | "NFKD" => self.bytes *= 11.0,
            "Replace" => {
                let content = part["content"].as_str().unwrap_or_default();
                let pattern = part["pattern"]["String"].as_str();
                let (bytes, characters) = (content.len() as f64, content.chars().count() as f64);
                let (bytes, pieces) = match pattern {
                    Some(text) => {
                        (bytes / text.len() as f64, characters / text.chars().count() as f64)
                    }
                    // An expression may find nothing, everywhere.
                    None => (1.0 + bytes, 1.0 + characters),
                };
                self.bytes *= bytes.max(1.0);
                self.pieces *= pieces.max(1.0);
            }
            _ => {}
        }
        if self.bytes <= MOST_GROWTH {
            return Ok(());
        }
        Err(format!("`{section}` makes texts more than {MOST_GROWTH} times as long"))
    }
}

#[derive(Deserialize)]
struct File<'a> {
    #[serde(borrow, default)]
    added_tokens: Vec<Added<'a>>,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    post_processor: Value,
    #[serde(default)]
    decoder: Value,
    #[serde(borrow)]
    model: Model<'a>,
}

#[derive(Deserialize)]
struct Added<'a> {
    id: u64,
    #[serde(borrow)]
    content: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Model<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Option<Cow<'a, str>>,
    #[serde(default)]
    dropout: Value,
    #[serde(default)]
    continuing_subword_prefix: Value,
    #[serde(default)]
    end_of_word_suffix: Value,
    #[serde(default)]
    ignore_merges: Value,
    #[serde(borrow, default)]
    vocab: Ids<'a>,
    #[serde(borrow, default)]
    merges: MergeList<'a>,
}

/// What is looked at of a vocabulary's ids; other forms of vocabularies have none.
#[derive(Default)]
struct Ids<'a> {
    highest: u64,
    /// The first id that a second token has, too.
    twice: Option<(u64, String)>,
    tokens: Vec<(Cow<'a, str>, u32)>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Ids<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        ids(deserializer)
    }
}

fn ids<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Ids<'de>, D::Error> {
    struct Map;
    impl<'de> Visitor<'de> for Map {
        type Value = Ids<'de>;
        fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            out.write_str("a map of tokens to ids")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ids<'de>, A::Error> {
            let (mut ids, mut seen) = (Ids::default(), Vec::new());
            while let Some((Text(token), id)) = map.next_entry::<Text<'de>, u64>()? {
                ids.highest = ids.highest.max(id);
                // Higher ones are refused.
                let Ok(at) = usize::try_from(id.min(HIGHEST_ID)) else { continue };
                if seen.len() <= at {
                    seen.resize(at + 1, false);
                }
                if std::mem::replace(&mut seen[at], true) && ids.twice.is_none() {
                    ids.twice = Some((id, token.clone().into_owned()));
                }
                ids.tokens.push((token, at as u32));
            }
            Ok(ids)
        }
        fn visit_seq<A: serde::de::SeqAccess<'de>>(
            self,
            mut list: A,
        ) -> Result<Ids<'de>, A::Error> {
            while list.next_element::<IgnoredAny>()?.is_some() {}
            Ok(Ids::default())
        }
    }
    deserializer.deserialize_any(Map)
}

impl Outline {
    /// # Errors
    /// The file is not JSON, or asks for something that is not let through.
    pub(super) fn read(json: &[u8]) -> Result<Self, String> {
        if json.len() > LARGEST_FILE {
            let (found, most) = (json.len(), LARGEST_FILE);
            return Err(format!("the file has {found} bytes, and at most {most} are read"));
        }
        let file: File<'_> = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        let File { added_tokens, normalizer, pre_tokenizer, post_processor, decoder, model } = file;
        model.check()?;
        let highest = added_tokens.iter().map(|token| token.id).max().unwrap_or(0);
        let highest = highest.max(model.vocab.highest);
        if highest > HIGHEST_ID {
            return Err(format!("it has the id {highest}, and ids up to {HIGHEST_ID} are read"));
        }
        if let Some((id, token)) = &model.vocab.twice {
            let token: String = token.chars().take(60).collect();
            return Err(format!(
                "`model.vocab` gives the id {id} to two tokens, the second one `{token}`: each has one of \
                 its own"
            ));
        }
        if let Some(Added { id, .. }) = added_tokens.iter().find(|token| token.content.is_empty()) {
            return Err(format!("`added_tokens` has an empty token, id {id}"));
        }
        let added =
            added_tokens.into_iter().map(|Added { id, content }| (id, content.into_owned()));
        let mut outline = Self { added: added.collect(), ..Self::default() };
        each("normalizer", &normalizer, "normalizers", 0, &mut |kind, part| {
            check_normalizer(kind, part)?;
            outline.growth.note("normalizer", kind, part)
        })?;
        each("pre_tokenizer", &pre_tokenizer, "pretokenizers", 0, &mut |kind, part| {
            outline.blank_at_start |= part.get("prepend_scheme").is_some_and(|at| at == "first");
            outline.growth.single.note(kind, part);
            check_pre_tokenizer(kind, part)
        })?;
        each("post_processor", &post_processor, "processors", 0, &mut |kind, part| {
            outline.trims_ranges |= part.get("trim_offsets") == Some(&Value::Bool(true));
            outline.note_frame(kind, part)
        })?;
        let mut growth = Growth::default();
        each("decoder", &decoder, "decoders", 0, &mut |kind, part| {
            check_decoder(kind, part)?;
            growth.note("decoder", kind, part)
        })?;
        if normalizer.is_null() && splits_as_llama3(&pre_tokenizer) {
            outline.byte_level = model.byte_level();
        }
        Ok(outline)
    }

    /// The reader assigns the ids of added tokens itself, and only logs where the file says otherwise.
    pub(super) fn check_ids(&self, given: impl Fn(&str) -> Option<u32>) -> Result<(), String> {
        for (id, content) in &self.added {
            let given = given(content);
            if given.map(u64::from) != Some(*id) {
                let given = given.map_or("none".to_owned(), |id| id.to_string());
                return Err(format!(
                    "added token `{content}` is declared with id {id}, but its place gives {given}"
                ));
            }
        }
        Ok(())
    }

    /// What a post-processor puts around a single text.
    fn note_frame(&mut self, kind: &str, part: &Map<String, Value>) -> Result<(), String> {
        match kind {
            "ByteLevel" => return Ok(()),
            "TemplateProcessing" => {}
            _ => return Err(unknown("post_processor", kind, "ByteLevel, TemplateProcessing")),
        }
        let single = part.get("single").and_then(Value::as_array);
        let single = single.ok_or("`post_processor.single` must be a list")?;
        let (mut front, mut back) = (Vec::new(), Vec::new());
        let mut behind = false;
        for piece in single {
            if piece.get("Sequence").is_some() {
                behind = true;
                continue;
            }
            let name = piece["SpecialToken"]["id"].as_str().unwrap_or_default();
            let ids = part.get("special_tokens").and_then(|known| known.get(name));
            let ids = ids.and_then(|token| token["ids"].as_array());
            let ids: Option<Vec<u32>> = ids.and_then(|ids| {
                ids.iter().map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok())).collect()
            });
            let ids = ids.ok_or_else(|| format!("`post_processor` names no ids for `{name}`"))?;
            if behind { &mut back } else { &mut front }.extend(ids);
        }
        (self.front, self.back) = (front, back);
        Ok(())
    }
}

impl Model<'_> {
    fn check(&self) -> Result<(), String> {
        let Self { kind, dropout, continuing_subword_prefix, end_of_word_suffix, .. } = self;
        // Files of early releases name no kind.
        let kind = kind.as_deref().unwrap_or("BPE");
        if kind != "BPE" {
            return Err(unknown("model", kind, "BPE, which the models of Llama's kind have"));
        }
        if dropout.as_f64().is_some_and(|rate| rate != 0.0) {
            return Err(format!(
                "`model.dropout` is {dropout}: merges would be left out by lot, and no run could be \
                 repeated; set it to null"
            ));
        }
        for (name, value) in [
            ("continuing_subword_prefix", continuing_subword_prefix),
            ("end_of_word_suffix", end_of_word_suffix),
        ] {
            if value.as_str().is_some_and(|text| !text.is_empty()) {
                return Err(format!("`model.{name}` is {value}, and only null is known here"));
            }
        }
        Ok(())
    }

    /// Its encoder, once it is known that its texts are split as Llama 3's.
    fn byte_level(self) -> Option<ByteLevel> {
        let ignores_merges = self.ignore_merges.as_bool().unwrap_or(false);
        let (tokens, merges) = (self.vocab.tokens, self.merges.0);
        ByteLevel::of_spelled(&Spelled { tokens, merges, ignores_merges })
    }
}

/// Looks at a part, by its type.
type Check<'a> = dyn FnMut(&str, &Map<String, Value>) -> Result<(), String> + 'a;

/// Every part of a section: itself, or the members of its list.
fn each(
    section: &str,
    part: &Value,
    members: &str,
    depth: usize,
    check: &mut Check<'_>,
) -> Result<(), String> {
    let part = match part {
        Value::Null => return Ok(()),
        Value::Object(part) => part,
        _ => return Err(format!("`{section}` is neither an object nor null")),
    };
    let kind = part.get("type").and_then(Value::as_str);
    let kind = kind.ok_or_else(|| format!("`{section}` has no `type`"))?;
    if kind != "Sequence" {
        return check(kind, part);
    }
    if depth == DEEPEST_SEQUENCE {
        return Err(format!("`{section}` has lists in lists, more than {DEEPEST_SEQUENCE} deep"));
    }
    let list = part.get(members).and_then(Value::as_array);
    let list = list.ok_or_else(|| format!("`{section}` of type Sequence has no `{members}`"))?;
    list.iter().try_for_each(|part| each(section, part, members, depth + 1, check))
}

fn check_normalizer(kind: &str, part: &Map<String, Value>) -> Result<(), String> {
    match kind {
        "NFC" | "NFD" | "NFKC" | "NFKD" => Ok(()),
        "Prepend" => short("normalizer.prepend", part.get("prepend")),
        "Replace" => check_replacement("normalizer", part),
        _ => Err(unknown("normalizer", kind, "NFC, NFD, NFKC, NFKD, Prepend, Replace, Sequence")),
    }
}

fn check_pre_tokenizer(kind: &str, part: &Map<String, Value>) -> Result<(), String> {
    match kind {
        "ByteLevel" | "Digits" | "Metaspace" | "Punctuation" | "WhitespaceSplit" => Ok(()),
        "Split" => check_pattern("pre_tokenizer", part),
        _ => Err(unknown(
            "pre_tokenizer",
            kind,
            "ByteLevel, Digits, Metaspace, Punctuation, Sequence, Split, WhitespaceSplit",
        )),
    }
}

fn check_decoder(kind: &str, part: &Map<String, Value>) -> Result<(), String> {
    match kind {
        "ByteLevel" | "ByteFallback" | "Fuse" | "Metaspace" => Ok(()),
        "Replace" => check_replacement("decoder", part),
        "Strip" => {
            // From the end of a text that is too short the reader would take characters it has not.
            let number = |name: &str| part.get(name).and_then(Value::as_u64);
            match (number("start"), number("stop")) {
                (Some(0..=8), Some(0)) => Ok(()),
                _ => {
                    Err("`decoder` of type Strip may take up to 8 characters from the start, and \
                          none from the end"
                        .to_owned())
                }
            }
        }
        _ => Err(unknown(
            "decoder",
            kind,
            "ByteFallback, ByteLevel, Fuse, Metaspace, Replace, Sequence, Strip",
        )),
    }
}

fn check_replacement(section: &str, part: &Map<String, Value>) -> Result<(), String> {
    check_pattern(section, part)?;
    short(&format!("{section}.content"), part.get("content"))
}

fn check_pattern(section: &str, part: &Map<String, Value>) -> Result<(), String> {
    let pattern = part.get("pattern").and_then(Value::as_object);
    let entry = pattern.and_then(|pattern| pattern.iter().next().filter(|_| pattern.len() == 1));
    match entry {
        Some((kind, Value::String(text))) if kind == "String" => match text.len() {
            1..=LONGEST_TEXT => Ok(()),
            found => {
                Err(format!("`{section}.pattern` has {found} bytes, expected 1 to {LONGEST_TEXT}"))
            }
        },
        Some((kind, Value::String(text))) if kind == "Regex" => expression::check(text)
            .map_err(|problem| format!("the expression of `{section}` {problem}")),
        _ => Err(format!("`{section}.pattern` is neither a String nor a Regex")),
    }
}

fn short(name: &str, value: Option<&Value>) -> Result<(), String> {
    match value.and_then(Value::as_str) {
        Some(text) if text.len() <= LONGEST_TEXT => Ok(()),
        _ => Err(format!("`{name}` is no text of at most {LONGEST_TEXT} bytes")),
    }
}

fn unknown(section: &str, kind: &str, known: &str) -> String {
    let kind: String = kind.chars().take(40).collect();
    format!("`{section}` is of the type `{kind}`, which is not read here; known: {known}")
}

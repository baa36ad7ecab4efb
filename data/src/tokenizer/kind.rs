//! Which tokenizer.json is of Llama 3's kind, and its merges.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde_json::{Value, json};

use crate::llama3_tokenizer::SPLIT;

/// Whether a pre-tokenizer is Llama 3's: its expression, then bytes.
pub(super) fn splits_as_llama3(pre_tokenizer: &Value) -> bool {
    let Some([split, bytes]) = pre_tokenizer["pretokenizers"].as_array().map(Vec::as_slice) else {
        return false;
    };
    let expected = json!({"type": "Split", "pattern": {"Regex": SPLIT}, "behavior": "Isolated", "invert": false});
    let of_bytes = bytes["type"] == "ByteLevel"
        && bytes["add_prefix_space"] == false
        && bytes["use_regex"] == false;
    pre_tokenizer["type"] == "Sequence" && *split == expected && of_bytes
}

/// Borrowed from the file where it is written without escapes.
pub(super) struct Text<'a>(pub(super) Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Whole;
        impl<'de> Visitor<'de> for Whole {
            type Value = Text<'de>;
            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Whole)
    }
}

/// Pairs of tokens that become one, in their order; each is a list of two, or, in earlier files, a line
/// with a blank between them.
#[derive(Default)]
pub(super) struct MergeList<'a>(pub(super) Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'de: 'a, 'a> Deserialize<'de> for MergeList<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = MergeList<'de>;
            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a list of merges")
            }
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(MergeList::default())
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut merges = Vec::new();
                while let Some(Pair(pair)) = list.next_element()? {
                    merges.extend(pair);
                }
                Ok(MergeList(merges))
            }
        }
        deserializer.deserialize_any(List)
    }
}

/// One entry of the list; none for the line that names a version.
struct Pair<'a>(Option<(Cow<'a, str>, Cow<'a, str>)>);

impl<'de: 'a, 'a> Deserialize<'de> for Pair<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Pair<'de>;
            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a merge, `[\"left\", \"right\"]` or `\"left right\"`")
            }
            fn visit_borrowed_str<E>(self, line: &'de str) -> Result<Self::Value, E> {
                if line.starts_with("#version") {
                    return Ok(Pair(None));
                }
                // The reader refuses a line of more or fewer parts.
                let pair = line.split_once(' ');
                Ok(Pair(pair.map(|(left, right)| (Cow::Borrowed(left), Cow::Borrowed(right)))))
            }
            fn visit_str<E: serde::de::Error>(self, line: &str) -> Result<Self::Value, E> {
                let owned = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
                let Pair(pair) = Either.visit_borrowed_str::<E>(line)?;
                Ok(Pair(pair.map(|(left, right)| (owned(left), owned(right)))))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut pair: A) -> Result<Self::Value, A::Error> {
                let mut side = || pair.next_element::<Text<'de>>();
                let sides = side()?.zip(side()?);
                Ok(Pair(sides.map(|(Text(left), Text(right))| (left, right))))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

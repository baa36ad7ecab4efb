//! What an adapter was trained with, kept in the header of its file, so that later commands treat it as
//! training did: the form of the frozen weights, the chat preamble, the system prompt, and which base.

use std::collections::BTreeMap;

use graft_data::{ChatTemplate, Losses, Preamble};

use crate::base_mark::BaseMark;
use crate::run_folder::manifest::{FileHash, sha256_hex};

/// Metadata: what tells the adapter's base from every other, wherever it lies.
pub const BASE_HASH: &str = "graft.base_sha256";
const QUANTIZATION: &str = "graft.quantization";
const PREAMBLE: &str = "graft.preamble";
/// Written where the template was allowed to leave out parts of conversations.
const LOSSES: &str = "graft.losses";
const SYSTEM_PROMPT: &str = "graft.system_prompt";

/// How the base was kept and conversations were rendered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrainedWith {
    /// `Some(double)` for NF4.
    pub nf4: Option<bool>,
    /// The chat format.
    pub chat: ChatTemplate,
    /// The system prompt of conversations that brought none.
    pub system_prompt: Option<String>,
    /// The base's weights; `None` where it is not known.
    pub base: Option<BaseMark>,
}

impl TrainedWith {
    /// How the base was kept, in a word.
    pub fn quantization(&self) -> &'static str {
        match self.nf4 {
            None => "none",
            Some(false) => "nf4",
            Some(true) => "nf4-double",
        }
    }

    /// Whether a file's metadata says how its adapter was trained.
    pub fn is_told(metadata: &BTreeMap<String, String>) -> bool {
        metadata.contains_key(QUANTIZATION)
    }

    /// As metadata of a safetensors file.
    pub fn to_metadata(&self) -> BTreeMap<String, String> {
        let preamble = match &self.chat.preamble {
            Preamble::None => "none".to_owned(),
            Preamble::Official { date } => format!("official {date}"),
        };
        let mut metadata = BTreeMap::from([
            (QUANTIZATION.to_owned(), self.quantization().to_owned()),
            (PREAMBLE.to_owned(), preamble),
        ]);
        if self.chat.losses == Losses::Allow {
            metadata.insert(LOSSES.to_owned(), "allow".to_owned());
        }
        if let Some(prompt) = &self.system_prompt {
            metadata.insert(SYSTEM_PROMPT.to_owned(), prompt.clone());
        }
        metadata.extend(self.base.iter().flat_map(BaseMark::to_metadata));
        metadata
    }

    /// From a file's metadata; an adapter of another program says nothing, and gets the defaults.
    pub fn from_metadata(metadata: &BTreeMap<String, String>) -> Self {
        let nf4 = match metadata.get(QUANTIZATION).map(String::as_str) {
            Some("nf4-double") => Some(true),
            Some("nf4") => Some(false),
            _ => None,
        };
        let preamble = match metadata.get(PREAMBLE).map(String::as_str) {
            Some("none") => Preamble::None,
            Some(text) => match text.strip_prefix("official ") {
                Some(date) => Preamble::Official { date: date.to_owned() },
                None => Preamble::default(),
            },
            None => Preamble::default(),
        };
        let losses = match metadata.get(LOSSES).map(String::as_str) {
            Some("allow") => Losses::Allow,
            _ => Losses::Refuse,
        };
        let chat = ChatTemplate { losses, ..ChatTemplate::built_in(preamble) };
        let system_prompt = metadata.get(SYSTEM_PROMPT).cloned();
        Self { nf4, chat, system_prompt, base: BaseMark::from_metadata(metadata) }
    }
}

/// One hash of all files of a base: that of the list which `sha256sum` prints for them.
pub fn base_hash(files: &BTreeMap<String, FileHash>) -> String {
    let line = |(name, file): (&String, &FileHash)| format!("{}  {name}\n", file.sha256);
    sha256_hex(files.iter().map(line).collect::<String>().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let dated = Preamble::Official { date: "1 Jan 2025".to_owned() };
        for nf4 in [None, Some(false), Some(true)] {
            for preamble in [Preamble::None, Preamble::default(), dated.clone()] {
                for losses in [Losses::Refuse, Losses::Allow] {
                    let chat = ChatTemplate { losses, ..ChatTemplate::built_in(preamble.clone()) };
                    let mut with = TrainedWith { nf4, chat, ..TrainedWith::default() };
                    let mark = |p: Option<&str>| {
                        let projections = p.map(str::to_owned);
                        Some(BaseMark { norms: "a1".to_owned(), projections })
                    };
                    for base in [None, mark(None), mark(Some("b2"))] {
                        with.base = base;
                        assert_eq!(TrainedWith::from_metadata(&with.to_metadata()), with);
                        with.system_prompt = Some("Answer \u{1b}[1m\nbriefly.".to_owned());
                    }
                }
            }
        }
        assert_eq!(TrainedWith::from_metadata(&BTreeMap::new()), TrainedWith::default());
    }
}

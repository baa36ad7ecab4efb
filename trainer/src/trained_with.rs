//! What an adapter was trained with, kept in the header of its file, so that later commands treat it as
//! training did: the form of the frozen weights, the chat preamble, the system prompt, and which base.

use std::collections::BTreeMap;

use graft_adapters::PeftAdapter;
use graft_adapters::merge::TOLD_FILE;
use graft_data::{ChatTemplate, Losses, ModelTemplate, Preamble};
use graft_gguf::Value;
use graft_kernels::nf4::AbsmaxFormat;
use graft_model::folder::ModelFolder;

use crate::base_mark::BaseMark;
use crate::run_folder::manifest::FileHash;
use crate::wrong_use::WrongUse;
use graft_files::sha256::sha256_hex;

/// Metadata: what tells the adapter's base from every other, wherever it lies.
pub const BASE_HASH: &str = "graft.base_sha256";
const QUANTIZATION: &str = "graft.quantization";
const PREAMBLE: &str = "graft.preamble";
/// Written where the template was allowed to leave out parts of conversations.
const LOSSES: &str = "graft.losses";
const SYSTEM_PROMPT: &str = "graft.system_prompt";
/// Written where the model brought a chat template of its own.
const TEMPLATE: &str = "graft.chat_template_sha256";
/// Written where others than the assistant's turns were learnt.
const TRAIN_ON: &str = "graft.train_on";

/// What models that are made of base and adapter say of the training, too: what was said of the weights beside it is of
/// no use with them.
const OF_MODELS: [&str; 5] = [PREAMBLE, LOSSES, SYSTEM_PROMPT, TEMPLATE, TRAIN_ON];

/// How the base was kept and conversations were rendered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrainedWith {
    /// How NF4 kept scales; `None` without NF4.
    pub nf4: Option<AbsmaxFormat>,
    /// The chat format.
    pub chat: ChatTemplate,
    /// The system prompt of conversations that brought none.
    pub system_prompt: Option<String>,
    /// SHA-256 of the model's own chat template; `None` for the built-in format.
    pub template: Option<String>,
    /// Which turns were learnt, where these are others than the assistant's, in the words of a recipe.
    pub learnt: Option<String>,
    /// The base's weights; `None` where it is not known.
    pub base: Option<BaseMark>,
}

impl TrainedWith {
    /// How the base was kept, in a word.
    pub fn quantization(&self) -> &'static str {
        match self.nf4 {
            None => "none",
            Some(AbsmaxFormat::Plain) => "nf4",
            Some(AbsmaxFormat::Double) => "nf4-double",
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
        let told = [(TEMPLATE, &self.template), (TRAIN_ON, &self.learnt)];
        let told = told.into_iter().filter_map(|(key, said)| Some((key.to_owned(), said.clone()?)));
        metadata.extend(told);
        metadata.extend(self.base.iter().flat_map(BaseMark::to_metadata));
        metadata
    }

    /// What a model that was made of base and adapter says of its training.
    pub fn of_models(adapter: &PeftAdapter) -> BTreeMap<String, String> {
        let told = adapter.metadata().iter().filter(|(key, _)| OF_MODELS.contains(&key.as_str()));
        told.map(|(key, said)| (key.clone(), said.clone())).collect()
    }

    /// What a model's folder or GGUF file says of the training that it came of; most say nothing.
    ///
    /// # Errors
    /// It says something that is not known here.
    pub fn of_model(folder: &ModelFolder) -> anyhow::Result<Self> {
        let (file, metadata) = match folder.gguf() {
            Some(gguf) => {
                let own = gguf.file().metadata().iter();
                let text = |(key, value): (&String, &Value)| {
                    Some((key.clone(), value.as_text()?.to_owned()))
                };
                (folder.display(), own.filter_map(text).collect())
            }
            None => match folder.bytes(TOLD_FILE)? {
                None => return Ok(Self::default()),
                Some(bytes) => {
                    let file = folder.display_file(TOLD_FILE);
                    let read = serde_json::from_slice::<BTreeMap<String, String>>(&bytes);
                    let told = read.map_err(|source| graft_model::Error::Json {
                        file: file.clone(),
                        source,
                    })?;
                    (file, told)
                }
            },
        };
        let of_models = metadata.into_iter().filter(|(key, _)| OF_MODELS.contains(&key.as_str()));
        Ok(Self::from_metadata(&of_models.collect()).map_err(|unknown| {
            WrongUse(format!("`{file}`: {unknown}. Take the file as it was written"))
        })?)
    }

    /// That another chat template is used than in training, where it is.
    pub fn other_template(
        &self,
        file: &str,
        used: Option<&ModelTemplate>,
        model: &str,
    ) -> Option<String> {
        let trained = self.template.as_ref()?;
        let used = used.map(ModelTemplate::sha256);
        if used.as_ref() == Some(trained) {
            return None;
        }
        let short = |hash: &str| hash.chars().take(12).collect::<String>();
        let here = used.map_or("none".to_owned(), |used| format!("that of {}…", short(&used)));
        Some(format!(
            "`{file}` was trained with the chat template of SHA-256 {}…, and `{model}` brings {here}: give the folder of the \
             training's with --tokenizer DIR, or take its answers with care",
            short(trained)
        ))
    }

    /// What an adapter says of its training; one of another program says nothing, and gets the defaults.
    ///
    /// # Errors
    /// It says something that is not known here: treating it otherwise would change its answers.
    pub fn of(adapter: &PeftAdapter) -> Result<Self, WrongUse> {
        Self::from_metadata(adapter.metadata()).map_err(|unknown| {
            WrongUse(format!(
                "`{}`: {unknown}. Take the file as training wrote it, or train again",
                adapter.file()
            ))
        })
    }

    /// From a file's metadata.
    fn from_metadata(metadata: &BTreeMap<String, String>) -> Result<Self, Unknown> {
        let said = |key: &'static str| metadata.get(key).map(String::as_str);
        let unknown = |key, found: &str, allowed| {
            let found = found.chars().take(60).collect();
            Err(Unknown { key, found, allowed })
        };
        let nf4 = match said(QUANTIZATION) {
            Some("nf4-double") => Some(AbsmaxFormat::Double),
            Some("nf4") => Some(AbsmaxFormat::Plain),
            Some("none") | None => None,
            Some(other) => return unknown(QUANTIZATION, other, "none, nf4 or nf4-double"),
        };
        let preamble = match said(PREAMBLE) {
            Some("none") => Preamble::None,
            None => Preamble::default(),
            Some(text) => match text.strip_prefix("official ").filter(|date| !date.is_empty()) {
                Some(date) => Preamble::Official { date: date.to_owned() },
                None => return unknown(PREAMBLE, text, "none, or official and a date"),
            },
        };
        let losses = match said(LOSSES) {
            Some("allow") => Losses::Allow,
            None => Losses::Refuse,
            Some(other) => return unknown(LOSSES, other, "allow, or absent"),
        };
        let chat = ChatTemplate { losses, ..ChatTemplate::built_in(preamble) };
        let system_prompt = metadata.get(SYSTEM_PROMPT).cloned();
        let [template, learnt] = [TEMPLATE, TRAIN_ON].map(|key| metadata.get(key).cloned());
        let base = BaseMark::from_metadata(metadata);
        Ok(Self { nf4, chat, system_prompt, template, learnt, base })
    }
}

/// An entry that says what is not known here.
#[derive(Debug, thiserror::Error)]
#[error("`{key}` of its metadata is {found:?}, but must be {allowed}")]
struct Unknown {
    key: &'static str,
    found: String,
    allowed: &'static str,
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
        for nf4 in [None, Some(AbsmaxFormat::Plain), Some(AbsmaxFormat::Double)] {
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
                        assert_eq!(TrainedWith::from_metadata(&with.to_metadata()).unwrap(), with);
                        with.system_prompt = Some("Answer \u{1b}[1m\nbriefly.".to_owned());
                    }
                }
            }
        }
        let nothing = TrainedWith::from_metadata(&BTreeMap::new()).unwrap();
        assert_eq!(nothing, TrainedWith::default());
    }

    #[test]
    fn what_is_not_known_is_refused_by_name() {
        let refused = |key: &str, text: &str| {
            let metadata = BTreeMap::from([(key.to_owned(), text.to_owned())]);
            TrainedWith::from_metadata(&metadata).unwrap_err().to_string()
        };
        let shown =
            [(QUANTIZATION, "zzz"), (PREAMBLE, "official "), (PREAMBLE, ""), (LOSSES, "deny")]
                .map(|(key, text)| refused(key, text));
        insta::assert_snapshot!(shown.join("\n"), @r#"
        `graft.quantization` of its metadata is "zzz", but must be none, nf4 or nf4-double
        `graft.preamble` of its metadata is "official ", but must be none, or official and a date
        `graft.preamble` of its metadata is "", but must be none, or official and a date
        `graft.losses` of its metadata is "deny", but must be allow, or absent
        "#);
    }
}

//! A model folder as everything before the first tensor needs it: config.json and the tokenizer.

use std::path::Path;
use std::sync::Arc;

use graft_data::{ModelTemplate, NamedFile, TemplateFiles, Tokenizer, TokenizerFiles};
use graft_model::LlamaConfig;
use graft_model::folder::ModelFolder;

const CONFIG: &str = "config.json";
const TOKENIZER: &str = "tokenizer.json";
/// The tokenizer in Meta's own layout of a release.
const META_TOKENIZER: &str = "tokenizer.model";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const SPECIAL_TOKENS: &str = "special_tokens_map.json";
const GENERATION_CONFIG: &str = "generation_config.json";
const CHAT_TEMPLATE: &str = "chat_template.jinja";
/// The template for conversations with tools, beside the other.
const TOOL_TEMPLATE: &str = "additional_chat_templates/tool_use.jinja";

/// A folder whose configuration and tokenizer were read and agree.
#[derive(Debug)]
pub struct ModelFiles {
    /// The folder.
    pub folder: ModelFolder,
    /// Its config.json.
    pub config: LlamaConfig,
    /// Its tokenizer.json, or its tokenizer.model where that is all there is.
    pub tokenizer: Tokenizer,
    /// Its own chat template; `None` where it has none, or Llama 3.1's.
    pub template: Option<Arc<ModelTemplate>>,
}

/// Why a folder cannot be used as a model.
#[derive(Debug, thiserror::Error)]
pub enum ModelFilesError {
    /// The folder or its config.json.
    #[error(transparent)]
    Model(#[from] graft_model::Error),
    /// The file of the tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] graft_data::Error),
    /// Some ids have no row in the embedding.
    #[error(
        "the tokenizer `{tokenizer}` has ids up to {highest}, but the model's vocab_size is \
         {vocab_size}: they are not of one model"
    )]
    Vocabulary {
        /// The tokenizer's file.
        tokenizer: String,
        /// Its highest id.
        highest: usize,
        /// Rows of the embedding.
        vocab_size: usize,
    },
    /// An answer would never end by such a token.
    #[error(
        "{file}: `eos_token_id` has {id}, but the model's vocab_size is {vocab_size}: no token is called so, \
         and no answer would end by it. Take the file from where the model comes from, or correct it"
    )]
    EndToken {
        /// generation_config.json.
        file: String,
        /// The id.
        id: u64,
        /// Rows of the embedding.
        vocab_size: usize,
    },
    /// The model was trained with another first token.
    #[error(
        "the tokenizer `{tokenizer}` begins texts with id {found} (`{token}`), but the \
         model's bos_token_id is {expected}: they are not of one model"
    )]
    FirstToken {
        /// The tokenizer's file.
        tokenizer: String,
        /// The tokenizer's id.
        found: u32,
        /// Its spelling.
        token: String,
        /// That of config.json.
        expected: u32,
    },
}

impl ModelFiles {
    /// Opens a folder on disk, or `builtin:NAME`. The weights are not looked at.
    ///
    /// # Errors
    /// The folder, its config.json or its tokenizer are missing or unusable, or the two
    /// disagree about the vocabulary.
    pub fn open(location: &str) -> Result<Self, ModelFilesError> {
        Self::open_with(location, None)
    }

    /// Opens a folder, or `builtin:NAME`, with the tokenizer and chat template of another folder where one is
    /// given.
    ///
    /// # Errors
    /// As [`ModelFiles::open`].
    pub fn open_with(
        location: &str,
        tokenizer_folder: Option<&Path>,
    ) -> Result<Self, ModelFilesError> {
        let folder = ModelFolder::open(location)?;
        let config = read_config(&folder)?;
        let home = tokenizer_folder.map_or_else(|| Ok(folder.clone()), ModelFolder::at)?;
        let template = read_template(&home)?;
        let tokenizer = read_tokenizer(&home, &folder, Some(&config), template.as_deref())?;
        check_vocabulary(&tokenizer, &config)?;
        let folder =
            if tokenizer_folder.is_some() { folder.with_tokenizer_of(&home) } else { folder };
        Ok(Self { folder, config, tokenizer, template })
    }
}

/// Tokenizer and chat template of a folder that need not hold a whole model; where config.json is
/// there, it has to agree with them.
///
/// # Errors
/// The folder or its tokenizer are missing or unusable, or disagree with its config.json.
pub(crate) fn open_tokenizer(
    location: &str,
) -> Result<(Tokenizer, Option<Arc<ModelTemplate>>), ModelFilesError> {
    let folder = ModelFolder::open(location)?;
    let config = folder.contains(CONFIG).then(|| read_config(&folder)).transpose()?;
    let template = read_template(&folder)?;
    let tokenizer = read_tokenizer(&folder, &folder, config.as_ref(), template.as_deref())?;
    if let Some(config) = &config {
        check_vocabulary(&tokenizer, config)?;
    }
    Ok((tokenizer, template))
}

/// The folder's config.json.
pub(crate) fn read_config(folder: &ModelFolder) -> Result<LlamaConfig, graft_model::Error> {
    let read = LlamaConfig::from_json(&folder.required(CONFIG)?, &folder.display_file(CONFIG));
    read.map_err(|error| match error {
        graft_model::Error::Config { file, mut problems } if folder.gguf().is_some() => {
            for problem in &mut problems {
                problem.key = key_of_gguf(&problem.key);
            }
            graft_model::Error::Config { file, problems }
        }
        other => other,
    })
}

/// What a GGUF file calls a key of config.json.
fn key_of_gguf(key: &str) -> String {
    let own = match key {
        "hidden_size" => "embedding_length",
        "intermediate_size" => "feed_forward_length",
        "num_attention_heads" => "attention.head_count",
        "num_key_value_heads" => "attention.head_count_kv",
        "num_hidden_layers" => "block_count",
        "max_position_embeddings" => "context_length",
        "head_dim" => "attention.key_length",
        "rms_norm_eps" => "attention.layer_norm_rms_epsilon",
        "rope_theta" => "rope.freq_base",
        "vocab_size" => "vocab_size",
        "bos_token_id" => return "tokenizer.ggml.bos_token_id".to_owned(),
        "eos_token_id" => return "tokenizer.ggml.eos_token_id".to_owned(),
        other => return other.to_owned(),
    };
    format!("llama.{own}")
}

/// The folder's tokenizer.json, or Meta's tokenizer.model where there is no other, with what the files
/// beside it, the model's own and its template say of the tokens.
pub(super) fn read_tokenizer(
    folder: &ModelFolder,
    model: &ModelFolder,
    config: Option<&LlamaConfig>,
    template: Option<&ModelTemplate>,
) -> Result<Tokenizer, ModelFilesError> {
    let tokenizer = if let Some(json) = folder.bytes(TOKENIZER)? {
        Tokenizer::from_bytes(&json, &folder.display_file(TOKENIZER))?
    } else if let Some(ranks) = folder.bytes(META_TOKENIZER)? {
        Tokenizer::from_tiktoken(&ranks, &folder.display_file(META_TOKENIZER))?
    } else {
        return Err(folder.missing(TOKENIZER).into());
    };
    let beside = [(folder, TOKENIZER_CONFIG), (folder, SPECIAL_TOKENS), (model, GENERATION_CONFIG)];
    let beside = beside.map(|(home, name)| (home.bytes(name), home.display_file(name)));
    let [tokens, map, generation] = beside;
    let (tokens, map, generation) =
        ((tokens.0?, tokens.1), (map.0?, map.1), (generation.0?, generation.1));
    if let (Some(config), (Some(bytes), origin)) = (config, &generation) {
        check_end_tokens(bytes, origin, config.vocab_size)?;
    }
    let tokenizer = tokenizer.with_files(TokenizerFiles {
        tokenizer_config: named(&tokens),
        special_tokens_map: named(&map),
        generation_config: named(&generation),
        bos_token_id: config.and_then(|config| config.bos_token_id),
        eos_token_ids: config.map_or(&[], |config| &config.eos_token_ids),
    })?;
    Ok(match template {
        Some(template) => tokenizer.with_template(template),
        None => tokenizer,
    })
}

/// Every id that ends an answer needs a row in the embedding. What is no id is the tokenizer's to refuse.
fn check_end_tokens(json: &[u8], file: &str, vocab_size: usize) -> Result<(), ModelFilesError> {
    let generation: serde_json::Value = serde_json::from_slice(json).unwrap_or_default();
    let ids = match &generation["eos_token_id"] {
        serde_json::Value::Array(ids) => ids.clone(),
        id => vec![id.clone()],
    };
    match ids.iter().filter_map(serde_json::Value::as_u64).find(|&id| id >= vocab_size as u64) {
        Some(id) if u32::try_from(id).is_ok() => {
            Err(ModelFilesError::EndToken { file: file.to_owned(), id, vocab_size })
        }
        _ => Ok(()),
    }
}

fn named<B: AsRef<[u8]>>((bytes, origin): &(Option<B>, String)) -> Option<NamedFile<'_>> {
    bytes.as_ref().map(|bytes| NamedFile { bytes: bytes.as_ref(), origin })
}

/// The files that decide what text becomes, of those that the folder has: those that [`read_tokenizer`] and
/// [`read_template`] read.
pub(crate) fn text_files(
    folder: &ModelFolder,
) -> Result<Vec<(&'static str, Vec<u8>)>, graft_model::Error> {
    let tokenizer = if folder.contains(TOKENIZER) { TOKENIZER } else { META_TOKENIZER };
    let mut files = Vec::new();
    for name in [tokenizer, TOKENIZER_CONFIG, SPECIAL_TOKENS, CHAT_TEMPLATE] {
        files.extend(folder.bytes(name)?.map(|bytes| (name, bytes.to_vec())));
    }
    files.extend(tool_template(folder)?.map(|bytes| (TOOL_TEMPLATE, bytes.as_ref().to_vec())));
    Ok(files)
}

/// The folder's chat template, if it has one that is not the built-in one.
pub(super) fn read_template(
    folder: &ModelFolder,
) -> Result<Option<Arc<ModelTemplate>>, ModelFilesError> {
    let [jinja, config] = [CHAT_TEMPLATE, TOKENIZER_CONFIG]
        .map(|name| (folder.bytes(name), folder.display_file(name)));
    let (jinja, config) = ((jinja.0?, jinja.1), (config.0?, config.1));
    let tool_use = (tool_template(folder)?, folder.display_file(TOOL_TEMPLATE));
    let files = TemplateFiles {
        jinja: named(&jinja),
        tool_use: named(&tool_use),
        tokenizer_config: named(&config),
    };
    Ok(ModelTemplate::from_files(files)?.map(Arc::new))
}

fn tool_template(folder: &ModelFolder) -> Result<Option<impl AsRef<[u8]>>, graft_model::Error> {
    let found = folder.additional_templates()?.into_iter().find(|(name, _)| name == TOOL_TEMPLATE);
    Ok(found.map(|(_, bytes)| bytes))
}

/// Every id needs a row in the embedding, and both must mean the same first token.
pub(super) fn check_vocabulary(
    tokenizer: &Tokenizer,
    config: &LlamaConfig,
) -> Result<(), ModelFilesError> {
    let (name, vocab_size) = (tokenizer.origin().to_owned(), config.vocab_size);
    if tokenizer.vocab_size() > vocab_size {
        let highest = tokenizer.vocab_size() - 1;
        return Err(ModelFilesError::Vocabulary { tokenizer: name, highest, vocab_size });
    }
    match (tokenizer.opening().first(), config.bos_token_id) {
        (Some(&found), Some(expected)) if found != expected => {
            let token = tokenizer.token(found).unwrap_or_default();
            Err(ModelFilesError::FirstToken { tokenizer: name, found, token, expected })
        }
        _ => Ok(()),
    }
}

//! A model folder as everything before the first tensor needs it: config.json and the tokenizer.

use graft_data::Tokenizer;
use graft_model::LlamaConfig;
use graft_model::folder::ModelFolder;

const CONFIG: &str = "config.json";
const TOKENIZER: &str = "tokenizer.json";
/// The tokenizer in Meta's own layout of a release.
const META_TOKENIZER: &str = "tokenizer.model";

/// A folder whose configuration and tokenizer were read and agree.
#[derive(Debug)]
pub struct ModelFiles {
    /// The folder.
    pub folder: ModelFolder,
    /// Its config.json.
    pub config: LlamaConfig,
    /// Its tokenizer.json, or its tokenizer.model where that is all there is.
    pub tokenizer: Tokenizer,
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
    /// The model was trained with another first token.
    #[error(
        "the tokenizer `{tokenizer}` begins texts with id {found} (`<|begin_of_text|>`), but the \
         model's bos_token_id is {expected}: they are not of one model"
    )]
    FirstToken {
        /// The tokenizer's file.
        tokenizer: String,
        /// The tokenizer's id.
        found: u32,
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
        let folder = ModelFolder::open(location)?;
        let config = read_config(&folder)?;
        let tokenizer = read_tokenizer(&folder)?;
        check_vocabulary(&tokenizer, &config)?;
        Ok(Self { folder, config, tokenizer })
    }
}

/// The folder's config.json.
pub(crate) fn read_config(folder: &ModelFolder) -> Result<LlamaConfig, graft_model::Error> {
    LlamaConfig::from_json(&folder.required(CONFIG)?, &folder.display_file(CONFIG))
}

/// The folder's tokenizer.json, or Meta's tokenizer.model where there is no other.
pub(super) fn read_tokenizer(folder: &ModelFolder) -> Result<Tokenizer, ModelFilesError> {
    if let Some(json) = folder.bytes(TOKENIZER)? {
        return Ok(Tokenizer::from_bytes(&json, &folder.display_file(TOKENIZER))?);
    }
    if let Some(ranks) = folder.bytes(META_TOKENIZER)? {
        return Ok(Tokenizer::from_tiktoken(&ranks, &folder.display_file(META_TOKENIZER))?);
    }
    Err(folder.missing(TOKENIZER).into())
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
    let (found, expected) = (tokenizer.bos(), config.bos_token_id);
    if found != expected {
        return Err(ModelFilesError::FirstToken { tokenizer: name, found, expected });
    }
    Ok(())
}

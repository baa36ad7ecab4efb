//! A model to be scored or asked: base, optional adapter, tokenizer.

use std::path::{Path, PathBuf};

use graft_adapters::{Fresh, LoraConfig, LoraFactory, LoraLinear, PeftAdapter};
use graft_kernels::Home;
use graft_kernels::nf4::AbsmaxFormat;
use graft_model::checkpoint::Checkpoint;
use graft_model::folder::ModelFolder;
use graft_model::load::{Weights, left_to_quantise};
use graft_model::{Llama, LlamaConfig};

use crate::base_mark;
use crate::cli::Globals;
use crate::device::Backend;
use crate::plan::ModelFiles;
use crate::privacy;
use crate::progress::{Progress, Unit, Voice};
use crate::trained_with::TrainedWith;
use graft_engine::generate::GenerateError;

/// A model in memory.
pub type Model<B> = Llama<B, LoraLinear<B>>;

/// A model's files and adapter, with what they say about how they are used.
pub struct Opening {
    /// The base's files.
    pub files: ModelFiles,
    /// The adapter beside it.
    pub adapter: Option<PeftAdapter>,
    /// What the adapter was trained with.
    pub trained: TrainedWith,
    /// Where the adapter lies.
    beside: Option<PathBuf>,
}

impl Opening {
    /// Opens a folder and an adapter; no weight is read yet. The tokenizer and the chat template are the
    /// folder's own, or those of another folder.
    ///
    /// # Errors
    /// Either is unusable, or they are not of one shape.
    pub fn new(
        model: &str,
        beside: Option<&Path>,
        tokenizer: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let files = ModelFiles::open_with(model, tokenizer)?;
        let adapter = beside.map(PeftAdapter::open).transpose()?;
        if let Some(adapter) = &adapter {
            adapter.check_model(&files.config)?;
        }
        let trained = match &adapter {
            Some(adapter) => TrainedWith::of(adapter)?,
            None => TrainedWith::of_model(&files.folder)?,
        };
        Ok(Self { files, adapter, trained, beside: beside.map(Path::to_path_buf) })
    }

    /// Says what is odd about the adapter beside this model, and gives whether it is another model's.
    ///
    /// # Errors
    /// The model's weights are unusable.
    pub fn warn(&self, globals: &Globals) -> anyhow::Result<bool> {
        let model = self.files.folder.display();
        let file = self.adapter.as_ref().map_or(model.as_str(), PeftAdapter::file);
        let used = self.files.template.as_deref();
        if let Some(other) = self.trained.other_template(file, used, &model) {
            globals.note(&format!("warning: {other}"));
        }
        let Some(adapter) = &self.adapter else { return Ok(false) };
        let odd = base_mark::oddities(adapter, &self.files.folder, &self.files.config)?;
        for oddity in odd.told {
            globals.note(&format!("warning: {oddity}"));
        }
        Ok(odd.is_of_another)
    }

    /// The system prompt of conversations that bring none: as asked for, an empty one for none, else
    /// the one of the adapter's training, which is then said.
    pub fn system(&self, asked: Option<&str>, globals: &Globals) -> Option<String> {
        match (asked, &self.trained.system_prompt) {
            (Some(text), _) => Some(text.to_owned()).filter(|text| !text.is_empty()),
            (None, Some(trained)) => {
                globals.note(&format!(
                    "system prompt of the adapter's training: {trained:?} (--system gives another, \
                     --system \"\" none)"
                ));
                Some(trained.clone())
            }
            (None, None) => None,
        }
    }

    /// What is written there is as private as model and adapter are.
    ///
    /// # Errors
    /// A folder cannot be listed.
    pub fn keep_as_private(&self, out: &Path) -> anyhow::Result<()> {
        let mut inputs = self.files.folder.paths()?;
        match &self.beside {
            Some(adapter) if adapter.is_dir() => inputs.extend(ModelFolder::at(adapter)?.paths()?),
            Some(adapter) => inputs.push(adapter.clone()),
            None => {}
        }
        privacy::as_private_as(out, inputs.iter().map(PathBuf::as_path));
        Ok(())
    }

    /// What a file that gets published calls model and adapter together.
    pub fn name(&self) -> String {
        let model = self.files.folder.published_name();
        match &self.beside {
            Some(_) => format!("{model}, fine-tuned with Graft"),
            None => model,
        }
    }

    /// An error of generating, with the files that it is about.
    pub fn named(&self, error: GenerateError) -> anyhow::Error {
        if matches!(error, GenerateError::Stopped(_)) {
            return error.into();
        }
        let model = self.files.folder.display();
        let beside = self.beside.as_ref().map_or_else(String::new, |adapter| {
            format!(" with the adapter `{}`", adapter.display())
        });
        anyhow::Error::from(error).context(format!("the model `{model}`{beside} gives no answer"))
    }

    /// Loads the weights, quantised to NF4 if asked, with the adapter beside them.
    ///
    /// # Errors
    /// The weights are not those of the model that config.json describes.
    pub fn load<B: Backend>(
        &self,
        voice: Voice,
        nf4: Option<AbsmaxFormat>,
        device: &B::Device,
    ) -> anyhow::Result<Model<B>> {
        let config = &self.files.config;
        let checkpoint = Checkpoint::open(&self.files.folder)?;
        checkpoint.verify(config)?;
        let nf4 = left_to_quantise(config, nf4);
        let model = if let Some(adapter) = &self.adapter {
            let weights = adapter.weights(&checkpoint, config);
            let config = adapter.model_config(config);
            // Weights have whole tables in their places already.
            let lora = adapter.config().without_whole_tables();
            build(voice, &config, &weights, &lora, adapter, nf4, device)?
        } else {
            let start = Fresh(|_, len| vec![0.0; len]);
            let nothing = LoraConfig::default();
            build(voice, config, &checkpoint, &nothing, start, nf4, device)?
        };
        Ok(model)
    }
}

fn build<B: Backend>(
    voice: Voice,
    config: &LlamaConfig,
    weights: &impl Weights,
    lora: &LoraConfig,
    start: impl graft_adapters::Start,
    nf4: Option<AbsmaxFormat>,
    device: &B::Device,
) -> Result<Model<B>, graft_model::Error> {
    let progress = Progress::new(voice, "load", config.layers as u64, Unit::Count("layers"));
    let mut factory = LoraFactory { config: lora, start, nf4, home: Home::Device, device };
    let fields = Default::default();
    let model = Llama::load(config, weights, &mut factory, device, &mut |done| {
        progress.step(done as u64, &fields);
    })?;
    progress.finish(&format!("{} layers", config.layers));
    Ok(model)
}

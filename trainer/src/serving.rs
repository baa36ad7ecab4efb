//! What a program is given of a model and its adapter, by the table of [`crate::servers`].

use std::path::{Path, PathBuf};

use graft_adapters::fold::{Base, Fold, Folded};
use graft_adapters::gguf;
use graft_adapters::merge::Onto;
use graft_adapters::{PeftAdapter, Rank, peft};
use graft_engine::probe::Divergence;
use graft_files::{atomic, place};
use graft_gguf::TensorType;
use graft_gguf::mixture::Mixture;
use graft_kernels::nf4::AbsmaxFormat;
use graft_model::checkpoint::Checkpoint;
use graft_model::folder::ModelFolder;
use graft_recipes::Target;

use crate::beside::{Beside, compare};
use crate::exporting::{self, Comparing};
use crate::merging;
use crate::modelfile::{Speech, modelfile};
use crate::plan::ModelFiles;
use crate::progress::{Progress, Unit, Voice};
use crate::servers::{Form, Traits, Way, server};
use crate::trained_with::TrainedWith;
use crate::wrong_use::WrongUse;

/// The model of a Modelfile.
pub const MODEL: &str = "model.gguf";
/// What `ollama create` reads.
const MODELFILE: &str = "Modelfile";

/// What a program is to be given.
pub struct Serving<'a> {
    /// The program.
    pub target: Target,
    /// The base.
    pub files: &'a ModelFiles,
    /// The adapter, and where it lies.
    pub adapter: Option<(&'a PeftAdapter, &'a Path)>,
    /// What it was trained with.
    pub trained: &'a TrainedWith,
    /// How NF4 keeps the scales of the weights that it was trained beside.
    pub nf4: Option<AbsmaxFormat>,
    /// Which weights it is added to, where it is.
    pub onto: Onto,
    /// The rank that it is folded into.
    pub rank: Option<Rank>,
    /// The types of a merged model's tensors.
    pub mixture: Mixture,
    /// The type of an adapter's tensors in a GGUF file.
    pub kind: TensorType,
    /// The mean divergence from base and adapter beyond which the result is refused, in nats a token.
    pub allowed: f64,
    /// What a file calls the model.
    pub name: String,
    /// How work says how far it is.
    pub voice: Voice,
}

/// What was written, for people.
pub type Rows = Vec<(&'static str, String)>;

impl Serving<'_> {
    /// Writes it to a place where nothing is yet, whole or not at all.
    ///
    /// # Errors
    /// The program does not take it; base and adapter do not belong together; the disk refuses; the result answers
    /// otherwise than is accepted.
    pub fn write(&self, out: &Path) -> anyhow::Result<Rows> {
        let server = server(self.target);
        let mut rows = match (self.adapter, server.form) {
            (_, Form::Modelfile) => self.merged(out)?,
            (Some((adapter, path)), _) => self.adapter(out, adapter, path)?,
            (None, Form::Gguf) => {
                return Err(WrongUse(
                    "--for llama.cpp is of an adapter: a whole model is written without --for"
                        .to_owned(),
                )
                .into());
            }
            (None, _) => {
                return Err(WrongUse(format!(
                    "{} takes the model's folder as it is, and an adapter beside it: give one with --adapter DIR",
                    self.target.name()
                ))
                .into());
            }
        };
        let tried = match server.tried {
            Some(with) => format!("tried with {with}"),
            None => format!("by its sources of {}, not tried with it", server.read_on),
        };
        let usage = server.usage.replace("OUT", &out.display().to_string());
        rows.push(("for", format!("{}, {tried}: {usage}", self.target.name())));
        if let Some(system) =
            self.trained.system_prompt.as_ref().filter(|_| server.form != Form::Modelfile)
        {
            rows.push((
                "trained with",
                format!("the system prompt {system:?}: the server has to send it"),
            ));
        }
        Ok(rows)
    }

    /// The adapter by itself.
    fn adapter(&self, out: &Path, adapter: &PeftAdapter, path: &Path) -> anyhow::Result<Rows> {
        let traits = Traits::of_adapter(adapter);
        let server = server(self.target);
        let way = server.way(&traits, self.rank.map(Rank::get)).map_err(WrongUse)?;
        let (rank, mut rows) = match way {
            Way::Folded { rank, together } => (rank, self.folded(out, adapter, rank, together)?),
            Way::AsItIs | Way::Merged => (traits.rank, self.as_it_is(out, adapter, path)?),
        };
        rows.extend(server.told_of_rank(rank).map(|told| ("to be told", told)));
        Ok(rows)
    }

    fn as_it_is(&self, out: &Path, adapter: &PeftAdapter, path: &Path) -> anyhow::Result<Rows> {
        let (folder, config) = (&self.files.folder, &self.files.config);
        let updates = adapter.config().sites.len();
        let holds = ("holds", format!("{updates} updates, as the adapter has them"));
        if server(self.target).form == Form::Gguf {
            let written = gguf::write_adapter(out, folder, config, adapter, &self.name, self.kind)?;
            return Ok(vec![("written", written.path.display().to_string()), holds]);
        }
        let place = self.new_folder(out)?;
        let [description, weights] = peft::files(path)?;
        atomic::create_folder(&place, |folder| {
            for (from, name) in [(&description, peft::CONFIG_FILE), (&weights, peft::WEIGHTS_FILE)]
            {
                let mut from =
                    graft_files::plain_file::open(from).map_err(std::io::Error::other)?;
                atomic::write_file(folder.join(name), |file| {
                    std::io::copy(&mut from, file).map(drop)
                })?;
            }
            Ok::<_, std::io::Error>(())
        })?;
        Ok(vec![("written", place.display().to_string()), holds])
    }

    /// The adapter in its plainest form.
    fn folded(
        &self,
        out: &Path,
        adapter: &PeftAdapter,
        rank: usize,
        together: bool,
    ) -> anyhow::Result<Rows> {
        let (folder, config) = (&self.files.folder, &self.files.config);
        let checkpoint = Checkpoint::open(folder)?;
        checkpoint.verify(config)?;
        let base = Base { checkpoint: &checkpoint, config, nf4: self.nf4 };
        let rank = rank.try_into().map(Rank).expect("ranks are above 0");
        let fold = Fold::of(adapter, base, Some(rank), together)?;
        let loses = fold.loses();
        let title = Progress::new(
            self.voice,
            "fold",
            fold.config().sites.len() as u64,
            Unit::Count("projections"),
        );
        let folded = fold.made(&mut |done, _| title.step(done, &Default::default()))?;
        let expected = Beside { lora: adapter.config(), start: adapter, nf4: self.nf4 };
        let found = Beside { lora: folded.config(), start: &folded, nf4: self.nf4 };
        let divergence = compare(folder, config, expected, found)?;
        title.finish(&format!("mean divergence {:.1e} nats a token", divergence.mean));
        self.check(&divergence)?;
        let place = self.write_folded(out, adapter, &folded)?;
        let updates = folded.config().sites.len();
        let how = if loses { "the largest part of each" } else { "scales within B" };
        Ok(vec![
            ("written", place.display().to_string()),
            ("holds", format!("{updates} plain updates of rank {}, {how}", rank.get())),
            ("compared", merging::in_words(&divergence, "base + adapter as it was")),
        ])
    }

    fn write_folded(
        &self,
        out: &Path,
        adapter: &PeftAdapter,
        folded: &Folded,
    ) -> anyhow::Result<PathBuf> {
        let (folder, config) = (&self.files.folder, &self.files.config);
        if server(self.target).form == Form::Gguf {
            return Ok(gguf::write_folded(out, folder, config, folded, &self.name, self.kind)?.path);
        }
        let place = self.new_folder(out)?;
        let metadata = adapter.metadata().clone();
        folded.write::<graft_adapters::Error>(&place, metadata, |_| Ok(()))?;
        Ok(place)
    }

    /// Base and adapter as one GGUF file, with its Modelfile.
    fn merged(&self, out: &Path) -> anyhow::Result<Rows> {
        if self.rank.is_some() {
            let adapter = Traits { features: Vec::new(), rank: 0 };
            server(self.target).way(&adapter, self.rank.map(Rank::get)).map_err(WrongUse)?;
        }
        let files = self.files;
        let chat = self.trained.chat.clone().with_own(files.template.as_ref());
        let (model, system) = (&files.folder.display(), self.trained.system_prompt.as_deref());
        let speech = Speech { model, tokenizer: &files.tokenizer, chat: &chat, system };
        let text = modelfile(MODEL, speech).map_err(|no_form| WrongUse(no_form.to_string()))?;
        let place = self.new_folder(out)?;
        let adapter = self.adapter.map(|(adapter, _)| (adapter, self.onto));
        let export = exporting::export_of(files, adapter, self.mixture, self.name.clone())?;
        let nf4 = self.nf4.filter(|_| adapter.is_some());
        let how = Comparing { nf4, allowed: self.allowed, voice: self.voice };
        let mut found: Option<Divergence> = None;
        atomic::create_folder(&place, |folder| {
            let (_, divergence) = exporting::write(&folder.join(MODEL), &export, how)?;
            found = Some(divergence);
            atomic::write_bytes(folder.join(MODELFILE), text.as_bytes())?;
            anyhow::Ok(())
        })?;
        let divergence = found.expect("it was compared");
        let of = if adapter.is_some() { "base + adapter" } else { "the model as stored" };
        Ok(vec![
            ("written", place.display().to_string()),
            ("holds", format!("{MODEL}, and {MODELFILE} with its template and stop tokens")),
            ("compared", merging::in_words(&divergence, of)),
        ])
    }

    fn check(&self, found: &Divergence) -> anyhow::Result<()> {
        if found.is_within(self.allowed) {
            return Ok(());
        }
        anyhow::bail!(
            "the folded adapter does not answer as the adapter does: mean divergence {:.2e} nats a token, more than {:.1e}; \
             nothing was written. Give a higher --rank, or allow more with --tolerance",
            found.mean,
            self.allowed
        )
    }

    /// A place for a folder, which holds nothing yet and lies in neither base nor adapter.
    fn new_folder(&self, out: &Path) -> anyhow::Result<PathBuf> {
        let adapter = self.adapter.map(|(_, path)| path);
        new_folder(out, Some(&self.files.folder), adapter)
    }
}

/// A place for a folder, which holds nothing yet and lies in neither the base nor one of the adapters.
///
/// # Errors
/// It lies there, or something is there; the disk refuses.
pub fn new_folder<'a>(
    out: &Path,
    base: Option<&ModelFolder>,
    adapters: impl IntoIterator<Item = &'a Path>,
) -> anyhow::Result<PathBuf> {
    if let Some(base) = base {
        base.check_outside(out)?;
    }
    for adapter in adapters {
        check_outside(out, adapter)?;
    }
    let place = place::new_folder(out)?;
    if let Some(parent) = place.parent() {
        std::fs::create_dir_all(parent)?;
    }
    Ok(place)
}

/// Refuses a place in an adapter's folder.
fn check_outside(out: &Path, adapter: &Path) -> anyhow::Result<()> {
    let [description, _] = peft::files(adapter)?;
    let home = description.parent().unwrap_or(adapter);
    if place::resolve(out)?.starts_with(place::resolve(home)?) {
        return Err(WrongUse(format!(
            "`{}` lies in the adapter `{}`, which is only read: choose another place",
            out.display(),
            adapter.display()
        ))
        .into());
    }
    Ok(())
}

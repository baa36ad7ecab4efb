//! `finish.for`: what programs are given of the adapter, each a folder of its name.

use std::path::{Path, PathBuf};

use graft_adapters::{PeftAdapter, Trainable};
use graft_gguf::TensorType;
use graft_gguf::mixture::Mixture;
use graft_recipes::Target;

use super::finish::tell_of_kept;
use super::training::Run;
use super::{RunError, inputs};
use crate::device::Backend;
use crate::merge_bound::{MergeBound, onto};
use crate::plan::{ModelFiles, Plan};
use crate::progress::Voice;
use crate::run_folder::ADAPTER;
use crate::servers::{Form, server};
use crate::serving::Serving;
use crate::trained_with::TrainedWith;

/// The adapter's file in the folder of a program that takes one.
const FILE: &str = "adapter.gguf";

/// Writes what each program takes, unless it was; gives the folders.
pub(super) fn give<B: Backend, P: Trainable<B>>(
    run: &mut Run<'_, B, P>,
) -> Result<Vec<PathBuf>, RunError> {
    let (plan, step, voice) = (run.plan, run.position.step, run.voice);
    let mut given = Vec::new();
    for &target in &plan.finish.targets {
        let name = target.name();
        let mut of = format!("{} for {name}", run.folder.trained_sha256());
        if target == Target::Ollama {
            of = format!("{of} onto {}", plan.finish.onto.name());
        }
        if !run.folder.has(name, step, &of)? {
            inputs::check_base(plan, &run.folder.manifest().inputs)?;
            let adapter = run.folder.path().join(ADAPTER);
            let make = |path: &Path| {
                write(plan, target, &adapter, path, voice)
                    .map_err(|error| of_program(target, error))
            };
            let (made, told) = run.folder.make_folder(name, step, &of, make);
            tell_of_kept(&told);
            made?;
        }
        given.push(run.folder.path().join(name));
    }
    Ok(given)
}

fn write(plan: &Plan, target: Target, path: &Path, out: &Path, voice: Voice) -> anyhow::Result<()> {
    let model = &plan.recipe.model;
    let files = ModelFiles::open_with(&model.path.to_string(), model.tokenizer.as_deref())?;
    let adapter = PeftAdapter::open(path)?;
    let trained = TrainedWith::of(&adapter)?;
    let allowed = match target {
        Target::Ollama => MergeBound::of(plan.finish.onto, plan.nf4).refused(),
        _ => f64::INFINITY,
    };
    let serving = Serving {
        target,
        files: &files,
        adapter: Some((&adapter, path)),
        trained: &trained,
        nf4: trained.nf4,
        onto: onto(plan.finish.onto, plan.nf4),
        rank: None,
        mixture: Mixture::All(TensorType::F16),
        kind: TensorType::F32,
        allowed,
        name: format!("{}, fine-tuned with Graft", files.folder.published_name()),
        voice,
    };
    let rows = if server(target).form == Form::Gguf {
        std::fs::create_dir(out)?;
        serving.write(&out.join(FILE))?
    } else {
        serving.write(out)?
    };
    for (what, said) in rows {
        if ["compared", "to be told"].contains(&what) {
            voice.note(&format!("for {}: {said}", target.name()));
        }
    }
    Ok(())
}

/// An error with the program that it is about; one that has a kind of its own keeps it.
fn of_program(target: Target, error: anyhow::Error) -> RunError {
    let error = match error.downcast::<graft_model::Error>() {
        Ok(error) => return error.into(),
        Err(error) => error,
    };
    match error.downcast::<graft_adapters::Error>() {
        Ok(error) => error.into(),
        Err(error) => RunError::Program { name: target.name(), reason: format!("{error:#}") },
    }
}

//! What a run goes on from: its folder, held to the contract before anything is loaded, and the newest
//! checkpoint that is as it was written.

use graft_kernels::flex::isa;

use super::scores::Scores;
use super::state::{self, State};
use super::{RunError, RunOptions};
use crate::plan::Plan;
use crate::progress::{Voice, warn};
use crate::run_folder::checkpoints::{self, Checkpoint, Gone, set_aside};
use crate::run_folder::contract::{Asked, Change};
use crate::run_folder::manifest::{Inputs, Manifest, Mended};
use crate::run_folder::metrics::MetricsLog;
use crate::run_folder::{BEFORE, Content, RunFolder};

/// A run that goes on. Nothing in its folder has changed yet.
pub(super) struct GoingOn {
    folder: RunFolder,
    changes: Vec<Change>,
    from: Option<(Checkpoint, State)>,
    damaged: Vec<(Checkpoint, String)>,
}

/// A run's folder from its first step, or from the one that it goes on after.
pub(super) struct Opened {
    pub(super) folder: RunFolder,
    /// The last checkpoint, which has not been loaded.
    pub(super) from: Option<(Checkpoint, State)>,
    pub(super) metrics: MetricsLog,
}

impl GoingOn {
    /// The run in the plan's folder, if it is to go on and has begun.
    ///
    /// # Errors
    /// It would be another run, or all of its checkpoints are damaged.
    pub(super) fn find(
        plan: &Plan,
        inputs: &Inputs,
        options: RunOptions,
    ) -> Result<Option<Self>, RunError> {
        if !options.resume || !RunFolder::holds_run(&plan.output_dir) {
            return Ok(None);
        }
        let folder = RunFolder::open_for_resume(&plan.output_dir)?;
        let (device, kernels) = (options.named_device, isa::is_named());
        let changes = folder.changes(inputs, Asked { recipe: &plan.recipe, device, kernels })?;
        let mut damaged = Vec::new();
        for saved in folder.checkpoints().list()?.into_iter().rev() {
            match state::verified(&saved) {
                Ok(state) => {
                    let from = Some((saved, state));
                    return Ok(Some(Self { folder, changes, from, damaged }));
                }
                Err(reason) => damaged.push((saved, reason)),
            }
        }
        if damaged.is_empty() {
            return Ok(Some(Self { folder, changes, from: None, damaged }));
        }
        let listed = |(saved, reason): (Checkpoint, String)| (saved.path, reason);
        Err(RunError::NoWholeCheckpoint(damaged.into_iter().map(listed).collect()))
    }

    /// The last step that was taken.
    pub(super) fn step(&self) -> u64 {
        self.from.as_ref().map_or(0, |(_, state)| state.position.step)
    }

    /// Records that the run goes on, and sets aside what is damaged.
    fn begin(self, voice: Voice, plan: &Plan, inputs: Inputs) -> Result<Opened, RunError> {
        let step = self.step();
        let Self { mut folder, changes, from, damaged } = self;
        for Change { what, from, to } in &changes {
            voice.note(&format!("{what}: {from} up to step {step}, {to} from here on"));
        }
        let mut mended = Vec::from_iter(missing(folder.manifest(), step, &damaged));
        for (saved, reason) in damaged {
            let aside = set_aside(&saved.path)?;
            let name = saved.path.file_name().unwrap_or_default().to_string_lossy();
            mended.push(Mended {
                file: format!("checkpoints/{name}"),
                found: format!(
                    "{reason}; the run goes on from step {step}, it is kept as `{aside}`"
                ),
            });
        }
        // What a kill kept from going.
        let gone = folder.checkpoints().prune(plan.checkpoint.keep)?;
        gone.iter().filter_map(Gone::sentence).for_each(|sentence| warn(&sentence));
        let recipe = plan.recipe.to_yaml();
        let mut said = folder.resumed_after(step, (inputs, &recipe), changes, mended)?;
        let path = folder.metrics_path();
        let had_come = folder.manifest().last_checkpoint.is_some();
        let (metrics, damage) = match &from {
            None => MetricsLog::begin_anew(&path, had_come)?,
            Some((_, state)) => MetricsLog::go_on(&path, step, &state.metrics)?,
        };
        if let Some(found) = damage {
            let file = "metrics.jsonl".to_owned();
            said.push(folder.mended(step, Mended { file, found })?);
        }
        said.iter().for_each(say_mended);
        Ok(Opened { folder, from, metrics })
    }
}

/// The last checkpoint, where it is gone, and a run goes on from `step` in its place.
fn missing(manifest: &Manifest, step: u64, damaged: &[(Checkpoint, String)]) -> Option<Mended> {
    let last = manifest.last_checkpoint.filter(|&last| last > step)?;
    if damaged.iter().any(|(saved, _)| saved.step == last) {
        return None;
    }
    let found = match step {
        0 => "it is missing, and no other is there: the run begins anew".to_owned(),
        _ => format!("it is missing: the run goes on from step {step}"),
    };
    Some(Mended { file: format!("checkpoints/{}", checkpoints::name(last)), found })
}

/// Says what was found damaged, and what became of it.
pub(super) fn say_mended(Mended { file, found }: &Mended) {
    warn(&format!("`{file}` of the run: {found}"));
}

/// Begins a run in its folder, or goes on with it.
pub(super) fn open(
    voice: Voice,
    plan: &Plan,
    going_on: Option<GoingOn>,
    inputs: Inputs,
) -> Result<Opened, RunError> {
    if let Some(going_on) = going_on {
        return going_on.begin(voice, plan, inputs);
    }
    let recipe = plan.recipe.to_yaml();
    let folder = RunFolder::create(&plan.output_dir, &recipe, Manifest::begin(inputs))?;
    let metrics = MetricsLog::begin(&folder.metrics_path())?;
    Ok(Opened { folder, from: None, metrics })
}

/// The base's scores as an earlier part of the run made them; `None` where the base has to be scored, with
/// a word where that is not for the first time.
pub(super) fn scores_of_base(
    voice: Voice,
    folder: &mut RunFolder,
    step: u64,
    asked_sha256: &str,
) -> Result<Option<Scores>, RunError> {
    let reason = match folder.content(BEFORE, 0, asked_sha256)? {
        Content::Whole(text) => match Scores::read(&text) {
            Some(scores) => return Ok(Some(scores)),
            None => "it is of another Graft".to_owned(),
        },
        Content::None => return Ok(None),
        Content::Other => {
            voice.note("the base is scored again: what it is asked has changed");
            return Ok(None);
        }
        Content::Damaged(reason) => reason,
    };
    let (file, found) = (BEFORE.to_owned(), format!("{reason}: the base is scored again"));
    say_mended(&folder.mended(step, Mended { file, found })?);
    Ok(None)
}

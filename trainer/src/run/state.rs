//! A run's state on disk: trained values, optimizer moments, and how far it has come.
//!
//! Order, schedule and noise are functions of the step, so nothing else is needed to go on to the same
//! bytes.

use std::collections::BTreeMap;
use std::path::Path;

use graft_adapters::Trainable;
use graft_model::checkpoint::{Checkpoint, TensorView, write_safetensors};
use graft_model::folder::ModelFolder;
use graft_model::{Error, atomic};
use safetensors::Dtype;
use serde::{Deserialize, Serialize};

use super::{Backend, RunError};
use crate::optimizer::{AdamW, AdamWConfig};
use crate::step::Trainer;

const STATE: &str = "state.json";
const WEIGHTS: &str = "trainable.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const MOMENTS: [&str; 2] = ["exp_avg", "exp_avg_sq"];

/// How far a run has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Position {
    /// Steps taken.
    pub(super) step: u64,
    /// Tokens seen in them.
    pub(super) tokens: u64,
    /// Tokens trained on.
    pub(super) target_tokens: u64,
    /// Seconds spent in them.
    pub(super) seconds: f64,
    /// Loss of the last one.
    pub(super) loss: f64,
}

/// Writes a checkpoint's files into `folder`.
pub(super) fn save<P: Trainable<Backend>>(
    folder: &Path,
    trainer: &Trainer<Backend, P>,
    position: Position,
) -> Result<(), RunError> {
    let slots = trainer.parameters.slots();
    let view = |name: String, shape: &[usize], values: &[f32]| TensorView {
        name,
        dtype: Dtype::F32,
        shape: shape.to_vec(),
        bytes: values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>().into(),
    };
    let values = trainer.parameters.values();
    let weights: Vec<TensorView> = slots
        .iter()
        .map(|slot| view(slot.name.clone(), &slot.shape, &values[slot.range.clone()]))
        .collect();
    let mut moments = Vec::with_capacity(2 * slots.len());
    for (kind, values) in MOMENTS.iter().zip(trainer.optimizer.moments()) {
        moments.extend(slots.iter().map(|slot| {
            view(format!("{}.{kind}", slot.name), &slot.shape, &values[slot.range.clone()])
        }));
    }
    let none = BTreeMap::new();
    write_safetensors(&folder.join(WEIGHTS), &weights, &none)?;
    write_safetensors(&folder.join(OPTIMIZER), &moments, &none)?;
    let text = serde_json::to_string_pretty(&position).expect("numbers are plain data") + "\n";
    atomic::write_bytes(folder.join(STATE), text.as_bytes()).map_err(Error::Write)?;
    Ok(())
}

/// Puts a checkpoint's values into a trainer that was built for the same recipe.
pub(super) fn load<P: Trainable<Backend>>(
    path: &Path,
    trainer: &mut Trainer<Backend, P>,
    config: AdamWConfig,
) -> Result<Position, RunError> {
    let broken = |reason: String| RunError::Checkpoint { path: path.to_owned(), reason };
    let folder = ModelFolder::at(path)?;
    let position: Position = serde_json::from_slice(&folder.required(STATE)?)
        .map_err(|error| broken(format!("{STATE}: {error}")))?;
    let slots = trainer.parameters.slots().to_vec();
    let read = |file: &str, suffix: &str| -> Result<Vec<f32>, RunError> {
        let checkpoint = Checkpoint::open_file(&folder, file)?;
        let mut values = vec![0.0; trainer.parameters.len()];
        for slot in &slots {
            let name = format!("{}{suffix}", slot.name);
            let tensor = checkpoint
                .tensor(&name)
                .ok_or_else(|| broken(format!("{file} lacks `{name}`, which this run trains")))?;
            if tensor.shape != slot.shape {
                let (found, expected) = (&tensor.shape, &slot.shape);
                return Err(broken(format!("`{name}` is {found:?}, expected {expected:?}")));
            }
            values[slot.range.clone()].copy_from_slice(&tensor.to_f32()?);
        }
        Ok(values)
    };
    let weights = read(WEIGHTS, "")?;
    let [first, second] = MOMENTS.map(|kind| read(OPTIMIZER, &format!(".{kind}")));
    trainer.optimizer = AdamW::restore(config, position.step, first?, second?);
    trainer.parameters.values_mut().copy_from_slice(&weights);
    trainer.parameters.store(&mut trainer.model);
    Ok(position)
}

//! A run's state on disk: trained values, optimizer moments, and how far it has come.
//!
//! Order, schedule and noise are functions of the step, so nothing else is needed to go on to the same
//! bytes. `state.json` has the hashes of the other files and of the metrics so far, and ends in that of
//! its own text: what was damaged since is found before it is used.

use std::collections::BTreeMap;
use std::path::Path;

use graft_adapters::Trainable;
use graft_files::atomic;
use graft_model::Error;
use graft_model::checkpoint::{Checkpoint, TensorSpec, TensorView, stream_safetensors};
use graft_model::folder::ModelFolder;
use safetensors::Dtype;
use serde::{Deserialize, Serialize};

use super::RunError;
use crate::device::Backend;
use crate::run_folder::ADAPTER;
use crate::run_folder::checkpoints::{Checkpoint as Saved, OPTIMIZER, STATE, WEIGHTS};
use crate::run_folder::manifest::{FORMAT, FileHash, hash_file, hash_folder};
use crate::run_folder::seal;
use graft_engine::optimizer::blockwise::{BLOCK, Blocks};
use graft_engine::optimizer::{Moments, StateFormat};
use graft_engine::parameters::Slot;
use graft_engine::step::Trainer;

const MOMENTS: [&str; 2] = ["exp_avg", "exp_avg_sq"];

/// How far a run has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
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

/// Content of `state.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct State {
    /// As that of the manifest.
    format: u64,
    /// How far the run has come.
    #[serde(flatten)]
    pub(super) position: Position,
    /// The metrics up to here.
    pub(super) metrics: FileHash,
    /// File beside it to its hash.
    files: BTreeMap<String, FileHash>,
}

impl State {
    /// The hash of the trained values.
    pub(super) fn trained_sha256(&self) -> &str {
        &self.files[WEIGHTS].sha256
    }
}

/// The state of a checkpoint, if all that a run goes on from is as it was written.
///
/// # Errors
/// What is wrong with it, as a sentence.
pub(super) fn verified(saved: &Saved) -> Result<State, String> {
    let state: State = saved.state().map_err(|wrong| format!("{STATE}: {wrong}"))?;
    let State { format, files, .. } = &state;
    if *format != FORMAT {
        return Err(format!("{STATE}: its format is {format}, this Graft reads {FORMAT}"));
    }
    for name in [WEIGHTS, OPTIMIZER] {
        let written =
            files.get(name).ok_or_else(|| format!("{STATE}: it has no hash of {name}"))?;
        let found = hash_file(&saved.path.join(name), |_| ())
            .map_err(|error| format!("{name}: {error}"))?;
        if found != *written {
            let (FileHash { bytes: now, .. }, FileHash { bytes: then, .. }) = (&found, written);
            return Err(format!(
                "{name}: it was damaged or changed: {now} bytes of SHA-256 {}, when it was written \
                 {then} of {}",
                found.sha256, written.sha256
            ));
        }
    }
    Ok(state)
}

/// The moments of one tensor in a file: name behind the tensor's, type and shape of each part.
fn parts(slot: &Slot, format: StateFormat) -> Vec<(&'static str, Dtype, Vec<usize>)> {
    let len = slot.range.len();
    if format.is_blockwise(len) {
        let blocks = vec![len.div_ceil(BLOCK)];
        let part = |codes, absmax| {
            [(codes, Dtype::U8, slot.shape.clone()), (absmax, Dtype::F32, blocks.clone())]
        };
        [part("state1", "absmax1"), part("state2", "absmax2")].concat()
    } else {
        MOMENTS.map(|name| (name, Dtype::F32, slot.shape.clone())).to_vec()
    }
}

/// The values of the parts, in their order.
fn part(moments: &Moments, index: usize) -> Vec<u8> {
    let bytes = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect();
    match moments {
        Moments::F32(both) => bytes(&both[index]),
        Moments::Blockwise8(both) if index.is_multiple_of(2) => both[index / 2].codes.clone(),
        Moments::Blockwise8(both) => bytes(&both[index / 2].absmax),
    }
}

/// Writes a checkpoint's files into `folder`, which has its adapter already, one tensor at a time; `metrics`
/// is the log's hash so far. Gives the state and its text.
pub(super) fn save<B: Backend, P: Trainable<B>>(
    folder: &Path,
    trainer: &mut Trainer<B, P>,
    position: Position,
    metrics: FileHash,
) -> Result<(State, Vec<u8>), RunError> {
    let slots = trainer.parameters.slots();
    let none = BTreeMap::new();
    let spec = |name, dtype, shape| TensorSpec { name, dtype, shape };
    let weights = slots.iter().map(|slot| spec(slot.name.clone(), Dtype::F32, slot.shape.clone()));
    let (weights, format) = (weights.collect(), trainer.optimizer.config().states);
    let mut moments = Vec::new();
    let mut places = BTreeMap::new();
    for (tensor, slot) in slots.iter().enumerate() {
        for (index, (part, dtype, shape)) in parts(slot, format).into_iter().enumerate() {
            let name = format!("{}.{part}", slot.name);
            places.insert(name.clone(), (tensor, index));
            moments.push(spec(name, dtype, shape));
        }
    }
    // Parts of one tensor mostly follow each other: they come from a device together.
    let mut last = None;
    stream_safetensors(&folder.join(OPTIMIZER), moments, &none, |spec, file| {
        let (tensor, index) = places[&spec.name];
        let held = last.take().filter(|(held, _)| *held == tensor);
        let (_, moments) =
            last.insert(held.unwrap_or_else(|| (tensor, trainer.optimizer.moments(tensor))));
        Ok::<_, Error>(file.write_all(&part(moments, index))?)
    })?;
    drop(last);
    let values = trainer.values_by_name();
    stream_safetensors(&folder.join(WEIGHTS), weights, &none, |spec, file| {
        let bytes: Vec<u8> = values(&spec.name).iter().flat_map(|v| v.to_le_bytes()).collect();
        Ok::<_, Error>(file.write_all(&bytes)?)
    })?;
    let hash = |name: &str| Ok((name.to_owned(), hash_file(&folder.join(name), |_| ())?));
    let files = [WEIGHTS, OPTIMIZER].into_iter().map(hash);
    let mut files = files.collect::<Result<BTreeMap<_, _>, RunError>>()?;
    let adapter = folder.join(ADAPTER);
    if adapter.is_dir() {
        let hashes = hash_folder(&adapter)?.into_iter();
        files.extend(hashes.map(|(name, hash)| (format!("{ADAPTER}/{name}"), hash)));
    }
    let state = State { format: FORMAT, position, metrics, files };
    let text = seal::sealed(&state);
    atomic::write_bytes(folder.join(STATE), &text).map_err(Error::Write)?;
    Ok((state, text))
}

/// Puts the values of a checkpoint that is [`verified`] into a trainer that was built for the same
/// recipe, one tensor at a time.
pub(super) fn load<B: Backend, P: Trainable<B>>(
    path: &Path,
    position: Position,
    trainer: &mut Trainer<B, P>,
) -> Result<(), RunError> {
    let broken = |reason: String| RunError::Checkpoint { path: path.to_owned(), reason };
    let folder = ModelFolder::at(path)?;
    let read = |file: &Checkpoint, name: &str, dtype: Dtype, shape: &[usize]| {
        let tensor = file
            .tensor(name)
            .ok_or_else(|| broken(format!("it lacks `{name}`, to be gone on with")))?;
        if tensor.shape != shape || tensor.dtype != dtype {
            let (found, stored) = (&tensor.shape, tensor.dtype);
            let reason = format!("`{name}` is {stored} {found:?}, expected {dtype} {shape:?}");
            return Err(broken(reason));
        }
        Ok::<_, RunError>(tensor)
    };
    let config = trainer.optimizer.config();
    let file = Checkpoint::open_file(&folder, OPTIMIZER)?;
    let Trainer { model, parameters, optimizer, .. } = trainer;
    let moments = parameters.slots().iter().map(|slot| {
        let parts = parts(slot, config.states).into_iter().map(|(part, dtype, shape)| {
            read(&file, &format!("{}.{part}", slot.name), dtype, &shape)
        });
        Ok::<_, RunError>(assembled(&parts.collect::<Result<Vec<_>, _>>()?)?)
    });
    optimizer.restore(position.step, moments)?;
    let file = Checkpoint::open_file(&folder, WEIGHTS)?;
    parameters.fill(model, |slot| {
        Ok::<_, RunError>(read(&file, &slot.name, Dtype::F32, &slot.shape)?.to_f32()?)
    })
}

/// The moments that a tensor's parts are.
fn assembled(parts: &[TensorView]) -> Result<Moments, Error> {
    let blocks = |codes: &TensorView, absmax: &TensorView| {
        Ok::<_, Error>(Blocks { codes: codes.bytes.to_vec(), absmax: absmax.to_f32()? })
    };
    Ok(match parts {
        [first, second] => Moments::F32([first.to_f32()?, second.to_f32()?]),
        [codes1, absmax1, codes2, absmax2] => {
            Moments::Blockwise8([blocks(codes1, absmax1)?, blocks(codes2, absmax2)?])
        }
        _ => unreachable!("`parts` gives two or four"),
    })
}

//! An adapter as PEFT stores it: adapter_config.json and adapter_model.safetensors.
//!
//! Follows PEFT 0.21.2 (`utils/save_and_load.py`, `tuners/lora/`). The update of a projection is
//! `scale · B·A`, `A` `[rank, in]`, `B` `[out, rank]`, scale `alpha / rank` or `alpha / √rank`.

mod config;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use graft_model::checkpoint::{Checkpoint, Dtype, TensorView, write_safetensors};
use graft_model::folder::ModelFolder;
use graft_model::site::LoraMatrix;
use graft_model::{LlamaConfig, Site, atomic};
use serde_json::Value;

use crate::error::Error;
use crate::lora::{LoraConfig, Start, tensor_name};

/// The description.
pub const CONFIG_FILE: &str = "adapter_config.json";
/// The matrices.
pub const WEIGHTS_FILE: &str = "adapter_model.safetensors";

/// PEFT's name of a model inside its wrapper.
const PREFIX: &str = "base_model.model.";

/// Writes an adapter's folder, whole or not at all. The bytes are a function of the arguments.
///
/// - `layers`: blocks of the base, to tell "every layer" from a choice of layers
/// - `base`: `base_model_name_or_path`, for the tools that look for the base themselves
/// - `tensors`: name inside the model (`….q_proj.lora_A.weight`), shape, values; in any order
/// - `metadata`: goes into the header of the weights beside PEFT's own `format`
///
/// # Errors
/// The disk's.
///
/// # Panics
/// If the tensors are not those of `config`.
pub fn save(
    folder: &Path,
    config: &LoraConfig,
    layers: usize,
    base: &str,
    tensors: &[(String, Vec<usize>, Vec<f32>)],
    mut metadata: BTreeMap<String, String>,
) -> Result<(), Error> {
    assert_tensors(config, tensors);
    metadata.insert("format".to_owned(), "pt".to_owned());
    let views: Vec<TensorView> = tensors
        .iter()
        .map(|(name, shape, values)| {
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            let (name, shape) = (format!("{PREFIX}{name}"), shape.clone());
            TensorView { name, dtype: Dtype::F32, shape, bytes: bytes.into() }
        })
        .collect();
    let text = config::write(config, layers, base);
    atomic::replace_folder(folder, |folder| {
        atomic::write_bytes(folder.join(CONFIG_FILE), text.as_bytes())?;
        write_safetensors(&folder.join(WEIGHTS_FILE), &views, &metadata)?;
        Ok(())
    })
}

fn assert_tensors(config: &LoraConfig, tensors: &[(String, Vec<usize>, Vec<f32>)]) {
    let rank = config.rank.get();
    let found: BTreeSet<&str> = tensors.iter().map(|(name, _, _)| name.as_str()).collect();
    let expected: BTreeSet<String> = config
        .sites
        .iter()
        .flat_map(|&site| BOTH.map(|matrix| tensor_name(site, matrix)))
        .collect();
    assert!(
        found.iter().copied().eq(expected.iter().map(String::as_str)) && !found.is_empty(),
        "tensors {found:?} of an adapter that has {expected:?}"
    );
    for (name, shape, values) in tensors {
        let side = usize::from(name.ends_with(".lora_B.weight"));
        assert!(
            shape.len() == 2 && shape[side] == rank && shape[0] * shape[1] == values.len(),
            "{name}: {} values as {shape:?} in an adapter of rank {rank}",
            values.len()
        );
    }
}

const BOTH: [LoraMatrix; 2] = [LoraMatrix::A, LoraMatrix::B];

/// An adapter on disk, checked in itself; the matrices stay in the memory map.
#[derive(Clone, Debug)]
pub struct PeftAdapter {
    file: String,
    config: LoraConfig,
    base: Option<String>,
    metadata: BTreeMap<String, String>,
    /// `A` and `B` of every site.
    matrices: BTreeMap<Site, [TensorView; 2]>,
}

impl PeftAdapter {
    /// Opens an adapter's folder, or its weights by the name of the file; the description lies
    /// beside them.
    ///
    /// # Errors
    /// A file is missing or broken; the adapter is another kind than plain LoRA of one rank
    /// ([`Error::AdapterConfig`]); a tensor is unknown, lacks its other half, is not finite or has
    /// another rank than the description says ([`Error::AdapterTensors`]).
    pub fn open(path: &Path) -> Result<Self, Error> {
        let (folder, weights) = locate(path)?;
        let file = folder.display_file(CONFIG_FILE);
        let text = folder.required(CONFIG_FILE)?;
        let value: Value = serde_json::from_slice(&text)
            .map_err(|source| Error::AdapterJson { file: file.clone(), source })?;
        let Value::Object(object) = value else {
            let problems = vec!["it is not an object `{…}`".to_owned()];
            return Err(Error::AdapterConfig { file, problems });
        };
        let written =
            config::read(&object).map_err(|problems| Error::AdapterConfig { file, problems })?;
        let checkpoint = Checkpoint::open_file(&folder, &weights)?;
        let file = folder.display_file(&weights);
        let matrices = matrices(&checkpoint, written.rank.get())
            .map_err(|problems| Error::AdapterTensors { file: file.clone(), problems })?;
        let config::AsWritten { rank, alpha, scaling, dropout, base } = written;
        let sites = matrices.keys().copied().collect();
        let config = LoraConfig { rank, alpha, scaling, dropout, sites };
        Ok(Self { file, config, base, metadata: checkpoint.metadata().clone(), matrices })
    }

    /// Rank, scale and sites.
    pub fn config(&self) -> &LoraConfig {
        &self.config
    }

    /// The base that the adapter says it was made for.
    pub fn base(&self) -> Option<&str> {
        self.base.as_deref()
    }

    /// The weights' free text.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// The weights' file, as errors name it.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// `A` `[rank, in]` and `B` `[out, rank]` of a site, row-major; `None` where it has no update.
    pub fn values(&self, site: Site) -> Option<[Vec<f32>; 2]> {
        let views = self.matrices.get(&site)?;
        Some(views.each_ref().map(|view| view.to_f32().expect("`open` accepts float types only")))
    }

    /// Checks that every site exists in a model and that both matrices fit it.
    ///
    /// # Errors
    /// [`Error::AdapterMisfit`] with every difference, both shapes named.
    pub fn check_model(&self, model: &LlamaConfig) -> Result<(), Error> {
        let rank = self.config.rank.get();
        let mut problems = Vec::new();
        for (site, views) in &self.matrices {
            if site.layer >= model.layers {
                problems.push(format!(
                    "`{site}` is adapted, but the model has {} layers",
                    model.layers
                ));
                continue;
            }
            let [out, inner] = site.weight_shape(model);
            for (view, expected) in views.iter().zip([[rank, inner], [out, rank]]) {
                if view.shape != expected {
                    let TensorView { name, shape, .. } = view;
                    problems
                        .push(format!("`{name}` is {shape:?}, but the model needs {expected:?}"));
                }
            }
        }
        if problems.is_empty() {
            return Ok(());
        }
        Err(Error::AdapterMisfit { file: self.file.clone(), problems })
    }

    /// Checks that training may go on from this adapter as `asked` describes: anything but the
    /// dropout must agree, or the first model would be another than the one that was saved.
    ///
    /// # Errors
    /// [`Error::AdapterDiffers`] with every difference.
    pub fn check_same(&self, asked: &LoraConfig) -> Result<(), Error> {
        let LoraConfig { rank, alpha, scaling, dropout: _, sites } = &self.config;
        let mut problems = Vec::new();
        if *rank != asked.rank {
            problems.push(format!("its rank is {}, asked for is {}", rank.get(), asked.rank.get()));
        }
        if alpha.to_bits() != asked.alpha.to_bits() {
            problems.push(format!("its alpha is {alpha}, asked for is {}", asked.alpha));
        }
        if *scaling != asked.scaling {
            problems.push(format!("its scaling is {scaling:?}, asked for is {:?}", asked.scaling));
        }
        let only_here = sites.difference(&asked.sites);
        problems
            .extend(only_here.map(|site| format!("it adapts `{site}`, which is not asked for")));
        let only_asked = asked.sites.difference(sites);
        problems
            .extend(only_asked.map(|site| format!("`{site}` is asked for, it does not adapt it")));
        if problems.is_empty() {
            return Ok(());
        }
        Err(Error::AdapterDiffers { file: self.file.clone(), problems })
    }
}

/// Goes on from a saved adapter that [`PeftAdapter::check_model`] and [`PeftAdapter::check_same`]
/// have passed.
impl Start for &PeftAdapter {
    fn matrices(&mut self, site: Site, rank: usize, [out, inner]: [usize; 2]) -> [Vec<f32>; 2] {
        let values = self.values(site);
        let values = values.unwrap_or_else(|| panic!("the adapter was not checked for {site}"));
        let found = values.each_ref().map(Vec::len);
        assert_eq!(found, [rank * inner, out * rank], "the adapter was not checked for {site}");
        values
    }
}

/// The folder, and the weights' name in it.
fn locate(path: &Path) -> Result<(ModelFolder, String), Error> {
    let missing = |missing, hint| Error::AdapterMissing { path: path.to_path_buf(), missing, hint };
    let hint = "An adapter is a folder with adapter_config.json and adapter_model.safetensors";
    let is_file = path.is_file();
    let root: PathBuf = match path.parent() {
        Some(parent) if is_file && !parent.as_os_str().is_empty() => parent.to_path_buf(),
        Some(_) if is_file => PathBuf::from("."),
        _ => path.to_path_buf(),
    };
    if !root.is_dir() {
        return Err(missing(CONFIG_FILE, hint));
    }
    let folder = ModelFolder::at(&root)?;
    let name = path.file_name().filter(|_| is_file).and_then(|name| name.to_str());
    let weights = name.unwrap_or(WEIGHTS_FILE).to_owned();
    if !folder.contains(CONFIG_FILE) {
        return Err(missing(CONFIG_FILE, hint));
    }
    if !folder.contains(&weights) {
        let pickled = folder.contains("adapter_model.bin");
        let pickle = "Load the pickled adapter_model.bin with PEFT and save it again: pickles can \
                      run code, so Graft does not open them";
        return Err(missing(WEIGHTS_FILE, if pickled { pickle } else { hint }));
    }
    Ok((folder, weights))
}

/// Both halves of every site, or everything that is wrong.
fn matrices(
    checkpoint: &Checkpoint,
    rank: usize,
) -> Result<BTreeMap<Site, [TensorView; 2]>, Vec<String>> {
    let mut problems = Vec::new();
    let mut found: [BTreeMap<Site, TensorView>; 2] = Default::default();
    for name in checkpoint.names() {
        let Some((site, matrix)) = Site::from_peft_key(name) else {
            problems.push(format!("`{name}` is no update of one of the seven projections"));
            continue;
        };
        let Some(view) = checkpoint.tensor(name) else { continue };
        problems.extend(problem(&view, matrix, rank));
        let half = &mut found[usize::from(matrix == LoraMatrix::B)];
        if let Some(other) = half.insert(site, view) {
            problems.push(format!("`{name}` and `{}` are the same matrix", other.name));
        }
    }
    let [mut first, mut second] = found;
    let sites: BTreeSet<Site> = first.keys().chain(second.keys()).copied().collect();
    let mut pairs = BTreeMap::new();
    for site in sites {
        match (first.remove(&site), second.remove(&site)) {
            (Some(a), Some(b)) => _ = pairs.insert(site, [a, b]),
            (Some(a), None) => {
                problems.push(format!("`{}` lacks its `{}`", a.name, site.peft_key(LoraMatrix::B)));
            }
            (None, Some(b)) => {
                problems.push(format!("`{}` lacks its `{}`", b.name, site.peft_key(LoraMatrix::A)));
            }
            (None, None) => {}
        }
    }
    if pairs.is_empty() && problems.is_empty() {
        problems.push("there is none at all".to_owned());
    }
    if problems.is_empty() { Ok(pairs) } else { Err(problems) }
}

fn problem(view: &TensorView, matrix: LoraMatrix, rank: usize) -> Option<String> {
    let TensorView { name, dtype, shape, bytes: _ } = view;
    let side = usize::from(matrix == LoraMatrix::B);
    if shape.len() != 2 || shape[side] != rank {
        let expected = if side == 0 { format!("[{rank}, in]") } else { format!("[out, {rank}]") };
        return Some(format!("`{name}` is {shape:?}, but `r` in {CONFIG_FILE} needs {expected}"));
    }
    let Ok(values) = view.to_f32() else {
        return Some(format!("`{name}` holds {dtype}, but must hold F32, F16 or BF16"));
    };
    let index = values.iter().position(|value| !value.is_finite())?;
    Some(format!("`{name}`: value {index} is {}, but must be finite", values[index]))
}

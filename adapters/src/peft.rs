//! An adapter as PEFT stores it: adapter_config.json and adapter_model.safetensors.
//!
//! Follows PEFT 0.21.2 (`utils/save_and_load.py`, `tuners/lora/`). The update of a projection is
//! `scale · B·A`, `A` `[rank, in]`, `B` `[out, rank]`, scale `alpha / rank` or `alpha / √rank`, rank
//! and alpha of each projection its own. Beside these an adapter may bring embedding or head whole
//! (`modules_to_save`), an update of them (`target_modules`), or rows (`trainable_token_indices`).

mod config;
mod create;
pub mod names;
mod pattern;
mod save;
mod tables;
mod targets;
mod tensors;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use graft_kernels::FrozenMatrix;
use graft_model::checkpoint::{Checkpoint, TensorView};
use graft_model::folder::ModelFolder;
use graft_model::{LlamaConfig, ProjectionKind, Site};
use serde_json::Value;

pub(crate) use create::{Made, Pair};
pub use pattern::ModulePattern;
pub use save::{save, save_from};
pub use tables::WithTables;

use crate::error::Error;
use crate::lora::{
    Beginning, LoraConfig, Size, Start, TableBeginning, TableMethod, TableName, table_tensors,
};
use names::TableTensor;
use save::turned;
use targets::Targets;
use tensors::Tensors;

/// The description.
pub const CONFIG_FILE: &str = "adapter_config.json";
/// The matrices.
pub const WEIGHTS_FILE: &str = "adapter_model.safetensors";

/// PEFT's name of a model inside its wrapper.
const PREFIX: &str = "base_model.model.";

/// An adapter on disk, checked in itself; the matrices stay in the memory map.
#[derive(Clone, Debug)]
pub struct PeftAdapter {
    file: String,
    config: LoraConfig,
    base: Option<String>,
    metadata: BTreeMap<String, String>,
    /// `A` and `B` of every site.
    matrices: BTreeMap<Site, [TensorView; 2]>,
    /// The magnitudes of every site, of DoRA.
    magnitudes: BTreeMap<Site, TensorView>,
    /// What stands in the place of the base's tables.
    tables: BTreeMap<TableName, TensorView>,
    /// What else is trained of tables.
    of_tables: BTreeMap<(TableName, TableTensor), TensorView>,
    /// The modules that the description chooses.
    targets: Targets,
}

impl PeftAdapter {
    /// Opens an adapter's folder, or its weights by the name of the file; the description lies
    /// beside them.
    ///
    /// # Errors
    /// A file is missing or broken; the adapter is another kind than plain LoRA
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
        let Tensors { matrices, magnitudes, tables, of_tables, methods } =
            Tensors::read(&checkpoint, &written)
                .map_err(|problems| Error::AdapterTensors { file: file.clone(), problems })?;
        let sites = matrices.keys().map(|&site| (site, written.size(site).0)).collect();
        let config::AsWritten { scaling, dropout, dora, base, targets, .. } = written;
        let others = LoraConfig::default();
        let config = LoraConfig { scaling, dropout, dora, sites, tables: methods, ..others };
        let metadata = checkpoint.metadata().clone();
        Ok(Self { file, config, base, metadata, matrices, magnitudes, tables, of_tables, targets })
    }

    /// Sizes, scale and sites.
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

    /// The magnitudes `[out]` of a site; `None` where it has none.
    pub fn magnitude(&self, site: Site) -> Option<Vec<f32>> {
        let view = self.magnitudes.get(&site)?;
        Some(view.to_f32().expect("`open` accepts float types only"))
    }

    /// The projections that the description chooses in blocks that it has updates in, and that have none: half an adapter.
    pub fn holes(&self) -> Vec<Site> {
        let blocks = self.matrices.keys().map(|site| site.layer + 1).max().unwrap_or(0);
        let all =
            (0..blocks).flat_map(|layer| ProjectionKind::ALL.map(|kind| Site { layer, kind }));
        let is_hole =
            |site: &Site| !self.matrices.contains_key(site) && self.targets.surely_choose(*site);
        all.filter(is_hole).collect()
    }

    /// `[out, in]` of the weight that a site's update is for; `None` where it has none.
    pub fn shape(&self, site: Site) -> Option<[usize; 2]> {
        let [a, b] = self.matrices.get(&site)?;
        Some([b.shape[0], a.shape[1]])
    }

    /// Whether the description chooses projections in every block, of a model of so many: it would in one more, too.
    pub fn is_of_every_block(&self, blocks: usize) -> bool {
        let beyond = |site: &Site| self.targets.surely_choose(Site { layer: blocks, ..*site });
        self.matrices.keys().any(beyond)
    }

    /// The values of a tensor that is trained of a table, row-major as it is inside a model; `None` where the adapter
    /// brings none.
    pub fn table_values(&self, table: TableName, tensor: TableTensor) -> Option<Vec<f32>> {
        let view = self.of_tables.get(&(table, tensor))?;
        let values = view.to_f32().expect("`open` accepts float types only");
        Some(if tensor.is_turned_in_file(table) { turned(&values, &view.shape) } else { values })
    }

    /// Whether the model with it is the model without it, as far as can be told without that one: every update
    /// has a matrix of zeros, and no table and no magnitudes are brought.
    pub fn changes_nothing(&self) -> bool {
        let is_zero = |view: &TensorView| {
            // In every float type a zero of either sign has no bit set but the sign's.
            let width = view.dtype.bitsize() / 8;
            let zero = |value: &[u8]| {
                let (last, rest) = value.split_last().expect("a type has bytes");
                last << 1 == 0 && rest.iter().all(|&byte| byte == 0)
            };
            view.bytes.chunks_exact(width).all(zero)
        };
        let updates = self.of_tables.iter().filter(|((_, tensor), _)| *tensor == TableTensor::Wide);
        let brings = |method: &TableMethod| !matches!(method, TableMethod::LowRank(_));
        !self.config.tables.values().any(brings)
            && updates.map(|(_, view)| view).all(is_zero)
            && self.magnitudes.is_empty()
            && self.matrices.values().all(|[a, b]| is_zero(b) || is_zero(a))
    }

    /// Checks that every site exists in a model, that all tensors fit it, and that none is missing.
    ///
    /// # Errors
    /// [`Error::AdapterMisfit`] with every difference, both shapes named; [`Error::AdapterPartial`] with
    /// the projections that the description chooses and the file has no update for.
    pub fn check_model(&self, model: &LlamaConfig) -> Result<(), Error> {
        let mut problems = Vec::new();
        let mut fit = |view: &TensorView, expected: &[usize]| {
            let TensorView { name, shape, .. } = view;
            if *shape != expected {
                problems.push(format!("`{name}` is {shape:?}, but the model needs {expected:?}"));
            }
        };
        let sizes = [model.vocab_size, model.d_model];
        for view in self.tables.values() {
            fit(view, &sizes);
        }
        for (&table, method) in &self.config.tables {
            for (tensor, mut shape) in table_tensors(method, sizes) {
                if tensor.is_turned_in_file(table) {
                    shape.reverse();
                }
                if let Some(view) = self.of_tables.get(&(table, tensor)) {
                    fit(view, &shape);
                }
            }
        }
        for ((site, [a, b]), size) in self.matrices.iter().zip(self.config.sites.values()) {
            let [out, inner] = site.weight_shape(model);
            if site.layer < model.layers {
                fit(a, &[size.rank.get(), inner]);
                fit(b, &[out, size.rank.get()]);
                if let Some(magnitude) = self.magnitudes.get(site) {
                    fit(magnitude, &[out]);
                }
            }
        }
        let beyond = self.matrices.keys().filter(|site| site.layer >= model.layers);
        problems.extend(
            beyond.map(|site| {
                format!("`{site}` is adapted, but the model has {} layers", model.layers)
            }),
        );
        for (table, method) in &self.config.tables {
            let TableMethod::Rows(ids) = method else { continue };
            if let Some(id) = ids.iter().find(|&&id| id as usize >= model.vocab_size) {
                let vocab = model.vocab_size;
                problems.push(format!("it brings row {id} of `{table}`, which has {vocab} rows"));
            }
            if *table == TableName::Head && model.tied {
                problems.push(
                    "it brings rows of `lm_head`, but the model's head is its embedding".to_owned(),
                );
            }
        }
        if !problems.is_empty() {
            return Err(Error::AdapterMisfit { file: self.file.clone(), problems });
        }
        let missing: Vec<String> = Site::all(model)
            .filter(|site| !self.matrices.contains_key(site) && self.targets.surely_choose(*site))
            .map(|site| format!("`{site}`"))
            .chain(TableName::ALL.into_iter().filter_map(|table| {
                let is_there = self.config.tables.contains_key(&table);
                let is_chosen = self.targets.surely_choose_table(table);
                (is_chosen && !is_there).then(|| format!("`{table}`"))
            }))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let (file, found) = (self.file.clone(), self.matrices.len());
        Err(Error::AdapterPartial { file, found, missing })
    }

    /// Checks that training may go on from this adapter as `asked` describes: anything but the
    /// dropout must agree, or the first model would be another than the one that was saved.
    ///
    /// # Errors
    /// [`Error::AdapterDiffers`] with every difference; also where the adapter brings a table, which
    /// training would neither use nor save.
    pub fn check_same(&self, asked: &LoraConfig) -> Result<(), Error> {
        let LoraConfig { scaling, dropout: _, dora, b_rate: _, part: _, sites, tables } =
            &self.config;
        let mut problems = Vec::new();
        if *dora != asked.dora {
            let kind = |dora: bool| if dora { "DoRA" } else { "plain LoRA" };
            problems.push(format!("it is {}, asked for is {}", kind(*dora), kind(asked.dora)));
        }
        if *scaling != asked.scaling {
            problems.push(format!("its scaling is {scaling:?}, asked for is {:?}", asked.scaling));
        }
        match (self.config.one_size(), asked.one_size()) {
            (Some(found), Some(asked)) => problems.extend(differences("its", found, asked)),
            _ => {
                for (site, found) in sites {
                    let asked = asked.sites.get(site).copied().unwrap_or(*found);
                    problems.extend(differences(&format!("`{site}`: its"), *found, asked));
                }
            }
        }
        let only_here = sites.keys().filter(|site| !asked.sites.contains_key(site));
        problems
            .extend(only_here.map(|site| format!("it adapts `{site}`, which is not asked for")));
        let only_asked = asked.sites.keys().filter(|site| !sites.contains_key(site));
        problems
            .extend(only_asked.map(|site| format!("`{site}` is asked for, it does not adapt it")));
        for table in TableName::ALL {
            let [found, asked] = [tables, &asked.tables].map(|tables| tables.get(&table));
            if found != asked {
                let [found, asked] = [found, asked].map(of_table);
                problems.push(format!("of `{table}` it trains {found}, asked for is {asked}"));
            }
        }
        if problems.is_empty() {
            return Ok(());
        }
        Err(Error::AdapterDiffers { file: self.file.clone(), problems })
    }
}

/// What is trained of a table, in words.
fn of_table(method: Option<&TableMethod>) -> String {
    match method {
        None => "nothing".to_owned(),
        Some(TableMethod::Whole) => "all (`modules_to_save`)".to_owned(),
        Some(TableMethod::LowRank(Size { rank, alpha })) => {
            format!("an update of rank {} and alpha {alpha}", rank.get())
        }
        Some(TableMethod::Rows(ids)) => format!("the rows of the tokens {ids:?}"),
    }
}

fn differences(whose: &str, found: Size, asked: Size) -> Vec<String> {
    let mut problems = Vec::new();
    if found.rank != asked.rank {
        let (found, asked) = (found.rank.get(), asked.rank.get());
        problems.push(format!("{whose} rank is {found}, asked for is {asked}"));
    }
    if found.alpha.to_bits() != asked.alpha.to_bits() {
        problems.push(format!("{whose} alpha is {}, asked for is {}", found.alpha, asked.alpha));
    }
    problems
}

/// Goes on from a saved adapter that [`PeftAdapter::check_model`] and [`PeftAdapter::check_same`]
/// have passed.
impl Start for &PeftAdapter {
    fn begin(&mut self, site: Site, rank: usize, weight: FrozenMatrix) -> Beginning {
        let [out, inner] = weight.shape();
        let values = self.values(site);
        let values = values.unwrap_or_else(|| panic!("the adapter was not checked for {site}"));
        let found = values.each_ref().map(Vec::len);
        assert_eq!(found, [rank * inner, out * rank], "the adapter was not checked for {site}");
        let [a, b] = values;
        Beginning { a, b, magnitude: self.magnitude(site), weight }
    }

    fn begin_table(
        &mut self,
        name: TableName,
        method: &TableMethod,
        weight: &FrozenMatrix,
    ) -> TableBeginning {
        let begun = table_tensors(method, weight.shape()).into_iter().map(|(tensor, _)| {
            match tensor {
                // The weights are those with the adapter's own in their places.
                TableTensor::Whole => weight.to_f32(),
                _ => self
                    .table_values(name, tensor)
                    .unwrap_or_else(|| panic!("the adapter was not checked for {name}")),
            }
        });
        begun.collect()
    }
}

/// The files that [`PeftAdapter::open`] reads: the description and the weights.
///
/// # Errors
/// One of them is missing.
pub fn files(path: &Path) -> Result<[PathBuf; 2], Error> {
    let (folder, weights) = locate(path)?;
    let home = folder.path().unwrap_or(path);
    Ok([home.join(CONFIG_FILE), home.join(weights)])
}

/// The folder, and the weights' name in it.
fn locate(path: &Path) -> Result<(ModelFolder, String), Error> {
    let missing = |missing, hint| Error::AdapterMissing { path: path.to_path_buf(), missing, hint };
    let hint = "An adapter is a folder with adapter_config.json and adapter_model.safetensors";
    // What the system does not let be looked at is not missing.
    let looked_at = |path: &Path| match path.metadata() {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(graft_model::Error::Io { action: "read", path: path.to_path_buf(), source })
        }
        _ => Ok(()),
    };
    looked_at(path)?;
    let is_file = path.is_file();
    let root: PathBuf = match path.parent() {
        Some(parent) if is_file && !parent.as_os_str().is_empty() => parent.to_path_buf(),
        Some(_) if is_file => PathBuf::from("."),
        _ => path.to_path_buf(),
    };
    if !root.is_dir() {
        return Err(missing(CONFIG_FILE, hint));
    }
    looked_at(&root.join(CONFIG_FILE))?;
    let folder = ModelFolder::at(&root)?;
    let name = path.file_name().filter(|_| is_file).and_then(|name| name.to_str());
    let weights = name.unwrap_or(WEIGHTS_FILE).to_owned();
    // Something else of the name is called what it is.
    for name in [CONFIG_FILE, weights.as_str()] {
        if let error @ graft_model::Error::NotPlain { .. } = folder.missing(name) {
            return Err(error.into());
        }
    }
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

//! From a checkpoint to a model, one tensor at a time.
//!
//! Weights arrive as views of the memory map. A [`Factory`] makes of each what the method needs: keeps
//! it, quantises it, puts an adapter beside it, or makes it trainable. At any time memory holds the
//! model as made so far and one tensor.

use std::ops::Range;
use std::rc::Rc;

use graft_kernels::frozen::Storage;
use graft_kernels::nf4::{self, AbsmaxFormat};
use graft_kernels::{FrozenMatrix, Home, Kernels};
use safetensors::Dtype;

use crate::block::{Block, Branch};
use crate::checkpoint::{Checkpoint, Nf4Tensor, TensorView};
use crate::config::LlamaConfig;
use crate::error::Error;
use crate::llama::Llama;
use crate::pages::Mapped;
use crate::param::Param;
use crate::residency::Residency;
use crate::rope::Rope;
use crate::seat::Seat;
use crate::site::{ProjectionKind, Site};
use crate::table::Table;

/// Makes the parts of a model out of stored weights.
pub trait Factory<B: Kernels> {
    /// What a projection becomes.
    type Projection;

    /// A linear map from its stored weight.
    fn projection(&mut self, site: Site, weight: FrozenMatrix) -> Result<Self::Projection, Error>;

    /// Whether a projection reads a stored weight of this form where it lies, or takes its values over.
    fn keeps(&self, weight: &FrozenMatrix) -> bool;

    /// An embedding or head, which stands at `seat`, from its stored weight.
    fn table(&mut self, seat: Seat, weight: FrozenMatrix) -> Result<Table<B>, Error>;
}

/// Where stored weights come from.
pub trait Weights {
    /// The matrix of this name and shape.
    fn matrix(&self, name: &str, shape: [usize; 2]) -> Result<FrozenMatrix, Error>;

    /// Some rows of the matrix of this name and shape.
    fn band(
        &self,
        name: &str,
        shape: [usize; 2],
        rows: Range<usize>,
    ) -> Result<FrozenMatrix, Error> {
        let whole = self.matrix(name, shape)?;
        Ok(whole.band(rows.clone()).unwrap_or_else(|| {
            let mut values = vec![0.0; rows.len() * shape[1]];
            whole.decode_run(rows.start * shape[1], &mut values);
            FrozenMatrix::from_f32(rows.len(), shape[1], &values)
        }))
    }

    /// The values of a norm.
    fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, Error>;

    /// The mapped pages that hold the matrix of this name; none where memory holds it otherwise.
    fn pages(&self, name: &str) -> Vec<Mapped> {
        let _ = name;
        Vec::new()
    }

    /// Told that the matrix of this name was taken over and is not read again.
    fn release(&self, name: &str) {
        let _ = name;
    }

    /// Told that everything was taken over.
    fn release_all(&self) {}
}

impl Weights for Checkpoint {
    fn matrix(&self, name: &str, shape: [usize; 2]) -> Result<FrozenMatrix, Error> {
        match self.nf4(name)? {
            Some(tensor) => from_nf4(name, tensor),
            None => dense(self.required(name)?, shape),
        }
    }

    fn band(
        &self,
        name: &str,
        [_, inner]: [usize; 2],
        rows: Range<usize>,
    ) -> Result<FrozenMatrix, Error> {
        let missing = || Error::NoTensor { tensor: name.to_owned() };
        let spec = self.spec(name).ok_or_else(missing)?;
        let shape = [rows.len(), inner];
        let bytes = self.rows(name, rows).ok_or_else(missing)?;
        dense(
            TensorView { name: spec.name, dtype: spec.dtype, shape: shape.to_vec(), bytes },
            shape,
        )
    }

    fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, Error> {
        let values = self.required(name)?.to_f32()?;
        debug_assert_eq!(values.len(), len, "`verify` checked the shape of {name}");
        Ok(values)
    }

    fn pages(&self, name: &str) -> Vec<Mapped> {
        Checkpoint::pages(self, name)
    }

    fn release(&self, name: &str) {
        Checkpoint::release(self, name);
    }

    fn release_all(&self) {
        Checkpoint::release_all(self);
    }
}

impl Checkpoint {
    fn required(&self, name: &str) -> Result<TensorView, Error> {
        self.tensor(name).ok_or_else(|| Error::NoTensor { tensor: name.to_owned() })
    }
}

/// The matrix of a float tensor.
///
/// # Errors
/// The tensor holds no floats, or not as many as the shape.
pub fn dense(view: TensorView, [out, inner]: [usize; 2]) -> Result<FrozenMatrix, Error> {
    let TensorView { name: tensor, dtype, bytes, shape: _ } = view;
    let storage = match dtype {
        Dtype::F32 => Storage::F32(bytes),
        Dtype::F16 => Storage::F16(bytes),
        Dtype::BF16 => Storage::Bf16(bytes),
        found => return Err(Error::NotFloat { tensor, found }),
    };
    FrozenMatrix::new(out, inner, storage).map_err(|problem| Error::Stored { tensor, problem })
}

fn from_nf4(name: &str, tensor: Nf4Tensor) -> Result<FrozenMatrix, Error> {
    let Nf4Tensor { shape: [out, inner], codes, absmax, quant_map, dtype: _ } = tensor;
    if let Some(index) = (0..16).find(|&i| quant_map[i].to_bits() != nf4::CODE[i].to_bits()) {
        let (found, expected) = (quant_map[index], nf4::CODE[index]);
        return Err(Error::Code { tensor: name.to_owned(), index, found, expected });
    }
    FrozenMatrix::new(out, inner, Storage::Nf4 { codes, absmax })
        .map_err(|problem| Error::Stored { tensor: name.to_owned(), problem })
}

/// What is left to quantise of a model that is kept as `nf4` says: nothing where the folder is
/// quantised already, for what it holds dense was left out of quantisation (`llm_int8_skip_modules`).
pub fn left_to_quantise(config: &LlamaConfig, nf4: Option<AbsmaxFormat>) -> Option<AbsmaxFormat> {
    nf4.filter(|_| config.quantization.is_none())
}

/// Whether a projection that is frozen at `home` reads the stored weight where it lies: [`quantise`], if it
/// is asked at all, gives it back as it is, and it stays on the host.
pub fn is_kept<B: Kernels>(nf4: Option<AbsmaxFormat>, home: Home, weight: &FrozenMatrix) -> bool {
    home.is_on_host::<B>() && (nf4.is_none() || matches!(weight.storage(), Storage::Nf4 { .. }))
}

/// Quantises a dense matrix to NF4, a run of its values after the other; one that is quantised already stays
/// as it is.
pub fn quantise(
    name: &str,
    matrix: FrozenMatrix,
    format: AbsmaxFormat,
) -> Result<FrozenMatrix, Error> {
    if matches!(matrix.storage(), Storage::Nf4 { .. }) {
        return Ok(matrix);
    }
    let [out, inner] = matrix.shape();
    let failed = |problem| Error::Quantise { tensor: name.to_owned(), problem };
    let run = |start: usize, values: &mut [f32]| matrix.decode_run(start, values);
    let quantised = nf4::quantize_runs(out * inner, format, run).map_err(failed)?;
    let storage = Storage::Nf4 { codes: quantised.codes.into(), absmax: quantised.absmax };
    FrozenMatrix::new(out, inner, storage)
        .map_err(|problem| Error::Stored { tensor: name.to_owned(), problem })
}

impl<B: Kernels, P> Llama<B, P> {
    /// Builds a model from weights that were checked against its configuration.
    ///
    /// `progress` is told each finished layer.
    pub fn load<F: Factory<B, Projection = P>>(
        config: &LlamaConfig,
        weights: &impl Weights,
        factory: &mut F,
        device: &B::Device,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Self, Error> {
        let (embedding, embedding_pages) = table(config, weights, factory, Seat::Embedding)?;
        let mut blocks = Vec::with_capacity(config.layers);
        let mut pages = Vec::with_capacity(config.layers);
        for layer in 0..config.layers {
            crate::stop::check()?;
            let mut mapped = Vec::new();
            blocks.push(block(config, weights, factory, device, layer, &mut mapped)?);
            pages.push(mapped);
            progress(layer + 1);
        }
        let norm = norm(weights, Seat::LastNorm, config, device)?;
        let head =
            if config.tied { None } else { Some(table(config, weights, factory, Seat::Head)?) };
        weights.release_all();
        let sites = ProjectionKind::ALL.map(|kind| Site { layer: 0, kind }.weight_shape(config));
        let block_parameters = sites.iter().map(|[out, inner]| out * inner).sum();
        let (head, head_pages) = head.unzip();
        Ok(Self {
            config: config.clone(),
            device: device.clone(),
            rope: Rope::new(config),
            embedding,
            blocks,
            norm,
            head,
            residency: Rc::new(Residency::new(
                block_parameters,
                pages,
                embedding_pages,
                head_pages,
            )),
        })
    }
}

/// An embedding or head, with the pages it goes on reading.
fn table<B: Kernels, F: Factory<B>>(
    config: &LlamaConfig,
    weights: &impl Weights,
    factory: &mut F,
    seat: Seat,
) -> Result<(Table<B>, Vec<Mapped>), Error> {
    let name = seat.checkpoint_name();
    let table = factory.table(seat, weights.matrix(&name, [config.vocab_size, config.d_model])?)?;
    if !table.reads_stored() || !B::READS_HOST {
        weights.release(&name);
        return Ok((table, Vec::new()));
    }
    Ok((table, weights.pages(&name)))
}

/// One block of a model; adds the pages that it goes on reading to `pages`.
///
/// # Errors
/// Those of the weights and of the factory.
pub fn block<B: Kernels, F: Factory<B>>(
    config: &LlamaConfig,
    weights: &impl Weights,
    factory: &mut F,
    device: &B::Device,
    layer: usize,
    pages: &mut Vec<Mapped>,
) -> Result<Block<B, F::Projection>, Error> {
    let mut projection = |kind: ProjectionKind| -> Result<F::Projection, Error> {
        let site = Site { layer, kind };
        let name = site.checkpoint_name();
        let weight = weights.matrix(&name, site.weight_shape(config))?;
        let keeps = factory.keeps(&weight);
        let projection = factory.projection(site, weight)?;
        if keeps {
            pages.extend(weights.pages(&name));
        } else {
            weights.release(&name);
        }
        Ok(projection)
    };
    Ok(Block {
        layer,
        q_proj: projection(ProjectionKind::Q)?,
        k_proj: projection(ProjectionKind::K)?,
        v_proj: projection(ProjectionKind::V)?,
        o_proj: projection(ProjectionKind::O)?,
        gate_proj: projection(ProjectionKind::Gate)?,
        up_proj: projection(ProjectionKind::Up)?,
        down_proj: projection(ProjectionKind::Down)?,
        input_layernorm: norm(weights, Seat::Norm(layer, Branch::Attention), config, device)?,
        post_attention_layernorm: norm(
            weights,
            Seat::Norm(layer, Branch::FeedForward),
            config,
            device,
        )?,
    })
}

/// A norm of a model.
///
/// # Errors
/// Those of the weights.
pub fn norm<B: Kernels>(
    weights: &impl Weights,
    seat: Seat,
    config: &LlamaConfig,
    device: &B::Device,
) -> Result<Param<B>, Error> {
    let name = seat.checkpoint_name();
    let values = weights.vector(&name, config.d_model)?;
    Ok(Param::new(name, seat, values, &[config.d_model], device))
}

/// Keeps every weight frozen; projections are quantised first if asked.
pub struct Frozen<'a, B: Kernels> {
    /// To quantise dense projections to NF4: how it keeps scales.
    pub nf4: Option<AbsmaxFormat>,
    /// Where projections live.
    pub home: Home,
    /// Where the model goes.
    pub device: &'a B::Device,
}

impl<B: Kernels> Factory<B> for Frozen<'_, B> {
    type Projection = crate::projection::FrozenLinear<B>;

    fn projection(&mut self, site: Site, weight: FrozenMatrix) -> Result<Self::Projection, Error> {
        let weight = match self.nf4 {
            Some(format) => quantise(&site.checkpoint_name(), weight, format)?,
            None => weight,
        };
        Ok(crate::projection::FrozenLinear::new(site, weight, self.home, self.device))
    }

    fn keeps(&self, weight: &FrozenMatrix) -> bool {
        is_kept::<B>(self.nf4, self.home, weight)
    }

    fn table(&mut self, _seat: Seat, weight: FrozenMatrix) -> Result<Table<B>, Error> {
        Ok(Table::frozen(weight, self.device))
    }
}

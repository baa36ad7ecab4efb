//! Every weight trainable, for small models: the same loop, with dense f32 projections.

use std::io::Write;
use std::path::Path;

use burn::tensor::ops::FloatTensor;
use graft_kernels::{FrozenMatrix, Kernels, Ops, Precision};
use graft_model::checkpoint::{Dtype, ShardedWriter, TensorSpec, expected};
use graft_model::config::FloatType;
use graft_model::folder::ModelFolder;
use graft_model::load::Factory;
use graft_model::{
    Error, LlamaConfig, OwnOutput, Param, Pass, Projection, ProjectionKind, Seat, Site, Table,
};
use half::{bf16, f16};

use crate::method::{Learns, Learnt, Method, TokenBytes, Trainable, TrainedTensor};
use crate::out_folder::{OutFolder, Summary};

/// Values that are rounded before they are written.
const PIECE: usize = 1 << 20;

/// Every weight, as a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl Method for Full {
    fn name(&self) -> &'static str {
        "full"
    }

    fn phrase(&self) -> String {
        "every weight".to_owned()
    }

    fn learns(&self) -> Learns {
        Learns::Model
    }

    fn merges(&self) -> bool {
        false
    }

    fn trained(&self, model: &LlamaConfig) -> Vec<TrainedTensor> {
        let tensor = |seat: Seat| TrainedTensor { seat, shape: seat.shape(model) };
        Seat::all(model).into_iter().map(tensor).collect()
    }

    fn token_bytes(&self, _: Site, _: &LlamaConfig, _: Precision) -> TokenBytes {
        TokenBytes { reads_input: true, ..TokenBytes::default() }
    }

    fn drops(&self, _: Site) -> bool {
        false
    }

    fn way_out(&self) -> Option<&'static str> {
        Some("adapter.method=lora with quantization=nf4 trains a small part of it")
    }

    fn write(&self, out: &Path, learnt: &Learnt<'_>) -> Result<(), crate::Error> {
        write(out, learnt.base, learnt.config, learnt.values).map(drop)
    }
}

/// A projection whose weight `[out, in]` is trained itself.
#[derive(Clone, Debug)]
pub struct DenseLinear<B: Kernels> {
    weight: Param<B>,
}

impl<B: Kernels> Projection<B> for DenseLinear<B> {
    fn forward<R: Pass<Inner = B>>(
        &self,
        x: FloatTensor<R::On>,
        kind: ProjectionKind,
        pass: &mut R,
    ) -> FloatTensor<R::On> {
        let weight = pass.param(&self.weight);
        let precision = pass.context().precision;
        pass.output(kind, OwnOutput::Unread, |output| {
            R::On::dense_linear(x, weight, precision, output)
        })
    }

    fn visit(&mut self, visit: &mut dyn FnMut(&mut Param<B>)) {
        visit(&mut self.weight);
    }
}

impl<B: Kernels> Trainable<B> for DenseLinear<B> {
    fn trains(_seat: Seat) -> bool {
        true
    }
}

/// Makes a model whose every weight is a dense f32 tensor.
pub struct FullFactory<'a, B: Kernels> {
    /// Where the model goes.
    pub device: &'a B::Device,
}

impl<B: Kernels> Factory<B> for FullFactory<'_, B> {
    type Projection = DenseLinear<B>;

    fn projection(&mut self, site: Site, weight: FrozenMatrix) -> Result<DenseLinear<B>, Error> {
        let (name, seat) = (site.checkpoint_name(), Seat::Projection(site));
        let weight = Param::new(name, seat, weight.to_f32(), &weight.shape(), self.device);
        Ok(DenseLinear { weight })
    }

    fn keeps(&self, _weight: &FrozenMatrix) -> bool {
        false
    }

    fn table(&mut self, seat: Seat, weight: FrozenMatrix) -> Result<Table<B>, Error> {
        Ok(Table::dense(seat, &weight, self.device))
    }
}

/// Writes a fully trained model as a Hugging Face folder, whole or not at all, in the type that the
/// base's config.json names. `values` gives each tensor of the model by name, row-major.
///
/// # Errors
/// `out` holds something or lies in the base; a value is not finite in the type; the disk refuses.
pub fn write(
    out: &Path,
    base: &ModelFolder,
    config: &LlamaConfig,
    values: &dyn Fn(&str) -> Vec<f32>,
) -> Result<Summary, crate::Error> {
    let out = OutFolder::claim(out, base)?;
    let float = config.dtype.unwrap_or(FloatType::Bf16);
    let dtype = match float {
        FloatType::F32 => Dtype::F32,
        FloatType::F16 => Dtype::F16,
        FloatType::Bf16 => Dtype::BF16,
    };
    let tensors = expected(config);
    let count = tensors.len();
    let specs =
        tensors.into_iter().map(|t| TensorSpec { name: t.name, dtype, shape: t.shape }).collect();
    let writer = ShardedWriter::new(specs, ShardedWriter::MAX_SHARD_BYTES)?;
    let tensor = |spec: &TensorSpec, file: &mut dyn Write| {
        let values = values(&spec.name);
        let held = |value: f32| match float {
            FloatType::F32 => value,
            FloatType::F16 => f16::from_f32(value).to_f32(),
            FloatType::Bf16 => bf16::from_f32(value).to_f32(),
        };
        if let Some(index) = values.iter().position(|&value| !held(value).is_finite()) {
            let (tensor, value) = (spec.name.clone(), held(values[index]));
            return Err(crate::Error::NotFinite { tensor, index, value, dtype });
        }
        for values in values.chunks(PIECE) {
            let bytes: Vec<u8> = match float {
                FloatType::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
                FloatType::F16 => {
                    values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect()
                }
                FloatType::Bf16 => {
                    values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect()
                }
            };
            file.write_all(&bytes)?;
        }
        Ok(())
    };
    out.write(&config.to_json(float, None), &writer, count, tensor, |_| Ok(()))
}

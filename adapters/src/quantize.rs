//! A model with its projections in NF4, as transformers with bitsandbytes saves and loads it.
//!
//! Follows bitsandbytes 0.50.2 (`functional.py`, `QuantState.as_dict(packed=True)`): beside the packed
//! codes a weight has its scales, the tables that the codes index, and a JSON text as a tensor.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;

use graft_kernels::FrozenMatrix;
use graft_kernels::frozen::Storage;
use graft_kernels::nf4::{self, Absmax, AbsmaxFormat};
use graft_model::checkpoint::{
    Checkpoint, Dtype, Expected, ShardedWriter, TensorSpec, TensorView, expected,
};
use graft_model::config::BnbConfig;
use graft_model::folder::ModelFolder;
use graft_model::load::{Weights, quantise};
use graft_model::{LlamaConfig, Site, stop};

use crate::error::Error;
pub use crate::out_folder::Summary;
use crate::out_folder::{OutFolder, float_type, model_type};

/// Writes the quantised model as a Hugging Face folder, whole or not at all; every other tensor is
/// the base's, bit for bit. `double` quantises the blocks' scales too.
///
/// Memory holds one tensor at a time. For that, each projection is read and quantised twice: the
/// files' layout depends on the length of a text that holds a result, and scales may lie far from
/// their codes. `progress` is told the bytes of the base that are worked through, and those in all.
///
/// # Errors
/// Before anything is written: `out` holds something or lies in the base; base and configuration do
/// not belong together; the base is in NF4 already; a weight is no whole number of blocks; the disk
/// is too small. Later: a weight is not finite; the disk refuses.
pub fn write(
    out: &Path,
    base: &ModelFolder,
    config: &LlamaConfig,
    double: bool,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Summary, Error> {
    let out = OutFolder::claim(out, base)?;
    let checkpoint = Checkpoint::open(base)?;
    checkpoint.verify(config)?;
    let mut source = Source { checkpoint: &checkpoint, config, double, latest: None };
    let total = source.check(base)?;
    let mut done = 0;
    let mut groups = Vec::new();
    let mut parts = BTreeMap::new();
    for Expected { name, shape, site } in expected(config) {
        stop::check().map_err(graft_model::Error::from)?;
        let view = source.view(&name)?;
        let Some(site) = site else {
            groups.push(vec![TensorSpec { name, dtype: view.dtype, shape }]);
            continue;
        };
        let found = source.parts(site, &view)?;
        groups.push(found.iter().map(|part| part.spec(&name)).collect());
        parts.extend(found.into_iter().map(|part| (part.name(&name), (site, part))));
        done += view.bytes.len() as u64;
        progress(done, total);
    }
    let writer = unsplit(&groups, ShardedWriter::MAX_SHARD_BYTES)?;
    let bnb = BnbConfig::nf4(double);
    let config_json = config.to_json(model_type(config, &checkpoint), Some(&bnb));
    let tensor = |spec: &TensorSpec, file: &mut dyn Write| {
        match parts.get(&spec.name) {
            Some((site, part)) => source.write(*site, part, file)?,
            None => file.write_all(&source.view(&spec.name)?.bytes)?,
        }
        // Companions are named otherwise than any tensor of the base: they count with their weight.
        done += checkpoint.tensor(&spec.name).map_or(0, |view| view.bytes.len() as u64);
        progress(done, total);
        Ok(())
    };
    out.write(&config_json, &writer, Site::all(config).count(), tensor, |_| Ok(()))
}

/// A tensor of a quantised weight.
enum Part {
    /// Two codes a byte.
    Codes { len: usize },
    /// Scale of each block, f32 or, under double quantisation, a byte.
    Absmax { blocks: usize, double: bool },
    /// Small enough to be kept from the first pass.
    Ready { suffix: &'static str, dtype: Dtype, bytes: Vec<u8> },
}

impl Part {
    fn name(&self, weight: &str) -> String {
        match self {
            Self::Codes { .. } => weight.to_owned(),
            Self::Absmax { .. } => format!("{weight}.absmax"),
            Self::Ready { suffix, .. } => format!("{weight}.{suffix}"),
        }
    }

    fn spec(&self, weight: &str) -> TensorSpec {
        let (dtype, shape) = match self {
            Self::Codes { len } => (Dtype::U8, vec![*len, 1]),
            Self::Absmax { blocks, double: true } => (Dtype::U8, vec![*blocks]),
            Self::Absmax { blocks, double: false } => (Dtype::F32, vec![*blocks]),
            Self::Ready { dtype, bytes, .. } => (*dtype, vec![bytes.len() * 8 / dtype.bitsize()]),
        };
        TensorSpec { name: self.name(weight), dtype, shape }
    }
}

/// Quantises projections of the base when they are asked for.
struct Source<'a> {
    checkpoint: &'a Checkpoint,
    config: &'a LlamaConfig,
    double: bool,
    /// A weight's codes and 8-bit scales are asked for one after the other.
    latest: Option<(Site, FrozenMatrix)>,
}

impl Source<'_> {
    /// Refuses what has no NF4 form; counts the bytes to work through in both passes.
    fn check(&self, base: &ModelFolder) -> Result<u64, Error> {
        let mut total = 0;
        for Expected { name: tensor, site, .. } in expected(self.config) {
            let bytes = self.view(&tensor)?.bytes.len() as u64;
            total += bytes;
            let Some(site) = site else { continue };
            total += bytes;
            let shape = site.weight_shape(self.config);
            if self.checkpoint.nf4(&tensor)?.is_some() {
                return Err(Error::AlreadyNf4 { base: base.display(), tensor });
            }
            if !(shape[0] * shape[1]).is_multiple_of(nf4::BLOCK) {
                return Err(Error::PartBlock { tensor, shape, block: nf4::BLOCK });
            }
        }
        Ok(total)
    }

    fn view(&self, name: &str) -> Result<TensorView, Error> {
        let missing = || graft_model::Error::NoTensor { tensor: name.to_owned() };
        Ok(self.checkpoint.tensor(name).ok_or_else(missing)?)
    }

    fn quantised(&mut self, site: Site) -> Result<&FrozenMatrix, Error> {
        if self.latest.as_ref().is_none_or(|(held, _)| *held != site) {
            // Lets go of the one before first: memory is for one.
            self.latest = None;
            let name = site.checkpoint_name();
            let dense = self.checkpoint.matrix(&name, site.weight_shape(self.config))?;
            self.latest = Some((site, quantise(&name, dense, AbsmaxFormat::of(self.double))?));
        }
        let (_, matrix) = self.latest.as_ref().expect("filled above");
        Ok(matrix)
    }

    /// The tensors that a weight turns into, the large ones without their bytes.
    fn parts(&mut self, site: Site, view: &TensorView) -> Result<Vec<Part>, Error> {
        let [out, inner] = site.weight_shape(self.config);
        let blocks = out * inner / nf4::BLOCK;
        let dtype = float_type(view.dtype).map_or("float32", |kind| kind.name());
        let mut state = format!(
            r#"{{"quant_type": "nf4", "blocksize": {}, "dtype": "{dtype}", "shape": [{out}, {inner}]"#,
            nf4::BLOCK
        );
        let f32s = |suffix, values: &[f32]| Part::Ready {
            suffix,
            dtype: Dtype::F32,
            bytes: values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        };
        let double = self.double;
        let mut parts = vec![Part::Codes { len: out * inner / 2 }, Part::Absmax { blocks, double }];
        parts.push(f32s("quant_map", &nf4::CODE));
        if double
            && let Storage::Nf4 { absmax: Absmax::Double { nested, map, offset, .. }, .. } =
                self.quantised(site)?.storage()
        {
            parts.push(f32s("nested_absmax", nested));
            parts.push(f32s("nested_quant_map", map));
            let _ = write!(
                state,
                r#", "nested_blocksize": {}, "nested_dtype": "float32", "nested_offset": {}"#,
                nf4::NESTED_BLOCK,
                // Between two shortest forms of a number, serde_json takes Python's; std does not.
                serde_json::Value::from(f64::from(*offset))
            );
        }
        state.push('}');
        let suffix = "quant_state.bitsandbytes__nf4";
        parts.push(Part::Ready { suffix, dtype: Dtype::U8, bytes: state.into_bytes() });
        Ok(parts)
    }

    fn write(&mut self, site: Site, part: &Part, file: &mut dyn Write) -> Result<(), Error> {
        if let Part::Ready { bytes, .. } = part {
            return Ok(file.write_all(bytes)?);
        }
        let Storage::Nf4 { codes, absmax } = self.quantised(site)?.storage() else {
            unreachable!("`quantise` gives NF4")
        };
        let bytes = match (part, absmax) {
            (Part::Codes { .. }, _) => codes,
            (_, Absmax::Plain(scales) | Absmax::Double { codes: scales, .. }) => scales,
        };
        Ok(file.write_all(bytes)?)
    }
}

/// Lays the tensors out so that no weight is parted from its companions: readers that load a file
/// at a time need them together.
///
/// # Errors
/// A name occurs twice or a shape is no number of bytes.
pub fn unsplit(groups: &[Vec<TensorSpec>], limit: u64) -> Result<ShardedWriter, Error> {
    let mut sizes = Vec::with_capacity(groups.len());
    for group in groups {
        let lengths: Result<Vec<_>, _> = group.iter().map(TensorSpec::byte_length).collect();
        sizes.push(lengths?);
    }
    Ok(ShardedWriter::new(groups.concat(), unsplitting(&sizes, limit))?)
}

/// The limit, or one a little lower at which no file begins inside a group.
fn unsplitting(groups: &[Vec<usize>], mut limit: u64) -> u64 {
    while limit > 0 && splits(groups, limit) {
        limit -= (limit / 64).max(1);
    }
    limit
}

/// Whether [`ShardedWriter`] would begin a file inside a group.
fn splits(groups: &[Vec<usize>], limit: u64) -> bool {
    let mut filled = 0;
    for group in groups {
        for (place, &length) in group.iter().enumerate() {
            let length = length as u64;
            if filled > 0 && filled + length > limit {
                if place > 0 {
                    return true;
                }
                filled = 0;
            }
            filled += length;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_weight_is_parted_from_its_companions() {
        let sizes = vec![vec![100, 7]; 20];
        for limit in 107..2_200 {
            let chosen = unsplitting(&sizes, limit);
            assert!(!splits(&sizes, chosen) && chosen <= limit, "{limit} became {chosen}");
        }
        let named = |name: String, len| TensorSpec { name, dtype: Dtype::U8, shape: vec![len] };
        let pair =
            |group| vec![named(format!("{group:02}"), 100), named(format!("{group:02}.s"), 7)];
        let groups: Vec<_> = (0..20).map(pair).collect();
        // 320 would hold two pairs and the first half of a third.
        let writer = unsplit(&groups, 320).unwrap();
        assert_eq!(writer.file_names().count(), 10);
    }
}

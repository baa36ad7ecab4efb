//! An adapter that is made one projection at a time, in a folder of its own.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;

use graft_files::atomic;
use graft_model::checkpoint::Dtype;
use graft_model::{Site, stop};

use super::names::{LoraMatrix, from_name, tensor_name};
use super::save::filling;
use crate::error::Error;
use crate::lora::LoraConfig;

/// `A` and `B` of a projection.
pub(crate) type Pair = [Vec<f32>; 2];

/// What is made.
pub(crate) struct Made<'a> {
    /// Its updates.
    pub(crate) config: &'a LoraConfig,
    /// Blocks of the base, as [`super::save()`] is given them.
    pub(crate) layers: usize,
    /// The base's name.
    pub(crate) base: &'a str,
    /// For the header of the weights.
    pub(crate) metadata: BTreeMap<String, String>,
    /// `[out, in]` of a projection.
    pub(crate) shape: &'a dyn Fn(Site) -> [usize; 2],
    /// A projection's matrices, asked for once each.
    pub(crate) pair: &'a dyn Fn(Site) -> Result<Pair, Error>,
}

impl Made<'_> {
    /// Writes it into a folder that is not there yet, whole or not at all. `check` is given the folder before it takes its
    /// place, and keeps it from there with an error; `progress` is told the projections done and those in all.
    ///
    /// # Errors
    /// Those of the matrices, of the disk and of `check`; a value is not finite; the process was asked to stop.
    pub(crate) fn create<E: From<Error> + From<std::io::Error>>(
        self,
        out: &Path,
        progress: &mut dyn FnMut(u64, u64),
        check: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<(), E> {
        let Self { config, layers, base, metadata, shape, pair } = self;
        let mut tensors = Vec::new();
        for (&site, size) in &config.sites {
            let ([rows, columns], rank) = (shape(site), size.rank.get());
            tensors.push((tensor_name(site, LoraMatrix::A), vec![rank, columns]));
            tensors.push((tensor_name(site, LoraMatrix::B), vec![rows, rank]));
        }
        let total = config.sites.len() as u64;
        let done = RefCell::new((0_u64, progress));
        // Both matrices are found together, and written one after the other.
        let last: RefCell<Option<(Site, Pair)>> = RefCell::new(None);
        let values = |name: &str| -> Result<Vec<f32>, Error> {
            let (site, matrix) = from_name(name).expect("the names were made above");
            let mut last = last.borrow_mut();
            if last.as_ref().is_none_or(|(found, _)| *found != site) {
                stop::check().map_err(graft_model::Error::from)?;
                *last = Some((site, pair(site)?));
                let (count, progress) = &mut *done.borrow_mut();
                *count += 1;
                progress(*count, total);
            }
            let (_, pair) = last.as_ref().expect("it was put there above");
            finite(name, &pair[usize::from(matrix == LoraMatrix::B)])
        };
        let fill = filling(config, layers, base, &tensors, &values, metadata);
        atomic::create_folder(out, |folder| {
            fill(folder)?;
            check(folder)
        })
    }
}

/// The values of a tensor, which must be numbers.
fn finite(name: &str, values: &[f32]) -> Result<Vec<f32>, Error> {
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(values.to_vec()),
        Some(index) => {
            let (tensor, dtype) = (name.to_owned(), Dtype::F32);
            Err(Error::NotFinite { tensor, index, value: values[index], dtype })
        }
    }
}

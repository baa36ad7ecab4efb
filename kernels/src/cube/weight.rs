//! Where a frozen weight waits for its products: on the device, or, of a model larger than the device, on
//! the host, from where it is copied for them: with its block and ahead of it where that is told, else for
//! each of them.

use std::ops::Range;
use std::sync::Arc;

use burn_cubecl::CubeRuntime;

use super::ahead::{self, Waiting};
use super::launch::OnDevice;
use super::matrix::DeviceMatrix;
use crate::frozen::FrozenMatrix;

/// A block of weights `now` runs next, and then one of weights `next`: see [`ahead`].
pub(super) fn visit<R: CubeRuntime>(now: &[&Weight<R>], next: &[&Weight<R>]) {
    let waiting = |weights: &[&Weight<R>]| -> Vec<_> {
        let waiting = |weight: &&Weight<R>| match weight {
            Weight::Resident(_) => None,
            Weight::OnHost(waiting) => Some(Arc::clone(waiting)),
        };
        weights.iter().filter_map(waiting).collect()
    };
    ahead::visit(&waiting(now), &waiting(next));
}

/// A frozen weight `[out, in]`.
#[derive(Clone, Debug)]
pub enum Weight<R: CubeRuntime> {
    /// On the device as long as the model lives.
    Resident(Box<DeviceMatrix<R>>),
    /// On the host, for a device.
    OnHost(Arc<Waiting<R>>),
}

impl<R: CubeRuntime> Weight<R> {
    /// Copies a weight to the device, for good.
    pub(super) fn resident(matrix: &FrozenMatrix, device: &R::Device) -> Self {
        let place = OnDevice::on(device);
        let client = place.client.clone();
        // Never given back while a model lives: kept apart from what comes and goes.
        let copied =
            client.memory_persistent_allocation((), |()| DeviceMatrix::new(matrix, &place));
        let copied = copied.unwrap_or_else(|error| {
            panic!("a frozen weight {:?} for the device: {error:?}", matrix.shape())
        });
        Self::Resident(Box::new(copied))
    }

    /// `[out, in]`.
    pub(super) fn shape(&self) -> [usize; 2] {
        match self {
            Self::Resident(matrix) => matrix.shape(),
            Self::OnHost(waiting) => waiting.matrix().shape(),
        }
    }

    /// Some of its rows, in the same memory.
    pub(super) fn band(&self, rows: Range<usize>) -> Option<Self> {
        match self {
            Self::Resident(matrix) => Some(Self::Resident(Box::new(matrix.band(rows)))),
            Self::OnHost(waiting) => {
                let band = waiting.matrix().band(rows)?;
                Some(Self::OnHost(Arc::new(Waiting::new(band, waiting.device().clone()))))
            }
        }
    }

    /// The weight on the device, for one product at least.
    pub(super) fn here(&self) -> DeviceMatrix<R> {
        match self {
            Self::Resident(matrix) => DeviceMatrix::clone(matrix),
            Self::OnHost(waiting) => waiting.here(),
        }
    }
}

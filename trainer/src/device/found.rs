//! The devices that are there, and a sentence for each kind that is not.

use serde::Serialize;

use super::Api;
use crate::machine::Processor;

/// A device as it describes itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Found {
    /// Its number among those of its kind.
    pub index: usize,
    /// Its name.
    pub name: String,
    /// Its driver with its version, where it says.
    pub driver: Option<String>,
    /// Whether the processor plays the device, slowly.
    pub software: bool,
    /// Bytes of its memory, where it says.
    pub memory_bytes: Option<u64>,
    /// Whether it computes with bf16.
    pub bf16: bool,
    /// Whether it computes with f16.
    pub f16: bool,
}

impl Found {
    /// The processor, whose memory is the host's. The CPU kernels round to bf16 in software where
    /// they must.
    pub(super) fn processor() -> Self {
        let processor = Processor::of_this_machine();
        let name = processor.name.unwrap_or_else(|| processor.architecture.to_owned());
        let (software, driver, memory_bytes) = (false, None, None);
        Self { index: 0, name, driver, software, memory_bytes, bf16: true, f16: false }
    }

    /// Its name with its driver.
    pub fn full_name(&self) -> String {
        let driver = self.driver.as_ref().map_or_else(String::new, |driver| format!(", {driver}"));
        format!("{}{driver}", self.name)
    }

    /// Types that it computes with.
    pub fn dtypes(&self) -> Vec<&'static str> {
        let Self { bf16, f16, .. } = *self;
        let types = [("f32", true), ("bf16", bf16), ("f16", f16)];
        types.into_iter().filter_map(|(name, has)| has.then_some(name)).collect()
    }
}

/// The devices of a kind.
///
/// # Errors
/// A sentence that says what is missing.
pub fn found(api: Api) -> Result<Vec<Found>, String> {
    match api {
        Api::Cpu => Ok(vec![Found::processor()]),
        #[cfg(feature = "wgpu")]
        Api::Wgpu => gpus(graft_kernels::cube::wgpu::devices()),
        #[cfg(feature = "cuda")]
        Api::Cuda => gpus(graft_kernels::cube::cuda::devices()),
        #[cfg(not(all(feature = "wgpu", feature = "cuda")))]
        missing => Err(not_built(missing)),
    }
}

/// How a build with such devices is had.
pub(super) fn not_built(api: Api) -> String {
    let name = api.name();
    format!("this build has no {name}: build one with `cargo build --release --features {name}`")
}

#[cfg(any(feature = "wgpu", feature = "cuda"))]
fn gpus(devices: Result<Vec<graft_kernels::cube::Found>, String>) -> Result<Vec<Found>, String> {
    use graft_kernels::cube::Found as Gpu;
    let as_ours = |Gpu { index, name, driver, software, memory_bytes, bf16, f16 }| Found {
        index,
        name,
        driver,
        software,
        memory_bytes,
        bf16,
        f16,
    };
    Ok(devices?.into_iter().map(as_ours).collect())
}

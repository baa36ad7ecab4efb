//! Where tensors live, and what computes on them: the CPU, or a GPU that the build can use.
//!
//! Everything that computes is written once over [`Backend`]; [`Device::run`] is the one place where
//! a device becomes a type.

mod choice;
mod found;

use burn_flex::{Flex, FlexDevice};
use graft_kernels::{Kernels, Ops, Precision};
use graft_recipes::ComputeDtype;

pub use choice::{Choice, NoDevice};
pub use found::{Found, found};

/// A backend that models are asked and trained on.
pub trait Backend: Kernels + Ops<Inner = Self> {}

impl<B: Kernels + Ops<Inner = B>> Backend for B {}

/// Work for whichever backend a device has.
pub trait OnBackend {
    /// What comes of it.
    type Output;

    /// Does it.
    fn on<B: Backend>(self, device: &B::Device) -> Self::Output;
}

/// What devices are reached through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    /// None: the processor itself.
    Cpu,
    /// Vulkan, Metal or Direct3D 12.
    Wgpu,
    /// NVIDIA's own.
    Cuda,
}

impl Api {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Cpu, Self::Wgpu, Self::Cuda];

    /// As `--device` takes it, which is also the feature that builds it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Wgpu => "wgpu",
            Self::Cuda => "cuda",
        }
    }

    /// Whether this build can use it.
    pub fn is_built(self) -> bool {
        match self {
            Self::Cpu => true,
            Self::Wgpu => cfg!(feature = "wgpu"),
            Self::Cuda => cfg!(feature = "cuda"),
        }
    }
}

/// A device that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    api: Api,
    found: Found,
}

impl Device {
    /// The processor.
    pub fn cpu() -> Self {
        Self { api: Api::Cpu, found: Found::processor() }
    }

    /// A GPU with so much memory.
    #[cfg(test)]
    pub(crate) fn made_up(memory_bytes: Option<u64>, bf16: bool) -> Self {
        let name = "RTX".to_owned();
        let (driver, software) = (Some("Mesa 25.1.0".to_owned()), false);
        let found = Found { index: 1, name, driver, software, memory_bytes, bf16, f16: true };
        Self { api: Api::Wgpu, found }
    }

    /// What it is reached through.
    pub fn api(&self) -> Api {
        self.api
    }

    /// Whether tensors live in the host's memory.
    pub fn is_cpu(&self) -> bool {
        self.api == Api::Cpu
    }

    /// What is known of it.
    pub fn found(&self) -> &Found {
        &self.found
    }

    /// As manifests name it, in every place and with every driver the same: `cpu`, `wgpu (AMD Radeon RX
    /// 7900 XTX)`.
    pub fn model(&self) -> String {
        match self.api {
            Api::Cpu => "cpu".to_owned(),
            Api::Wgpu | Api::Cuda => format!("{} ({})", self.api.name(), self.found.name),
        }
    }

    /// As people find it: `cpu`, `wgpu:0 (AMD Radeon RX 7900 XTX)`.
    pub fn name(&self) -> String {
        match self.api {
            Api::Cpu => "cpu".to_owned(),
            Api::Wgpu | Api::Cuda => {
                let Found { index, name, .. } = &self.found;
                format!("{}:{index} ({name})", self.api.name())
            }
        }
    }

    /// Bytes of memory of its own; `None` where it has none, or does not say.
    pub fn memory_bytes(&self) -> Option<u64> {
        if self.is_cpu() { None } else { self.found.memory_bytes }
    }

    /// What a recipe's or flag's compute type means on it: `auto` is bf16 where that is quick.
    pub fn precision(&self, dtype: ComputeDtype) -> Precision {
        let is_quick = match self.api {
            Api::Cpu => Precision::bf16_is_native(),
            Api::Wgpu | Api::Cuda => self.found.bf16,
        };
        match dtype {
            ComputeDtype::Auto if is_quick => Precision::Bf16,
            ComputeDtype::Bf16 if self.found.bf16 => Precision::Bf16,
            ComputeDtype::Auto | ComputeDtype::F32 | ComputeDtype::Bf16 => Precision::F32,
        }
    }

    /// A sentence for whoever asks for a compute type that it does not have.
    pub fn lacks(&self, dtype: ComputeDtype) -> Option<String> {
        (dtype == ComputeDtype::Bf16 && self.precision(dtype) != Precision::Bf16).then(|| {
            format!("compute_dtype: found bf16, but {} has none: it computes in f32", self.name())
        })
    }

    /// Does work on its backend.
    pub fn run<T: OnBackend>(&self, task: T) -> T::Output {
        match self.api {
            Api::Cpu => task.on::<Flex>(&FlexDevice),
            #[cfg(feature = "wgpu")]
            Api::Wgpu => {
                use graft_kernels::cube::{Wgpu, wgpu};
                task.on::<Wgpu>(&wgpu::device(self.found.index))
            }
            #[cfg(feature = "cuda")]
            Api::Cuda => {
                use graft_kernels::cube::{Cuda, CudaDevice};
                task.on::<Cuda>(&CudaDevice::new(self.found.index))
            }
            #[cfg(not(all(feature = "wgpu", feature = "cuda")))]
            missing => unreachable!("no device of {missing:?} is found by a build without it"),
        }
    }
}

#[cfg(test)]
mod tests;

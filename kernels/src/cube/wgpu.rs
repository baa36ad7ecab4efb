//! Devices that wgpu reaches: Vulkan, Metal, Direct3D.

use burn_cubecl::CubeBackend;
pub use cubecl::wgpu::WgpuDevice;
use cubecl::wgpu::WgpuRuntime;
use wgpu::{Adapter, Backends, DeviceType, Features, Instance, InstanceDescriptor};

use super::found::Found;

/// The backend.
pub type Wgpu = CubeBackend<WgpuRuntime, f32, i32, u32>;

/// All adapters, in the order that `--device wgpu:N` counts them: real GPUs before programs.
///
/// # Errors
/// A sentence of what is missing where there is none.
pub fn devices() -> Result<Vec<Found>, String> {
    let found: Vec<Found> = adapters()
        .into_iter()
        .enumerate()
        .map(|(index, (adapter, _))| {
            let info = adapter.get_info();
            let api = format!("{:?}", info.backend);
            let driver = [info.driver.as_str(), info.driver_info.as_str()].join(" ");
            Found {
                index,
                name: format!("{}, {api}", info.name),
                driver: Some(driver.trim().to_owned()).filter(|driver| !driver.is_empty()),
                software: info.device_type == DeviceType::Cpu,
                // No interface of wgpu tells it.
                memory_bytes: None,
                // WGSL has no bf16.
                bf16: false,
                f16: adapter.features().contains(Features::SHADER_F16),
            }
        })
        .collect();
    if found.is_empty() {
        return Err("No Vulkan, Metal or Direct3D 12 driver answers: install the driver of the GPU \
                    (on Debian, mesa-vulkan-drivers; without a GPU it brings a program that plays one)."
            .to_owned());
    }
    Ok(found)
}

/// The device with this number of [`devices`]; wgpu's own choice where it is gone since.
#[must_use]
pub fn device(index: usize) -> WgpuDevice {
    adapters().into_iter().nth(index).map(|(_, device)| device).unwrap_or_default()
}

/// Adapters with what they are called to open them.
fn adapters() -> Vec<(Adapter, WgpuDevice)> {
    let backends = Backends::VULKAN | Backends::METAL | Backends::DX12;
    let instance = Instance::new(InstanceDescriptor {
        backends,
        ..InstanceDescriptor::new_without_display_handle()
    });
    let adapters = cubecl::future::block_on(instance.enumerate_adapters(backends));
    let mut counts = [0; 3];
    let mut named: Vec<_> = adapters
        .into_iter()
        .filter_map(|adapter| {
            let mut next = |kind: usize| {
                counts[kind] += 1;
                counts[kind] - 1
            };
            let (rank, device) = match adapter.get_info().device_type {
                DeviceType::DiscreteGpu => (0, WgpuDevice::DiscreteGpu(next(0))),
                DeviceType::IntegratedGpu => (1, WgpuDevice::IntegratedGpu(next(1))),
                DeviceType::VirtualGpu => (2, WgpuDevice::VirtualGpu(next(2))),
                DeviceType::Cpu => (3, WgpuDevice::Cpu),
                DeviceType::Other => return None,
            };
            Some((rank, adapter, device))
        })
        .collect();
    named.sort_by_key(|(rank, _, _)| *rank);
    // Every program has the same name: one of them is enough.
    named.dedup_by(|(_, _, a), (_, _, b)| a == b);
    named.into_iter().map(|(_, adapter, device)| (adapter, device)).collect()
}

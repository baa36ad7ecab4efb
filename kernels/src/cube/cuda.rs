//! NVIDIA's devices, through CUDA.

use std::path::PathBuf;

use burn_cubecl::CubeBackend;
pub use cubecl::cuda::CudaDevice;
use cubecl::cuda::CudaRuntime;
use cudarc::driver::{result, sys};

use super::found::Found;

/// The backend.
pub type Cuda = CubeBackend<CudaRuntime, f32, i32, u8>;

/// All devices, as the driver counts them.
///
/// Libraries are looked for before they are needed: what loads them later ends the process where they are
/// missing.
///
/// # Errors
/// A sentence of what is missing.
pub fn devices() -> Result<Vec<Found>, String> {
    // SAFETY: a library with this name is NVIDIA's driver; loading it runs its own start alone.
    #[expect(unsafe_code, reason = "asks for a shared library")]
    let driver = unsafe { sys::is_culib_present() };
    if !driver {
        return Err("No CUDA driver: libcuda is not found; install NVIDIA's driver.".to_owned());
    }
    // SAFETY: as above, NVIDIA's run-time compiler.
    #[expect(unsafe_code, reason = "asks for a shared library")]
    let compiler = unsafe { cudarc::nvrtc::sys::is_culib_present() };
    if !compiler {
        return Err("No NVRTC: libnvrtc, which compiles kernels, is not found; install the CUDA \
                    toolkit, or put the library's folder into LD_LIBRARY_PATH."
            .to_owned());
    }
    let headers = cubecl::cuda::install::cuda_path().map(|path| path.join("include"));
    if !headers.as_ref().is_some_and(|folder: &PathBuf| folder.join("cuda_fp16.h").exists()) {
        let folder =
            headers.map_or_else(|| "/usr/local/cuda/include".into(), |f| f.display().to_string());
        return Err(format!(
            "No CUDA headers: {folder} has no cuda_fp16.h, which kernels include; install the CUDA \
             toolkit, or set CUDA_PATH to where it is."
        ));
    }
    let answered = |error: result::DriverError| format!("The CUDA driver does not start: {error}.");
    result::init().map_err(answered)?;
    let count = result::device::get_count().map_err(answered)?;
    if count == 0 {
        return Err("The CUDA driver has no device.".to_owned());
    }
    (0..count).map(|ordinal| found(ordinal).map_err(answered)).collect()
}

fn found(ordinal: i32) -> Result<Found, result::DriverError> {
    use sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR;
    use sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR;
    let device = result::device::get(ordinal)?;
    // SAFETY: the device was given by the driver.
    #[expect(unsafe_code, reason = "asks the driver about a device")]
    let (memory, major, minor) = unsafe {
        (
            result::device::total_mem(device)?,
            result::device::get_attribute(device, MAJOR)?,
            result::device::get_attribute(device, MINOR)?,
        )
    };
    let name = result::device::get_name(device)?;
    Ok(Found {
        index: ordinal as usize,
        name: format!("{name}, compute capability {major}.{minor}"),
        driver: None,
        software: false,
        memory_bytes: Some(memory as u64),
        // From Ampere on.
        bf16: major >= 8,
        f16: true,
    })
}

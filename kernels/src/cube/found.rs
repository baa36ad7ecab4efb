//! What is known of a device before anything runs on it.

/// A GPU, or what stands for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Which of its kind, from 0.
    pub index: usize,
    /// The name its driver gives it, and what it is reached through.
    pub name: String,
    /// Its driver with its version, where it says.
    pub driver: Option<String>,
    /// A program on the CPU that plays a GPU.
    pub software: bool,
    /// Its memory, where the system tells.
    pub memory_bytes: Option<u64>,
    /// Whether kernels can use bf16 there.
    pub bf16: bool,
    /// Whether kernels can use f16 there.
    pub f16: bool,
}

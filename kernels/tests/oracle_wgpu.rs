//! The kernels for GPUs against plain burn, on the first device that wgpu finds; see `oracle/ops.rs`.

#![expect(clippy::unwrap_used, reason = "a failure of the helpers is a failure of the test")]

#[path = "oracle/ahead.rs"]
mod ahead;
#[path = "oracle/ops.rs"]
mod ops;

use graft_kernels::Precision;
use graft_kernels::cube::Wgpu as Backend;

/// Random shapes of each law: where a program plays the GPU, a shape takes seconds.
const CASES: u32 = 6;

/// WGSL has no bf16.
const PRECISIONS: [Precision; 1] = [Precision::F32];

/// Whether operands of bf16 products are bf16.
const BF16: bool = false;

//! The kernels for GPUs against plain burn, on the first NVIDIA device; see `oracle/ops.rs`.

#![expect(clippy::unwrap_used, reason = "a failure of the helpers is a failure of the test")]

#[path = "oracle/ahead.rs"]
mod ahead;
#[path = "oracle/ops.rs"]
mod ops;

use graft_kernels::Precision;
use graft_kernels::cube::Cuda as Backend;

/// Random shapes of each law.
const CASES: u32 = 24;

/// Where operands are bf16, what they are rounded from shows in the last bits: f32 is what laws hold in.
const PRECISIONS: [Precision; 1] = [Precision::F32];

/// Whether operands of bf16 products are bf16.
const BF16: bool = true;

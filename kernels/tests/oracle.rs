//! The CPU's kernels against plain burn; see `oracle/ops.rs`.

#![expect(clippy::unwrap_used, reason = "a failure of the helpers is a failure of the test")]

#[path = "oracle/ops.rs"]
mod ops;
#[path = "oracle/processors.rs"]
mod processors;

use burn_flex::Flex as Backend;
use graft_kernels::Precision;

/// Random shapes of each law.
const CASES: u32 = 24;

/// Precisions that the laws hold in.
const PRECISIONS: [Precision; 2] = [Precision::F32, Precision::Bf16];

/// Whether operands of bf16 products are bf16.
const BF16: bool = true;

//! Frozen weights and fused ops.

//! The loop, the engine, and the binary `graft`.

//! What adapts, merges or exports a projection.

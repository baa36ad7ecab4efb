//! What a run is, as people write it.

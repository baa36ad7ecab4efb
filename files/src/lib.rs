//! The disk, as every other room uses it: strangers' files read so that none can hang a command, fill its
//! memory or end it by a library's panic, own files replaced whole, and hashes.
//!
//! Nothing here knows a model, a recipe or a row.

pub mod atomic;
pub mod caught;
pub mod disk;
pub mod place;
pub mod plain_file;
pub mod sha256;

//! The binary from outside: exit codes, messages, and that refused work leaves nothing behind.
#![expect(clippy::disallowed_methods, reason = "tests write their own input files")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

#[path = "cli/room.rs"]
mod room;

#[path = "cli/adapters.rs"]
mod adapters;
#[path = "cli/asking.rs"]
mod asking;
#[path = "cli/data.rs"]
mod data;
#[path = "cli/doctor.rs"]
mod doctor;
#[path = "cli/documents.rs"]
mod documents;
#[path = "cli/gguf.rs"]
mod gguf;
#[path = "cli/inspect.rs"]
mod inspect;
#[path = "cli/methods.rs"]
mod methods;
#[cfg(target_os = "linux")]
#[path = "cli/peaks.rs"]
mod peaks;
#[path = "cli/plan.rs"]
mod plan;
#[path = "cli/recipes.rs"]
mod recipes;
#[path = "cli/refusals.rs"]
mod refusals;
#[path = "cli/serving.rs"]
mod serving;
#[path = "cli/shipped.rs"]
mod shipped;
#[path = "cli/sources.rs"]
mod sources;
#[path = "cli/synth_model.rs"]
mod synth_model;
#[path = "cli/terminal.rs"]
mod terminal;
#[path = "cli/travels.rs"]
mod travels;
#[path = "cli/validate.rs"]
mod validate;

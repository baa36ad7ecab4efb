//! What a run is, as people write it: YAML recipes, overrides, and the shipped library.
//!
//! [`load`] reads a shipped recipe or a file, lays it over what it `extends`, applies the
//! overrides of the command line, and gives a [`Recipe`] or every problem at once, each with file,
//! line, column and the way out. [`keys()`] is the table of all keys.
//!
//! Two stages, like ripgrep's and ruff's configuration: this crate has the recipe as written; the
//! trainer resolves it against files and model. Nothing here looks at the data or the weights.

mod adapter;
mod dataset;
mod effects;
mod elsewhere;
mod emit;
mod hygiene;
mod keys;
mod layers;
pub mod library;
mod load;
mod model;
mod named;
mod outcome;
mod overrides;
mod paths;
mod problem;
mod recipe;
mod section;
mod source;
mod train_on;
mod training;
mod tree;

pub use adapter::{
    AdapterInit, AdapterMethod, Layers, MethodName, Patterns, Rank, TableModule, TargetModule,
    TargetModules, Token, TokenRows,
};
pub use dataset::{Cache, Chat, Data, Losses, Overlong, Preamble, Validation};
pub use hygiene::{
    Contamination, Hygiene, Names, NearDuplicates, PERSONAL, Pattern, RowAction, ValueAction,
};
pub use keys::{Key, hint, keys};
pub use load::load;
pub use model::{Init, Model, Preset, Quantization};
pub use outcome::{Checkpoint, Evaluation, Finish, Logging, MergeOnto, Target};
pub use paths::{PathOrBuiltin, expand};
pub use problem::{Location, Problem, Problems};
pub use recipe::Recipe;
pub use source::{Documents, DocumentsAllow, Source, SourceFormat, Take};
pub use train_on::{TrainOn, TurnChoice, TurnRole};
pub use training::{
    ActivationOffload, AdamW, Checkpointing, ComputeDtype, Duration, Optimizer, Schedule, Threads,
    Training, Warmup,
};

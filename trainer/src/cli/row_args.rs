//! What rows of a file on the command line are: the keys of a recipe's source, as flags.

use clap::Args;
use graft_data::{Format, SourceFile};
use graft_recipes::TrainOn;

use super::failure::WrongUse;
use crate::plan::as_flags_say;

/// How the rows of a file are read.
#[derive(Debug, Clone, Default, Args)]
pub struct RowArgs {
    /// Which columns the form's fields are read from: '{prompt: question, completion: answer}'
    #[arg(long, value_name = "YAML")]
    pub columns: Option<String>,
    /// Columns that nothing is learnt from, a list.
    #[arg(
        long,
        value_name = "YAML",
        help = "Columns that nothing is learnt from: '[comment, messages.mood]'"
    )]
    pub ignore_columns: Option<String>,
    /// What the fields of turns are called: '{role: speaker, content: utterance}'
    #[arg(long, value_name = "YAML")]
    pub turn_fields: Option<String>,
    /// Words for who speaks, a list for each role.
    #[arg(
        long,
        value_name = "YAML",
        help = "Words for who speaks: '{user: [customer], assistant: [agent]}'"
    )]
    pub roles: Option<String>,
    /// Which turns are learnt, or scored: roles, and all turns or the last.
    #[arg(
        long,
        value_name = "YAML",
        help = "Which turns are learnt, or scored: '{roles: [assistant], turns: last}'"
    )]
    pub train_on: Option<String>,
}

impl RowArgs {
    /// The keys that are given, with their values.
    fn told(&self) -> Vec<(&'static str, &str)> {
        let Self { columns, ignore_columns, turn_fields, roles, train_on } = self;
        let all = [
            ("columns", columns),
            ("ignore_columns", ignore_columns),
            ("turn_fields", turn_fields),
            ("roles", roles),
            ("train_on", train_on),
        ];
        all.into_iter().filter_map(|(key, value)| Some((key, value.as_deref()?))).collect()
    }

    /// Files that are read so; `otherwise` says which turns count where no flag does.
    ///
    /// # Errors
    /// A value is wrong, or the form has no such field.
    pub fn read(
        &self,
        files: Vec<SourceFile>,
        format: Format,
        otherwise: &TrainOn,
    ) -> Result<Vec<SourceFile>, WrongUse> {
        as_flags_say(files, format, &self.told(), otherwise)
    }

    /// Refuses flags where no file is given that they could be about.
    ///
    /// # Errors
    /// One is there.
    pub fn need(&self, flag: &str) -> Result<(), WrongUse> {
        let Some((key, _)) = self.told().first().copied() else { return Ok(()) };
        let name = key.replace('_', "-");
        Err(WrongUse(format!(
            "--{name} says what rows of {flag} are, and there is none: in a recipe the key `{key}` stands beside the \
             source's `path`"
        )))
    }
}

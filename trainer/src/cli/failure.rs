//! From an error to what a person reads and what a script sees.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::io::{self, Write};
use std::process::ExitCode;

use graft_data::visible;
use graft_files::disk;
use graft_files::place::Refused;
use graft_kernels::flex::isa::IsaError;

use super::page::at_stdout;
use crate::device::NoDevice;
use crate::gguf_tokenizer::ExportError;
use crate::no_memory;
use crate::plan::ModelFilesError;
use crate::run::RunError;
use crate::run_folder;
pub use crate::wrong_use::WrongUse;
use graft_engine::score::ScoreError;

/// An exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code(u8);

/// The machine failed, or Graft did.
pub const FAILED: Code = Code(1);
/// The command line, or a file it names, is wrong.
pub const WRONG_INPUT: Code = Code(2);

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        code.0.into()
    }
}

/// The code of an error: that of the first cause whose kind is known, else 1, as where the system has no
/// memory or threads, whatever they were for.
pub fn exit_code(error: &anyhow::Error) -> Code {
    if no_memory::is_cause_of(&whole(error)) {
        return FAILED;
    }
    error.chain().find_map(code_of).unwrap_or(FAILED)
}

fn code_of(cause: &(dyn StdError + 'static)) -> Option<Code> {
    let wrong = |is_wrong: bool| Some(if is_wrong { WRONG_INPUT } else { FAILED });
    let is_use = cause.is::<WrongUse>() || cause.is::<NoDevice>() || cause.is::<IsaError>();
    if is_use || cause.is::<graft_recipes::Problems>() {
        return Some(WRONG_INPUT);
    }
    if let Some(refused) = cause.downcast_ref::<Refused>() {
        return wrong(place_is_wrong(refused));
    }
    if let Some(error) = cause.downcast_ref::<graft_data::Error>() {
        return wrong(data_is_wrong(error));
    }
    if let Some(error) = cause.downcast_ref::<graft_model::Error>() {
        return wrong(model_is_wrong(error));
    }
    if let Some(error) = cause.downcast_ref::<graft_adapters::Error>() {
        return wrong(adapter_is_wrong(error));
    }
    if let Some(error) = cause.downcast_ref::<run_folder::Error>() {
        return wrong(error.is_wrong_input());
    }
    // A transparent error hands on its cause's cause, so its cause has to be asked here.
    if let Some(error) = cause.downcast_ref::<ModelFilesError>() {
        return match error {
            ModelFilesError::Model(error) => code_of(error),
            ModelFilesError::Tokenizer(error) => code_of(error),
            ModelFilesError::Vocabulary { .. }
            | ModelFilesError::EndToken { .. }
            | ModelFilesError::FirstToken { .. } => Some(WRONG_INPUT),
        };
    }
    if let Some(error) = cause.downcast_ref::<ExportError>() {
        return match error {
            ExportError::Model(error) => code_of(error),
            ExportError::Tokenizer(error) => code_of(error),
            ExportError::Apart { .. } => Some(FAILED),
            ExportError::Keys { .. } => Some(WRONG_INPUT),
        };
    }
    if let Some(ScoreError::Text(error)) = cause.downcast_ref::<ScoreError>() {
        return code_of(error);
    }
    if let Some(error) = cause.downcast_ref::<RunError>() {
        return match error {
            RunError::Data(error) => code_of(error),
            RunError::Model(error) => code_of(error),
            RunError::Adapter(error) => code_of(error),
            RunError::Unrecorded { error, manifest: _ } => code_of(error.as_ref()),
            other => wrong(other.is_wrong_input()),
        };
    }
    None
}

fn place_is_wrong(refused: &Refused) -> bool {
    match refused {
        Refused::System { source, .. } => names_wrong_file(source),
        Refused::FileTaken { .. } | Refused::NoParent { .. } | Refused::FolderTaken { .. } => true,
    }
}

fn data_is_wrong(error: &graft_data::Error) -> bool {
    match error {
        graft_data::Error::Read { source, .. } => names_wrong_file(source),
        _ => true,
    }
}

fn model_is_wrong(error: &graft_model::Error) -> bool {
    match error {
        graft_model::Error::Io { source, .. } => names_wrong_file(source),
        graft_model::Error::Taken(refused) => place_is_wrong(refused),
        graft_model::Error::Write(error) => disk::is_too_much(error),
        graft_model::Error::Layout { .. } | graft_model::Error::Stopped(_) => false,
        _ => true,
    }
}

fn adapter_is_wrong(error: &graft_adapters::Error) -> bool {
    match error {
        graft_adapters::Error::Model(error) => model_is_wrong(error),
        graft_adapters::Error::Write(error) => disk::is_too_much(error),
        graft_adapters::Error::NotFinite { .. } | graft_adapters::Error::NotHeld { .. } => false,
        _ => true,
    }
}

/// Whether the system's answer is about what was asked for, rather than about itself.
fn names_wrong_file(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidFilename, IsADirectory, NotADirectory, NotFound, PermissionDenied};
    let kinds = [NotFound, PermissionDenied, IsADirectory, NotADirectory, InvalidFilename];
    // Links in a circle, devices that are not there, addresses that lead nowhere: there are more of them
    // than kinds.
    let is_machine = |code: i32| THE_MACHINES.contains(&code);
    kinds.contains(&error.kind()) || error.raw_os_error().is_some_and(|code| !is_machine(code))
}

/// What a system says of itself when it reads: interrupted, EIO, try again, no memory, too many open files
/// (two), no space, a stale handle, quota.
const THE_MACHINES: [i32; 9] = [4, 5, 11, 12, 23, 24, 28, 116, 122];

/// Says on stderr what went wrong, and gives the exit code. A reader of stdout that has left is no
/// error: `graft recipes ls | head -1` is done.
pub fn report(error: &anyhow::Error) -> ExitCode {
    let left = |cause: &(dyn StdError + 'static)| {
        let cause = cause.downcast_ref::<io::Error>();
        cause.is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
    };
    if error.chain().any(left) {
        return ExitCode::SUCCESS;
    }
    let _ = writeln!(io::stderr(), "{}", text(error));
    exit_code(error).into()
}

/// Says what is wrong with the command line, or what was asked about it: help goes to stdout.
pub fn report_usage(error: &clap::Error) -> ExitCode {
    let plain = error.to_string();
    // Colours are clap's own. A word that would steer the terminal costs them.
    let printed = match visible(&plain) {
        Cow::Borrowed(_) => error.print(),
        Cow::Owned(escaped) => write!(io::stderr(), "{escaped}"),
    };
    match printed {
        _ if error.use_stderr() => WRONG_INPUT.into(),
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(&at_stdout(error).into()),
    }
}

/// `error: …`, then the causes that the line above does not already give, for a terminal: much of what
/// an error tells is text of files.
pub fn text(error: &anyhow::Error) -> String {
    visible(&no_memory::explained(&whole(error))).into_owned()
}

fn whole(error: &anyhow::Error) -> String {
    let mut said = error.to_string();
    let mut text = format!("error: {said}");
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !said.contains(&cause) {
            text.push_str("\n  caused by: ");
            text.push_str(&cause);
            said = cause;
        }
    }
    text
}

/// A panic is a fault of Graft: one line that says where, no backtrace. Or a library's word for a thread
/// that the system does not give.
pub fn quiet_panics() {
    std::panic::set_hook(Box::new(|panic| {
        if graft_files::caught::panics_are_caught() {
            return;
        }
        let message = panic.payload_as_str().unwrap_or("unknown");
        let first = message.lines().next().unwrap_or_default();
        if no_memory::is_cause_of(message) {
            let _ = writeln!(io::stderr(), "error: {}", visible(&no_memory::explained(first)));
            return;
        }
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let _ = writeln!(
            io::stderr(),
            "error: a fault in graft itself at {place}: {}; nothing you wrote should cause this, please report it",
            visible(first)
        );
    }));
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn wrong_input_is_2_behind_any_context_and_everything_else_is_1() {
        let wrong = || graft_data::Error::UnknownFormat { found: "x".into() };
        assert_eq!(exit_code(&wrong().into()), WRONG_INPUT);
        let within = Err::<(), _>(wrong()).context("a").context("b").unwrap_err();
        assert_eq!(exit_code(&within), WRONG_INPUT);
        assert_eq!(exit_code(&ModelFilesError::from(wrong()).into()), WRONG_INPUT);
        assert_eq!(exit_code(&anyhow::anyhow!("other")), FAILED);
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let run = RunError::from(graft_model::Error::Write(full));
        assert_eq!(exit_code(&run.into()), FAILED);
        assert_eq!(exit_code(&RunError::from(wrong()).into()), WRONG_INPUT);
        let full = io::Error::from(io::ErrorKind::StorageFull);
        assert_eq!(exit_code(&graft_model::Error::Write(full).into()), FAILED);
        // What was found not to fit before anything was written is asked for otherwise, in every command.
        let too_much = || disk::require_free("/", u64::MAX).unwrap_err();
        assert_eq!(exit_code(&graft_model::Error::Write(too_much()).into()), WRONG_INPUT);
        assert_eq!(exit_code(&graft_adapters::Error::Write(too_much()).into()), WRONG_INPUT);
        let within = graft_adapters::Error::from(graft_model::Error::Write(too_much()));
        assert_eq!(exit_code(&within.into()), WRONG_INPUT);
        let read =
            |kind: io::ErrorKind| graft_data::Error::Read { path: "x".into(), source: kind.into() };
        assert_eq!(exit_code(&read(io::ErrorKind::NotFound).into()), WRONG_INPUT);
        assert_eq!(exit_code(&read(io::ErrorKind::Other).into()), FAILED);
        let coded = |code: i32| io::Error::from_raw_os_error(code);
        // A circle of links, no such device, a name that is too long, an argument that makes no sense.
        for code in [40, 6, 36, 22] {
            let data = graft_data::Error::Read { path: "x".into(), source: coded(code) };
            assert_eq!(exit_code(&data.into()), WRONG_INPUT, "{code}");
            let (action, path) = ("open", "x".into());
            let model = graft_model::Error::Io { action, path, source: coded(code) };
            assert_eq!(exit_code(&model.into()), WRONG_INPUT, "{code}");
        }
        for code in THE_MACHINES {
            let data = graft_data::Error::Read { path: "x".into(), source: coded(code) };
            assert_eq!(exit_code(&data.into()), FAILED, "{code}");
        }
    }

    #[test]
    fn causes_are_given_once() {
        let error =
            graft_data::Error::Read { path: "x".into(), source: io::ErrorKind::NotFound.into() };
        let error = anyhow::Error::from(error).context("while \u{1b}]0;training\u{7}");
        insta::assert_snapshot!(text(&error), @r"
        error: while \u{1b}]0;training\u{7}
          caused by: cannot read x: entity not found
        ");
    }
}

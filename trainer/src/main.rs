//! The `graft` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    graft::cli::main()
}

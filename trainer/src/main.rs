//! The `graft` command.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: graft::no_memory::Allocator = graft::no_memory::Allocator;

fn main() -> ExitCode {
    graft::cli::main()
}

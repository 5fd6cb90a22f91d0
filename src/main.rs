//! The program `headcount`: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(headcount::cli::main(std::env::args_os().skip(1)))
}

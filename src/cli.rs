//! The command line: arguments in, one command run, an exit code out. What the commands do is in
//! `cli/local.rs`, `cli/learn.rs`, `cli/attempt.rs` and `cli/remote.rs`; nothing here touches files or the network.

mod args;
mod attempt;
mod backup;
mod help;
mod key;
mod learn;
mod local;
mod remote;
mod report;
mod users;

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::prelude::*;

use self::args::Args;
use self::learn::LearnArgs;
use crate::terminal::{complain, say};

/// All went well.
pub const OK: u8 = 0;
/// The command was understood and failed.
pub const FAILED: u8 = 1;
/// The command or the configuration is wrong.
pub const USAGE: u8 = 2;

/// One command with its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Command {
    Demo { exit: bool, port: u16 },
    Serve { config: PathBuf },
    Check { config: PathBuf },
    Try { config: PathBuf, url: String },
    Explain { config: PathBuf, standard: Option<String> },
    Presets { name: Option<String> },
    Pages { name: Option<String> },
    Migrate { config: PathBuf, from: PathBuf },
    Sessions { access: Access, action: Action },
    Users { access: Access, action: UserAction },
    Report { access: Access, wanted: ReportArgs },
    Key { access: Access, act: KeyAct, drop_earlier: bool },
    Backup { access: Access, to: PathBuf, overwrite: bool },
    Health { access: Access },
    Learn(LearnArgs),
    Help(&'static str),
    Version,
}

/// Where the admin API is and how to get in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Access {
    admin: Option<String>,
    config: Option<PathBuf>,
    token_file: Option<PathBuf>,
}

/// `sessions …`
#[derive(Clone, Debug, PartialEq, Eq)]
enum Action {
    List { user: Option<String>, state: Option<String>, limit: Option<u32>, json: bool },
    Show { id: String, json: bool },
    End { ids: Vec<String> },
    EndUser { user: String, except: Option<String> },
}

/// `users …`
#[derive(Clone, Debug, PartialEq, Eq)]
enum UserAction {
    Show {
        user: String,
        json: bool,
    },
    /// A number, `unlimited` or `configured`.
    Limit {
        user: String,
        max: String,
    },
    Limits {
        json: bool,
    },
    Export {
        user: String,
    },
    Erase {
        user: String,
    },
}

/// `key …`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeyAct {
    Show,
    Rotate,
    Stage,
    Promote,
    Retire,
}

/// `report …`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct ReportArgs {
    since: Option<String>,
    until: Option<String>,
    json: bool,
    html: bool,
}

/// What is wrong with the arguments, and whose help would tell.
#[derive(Debug, PartialEq, Eq)]
struct Misuse {
    message: String,
    /// The help text that belongs to it.
    help: &'static str,
}

/// Runs the command that `args` (without the program's name) ask for; returns the exit code.
pub fn main(args: impl IntoIterator<Item = OsString>) -> u8 {
    let command = match parse(args) {
        Ok(command) => command,
        Err(misuse) => {
            complain(format!("headcount: {}", crate::terminal::safe(&misuse.message)));
            complain(format!("Usage: {}", help::usage_line(misuse.help)));
            return USAGE;
        }
    };
    match command {
        Command::Demo { exit, port } => local::demo(exit, port),
        Command::Serve { config } => local::serve(&config),
        Command::Check { config } => local::check(&config),
        Command::Try { config, url } => attempt::run(&config, &url),
        Command::Explain { config, standard } => local::explain(&config, standard.as_deref()),
        Command::Presets { name } => local::presets(name.as_deref()),
        Command::Pages { name } => local::pages(name.as_deref()),
        Command::Migrate { config, from } => local::migrate(&config, &from),
        Command::Sessions { access, action } => remote::sessions(&access, &action),
        Command::Users { access, action } => users::run(&access, &action),
        Command::Key { access, act, drop_earlier } => key::run(&access, act, drop_earlier),
        Command::Backup { access, to, overwrite } => backup::run(&access, &to, overwrite),
        Command::Report { access, wanted } => report::run(&access, &wanted),
        Command::Health { access } => remote::health(&access),
        Command::Learn(args) => learn::run(&args),
        Command::Help(text) => {
            say(text.trim_end());
            OK
        }
        Command::Version => {
            say(concat!("headcount ", env!("CARGO_PKG_VERSION")));
            OK
        }
    }
}

fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, Misuse> {
    let mut parser = lexopt::Parser::from_args(args);
    let general = |message: String| Misuse { message, help: help::GENERAL };
    let name = match parser.next().map_err(|error| general(error.to_string()))? {
        None => return Err(general("which command?".to_owned())),
        Some(Short('h') | Long("help")) => return Ok(Command::Help(help::GENERAL)),
        Some(Short('V') | Long("version")) => return Ok(Command::Version),
        Some(Value(name)) => name.to_string_lossy().into_owned(),
        Some(other) => return Err(general(other.unexpected().to_string())),
    };
    let Some(text) = help::of(&name) else {
        return Err(general(format!("there is no command {name:?}")));
    };
    let args = Args::read(&mut parser)
        .map_err(|error| Misuse { message: error.to_string(), help: text })?;
    if args.help || name == "help" {
        return Ok(Command::Help(text));
    }
    args.into_command(&name).map_err(|message| Misuse { message, help: text })
}

#[cfg(test)]
mod tests;

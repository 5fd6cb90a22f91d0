//! The command line: arguments in, one command run, an exit code out. What the commands do is in
//! `cli/local.rs`, `cli/learn.rs`, `cli/attempt.rs` and `cli/remote.rs`; nothing here touches files or the network.

mod attempt;
mod help;
mod learn;
mod local;
mod remote;
mod report;
mod users;

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::prelude::*;

use self::learn::{LearnArgs, Source};
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

/// Every option of every command, as given.
#[derive(Default)]
struct Args {
    help: bool,
    config: Option<PathBuf>,
    admin: Option<String>,
    token_file: Option<PathBuf>,
    upstream: Option<String>,
    har: Option<PathBuf>,
    listen: Option<String>,
    out: Option<PathBuf>,
    from: Option<PathBuf>,
    attempt: Option<String>,
    user: Option<String>,
    state: Option<String>,
    except: Option<String>,
    since: Option<String>,
    until: Option<String>,
    standard: Option<String>,
    limit: Option<u32>,
    port: Option<u16>,
    json: bool,
    html: bool,
    exit: bool,
    no_preset: bool,
    /// The names of the options given.
    given: Vec<&'static str>,
    words: Vec<String>,
}

impl Args {
    fn read(parser: &mut lexopt::Parser) -> Result<Self, lexopt::Error> {
        let mut args = Self::default();
        while let Some(arg) = parser.next()? {
            match arg {
                Short('h') | Long("help") => args.help = true,
                Short('c') => args.option("config", parser)?,
                Long(name) => {
                    let name = name.to_owned();
                    args.option(&name, parser)?;
                }
                Value(word) => args.words.push(word.string()?),
                other @ Short(_) => return Err(other.unexpected()),
            }
        }
        Ok(args)
    }

    fn option(&mut self, name: &str, parser: &mut lexopt::Parser) -> Result<(), lexopt::Error> {
        let given = match name {
            "config" => {
                self.config = Some(parser.value()?.into());
                "--config"
            }
            "token-file" => {
                self.token_file = Some(parser.value()?.into());
                "--token-file"
            }
            "har" => {
                self.har = Some(parser.value()?.into());
                "--har"
            }
            "out" => {
                self.out = Some(parser.value()?.into());
                "--out"
            }
            "from" => {
                self.from = Some(parser.value()?.into());
                "--from"
            }
            "limit" => {
                self.limit = Some(parser.value()?.parse()?);
                "--limit"
            }
            "port" => {
                self.port = Some(parser.value()?.parse()?);
                "--port"
            }
            other => match self.text(other) {
                Some((text, name)) => {
                    *text = Some(parser.value()?.string()?);
                    name
                }
                None => self.flag(other)?,
            },
        };
        self.given.push(given);
        Ok(())
    }

    /// Options whose value is text as it is.
    fn text(&mut self, name: &str) -> Option<(&mut Option<String>, &'static str)> {
        Some(match name {
            "admin" => (&mut self.admin, "--admin"),
            "upstream" => (&mut self.upstream, "--upstream"),
            "listen" => (&mut self.listen, "--listen"),
            "try" => (&mut self.attempt, "--try"),
            "user" => (&mut self.user, "--user"),
            "state" => (&mut self.state, "--state"),
            "except" => (&mut self.except, "--except"),
            "since" => (&mut self.since, "--since"),
            "until" => (&mut self.until, "--until"),
            "standard" => (&mut self.standard, "--standard"),
            _ => return None,
        })
    }

    /// Options without a value.
    fn flag(&mut self, name: &str) -> Result<&'static str, lexopt::Error> {
        let (flag, name) = match name {
            "json" => (&mut self.json, "--json"),
            "html" => (&mut self.html, "--html"),
            "exit" => (&mut self.exit, "--exit"),
            "no-preset" => (&mut self.no_preset, "--no-preset"),
            other => return Err(lexopt::Error::UnexpectedOption(format!("--{other}"))),
        };
        *flag = true;
        Ok(name)
    }

    /// Refuses options and words that the command does not know.
    fn allow(
        &self,
        options: &[&str],
        words: std::ops::RangeInclusive<usize>,
    ) -> Result<(), String> {
        if let Some(other) = self.given.iter().find(|name| !options.contains(name)) {
            return Err(format!("{other} does not belong here"));
        }
        if self.words.len() > *words.end() {
            return Err(format!("{:?} is one argument too many", self.words[*words.end()]));
        }
        if self.words.len() < *words.start() {
            return Err("an argument is missing".to_owned());
        }
        Ok(())
    }

    fn into_command(mut self, name: &str) -> Result<Command, String> {
        match name {
            "demo" => {
                self.allow(&["--exit", "--port"], 0..=0)?;
                Ok(Command::Demo { exit: self.exit, port: self.port.unwrap_or(8080) })
            }
            "presets" => {
                self.allow(&[], 0..=1)?;
                Ok(Command::Presets { name: self.words.pop() })
            }
            "pages" => {
                self.allow(&[], 0..=1)?;
                Ok(Command::Pages { name: self.words.pop() })
            }
            "health" => {
                self.allow(&["--admin", "--config"], 0..=0)?;
                Ok(Command::Health { access: self.access()? })
            }
            "sessions" => self.into_sessions(),
            "users" => self.into_users(),
            "report" => {
                let access = ["--admin", "--config", "--token-file"];
                let own = ["--since", "--until", "--json", "--html"];
                self.allow(&[&access[..], &own[..]].concat(), 0..=0)?;
                let (since, until) = (self.since.take(), self.until.take());
                let wanted = ReportArgs { since, until, json: self.json, html: self.html };
                Ok(Command::Report { access: self.access()?, wanted })
            }
            "migrate" => {
                self.allow(&["--config", "--from"], 0..=0)?;
                let config = self.config.ok_or("which configuration? Give -c FILE")?;
                let from = self.from.ok_or("from where? Give --from FILE, the SQLite store")?;
                Ok(Command::Migrate { config, from })
            }
            "learn" => self.into_learn(),
            "check" if self.attempt.is_some() => {
                self.allow(&["--config", "--try"], 0..=0)?;
                let config = self.config.ok_or("which configuration? Give -c FILE")?;
                Ok(Command::Try { config, url: self.attempt.unwrap_or_default() })
            }
            "explain" => {
                self.allow(&["--config", "--standard"], 0..=0)?;
                let config = self.config.ok_or("which configuration? Give -c FILE")?;
                Ok(Command::Explain { config, standard: self.standard })
            }
            _ => {
                self.allow(&["--config"], 0..=0)?;
                let config = self.config.ok_or("which configuration? Give -c FILE")?;
                Ok(match name {
                    "serve" => Command::Serve { config },
                    _ => Command::Check { config },
                })
            }
        }
    }

    fn into_learn(self) -> Result<Command, String> {
        const OWN: [&str; 6] =
            ["--upstream", "--har", "--listen", "--out", "--user", "--no-preset"];
        self.allow(&OWN, 0..=0)?;
        let source = match (self.upstream, self.har) {
            (Some(url), None) => Source::Upstream(url),
            (None, Some(path)) => Source::Har(path),
            (None, None) => return Err("learn from what? Give --upstream URL or --har FILE".into()),
            (Some(_), Some(_)) => return Err("give --upstream or --har, not both".to_owned()),
        };
        Ok(Command::Learn(LearnArgs {
            source,
            listen: self.listen.unwrap_or_else(|| "127.0.0.1:8080".to_owned()),
            out: self.out,
            user: self.user.filter(|user| !user.trim().is_empty()),
            presets: !self.no_preset,
        }))
    }

    fn into_sessions(mut self) -> Result<Command, String> {
        const ACCESS: [&str; 3] = ["--admin", "--config", "--token-file"];
        let with = |more: &[&'static str]| [&ACCESS[..], more].concat();
        if self.words.is_empty() {
            return Err("list, show or end?".to_owned());
        }
        let verb = self.words.remove(0);
        let action = match verb.as_str() {
            "list" => {
                self.allow(&with(&["--user", "--state", "--limit", "--json"]), 0..=0)?;
                let (user, state) = (self.user.take(), self.state.take());
                Action::List { user, state, limit: self.limit, json: self.json }
            }
            "show" => {
                self.allow(&with(&["--json"]), 1..=1)?;
                Action::Show { id: self.words.remove(0), json: self.json }
            }
            "end" if self.user.is_some() => {
                self.allow(&with(&["--user", "--except"]), 0..=0)?;
                let except = self.except.take();
                Action::EndUser { user: self.user.take().unwrap_or_default(), except }
            }
            "end" => {
                self.allow(&with(&[]), 1..=100)?;
                Action::End { ids: std::mem::take(&mut self.words) }
            }
            _ => return Err(format!("sessions knows list, show and end, not {verb:?}")),
        };
        Ok(Command::Sessions { access: self.access()?, action })
    }

    fn into_users(mut self) -> Result<Command, String> {
        const ACCESS: [&str; 3] = ["--admin", "--config", "--token-file"];
        let with_json = [&ACCESS[..], &["--json"]].concat();
        if self.words.is_empty() {
            return Err("show, limit or limits?".to_owned());
        }
        let verb = self.words.remove(0);
        let action = match verb.as_str() {
            "show" => {
                self.allow(&with_json, 1..=1)?;
                UserAction::Show { user: self.words.remove(0), json: self.json }
            }
            "limit" => {
                self.allow(&ACCESS, 2..=2)?;
                UserAction::Limit { max: self.words.remove(1), user: self.words.remove(0) }
            }
            "limits" => {
                self.allow(&with_json, 0..=0)?;
                UserAction::Limits { json: self.json }
            }
            _ => return Err(format!("users knows show, limit and limits, not {verb:?}")),
        };
        Ok(Command::Users { access: self.access()?, action })
    }

    fn access(self) -> Result<Access, String> {
        match (&self.admin, &self.config) {
            (None, None) => Err("where is the admin API? Give --admin URL or -c FILE".to_owned()),
            (Some(_), Some(_)) => Err("give --admin or -c, not both".to_owned()),
            _ => Ok(Access { admin: self.admin, config: self.config, token_file: self.token_file }),
        }
    }
}

#[cfg(test)]
mod tests;

//! The command line: arguments in, one command run, an exit code out. What the commands do is in
//! `cli/local.rs`, `cli/learn.rs`, `cli/attempt.rs` and `cli/remote.rs`; nothing here touches files or the network.

mod attempt;
mod help;
mod learn;
mod local;
mod remote;

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
    Explain { config: PathBuf },
    Presets { name: Option<String> },
    Pages { name: Option<String> },
    Migrate { config: PathBuf, from: PathBuf },
    Sessions { access: Access, action: Action },
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
        Command::Explain { config } => local::explain(&config),
        Command::Presets { name } => local::presets(name.as_deref()),
        Command::Pages { name } => local::pages(name.as_deref()),
        Command::Migrate { config, from } => local::migrate(&config, &from),
        Command::Sessions { access, action } => remote::sessions(&access, &action),
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
        return Err(general(match name.as_str() {
            "users" | "report" => format!("{name} is not available in this version"),
            _ => format!("there is no command {name:?}"),
        }));
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
    limit: Option<u32>,
    port: Option<u16>,
    json: bool,
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
            "admin" => {
                self.admin = Some(parser.value()?.string()?);
                "--admin"
            }
            "token-file" => {
                self.token_file = Some(parser.value()?.into());
                "--token-file"
            }
            "upstream" => {
                self.upstream = Some(parser.value()?.string()?);
                "--upstream"
            }
            "har" => {
                self.har = Some(parser.value()?.into());
                "--har"
            }
            "listen" => {
                self.listen = Some(parser.value()?.string()?);
                "--listen"
            }
            "out" => {
                self.out = Some(parser.value()?.into());
                "--out"
            }
            "from" => {
                self.from = Some(parser.value()?.into());
                "--from"
            }
            "try" => {
                self.attempt = Some(parser.value()?.string()?);
                "--try"
            }
            "user" => {
                self.user = Some(parser.value()?.string()?);
                "--user"
            }
            "state" => {
                self.state = Some(parser.value()?.string()?);
                "--state"
            }
            "except" => {
                self.except = Some(parser.value()?.string()?);
                "--except"
            }
            "limit" => {
                self.limit = Some(parser.value()?.parse()?);
                "--limit"
            }
            "port" => {
                self.port = Some(parser.value()?.parse()?);
                "--port"
            }
            other => self.flag(other)?,
        };
        self.given.push(given);
        Ok(())
    }

    /// Options without a value.
    fn flag(&mut self, name: &str) -> Result<&'static str, lexopt::Error> {
        let (flag, name) = match name {
            "json" => (&mut self.json, "--json"),
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
            _ => {
                self.allow(&["--config"], 0..=0)?;
                let config = self.config.ok_or("which configuration? Give -c FILE")?;
                Ok(match name {
                    "serve" => Command::Serve { config },
                    "check" => Command::Check { config },
                    _ => Command::Explain { config },
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

    fn access(self) -> Result<Access, String> {
        match (&self.admin, &self.config) {
            (None, None) => Err("where is the admin API? Give --admin URL or -c FILE".to_owned()),
            (Some(_), Some(_)) => Err("give --admin or -c, not both".to_owned()),
            _ => Ok(Access { admin: self.admin, config: self.config, token_file: self.token_file }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, String> {
        parse(line.split_whitespace().map(OsString::from)).map_err(|misuse| misuse.message)
    }

    #[test]
    fn commands_are_understood() {
        assert_eq!(parsed("demo"), Ok(Command::Demo { exit: false, port: 8080 }));
        assert_eq!(parsed("demo --exit --port=0"), Ok(Command::Demo { exit: true, port: 0 }));
        assert_eq!(parsed("serve -c a.toml"), Ok(Command::Serve { config: "a.toml".into() }));
        assert_eq!(parsed("check --config=a"), Ok(Command::Check { config: "a".into() }));
        let url = "http://h:1".to_owned();
        let args = LearnArgs {
            source: Source::Upstream(url.clone()),
            listen: "127.0.0.1:8080".to_owned(),
            out: Some("a.toml".into()),
            user: Some("alice".to_owned()),
            presets: false,
        };
        assert_eq!(
            parsed("learn --upstream http://h:1 --out a.toml --user alice --no-preset"),
            Ok(Command::Learn(args))
        );
        assert_eq!(
            parsed("check -c a --try http://h:1"),
            Ok(Command::Try { config: "a".into(), url })
        );
        let (config, from) = ("a".into(), "b.db".into());
        assert_eq!(parsed("migrate -c a --from b.db"), Ok(Command::Migrate { config, from }));
        assert_eq!(parsed("--version"), Ok(Command::Version));
        assert_eq!(parsed("--help"), Ok(Command::Help(help::GENERAL)));
        assert!(
            matches!(parsed("serve --help"), Ok(Command::Help(text)) if text.contains("serve"))
        );
        assert!(matches!(parsed("sessions list --help"), Ok(Command::Help(_))));
        let access = Access { admin: Some("http://h:1".into()), ..Access::default() };
        let action = Action::End { ids: vec!["a".into(), "b".into()] };
        assert_eq!(
            parsed("sessions end a b --admin http://h:1"),
            Ok(Command::Sessions { access: access.clone(), action })
        );
        let action = Action::EndUser { user: "alice".into(), except: Some("x".into()) };
        assert_eq!(
            parsed("sessions end --user alice --except x --admin http://h:1"),
            Ok(Command::Sessions { access, action })
        );
    }

    #[test]
    fn misuse_is_told() {
        for (line, message) in [
            ("", "which command?"),
            ("dance", "there is no command \"dance\""),
            ("report", "report is not available in this version"),
            ("users", "users is not available in this version"),
            ("learn", "learn from what? Give --upstream URL or --har FILE"),
            ("learn --upstream x --har y", "give --upstream or --har, not both"),
            ("learn --har y --json", "--json does not belong here"),
            ("serve -c a --try x", "--try does not belong here"),
            ("check --try x", "which configuration? Give -c FILE"),
            ("serve", "which configuration? Give -c FILE"),
            ("migrate -c a", "from where? Give --from FILE, the SQLite store"),
            ("serve a.toml", "\"a.toml\" is one argument too many"),
            ("check -c a --json", "--json does not belong here"),
            ("demo --port 70000", "cannot parse argument \"70000\""),
            ("serve -c", "missing argument for option '-c'"),
            ("serve --colour", "invalid option '--colour'"),
            ("sessions", "list, show or end?"),
            ("sessions kill x", "sessions knows list, show and end, not \"kill\""),
            ("sessions show --admin x", "an argument is missing"),
            ("sessions list", "where is the admin API? Give --admin URL or -c FILE"),
            ("health --admin x -c y", "give --admin or -c, not both"),
            ("sessions end --user a b --admin x", "\"b\" is one argument too many"),
        ] {
            let told = parsed(line).unwrap_err();
            assert!(told.starts_with(message), "{line}: {told}");
        }
    }
}

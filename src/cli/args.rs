//! From options and words to one command, strictly: what does not belong to a command is refused.

use std::path::PathBuf;

use lexopt::prelude::*;

use super::learn::{LearnArgs, Source};
use super::{Access, Action, Command, KeyAct, ReportArgs, UserAction};

/// Every option of every command, as given.
#[derive(Default)]
pub(super) struct Args {
    pub(super) help: bool,
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
    overwrite: bool,
    drop_earlier: bool,
    /// The names of the options given.
    given: Vec<&'static str>,
    words: Vec<String>,
}

impl Args {
    pub(super) fn read(parser: &mut lexopt::Parser) -> Result<Self, lexopt::Error> {
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
            "overwrite" => (&mut self.overwrite, "--overwrite"),
            "drop-earlier" => (&mut self.drop_earlier, "--drop-earlier"),
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

    pub(super) fn into_command(mut self, name: &str) -> Result<Command, String> {
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
            "key" => self.into_key(),
            "backup" => {
                self.allow(&["--admin", "--config", "--token-file", "--overwrite"], 1..=1)?;
                let (to, overwrite) = (self.words.remove(0).into(), self.overwrite);
                Ok(Command::Backup { access: self.access()?, to, overwrite })
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

    fn into_key(mut self) -> Result<Command, String> {
        if self.words.is_empty() {
            return Err("show, rotate, stage, promote or retire?".to_owned());
        }
        let verb = self.words.remove(0);
        let act = match verb.as_str() {
            "show" => KeyAct::Show,
            "rotate" => KeyAct::Rotate,
            "stage" => KeyAct::Stage,
            "promote" => KeyAct::Promote,
            "retire" => KeyAct::Retire,
            _ => {
                let known = "show, rotate, stage, promote and retire";
                return Err(format!("key knows {known}, not {verb:?}"));
            }
        };
        let drop = ["--drop-earlier"];
        let drop = if matches!(act, KeyAct::Show | KeyAct::Promote) { &[][..] } else { &drop };
        self.allow(&[&["--config", "--token-file"], drop].concat(), 0..=0)?;
        if self.config.is_none() {
            return Err("which configuration? Give -c FILE".to_owned());
        }
        let drop_earlier = self.drop_earlier;
        Ok(Command::Key { access: self.access()?, act, drop_earlier })
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
            return Err("show, limit, limits, export or erase?".to_owned());
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
            "export" | "erase" => {
                self.allow(&ACCESS, 1..=1)?;
                let user = self.words.remove(0);
                match verb.as_str() {
                    "export" => UserAction::Export { user },
                    _ => UserAction::Erase { user },
                }
            }
            _ => {
                let known = "show, limit, limits, export and erase";
                return Err(format!("users knows {known}, not {verb:?}"));
            }
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

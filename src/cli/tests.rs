//! How command lines are understood, and what is said about those that are not.

use super::learn::Source;
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
    assert_eq!(parsed("check -c a --try http://h:1"), Ok(Command::Try { config: "a".into(), url }));
    let action = UserAction::Limit { user: "alice".into(), max: "3".into() };
    let access = Access { admin: Some("http://h:1".into()), ..Access::default() };
    assert_eq!(
        parsed("users limit alice 3 --admin http://h:1"),
        Ok(Command::Users { access: access.clone(), action })
    );
    let wanted = ReportArgs { html: true, ..ReportArgs::default() };
    assert_eq!(parsed("report --html --admin http://h:1"), Ok(Command::Report { access, wanted }));
    let (config, from) = ("a".into(), "b.db".into());
    assert_eq!(parsed("migrate -c a --from b.db"), Ok(Command::Migrate { config, from }));
    let access = Access { config: Some("a".into()), ..Access::default() };
    let key = |act, drop_earlier| Command::Key { access: access.clone(), act, drop_earlier };
    assert_eq!(parsed("key rotate -c a"), Ok(key(KeyAct::Rotate, false)));
    assert_eq!(parsed("key stage -c a --drop-earlier"), Ok(key(KeyAct::Stage, true)));
    let backup = Command::Backup { access, to: "b.db".into(), overwrite: true };
    assert_eq!(parsed("backup b.db -c a --overwrite"), Ok(backup));
    assert_eq!(parsed("--version"), Ok(Command::Version));
    assert_eq!(parsed("--help"), Ok(Command::Help(help::GENERAL)));
    assert!(matches!(parsed("serve --help"), Ok(Command::Help(text)) if text.contains("serve")));
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
        ("report", "where is the admin API? Give --admin URL or -c FILE"),
        ("users", "show, limit, limits, export or erase?"),
        ("users limit alice --admin x", "an argument is missing"),
        (
            "users kill alice --admin x",
            "users knows show, limit, limits, export and erase, not \"kill\"",
        ),
        ("learn", "learn from what? Give --upstream URL or --har FILE"),
        ("learn --upstream x --har y", "give --upstream or --har, not both"),
        ("learn --har y --json", "--json does not belong here"),
        ("serve -c a --try x", "--try does not belong here"),
        ("check --try x", "which configuration? Give -c FILE"),
        ("serve", "which configuration? Give -c FILE"),
        ("migrate -c a", "from where? Give --from FILE, the SQLite store"),
        ("key", "show, rotate, stage, promote or retire?"),
        ("key lose -c a", "key knows show, rotate, stage, promote and retire, not \"lose\""),
        ("key rotate", "which configuration? Give -c FILE"),
        ("key promote -c a --drop-earlier", "--drop-earlier does not belong here"),
        ("backup -c a", "an argument is missing"),
        ("backup b", "where is the admin API? Give --admin URL or -c FILE"),
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

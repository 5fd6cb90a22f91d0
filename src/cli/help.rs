//! The help texts.

/// `headcount --help`
pub(super) const GENERAL: &str = "\
headcount COMMAND [OPTIONS]

Limits concurrent sessions per user in front of a web application that cannot be changed.

Try it:
  demo               a small legacy app with the proxy before it, and a story played on both
Describe an app:
  presets [NAME]     list the presets, or print one
  learn              watch a login and a logout, and write the configuration
Run it:
  serve -c FILE      run the proxy
  check -c FILE      tell every mistake in a configuration
  explain -c FILE    tell the policy of a configuration in plain sentences
  pages [NAME]       list the templates of the pages that users see, or print one
  migrate            copy the sessions of an SQLite file to PostgreSQL
Look after it (through the admin API):
  sessions           list, show and end sessions
  users              show a user, set the limit of one, export or erase one
  report             tell what limits would have done, and which accounts look shared
  key                show, rotate, stage, promote and retire the key of stamps and hashes
  backup FILE        copy the SQLite store, also while it is in use
  health             ask whether a running proxy is ready

Options: -h, --help (after a command: help for it) · -V, --version
The environment variable HEADCOUNT_LOG sets what is logged, as in \"info\" or \"headcount=debug\".
Exit codes: 0 fine, 1 failed, 2 usage or configuration.
";

const DEMO: &str = "\
headcount demo [--exit] [--port N]

Starts a small, badly aged app with a login form, puts the proxy before it, plays a story with two
simulated browsers on both, and goes on serving for you to try, until Ctrl-C. Everything is kept in
a temporary folder and on loopback addresses.

  --exit      end after the story: 0 if every step went as told, 1 if not
  --port N    the port of the proxy (default: 8080; 0: any free one)
";

const SERVE: &str = "\
headcount serve -c FILE

Runs the proxy until SIGTERM or Ctrl-C, then finishes the requests under way.

  -c, --config FILE    the configuration
";

const CHECK: &str = "\
headcount check -c FILE [--try URL]

Tells every mistake in a configuration, with its place. Starts nothing.

  -c, --config FILE    the configuration
  --try URL            also try the rules on the live app at URL (or its login page): a wrong
                       password, a login, a page, a logout; tells what the rules see of each. The
                       app is asked directly, nobody's session is limited. Exit code 1 if something
                       else is seen than was done.

With --try the account to use is read from standard input, one line each:
  user=NAME
  password=PASSWORD
  wrong_password=TEXT  (optional; an account that locks after failures loses one try)
";

const EXPLAIN: &str = "\
headcount explain -c FILE [--standard NAME]

Tells in plain sentences what a configuration makes Headcount do.

  -c, --config FILE    the configuration
  --standard NAME      what it means for a standard, requirement by requirement, with what is met and
                       what is not: nist-800-53, asvs-5, pci-dss-4 or disa-stig
";

const PRESETS: &str = "\
headcount presets [NAME]

Lists the presets, or prints one as TOML.
";

const PAGES: &str = "\
headcount pages [NAME]

Lists the templates of the pages that users see, or prints one. Copy those you want to change into a
folder and name it in the configuration, as `directory` in [pages].
";

const LEARN: &str = "\
headcount learn --upstream URL | --har FILE [OPTIONS]

Works out a configuration for an app: which cookies prove a session, what a login, its failure and
a logout look like, where the user's name is. Prints it on standard output, each table with how sure
it is, after holding it against what was recorded. Exit code 0: verified; 1: not, and why.

  --upstream URL    the app, as in http://127.0.0.1:8000. A recording proxy is started before it;
                    log in and out through it as you are told, with a test account. Pages that were
                    opened are then asked for again without some of their cookies (GET only).
  --har FILE        or a recording of one browser: in the developer tools, Network, keep the log, log
                    in with a wrong password, log in, open pages, log out; export as HAR with
                    sensitive data (delete the file afterwards: it holds the password)
  --user NAME       the name that is typed, so that it is found by value instead of guessed
  --listen ADDR     where the recording proxy listens (default: 127.0.0.1:8080)
  --out FILE        write to this file; one that is there already is left alone
  --no-preset       write the rules out even if a preset fits

Passwords and cookies stay in memory; none is printed or written.
";

const MIGRATE: &str = "\
headcount migrate -c FILE --from FILE

Copies everything of an SQLite store to the PostgreSQL database that `store.url` of the configuration
names: sessions, history, tombstones. The database must hold no session yet; it is all in one
transaction, and the file stays as it is. Stop the proxy first. The key file must be the one that the
sessions were made with.

  -c, --config FILE    the configuration with the new store
  --from FILE          the SQLite file
";

const SESSIONS: &str = "\
headcount sessions list|show|end [OPTIONS]

  sessions list [--user NAME] [--state live|ended|all|untracked] [--limit N] [--json]
  sessions show ID [--json]
  sessions end ID...
  sessions end --user NAME [--except ID]

  --admin URL          the admin API, as in http://127.0.0.1:9901
  -c, --config FILE    or the configuration that says where it is
  --token-file FILE    the admin token; or put it into the environment variable HEADCOUNT_TOKEN
";

const USERS: &str = "\
headcount users show|limit|limits|export|erase [OPTIONS]

  users show NAME [--json]
  users limit NAME N|unlimited|configured
  users limits [--json]
  users export NAME
  users erase NAME

A limit holds from the next sign-in on, on all replicas, and beats what is configured; `configured`
takes it back. `export` prints everything that is kept of a user, as JSON. `erase` ends the user's
sessions and takes name and client off everything that is kept; dead tokens stay dead. Both need the
role admin. Logs and backups are yours to look after.

  --admin URL          the admin API, as in http://127.0.0.1:9901
  -c, --config FILE    or the configuration that says where it is
  --token-file FILE    the admin token; or put it into the environment variable HEADCOUNT_TOKEN
";

const REPORT: &str = "\
headcount report [OPTIONS]

Tells from the sessions there were how many sign-ins would have evicted or been denied at limits of 1
to 5, who uses most sessions at once, and which accounts look shared, with the evidence.

  --since TIME         from this time on, as in 2026-11-01T00:00:00Z (default: 30 days ago)
  --until TIME         up to this time (default: now)
  --json               as JSON
  --html               as one page that needs nothing else, as in --html > report.html

  --admin URL          the admin API, as in http://127.0.0.1:9901
  -c, --config FILE    or the configuration that says where it is
  --token-file FILE    the admin token; or put it into the environment variable HEADCOUNT_TOKEN
";

const KEY: &str = "\
headcount key show|rotate|stage|promote|retire -c FILE [OPTIONS]

  key show       tells the keys in the key file by their fingerprints
  key rotate     a new key; the one before is still accepted
  key stage      with several replicas: a new key that is accepted and not used yet
  key promote    then: the staged key is used, the one before is still accepted
  key retire     the earlier key is accepted no longer

Changes `store.key_file`, in one step. A running Headcount takes it with the next reload. With several
replicas: stage, copy the file to all and reload each, promote, copy and reload again. At most two keys
are there: a third takes the place of the first, and with it go the sessions that nobody used since the
last rotation; how many is told, and it is done only with --drop-earlier.

  --drop-earlier       the earlier key may go

  -c, --config FILE    the configuration
  --token-file FILE    an admin token, to ask how many sessions would be lost; or put it into the
                       environment variable HEADCOUNT_TOKEN
";

const BACKUP: &str = "\
headcount backup FILE [OPTIONS]

Copies the SQLite store to FILE, with everything that was acknowledged before, and looks through the
copy. A running Headcount gives it through its admin API (role admin) and goes on meanwhile; one that
does not run need not be asked, with -c. The key is not in it: keep `store.key_file` in another place.

  --overwrite          FILE may be there already

  --admin URL          the admin API, as in http://127.0.0.1:9901
  -c, --config FILE    or the configuration that says where it is, and where the store is
  --token-file FILE    the admin token; or put it into the environment variable HEADCOUNT_TOKEN
";

const HEALTH: &str = "\
headcount health --admin URL | -c FILE

Asks a running proxy whether it is ready: 0 if so, 1 if not. For container health checks.

  --admin URL          the admin API, as in http://127.0.0.1:9901
  -c, --config FILE    or the configuration that says where it is
";

/// The help of a command; `None`: there is no such command.
pub(super) fn of(command: &str) -> Option<&'static str> {
    Some(match command {
        "help" => GENERAL,
        "demo" => DEMO,
        "serve" => SERVE,
        "check" => CHECK,
        "explain" => EXPLAIN,
        "presets" => PRESETS,
        "pages" => PAGES,
        "learn" => LEARN,
        "migrate" => MIGRATE,
        "sessions" => SESSIONS,
        "users" => USERS,
        "report" => REPORT,
        "key" => KEY,
        "backup" => BACKUP,
        "health" => HEALTH,
        _ => return None,
    })
}

/// The first line of a help text, and where the rest is.
pub(super) fn usage_line(text: &str) -> String {
    let first = text.lines().next().unwrap_or_default();
    let command = first.split_whitespace().nth(1).filter(|word| *word != "COMMAND");
    match command {
        Some(command) => format!("{first}\nMore: headcount {command} --help"),
        None => format!("{first}\nMore: headcount --help"),
    }
}

//! The fuzz targets' corpus, replayed; and the models of cookie parsers they judge by, held against
//! the parsers themselves.

#[expect(unreachable_pub, reason = "it is the library of the fuzz targets too")]
#[path = "../../fuzz/src/lib.rs"]
pub(crate) mod targets;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use self::targets::TARGETS;
use self::targets::parsers::{PARSERS, Pair, Parser};
use crate::support::site::{App, Site};
use crate::support::top;

/// What one parser made of one line; `None` where it raises an error.
type Read = Option<BTreeMap<Vec<u8>, Option<Vec<u8>>>>;

/// Every input that is kept for a target.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = top().join("fuzz/corpus").join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut inputs: Vec<_> = entries
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.display().to_string(), fs::read(&path).unwrap())
        })
        .collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "{folder:?} is empty");
    inputs
}

#[test]
fn what_fuzzing_has_found_is_held() {
    for (name, target) in TARGETS {
        for (path, input) in corpus(name) {
            let held = std::panic::catch_unwind(|| target(&input));
            assert!(held.is_ok(), "{path} breaks {name}");
        }
    }
}

/// Cookie lines from the corpus, and as many again that are put together by chance from what parsers
/// stumble over.
fn lines() -> Vec<Vec<u8>> {
    let kept = ["cookies", "values"].into_iter().flat_map(corpus).flat_map(|(_, input)| {
        input.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect::<Vec<_>>()
    });
    let mut lines: Vec<Vec<u8>> = kept.collect();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut chance = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    const PARTS: &[&[u8]] = &[
        b"sid",
        b"sid",
        b"=",
        b"=",
        b"=",
        b";",
        b"; ",
        b"; ",
        b"T",
        b"a=1",
        b"b",
        b" ",
        b"\t",
        b",",
        b", ",
        b"\"",
        b"\"",
        b"\\",
        b"\\101",
        b"\\\"",
        b"%41",
        b"%zz",
        b"%",
        b"%e9",
        b"%00",
        b"%c3%a9",
        b"+",
        b"$",
        b"$Version=1",
        b"$Path=/",
        b"my.sess",
        b"my sess",
        b"my[sess",
        b"[",
        b"]",
        b"[0]",
        b".",
        b"_",
        b"\xa0",
        b"\x85",
        b"\xe9",
        b"\xc3\xa9",
        b"\xe2\x80\x80",
        b"path",
        b"secure",
        b"expires=",
        b"Thu, 01 Jan 1970 00:00:00 GMT",
        b"__Host-",
        b"'",
        b"(",
        b"{",
        b":",
        b"/",
        b"\xb2",
    ];
    for round in 0..3000 {
        let count = 1 + chance(12);
        let mut line: Vec<u8> = Vec::new();
        for at in 0..count {
            // Every other line is of pairs, so that strict parsers get into it.
            if round % 2 == 0 && at % 3 == 0 {
                line.extend_from_slice([&b"; sid="[..], b"; a=", b" b=", b"; my.sess="][chance(4)]);
            }
            line.extend_from_slice(PARTS[chance(PARTS.len())]);
        }
        lines.push(line.strip_prefix(b"; ").unwrap_or(&line).to_vec());
    }
    // What a header line can hold, without the blanks at its ends.
    for line in &mut lines {
        line.retain(|byte| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f));
        *line = line.trim_ascii().to_vec();
    }
    lines.retain(|line| !line.is_empty());
    lines.sort();
    lines.dedup();
    lines
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

fn from_json(read: &serde_json::Value) -> Read {
    let pairs = read.as_object()?.iter();
    Some(pairs.map(|(name, value)| (from_hex(name), value.as_str().map(from_hex))).collect())
}

/// Runs a script over all lines; what its parsers made of them, line by line.
fn run(command: &mut Command, lines: &[Vec<u8>]) -> Vec<serde_json::Value> {
    let mut process =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("run tests/setup");
    let mut input = process.stdin.take().unwrap();
    let text: String = lines.iter().map(|line| to_hex(line) + "\n").collect();
    let writer = std::thread::spawn(move || input.write_all(text.as_bytes()).unwrap());
    let output = process.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success(), "{command:?} fails");
    let text = String::from_utf8(output.stdout).unwrap();
    let read: Vec<_> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(read.len(), lines.len(), "{command:?} answers every line");
    read
}

fn model(name: &str) -> &'static Parser {
    PARSERS.iter().find(|parser| parser.name == name).unwrap()
}

/// Whether a model read a line as the parser did. A name that is an array has no value to compare.
fn agrees(model: &[Pair], real: &Read) -> bool {
    let Some(real) = real else { return true };
    model.len() == real.len()
        && model.iter().all(|(name, value)| {
            real.get(name).is_some_and(|real| real.as_ref().is_none_or(|real| real == value))
        })
}

#[track_caller]
fn assert_models_agree(names: &[&str], lines: &[Vec<u8>], read: &[serde_json::Value]) {
    for name in names {
        let (mut faults, mut cookies) = (Vec::new(), 0);
        for (line, read) in lines.iter().zip(read) {
            let (model, real) = (model(name).read(line), from_json(&read[*name]));
            cookies += real.as_ref().map_or(0, BTreeMap::len);
            if !agrees(&model, &real) {
                let model: Vec<_> = model
                    .iter()
                    .map(|(name, value)| {
                        format!("{}={}", name.escape_ascii(), value.escape_ascii())
                    })
                    .collect();
                faults.push(format!("{}\n  model {model:?}\n  real {read}", line.escape_ascii()));
            }
        }
        assert!(cookies > lines.len() / 10, "{name} has read hardly anything: {cookies}");
        let (count, first) = (faults.len(), faults.iter().take(8).cloned().collect::<Vec<_>>());
        assert!(faults.is_empty(), "{name}, {count} of {}:\n{}", lines.len(), first.join("\n"));
    }
}

#[test]
fn the_models_of_python_django_and_werkzeug_read_as_they_do() {
    let lines = lines();
    let mut command = Command::new(top().join(".venv/bin/python"));
    let read = run(command.arg(top().join("tests/parsers/cookies.py")), &lines);
    assert_models_agree(&["python", "django", "werkzeug"], &lines, &read);
}

#[test]
fn the_model_of_node_reads_as_it_does() {
    let lines = lines();
    let read = run(Command::new("node").arg(top().join("tests/parsers/cookies.js")), &lines);
    assert_models_agree(&["node"], &lines, &read);
}

#[test]
fn the_model_of_rack_reads_as_it_does() {
    let lines = lines();
    let read = run(Command::new("ruby").arg(top().join("tests/parsers/cookies.rb")), &lines);
    assert_models_agree(&["rack"], &lines, &read);
}

#[test]
fn the_model_of_php_reads_as_it_does() {
    let lines = lines();
    let address = Site::shared(App::Php).address;
    let read = lines.iter().map(|line| {
        let mut request = b"GET /cookies.php HTTP/1.1\r\nHost: php\r\nConnection: close\r\nCookie: ".to_vec();
        request.extend_from_slice(line);
        request.extend_from_slice(b"\r\n\r\n");
        let answer = crate::support::raw::raw(address, &request);
        let start = answer.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
        serde_json::json!({ "php": serde_json::from_slice::<serde_json::Value>(&answer[start..]).unwrap() })
    });
    let read: Vec<_> = read.collect();
    assert_models_agree(&["php"], &lines, &read);
}

//! What `config/deploy` has for those who watch: the alerts, by Prometheus' own tool, and with the
//! dashboard before a real Prometheus that scrapes the real proxy.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::deploy::{file, run};
use super::*;
use crate::support::http;
use crate::support::process::Process;
use crate::support::{top, within};

const ALERTS: &str = "prometheus-alerts.yaml";

fn prometheus(proxy: &Proxy) -> (Process, TempDir, SocketAddr) {
    let folder = TempDir::new().unwrap();
    let configuration = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{}]\nscrape_configs:\n\
         - {{job_name: headcount, static_configs: [{{targets: ['{}']}}]}}\n",
        file(ALERTS).display(),
        proxy.admin_address
    );
    std::fs::write(folder.path().join("prometheus.yaml"), configuration).unwrap();
    // It cannot be told to choose a port.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = Command::new("prometheus");
    command
        .current_dir(folder.path())
        .args(["--config.file=prometheus.yaml", "--storage.tsdb.path=data", "--log.level=warn"])
        .arg(format!("--web.listen-address={address}"));
    (Process::start("prometheus", &mut command), folder, address)
}

/// What its API says; `None` while it is not there.
fn asked(prometheus: SocketAddr, path: &str) -> Option<Value> {
    let mut connection = Connection::open(prometheus).ok()?;
    let request = Request::get(path).header("Host", &prometheus.to_string());
    let (response, _) = connection.exchange(&request).ok()?;
    (response.status == 200).then(|| response.json()["data"].clone())
}

fn query(prometheus: SocketAddr, expression: &str) -> Value {
    let form = [("query", expression)];
    let host = prometheus.to_string();
    let answer =
        http::send(prometheus, &Request::form("/api/v1/query", &form).header("Host", &host));
    assert_eq!(answer.status, 200, "{expression}: {}", answer.text());
    answer.json()["data"]["result"].clone()
}

/// The metrics that a text names.
fn named(text: &str) -> BTreeSet<String> {
    text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
        .filter(|word| word.starts_with("headcount_"))
        .map(str::to_owned)
        .collect()
}

fn dashboard() -> Vec<String> {
    let text = std::fs::read_to_string(file("grafana-dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    targets.map(|target| target["expr"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_alerts_fire_when_they_should() {
    run(Command::new("promtool").args(["check", "rules"]).arg(file(ALERTS)));
    let folder = TempDir::new().unwrap();
    std::fs::copy(file(ALERTS), folder.path().join(ALERTS)).unwrap();
    let cases = folder.path().join("alerts-test.yaml");
    std::fs::copy(top().join("tests/alerts/alerts-test.yaml"), &cases).unwrap();
    run(Command::new("promtool").args(["test", "rules"]).arg(cases));
}

#[test]
fn prometheus_finds_what_alerts_and_dashboard_ask_for() {
    let app = app("app");
    let proxy = proxy(&app, "limit.max_sessions = 1");
    let _alice = signed_in(&proxy, "alice");
    let (_process, _folder, prometheus) = prometheus(&proxy);
    let patience = crate::support::PATIENCE * 2;
    let scraped = "/api/v1/query?query=headcount_sessions_live";
    within(patience, "a scrape", || {
        asked(prometheus, scraped)?["result"][0]["value"][1].as_str().map(str::to_owned)
    });
    assert_eq!(query(prometheus, "up{job=\"headcount\"}")[0]["value"][1], "1");
    assert_eq!(query(prometheus, "headcount_sessions_live")[0]["value"][1], "1");
    let known = asked(prometheus, "/api/v1/label/__name__/values").unwrap();
    let known: BTreeSet<_> =
        known.as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect();
    let expressions = dashboard();
    assert!(expressions.len() > 10, "{expressions:?}");
    let alerts = std::fs::read_to_string(file(ALERTS)).unwrap();
    let asked_for = named(&(expressions.join("\n") + &alerts));
    // Only with PostgreSQL.
    let elsewhere = BTreeSet::from(["headcount_store_lag_seconds".to_owned()]);
    let missing: Vec<_> =
        asked_for.difference(&known).filter(|name| !elsewhere.contains(*name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    for expression in expressions {
        let expression = expression.replace("$instance", ".*").replace("$__rate_interval", "1m");
        query(prometheus, &expression);
    }
    within(patience, "every alert is evaluated", || {
        let rules = asked(prometheus, "/api/v1/rules")?;
        let rules = rules["groups"][0]["rules"].as_array()?.clone();
        assert!(rules.iter().all(|rule| rule["health"] != "err"), "{rules:?}");
        rules.iter().all(|rule| rule["health"] == "ok").then_some(())
    });
}

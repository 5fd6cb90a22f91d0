//! Headcount: a reverse-proxy sidecar that limits concurrent sessions per user in front of a web
//! application that cannot be changed.
//!
//! The life of a request, as `proxy.rs` reads from top to bottom:
//!
//! ```text
//! bytes ─ listener ─ client ─▶ proxy
//!   1 who is calling      client       peer address, trusted forwarding headers only
//!   2 read the request    detect       is this a login, logout, password change?
//!                         cookies, credentials   which cookies prove a session; token → key
//!   3 look up             registry     in memory, no await, no database
//!   4 decide              policy       pure: Forward(permit, what to carry) | Ended | Ambiguous
//!   5 forward             upstream     takes the permit; there is no other way to the app
//!   6 read the response   detect       LoggedIn{user} | LoginFailed | LoggedOut | PasswordChanged
//!   7 record              recorder     one store transaction {live sessions → decide → end,
//!                                      insert, audit} → commit → registry
//!   8 answer              issue        the app's answer with its cookies stamped, or
//!                         enforce      ours instead (page, redirect, problem+json)
//!   9 account             metrics, audit   once, on every exit
//! ```
//!
//! The modules stand in reading order below: a module uses only those of a lower rank, which for
//! the most part are those above it. The ranks are written down, and held, in `tests/it/tidy.rs`.
//! ARCHITECTURE.md has the invariants and says where a new thing goes.

// The nouns and the closed lists everybody speaks in; names for devices and places.
pub mod device;
pub mod geo;
pub mod refusal;
pub mod session;

// The rule language: what a login, a logout and a credential look like. A preset is only TOML.
pub mod rules;

// The decisions: pure functions of values. `policy` per request, `decide` per login and the like.
pub mod decide;
pub mod policy;

// Reading requests and answers. Pure: no sockets, no sessions, no clock.
pub mod client;
pub mod client_change;
pub mod cookies;
pub mod detect;
pub mod fields;
pub mod headers;
pub mod identity;
pub mod inspect;
pub mod path;
pub mod set_cookie;
pub mod stamp;
pub mod url;

// What is kept: the clock and the keys, the store, its picture in memory, the audit trail.
pub mod audit;
pub mod clock;
pub mod evictions;
pub mod keyring;
pub mod metrics;
pub mod recorder;
pub mod registry;
pub mod report;
pub mod store;
pub mod user_limits;

// Cookies against what is kept, on the way up and on the way down.
pub mod credentials;
pub mod issue;
pub mod probes;
pub mod steps;

// The edge: sockets, bodies, connections; and the one place that makes our own answers.
pub mod body;
pub mod conn;
pub mod descriptors;
pub mod enforce;
pub mod idle;
pub mod lifecycle;
pub mod listener;
pub mod own_pages;
pub mod pace;
pub mod pages;
pub mod peer;
mod proxy_protocol;
pub mod slots;
mod socket;
pub mod tls;
pub mod tunnel;
pub mod upstream;

// The life of a request, top to bottom.
pub mod proxy;

// Looking after it: the admin listener, the log.
pub mod admin;
pub mod logging;

// From a TOML file to a running process.
pub mod config;
pub mod server;
pub mod settings;

// The command line and what only it uses.
pub mod attempt;
pub mod cli;
pub mod demo;
pub mod explain;
pub mod fetch;
pub mod learn;
pub mod private_file;
pub mod terminal;

#[cfg(test)]
mod testing;

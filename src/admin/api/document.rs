//! The OpenAPI description of the API. What the handlers say by themselves is collected, and what all
//! of them have in common is laid over it.

use std::sync::{Arc, OnceLock};

use axum::Json;
use axum::extract::State;
use serde_json::{Map, Value, json};
use utoipa::OpenApi;

use super::{backup, events, keys, person, report, sessions, users};
use crate::admin::Admin;
use crate::admin::problem::Problem;

#[derive(OpenApi)]
#[openapi(
    info(title = "Headcount", description = "Sessions of users, seen and steered."),
    paths(
        sessions::list,
        sessions::end_all,
        sessions::show,
        sessions::end,
        users::show,
        users::end,
        person::export,
        person::erase,
        users::set_limit,
        users::take_limit_back,
        users::limits,
        events::list,
        report::show,
        keys::show,
        backup::take,
        super::reload,
    ),
    components(schemas(Problem))
)]
struct Described;

/// What every call may answer beside what it says itself.
const COMMON: [(&str, &str); 8] = [
    ("400", "The question is wrong; `detail` says how."),
    ("401", "No token, or not one that is known."),
    ("403", "The role of the token does not allow this."),
    ("404", "There is no such thing."),
    ("409", "Not in this mode, or not confirmed."),
    ("415", "The body is not JSON."),
    ("429", "Too many requests without a valid token from this address."),
    ("503", "The store failed or was too slow."),
];

pub(super) async fn show(State(_admin): State<Arc<Admin>>) -> Json<&'static Value> {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    Json(DOCUMENT.get_or_init(document))
}

fn document() -> Value {
    // It is made of text and numbers only.
    let mut document = serde_json::to_value(Described::openapi()).unwrap_or_default();
    document["info"]["version"] = env!("CARGO_PKG_VERSION").into();
    document["servers"] = json!([{ "url": "/api/v1" }]);
    document["security"] = json!([{ "token": [] }]);
    document["components"]["securitySchemes"] =
        json!({ "token": { "type": "http", "scheme": "bearer" } });
    let paths = document["paths"].as_object_mut();
    let calls = paths.into_iter().flat_map(Map::values_mut).filter_map(Value::as_object_mut);
    for call in calls.flat_map(Map::values_mut) {
        for (status, description) in COMMON {
            let content = json!({ "schema": { "$ref": "#/components/schemas/Problem" } });
            let answer = json!({
                "description": description,
                "content": { "application/problem+json": content },
            });
            call["responses"][status] = answer;
        }
    }
    document
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_described() {
        let document = document();
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
        let routes = include_str!("../api.rs");
        let described = document["paths"].as_object().unwrap();
        for line in routes.lines().filter_map(|line| line.trim().strip_prefix(".route(\"")) {
            let (path, methods) = line.split_once("\", ").unwrap();
            if path == "/openapi.json" {
                continue;
            }
            for method in ["get", "put", "post", "delete"] {
                let there = methods.contains(&format!("{method}("));
                assert_eq!(described[path].get(method).is_some(), there, "{method} {path}");
            }
        }
    }
}

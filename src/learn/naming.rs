//! Where the user's name stands: in what the app answers to a login, or only in what was typed.

use crate::rules::expression::{Filter, json_scalars};

use super::recording::Exchange;

/// Expressions, the most trustworthy first, under which this answer yields the name. Of cookies only
/// credentials are looked at: others are no proof.
pub fn in_answer(answer: &Exchange, user: &str, credentials: &[String]) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for (pointer, value) in answer.json() {
        if same(&value, user) {
            found.push(format!("rjson:{pointer}"));
        } else if let Some(claim) = claim(&value, user) {
            found.push(format!("rjson:{pointer} | jwt({claim})"));
        }
    }
    for (name, value, _) in answer.sets() {
        if credentials.contains(&name) {
            found.extend(in_value(&value, user).into_iter().map(|how| format!("set:{name}{how}")));
        }
    }
    found.sort_by_key(|expression| expression.matches(" | ").count());
    found
}

/// The form field, JSON member or query parameter in which the name was typed. Fields whose name
/// speaks of users come first.
pub fn in_request(request: &Exchange, user: Option<&str>) -> Option<String> {
    let mut fields = request.named_fields();
    fields.retain(|(field, value)| {
        !is_secret(field) && !value.is_empty() && user.is_none_or(|user| same(value, user))
    });
    if user.is_none() {
        fields.retain(|(field, _)| speaks_of_users(field).is_some());
    }
    fields.sort_by_key(|(field, _)| speaks_of_users(field).unwrap_or(usize::MAX));
    fields.into_iter().next().map(|(field, _)| field)
}

/// Whether a field holds a password.
pub fn is_secret(field: &str) -> bool {
    let field = field.to_ascii_lowercase();
    ["pass", "pwd", "kennwort", "secret", "form:pw", "json:/pw"]
        .iter()
        .any(|word| field.contains(word))
}

/// How well a field's name fits a user name, 0 the best.
fn speaks_of_users(field: &str) -> Option<usize> {
    let field = field.to_ascii_lowercase();
    ["username", "user", "login", "email", "mail", "log", "name", "account", "ident"]
        .iter()
        .position(|word| field.contains(word))
}

fn same(value: &str, user: &str) -> bool {
    value.trim().to_lowercase() == user.trim().to_lowercase()
}

/// The filters under which a cookie's value yields the name.
fn in_value(value: &str, user: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut look = |value: &str, so_far: &str| {
        found.extend(plainly(value, user).map(|how| format!("{so_far}{how}")));
        for separator in ['.', '|', ':', '-', '!', '&'] {
            for (n, part) in value.split(separator).enumerate().take(4) {
                if part.len() < value.len() {
                    let so_far = format!("{so_far} | split('{separator}',{n})");
                    found.extend(plainly(part, user).map(|how| format!("{so_far}{how}")));
                }
            }
        }
    };
    look(value, "");
    if let Some(decoded) = Filter::UrlDecode.apply(value).filter(|decoded| decoded != value) {
        look(&decoded, " | urldecode");
    }
    found
}

fn plainly(value: &str, user: &str) -> Option<String> {
    if same(value, user) {
        return Some(String::new());
    }
    if let Some(claim) = claim(value, user) {
        return Some(format!(" | jwt({claim})"));
    }
    if let Some(how) = member(value, user) {
        return Some(how);
    }
    [(Filter::Base64, "b64"), (Filter::Inflate, "inflate")].iter().find_map(|(filter, name)| {
        let decoded = filter.apply(value)?;
        if same(&decoded, user) {
            return Some(format!(" | {name}"));
        }
        member(&decoded, user).map(|how| format!(" | {name}{how}"))
    })
}

fn member(text: &str, user: &str) -> Option<String> {
    let document = text.starts_with('{').then(|| serde_json::from_str(text).ok())??;
    let (pointer, _) = json_scalars(&document).into_iter().find(|(_, value)| same(value, user))?;
    Some(format!(" | json({pointer})"))
}

fn claim(value: &str, user: &str) -> Option<String> {
    if !value.starts_with("eyJ") {
        return None;
    }
    let claims = ["preferred_username", "username", "sub", "email", "name", "user", "user_id"];
    claims
        .into_iter()
        .find(|claim| {
            let found = Filter::Jwt((*claim).to_owned()).apply(value);
            found.is_some_and(|found| same(&found, user))
        })
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_what_cookies_hold() {
        // {"user":"alice"}
        for (value, how) in [
            ("alice|17|x", " | split('|',0)"),
            ("alice%7C17%7Cx", " | urldecode | split('|',0)"),
            ("eyJ1c2VyIjoiYWxpY2UifQ==", " | b64 | json(/user)"),
            ("eyJ1c2VyIjoiYWxpY2UifQ.sig", " | split('.',0) | b64 | json(/user)"),
            (
                ".eJyrVoovLU4tis9MUbJSSszJTE5VqgUASzEHAw.t.s",
                " | split('.',1) | inflate | json(/_user_id)",
            ),
            ("eyJh.eyJzdWIiOiJhbGljZSJ9.s", " | jwt(sub)"),
        ] {
            assert!(in_value(value, "Alice").contains(&how.to_owned()), "{value}");
        }
        for other in ["", "malice", "x.y.z", "eyJ1c2VyIjoiYm9iIn0="] {
            assert_eq!(in_value(other, "alice"), Vec::<String>::new(), "{other}");
        }
    }

    #[test]
    fn passwords_are_known_by_their_fields() {
        for field in ["form:password", "form:user[password]", "json:/pwd", "form:pass"] {
            assert!(is_secret(field), "{field}");
        }
        assert!(!is_secret("form:username"));
    }
}

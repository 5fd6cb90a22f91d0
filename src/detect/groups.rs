//! The groups of a user, where the app tells them, or a proxy that is believed. As found: not compared,
//! not counted.

use http::HeaderMap;

use super::answer::{self, AnswerFacts};
use super::header;
use crate::rules::expression::{Expression, Place, Values};

/// What all of these sources say in the answer, in their order.
pub fn told(sources: &[Expression], separator: char, facts: AnswerFacts<'_>) -> Vec<String> {
    let found = sources.iter().filter(|source| source.is_response()).filter_map(|source| {
        let value = match &source.place {
            Place::ResponseJson(pointer) => {
                facts.body_text().and_then(|text| text.json_values(pointer))
            }
            place => answer::placed(place, facts).map(Values::One),
        };
        filtered(source, value?)
    });
    split(found, separator)
}

/// What the headers of a request say, which a trusted proxy has passed on.
pub fn sent(sources: &[Expression], separator: char, headers: &HeaderMap) -> Vec<String> {
    let found = sources.iter().filter_map(|source| match &source.place {
        Place::Header(name) => filtered(source, Values::One(header(headers, name)?)),
        _ => None,
    });
    split(found, separator)
}

/// The last filter may find a list; of a list each item goes through all of them.
fn filtered(source: &Expression, value: Values) -> Option<Values> {
    let Some((last, first)) = source.filters.split_last() else { return Some(value) };
    let through = |text: String| first.iter().try_fold(text, |text, filter| filter.apply(&text));
    match value {
        Values::One(text) => last.apply_to_list(&through(text)?),
        Values::List(items) => {
            let items = items.into_iter().filter_map(through);
            Some(Values::List(items.filter_map(|text| last.apply(&text)).collect()))
        }
    }
}

/// In one text several may stand; a name in a list is one, whatever is in it.
fn split(found: impl Iterator<Item = Values>, separator: char) -> Vec<String> {
    let mut groups = Vec::new();
    for values in found {
        match values {
            Values::One(text) => {
                groups.extend(text.split(separator).map(|name| name.trim().to_owned()));
            }
            Values::List(items) => groups.extend(items),
        }
    }
    groups.retain(|name| !name.is_empty());
    groups
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::detect::AnswerBody;
    use crate::inspect::AnswerText;

    fn sources(written: &[&str]) -> Vec<Expression> {
        written.iter().map(|written| Expression::parse(written).unwrap()).collect()
    }

    #[test]
    fn groups_are_found_in_lists_texts_and_tokens() {
        let body = AnswerText::new(
            br#"{"in":["staff","a,b"],"role":"admin; night","none":[],"deep":[{"x":1}],
            "token":"e30.eyJncm91cHMiOlsib3BzIiwiZGV2Il0sInJvbGUiOiJyb290In0.x"}"#
                .to_vec(),
        );
        let mut headers = HeaderMap::new();
        headers.insert("x-groups", HeaderValue::from_static("one, two,,three "));
        let facts = AnswerFacts {
            status: 200,
            headers: &headers,
            cookies: &[],
            body: AnswerBody::Read(&body),
        };
        let found = |written: &str, separator| told(&sources(&[written]), separator, facts);
        assert_eq!(found("rjson:/in", ','), ["staff", "a,b"]);
        assert_eq!(found("rjson:/in | prefix(3)", ','), ["sta", "a,b"]);
        assert_eq!(found("rjson:/role", ';'), ["admin", "night"]);
        assert_eq!(found("rjson:/token | jwt(groups)", ','), ["ops", "dev"]);
        assert_eq!(found("rjson:/token | jwt(role)", ','), ["root"]);
        assert_eq!(found("rheader:x-groups", ','), ["one", "two", "three"]);
        for nothing in ["rjson:/none", "rjson:/deep", "rjson:/missing", "header:x-groups"] {
            assert!(found(nothing, ',').is_empty(), "{nothing}");
        }
        let both = sources(&["rjson:/in", "header:x-groups | lower"]);
        assert_eq!(sent(&both, ',', &headers), ["one", "two", "three"]);
        assert_eq!(told(&both, ',', facts), ["staff", "a,b"]);
    }
}

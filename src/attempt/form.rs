//! Forms in a page, as far as filling in a login needs: tags and attributes are read as written,
//! without building a document. Scripts that make forms are not run. Pure.

/// A form.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Form {
    action: String,
    inputs: Vec<Input>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Input {
    name: String,
    kind: String,
    value: String,
}

impl Form {
    /// The name of the field for the password.
    pub fn password(&self) -> Option<&str> {
        let typed = self.inputs.iter().find(|input| input.kind == "password");
        let named = || {
            self.inputs.iter().find(|input| {
                input.kind != "hidden" && input.name.to_ascii_lowercase().contains("pass")
            })
        };
        typed.or_else(named).map(|input| input.name.as_str())
    }

    /// The name of the first field that can take a name.
    pub fn name_field(&self) -> Option<&str> {
        let password = self.password();
        let text = self.inputs.iter().find(|input| {
            matches!(input.kind.as_str(), "" | "text" | "email" | "tel")
                && Some(input.name.as_str()) != password
        });
        text.map(|input| input.name.as_str())
    }

    pub fn has(&self, name: &str) -> bool {
        self.inputs.iter().any(|input| input.name == name)
    }

    /// What is in it already and nobody types: the hidden fields.
    pub fn filled(&self) -> Vec<(String, String)> {
        let hidden = self.inputs.iter().filter(|input| input.kind == "hidden");
        hidden.map(|input| (input.name.clone(), input.value.clone())).collect()
    }

    /// Where it is sent, from the page at `page`.
    pub fn target(&self, page: &str) -> String {
        resolve(page, &self.action)
    }
}

/// The forms of a page. Fields outside any form are left out.
pub fn read(page: &str) -> Vec<Form> {
    let mut forms: Vec<Form> = Vec::new();
    let mut open = false;
    for tag in tags(page) {
        let (name, rest) = tag.split_once(char::is_whitespace).unwrap_or((tag, ""));
        match name.trim_end_matches('/').to_ascii_lowercase().as_str() {
            "form" => {
                let action = attribute(rest, "action").unwrap_or_default();
                forms.push(Form { action, inputs: Vec::new() });
                open = true;
            }
            "/form" => open = false,
            "input" if open => {
                let input = Input {
                    name: attribute(rest, "name").unwrap_or_default(),
                    kind: attribute(rest, "type").unwrap_or_default().to_ascii_lowercase(),
                    value: attribute(rest, "value").unwrap_or_default(),
                };
                if let Some(form) = forms.last_mut().filter(|_| !input.name.is_empty()) {
                    form.inputs.push(input);
                }
            }
            _ => {}
        }
    }
    forms
}

/// Where the links of a page lead, from the page at `page`.
pub fn links(text: &str, page: &str) -> Vec<String> {
    let tags = tags(text).filter_map(|tag| tag.split_once(char::is_whitespace));
    let anchors = tags.filter(|(name, _)| name.eq_ignore_ascii_case("a"));
    anchors.filter_map(|(_, rest)| Some(resolve(page, &attribute(rest, "href")?))).collect()
}

/// The token that Rails and Laravel put into `<meta name="csrf-token">`.
pub fn csrf_meta(page: &str) -> Option<String> {
    tags(page)
        .filter_map(|tag| tag.strip_prefix("meta"))
        .find(|rest| attribute(rest, "name").as_deref() == Some("csrf-token"))
        .and_then(|rest| attribute(rest, "content"))
}

/// A link on the page at `page`, as path and query.
pub fn resolve(page: &str, link: &str) -> String {
    let link = link.split('#').next().unwrap_or_default();
    let path = page.split('?').next().unwrap_or_default();
    let rest = link.split_once("://").map(|(_, rest)| rest).or_else(|| link.strip_prefix("//"));
    if let Some(rest) = rest {
        return rest.find('/').map_or("/", |at| &rest[at..]).to_owned();
    }
    if link.is_empty() {
        return page.to_owned();
    }
    if link.starts_with('/') {
        return link.to_owned();
    }
    if link.starts_with('?') {
        return format!("{path}{link}");
    }
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    format!("{folder}/{}", link.trim_start_matches("./"))
}

/// What stands between `<` and `>`, comments left out.
fn tags(page: &str) -> impl Iterator<Item = &str> {
    let mut rest = page;
    std::iter::from_fn(move || {
        loop {
            let at = rest.find('<')?;
            rest = &rest[at + 1..];
            if let Some(comment) = rest.strip_prefix("!--") {
                rest = comment.split_once("-->").map_or("", |(_, after)| after);
                continue;
            }
            let end = tag_end(rest)?;
            let tag = &rest[..end];
            rest = &rest[end..];
            return Some(tag);
        }
    })
}

/// The first `>` that is not within quotes.
fn tag_end(text: &str) -> Option<usize> {
    let mut quote = None;
    for (at, character) in text.char_indices() {
        match (quote, character) {
            (None, '>') => return Some(at),
            (None, '"' | '\'') => quote = Some(character),
            (Some(open), character) if open == character => quote = None,
            _ => {}
        }
    }
    None
}

/// The value of an attribute, unescaped.
fn attribute(tag: &str, wanted: &str) -> Option<String> {
    let mut rest = tag.trim_start();
    while !rest.is_empty() {
        let end = rest.find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        let after = after.trim_start();
        let (value, next) = match after.strip_prefix('=').map(str::trim_start) {
            None => ("", after),
            Some(value) => match value.chars().next() {
                Some(quote @ ('"' | '\'')) => {
                    value[1..].split_once(quote).unwrap_or((&value[1..], ""))
                }
                _ => value.split_at(value.find(char::is_whitespace).unwrap_or(value.len())),
            },
        };
        if name.eq_ignore_ascii_case(wanted) {
            return Some(unescaped(value));
        }
        rest = next.trim_start();
        if name.is_empty() && value.is_empty() {
            rest = rest.get(1..).unwrap_or_default();
        }
    }
    None
}

fn unescaped(text: &str) -> String {
    let mut out = text.to_owned();
    for (escape, plain) in [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&#x27;", "'"),
        ("&#39;", "'"),
        ("&#43;", "+"),
        ("&#x2B;", "+"),
        ("&#61;", "="),
        ("&#038;", "&"),
        ("&amp;", "&"),
    ] {
        out = out.replace(escape, plain);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_form_is_read_as_browsers_send_it() {
        let page = r#"<form action='/search'><input name=q></form><!-- <form action="/old"> -->
            <FORM method="post" action="/in?a=1&amp;b=2"><INPUT TYPE=hidden NAME=token VALUE="a&quot;b>c">
            <input name="user" autofocus><input type="password" name="pw"/>
            <input type=checkbox name=remember value=1></FORM><input name="outside">"#;
        let forms = read(page);
        assert_eq!(forms.len(), 2);
        assert_eq!((forms[0].password(), forms[0].name_field()), (None, Some("q")));
        let login = &forms[1];
        assert_eq!((login.password(), login.name_field()), (Some("pw"), Some("user")));
        assert_eq!(login.filled(), [("token".to_owned(), "a\"b>c".to_owned())]);
        assert_eq!(login.target("/x"), "/in?a=1&b=2");
        assert!(!login.has("outside"));
    }

    #[test]
    fn a_page_that_is_cut_off_ends_the_reading() {
        for page in
            ["<", "<form", "<form action=\"", "<!--", "<input name=\"a>", "<form =><input = >"]
        {
            assert!(read(page).iter().all(|form| form.inputs.is_empty()), "{page}");
        }
        assert_eq!(
            csrf_meta("<meta name=\"csrf-token\" content=\"x&#43;y\">").as_deref(),
            Some("x+y")
        );
    }

    #[test]
    fn links_are_found() {
        let page = "<A href=x><a class='b' href='http://h/out?a=1&#038;b=2'>x</a><abbr href=y>";
        assert_eq!(links(page, "/"), ["/x", "/out?a=1&b=2"]);
    }

    #[test]
    fn links_are_followed_from_their_page() {
        for (link, target) in [
            ("", "/a/b?c"),
            ("/x", "/x"),
            ("x?y#z", "/a/x?y"),
            ("./x", "/a/x"),
            ("?q", "/a/b?q"),
            ("http://h:1/x", "/x"),
            ("//h", "/"),
        ] {
            assert_eq!(resolve("/a/b?c", link), target, "{link}");
        }
    }
}

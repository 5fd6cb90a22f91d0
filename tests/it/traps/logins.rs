//! Logins in odd spellings: of the path, of the body, of the name. Whoever the site signs in is
//! counted under the name the site means, or the site never sees the request.

use std::io::Write as _;

use super::{Stack, with_every_parser};
use crate::support::browser::{Browser, password_of};
use crate::support::http::Request;
use crate::support::proxy::Proxy;

with_every_parser! {
    whoever_signs_in_by_an_odd_path_is_counted
    whoever_signs_in_by_an_odd_form_is_counted_as_who_the_site_means
}

/// A victim with a session, and an attacker who sends logins.
struct Scene {
    stack: Stack,
    proxy: Proxy,
    victim: String,
    attacker: String,
    session: Browser,
}

impl Scene {
    fn new(stack: Stack) -> Self {
        let (proxy, victim, attacker) = (stack.proxy(""), stack.user(), stack.user());
        let session = stack.signed_in(&proxy, &victim);
        Self { stack, proxy, victim, attacker, session }
    }

    /// The attacker's login arrives: the victim is left alone, and the site serves nobody who is
    /// not counted. Whether the attacker was signed in.
    #[track_caller]
    fn check(&mut self, request: Request, shown: &str) -> bool {
        let (stack, proxy) = (self.stack, &self.proxy);
        let mut browser = proxy.browser();
        let answer = stack.send_login(&mut browser, request);
        let user = stack.whoami(&mut browser);
        assert_ne!(user.as_deref(), Some(&*self.victim), "{shown}");
        let live = proxy.live(&self.attacker);
        assert_eq!(live, usize::from(user.is_some()), "{shown}: {} {user:?}", answer.status);
        assert_eq!(stack.whoami(&mut self.session).as_deref(), Some(&*self.victim), "{shown}");
        assert_eq!(proxy.live(&self.victim), 1, "{shown}");
        proxy.admin("DELETE", &format!("/api/v1/users/{}/sessions", self.attacker));
        user.is_some()
    }
}

fn whoever_signs_in_by_an_odd_path_is_counted(stack: Stack) {
    let mut scene = Scene::new(stack);
    let plain = stack.login();
    let (head, last) = plain.trim_end_matches('/').rsplit_once('/').unwrap();
    let mut paths = vec![plain.to_owned()];
    for odd in [
        "/%s",
        "//%s",
        "/./%s",
        "/x/../%s",
        "/%s/",
        "/%s//",
        "/%s/.",
        "/%s?x=/login",
        "/%s?",
        "/%s;x=1",
        "/;x/%s",
        "/x/..;/%s",
        "/%2e/%s",
        "/%2f%s",
        "/%5c%s",
        "/\\%s",
        "/%s%00",
        "/%s%20",
        "/%s.",
        "/%s%2f",
        "/%s%3fx",
        "/%s/x",
        "/x%2f..%2f%s",
        "/%s%23",
    ] {
        paths.push(format!("{head}{}", odd.replace("%s", last)));
        if plain.ends_with('/') {
            paths.push(format!("{head}{}/", odd.replace("%s", last)));
        }
    }
    let first = last.as_bytes()[0];
    paths.push(plain.replacen(last, &format!("%{first:02x}{}", &last[1..]), 1));
    paths.push(plain.replacen(last, &format!("%25{first:02x}{}", &last[1..]), 1));
    paths.push(plain.replacen(last, &format!("%{:02x}{}", first - 32, &last[1..]), 1));
    paths.push(plain.to_uppercase());
    paths.push(format!("http://{}{plain}", scene.proxy.address));
    let password = password_of(&scene.attacker);
    let mut signed_in = Vec::new();
    for path in paths {
        let form = [("username", scene.attacker.as_str()), ("password", &password)];
        let request = Request::form(&path, &form);
        if scene.check(request, &path) {
            signed_in.push(path);
        }
    }
    assert!(signed_in.iter().any(|path| path == plain), "{signed_in:?}");
}

fn whoever_signs_in_by_an_odd_form_is_counted_as_who_the_site_means(stack: Stack) {
    let mut scene = Scene::new(stack);
    let (attacker, victim) = (scene.attacker.clone(), scene.victim.clone());
    let password = password_of(&attacker);
    let form = "application/x-www-form-urlencoded";
    let plain = format!("username={attacker}&password={password}");
    let after = |field: &str| format!("{plain}&{field}{victim}");
    let before = |field: &str| format!("{field}{victim}&{plain}");
    let mut cases: Vec<(&str, String)> = Vec::new();
    for field in [
        "username=",
        "username[]=",
        "username[0]=",
        "%75sername=",
        "+username=",
        "username%00=",
        "username%00x=",
        "username%20=",
        "Username=",
        "username[=",
        "=&username=",
        ";username=",
    ] {
        cases.push((form, after(field)));
        cases.push((form, before(field)));
    }
    cases.push((form, format!("username={attacker};username={victim}&password={password}")));
    cases.push((form, format!("x=1;username={victim}&{plain}")));
    for kind in [
        "application/x-www-form-urlencoded; charset=utf-16",
        "application/x-www-form-urlencoded; charset=iso-8859-1",
        "application/x-www-form-urlencoded; charset=utf-8; charset=utf-7",
        "Application/X-WWW-Form-URLencoded",
        "application/x-www-form-urlencoded;",
        "application/x-www-form-urlencoded, text/plain",
        "text/plain",
        "application/json",
        "multipart/form-data; boundary=b",
    ] {
        cases.push((kind, plain.clone()));
    }
    let json = |text: &str| {
        text.replace("ATTACKER", &attacker).replace("VICTIM", &victim).replace("SECRET", &password)
    };
    for text in [
        r#"{"username":"ATTACKER","password":"SECRET"}"#,
        r#"{"username":"VICTIM","username":"ATTACKER","password":"SECRET"}"#,
        r#"{"\u0075sername":"VICTIM","username":"ATTACKER","password":"SECRET"}"#,
        "\u{feff}{\"username\":\"ATTACKER\",\"password\":\"SECRET\"}",
        r#"{"username":["ATTACKER"],"password":"SECRET"}"#,
        r#"{"username":"ATTACKER","password":"SECRET"} {"username":"VICTIM"}"#,
        r#"[{"username":"ATTACKER","password":"SECRET"}]"#,
    ] {
        cases.push(("application/json", json(text)));
        cases.push(("text/plain", json(text)));
        cases.push(("application/vnd.api+json", json(text)));
    }
    let part = |disposition: &str, value: &str| {
        format!("--b\r\nContent-Disposition: form-data; {disposition}\r\n\r\n{value}\r\n")
    };
    let own = part("name=\"username\"", &attacker) + &part("name=\"password\"", &password);
    for (kind, body) in [
        ("multipart/form-data; boundary=b", own.clone()),
        ("multipart/form-data; boundary=\"b\"", own.clone()),
        ("multipart/form-data; boundary=b; boundary=c", own.clone()),
        ("Multipart/Form-Data; Boundary=b", own.clone()),
        ("multipart/mixed; boundary=b", own.clone()),
        ("multipart/form-data; boundary=b", own.replace("\r\n", "\n")),
        ("multipart/form-data; boundary=b", format!("preamble\r\n{own}")),
        ("multipart/form-data; boundary=b", part("name=\"username\"", &victim) + &own),
        ("multipart/form-data; boundary=b", own.clone() + &part("name=\"username\"", &victim)),
        ("multipart/form-data; boundary=b", own.clone() + &part("name=username", &victim)),
        ("multipart/form-data; boundary=b", own.clone() + &part("name=\"username[]\"", &victim)),
        ("multipart/form-data; boundary=b", own.clone() + &part("name*=utf-8''username", &victim)),
        ("multipart/form-data; boundary=b", part("name*=utf-8''username", &victim) + &own),
        ("multipart/form-data; boundary=b", part("name=\"x\"; name=\"username\"", &victim) + &own),
        (
            "multipart/form-data; boundary=b",
            own.clone() + &part("name=\"username\"; name=\"x\"", &victim),
        ),
        (
            "multipart/form-data; boundary=b",
            part("name=\"username\"; filename=\"f\"", &victim) + &own,
        ),
        (
            "multipart/form-data; boundary=b",
            own.clone() + &part("name=\"username\"; filename=\"f\"", &victim),
        ),
        ("multipart/form-data; boundary=b", part("name=\"user\\name\"", &victim) + &own),
        ("multipart/form-data; boundary=b", own.clone() + &part("name=\"%75sername\"", &victim)),
    ] {
        cases.push((kind, format!("{body}--b--\r\n")));
    }
    // A name that one parser finds within quotes, and a text that Django decodes.
    let hidden = |outside: &str, inside: &str, value: &str| {
        part(&format!("x=\"; name={inside}\"; name=\"{outside}\""), value)
    };
    let base64 = |text: &str| {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(text)
    };
    let encoded = |name: &str, encoding: &str, value: &str| {
        let encoding = format!("name=\"{name}\"\r\nContent-Transfer-Encoding: {encoding}");
        part(&encoding, value)
    };
    let secret = part("name=\"password\"", &password);
    for body in [
        hidden("username", "zzz", &attacker) + &hidden("zzz", "username", &victim) + &secret,
        hidden("zzz", "username", &victim) + &hidden("username", "zzz", &attacker) + &secret,
        encoded("username", "base64", &base64(&attacker)) + &secret,
        encoded("username", "quoted-printable", &attacker.replace('u', "=75")) + &secret,
        encoded("username", "8bit", &attacker) + &secret,
        part("name=\"username\"\r\nContent-Type: text/plain; charset=utf-16", &attacker) + &secret,
    ] {
        cases.push(("multipart/form-data; boundary=b", format!("{body}--b--\r\n")));
    }
    let mut signed_in = 0;
    for (kind, body) in cases {
        let request = Request::new("POST", stack.login())
            .header("Content-Type", kind)
            .body(body.clone().into_bytes());
        signed_in += usize::from(scene.check(request, &format!("{kind}: {body}")));
    }
    assert!(signed_in > 2, "ordinary forms sign in: {signed_in}");
    // Compressed, which body-parser unpacks; and without saying what it is.
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(plain.as_bytes()).unwrap();
    let packed = Request::new("POST", stack.login())
        .header("Content-Type", form)
        .header("Content-Encoding", "gzip")
        .body(packer.finish().unwrap());
    assert!(!scene.check(packed, "gzip"));
    let untold = Request::new("POST", stack.login()).body(plain.into_bytes());
    scene.check(untold, "no type");
}

/// Django takes these names for one person's, so they are one user.
#[test]
fn a_name_in_another_form_of_its_letters_is_the_same_user() {
    let stack = Stack::Django;
    let (proxy, user) = (stack.proxy(""), stack.user());
    let wide: String = user
        .chars()
        .map(|c| char::from_u32(c as u32 + 0xfee0).filter(|_| c.is_ascii_graphic()).unwrap_or(c))
        .collect();
    let mut before = stack.signed_in(&proxy, &user);
    for name in [format!(" {user}"), format!("{user} "), wide, format!("\u{a0}{user}\u{3000}")] {
        let mut browser = proxy.browser();
        let form = [("username", name.as_str()), ("password", &*password_of(&user))];
        let answer = stack.send_login(&mut browser, Request::form(stack.login(), &form));
        assert_eq!(answer.status, 302, "{name:?}: {}", answer.text());
        assert_eq!(stack.whoami(&mut browser).as_deref(), Some(&*user), "{name:?}");
        assert_eq!(stack.whoami(&mut before), None, "{name:?} ends the one before");
        assert_eq!(proxy.live(&user), 1, "{name:?}");
        before = browser;
    }
}

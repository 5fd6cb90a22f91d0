//! WordPress: two names of one user, three cookies of one session, a logout behind a nonce, a login
//! page that takes the cookies away, and a change of password that issues them anew.

use super::{WORDPRESS, app_value};
use crate::support::browser::{Browser, password_of};

/// The link to sign out, with the nonce for this browser.
#[track_caller]
pub(super) fn logout_link(browser: &mut Browser) -> String {
    let page = browser.get("/wp-login.php?action=logout");
    assert_eq!(page.status, 403, "without the nonce WordPress asks: {}", page.text());
    let link =
        page.text().split('"').find(|part| part.contains("action=logout&amp;")).map(|link| {
            let link = link.replace("&amp;", "&");
            link.find("/wp-login.php").map(|at| link[at..].to_owned()).unwrap()
        });
    link.expect("a link to sign out")
}

#[test]
fn the_name_and_the_address_are_one_user() {
    let (proxy, user) = (WORDPRESS.proxy("limit.max_sessions = 1"), WORDPRESS.site().user());
    let mut first = WORDPRESS.signed_in(&proxy, &user);
    let mut second = proxy.browser();
    for address in [format!("{user}@example.org"), format!("{}@EXAMPLE.org", user.to_uppercase())] {
        let answer = WORDPRESS.try_login(&mut second, &address, &password_of(&user));
        assert_eq!(answer.status, 302, "{address}: {}", answer.text());
        WORDPRESS.assert_serves(&mut second, &user);
    }
    WORDPRESS.assert_told(&mut first);
    assert_eq!(proxy.live(&user), 1);
}

/// Two of them for a folder only: all carry the stamp, none of them works after the end.
#[test]
fn the_cookies_of_every_path_end_together() {
    let (proxy, user) = (WORDPRESS.proxy("limit.max_sessions = 1"), WORDPRESS.site().user());
    let mut first = WORDPRESS.signed_in(&proxy, &user);
    assert_eq!(first.get("/wp-admin/profile.php").status, 200);
    let session: Vec<_> =
        first.jar.iter().filter(|cookie| cookie.value.contains(".hc1.")).cloned().collect();
    let mut paths: Vec<_> = session.iter().map(|cookie| &*cookie.path).collect();
    paths.sort_unstable();
    assert_eq!(paths, ["/", "/wp-admin", "/wp-content/plugins"]);
    let test_cookie = first.cookie("wordpress_test_cookie").unwrap();
    assert!(!test_cookie.contains(".hc1."), "{test_cookie}");

    let mut second = WORDPRESS.signed_in(&proxy, &user);
    // At WordPress itself they would still do, also together and bare.
    let mut direct = WORDPRESS.site().browser();
    for cookie in &session {
        let mut cookie = cookie.clone();
        cookie.value = app_value(&cookie.value).to_owned();
        direct.jar.push(cookie);
    }
    assert_eq!(direct.get("/wp-admin/profile.php").status, 200);
    let mut bare = direct.moved_to(proxy.address);
    for cookie in &session {
        let mut thief = proxy.browser();
        thief.jar.push(cookie.clone());
        for page in ["/wp-admin/profile.php", "/hello.php"] {
            let answer = thief.get(page);
            assert_ne!(answer.text(), format!("hello {user}"));
            assert!(
                matches!(answer.status, 302 | 401) || page == "/hello.php",
                "{}",
                answer.status
            );
        }
        assert_eq!(WORDPRESS.whoami(&mut thief), None, "{cookie:?}");
    }
    assert_ne!(bare.get("/wp-admin/profile.php").status, 200);
    assert_eq!(WORDPRESS.whoami(&mut bare), None);

    // Each name is taken back from all its paths when it is next seen.
    assert_eq!(first.get("/hello.php").status, 401);
    assert_eq!(first.get("/wp-admin/profile.php").status, 401);
    assert!(first.jar.iter().all(|cookie| !cookie.value.contains(".hc1.")), "{:?}", first.jar);
    let asked = first.get("/wp-admin/profile.php");
    assert_eq!(asked.status, 302, "WordPress asks to sign in");
    WORDPRESS.assert_serves(&mut second, &user);
}

#[test]
fn a_page_that_asks_about_signing_out_ends_nothing() {
    let (proxy, user) = (WORDPRESS.proxy("limit.max_sessions = 1"), WORDPRESS.site().user());
    let mut browser = WORDPRESS.signed_in(&proxy, &user);
    assert_eq!(browser.get("/wp-login.php?action=logout&_wpnonce=0123456789").status, 403);
    WORDPRESS.assert_serves(&mut browser, &user);
    assert_eq!(proxy.live(&user), 1);
    let link = logout_link(&mut browser);
    assert_eq!(browser.get(&link).status, 302);
    assert_eq!(proxy.live(&user), 0);
    assert_eq!(proxy.wait_for_event("session_ended", &user)["reason"], "logout");
}

/// WordPress keeps the session, but no browser has it any longer: it is nobody's, and counts no more.
#[test]
fn cookies_taken_away_by_the_login_page_are_the_end() {
    let toml = "limit.max_sessions = 1\nlimit.on_limit = \"deny\"\nsession.idle_timeout = \"1h\"";
    let (proxy, user) = (WORDPRESS.proxy(toml), WORDPRESS.site().user());
    let mut browser = WORDPRESS.signed_in(&proxy, &user);
    let kept = browser.jar.clone();
    assert_eq!(browser.get("/wp-login.php").status, 200);
    WORDPRESS.assert_serves(&mut browser, &user);
    // Somebody without a session takes nobody's.
    assert_eq!(proxy.browser().get("/wp-login.php?reauth=1").status, 200);
    assert_eq!(proxy.live(&user), 1);

    assert_eq!(browser.get("/wp-login.php?reauth=1").status, 200);
    assert_eq!(WORDPRESS.whoami(&mut browser), None);
    assert_eq!(proxy.live(&user), 0);
    for stamped in [true, false] {
        let mut thief = proxy.browser();
        thief.jar.clone_from(&kept);
        for cookie in thief.jar.iter_mut().filter(|_| !stamped) {
            cookie.value = app_value(&cookie.value).to_owned();
        }
        assert_eq!(WORDPRESS.whoami(&mut thief), None);
    }
    WORDPRESS.sign_in(&mut browser, &user);
}

#[test]
fn a_change_of_password_ends_the_users_other_sessions() {
    let (proxy, user) = (WORDPRESS.proxy("limit.max_sessions = 3"), WORDPRESS.site().user());
    let mut other = WORDPRESS.signed_in(&proxy, &user);
    let mut browser = WORDPRESS.signed_in(&proxy, &user);
    let before = WORDPRESS.cookie(&browser);
    // A profile saved without a new password changes nothing.
    assert_eq!(save_profile(&mut browser, &user, None), 302);
    assert_eq!((WORDPRESS.cookie(&browser), proxy.live(&user)), (before.clone(), 2));

    assert_eq!(save_profile(&mut browser, &user, Some("another-password")), 302);
    let after = WORDPRESS.cookie(&browser);
    assert!(after != before && after.contains(".hc1."), "{after}");
    WORDPRESS.assert_serves(&mut browser, &user);
    assert_eq!(browser.get("/wp-admin/profile.php").status, 200);
    assert_eq!(proxy.wait_for_event("session_ended", &user)["reason"], "password_change");
    assert_eq!(proxy.live(&user), 1);
    let told = other.get("/hello.php");
    assert_eq!(told.status, 401, "{}", told.text());
    let mut fresh = proxy.browser();
    let wrong = WORDPRESS.try_login(&mut fresh, &user, &password_of(&user));
    assert_eq!(wrong.status, 200, "the old password is over");
    assert_eq!(WORDPRESS.try_login(&mut fresh, &user, "another-password").status, 302);
    assert_eq!(proxy.live(&user), 2);
}

/// Sends the form of the profile page as it came, with or without a new password.
#[track_caller]
fn save_profile(browser: &mut Browser, user: &str, password: Option<&str>) -> u16 {
    let page = browser.get("/wp-admin/profile.php");
    assert_eq!(page.status, 200, "{}", page.text());
    let text = page.text();
    let value = |field: &str| {
        let input = text.split("<input").find(|input| input.contains(&format!("name=\"{field}\"")));
        let input = input.unwrap_or_else(|| panic!("no {field} in {text}"));
        input.split("value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned()
    };
    let mail = format!("{user}@example.org");
    let fields = ["_wpnonce", "user_id", "checkuser_id", "from"].map(|field| (field, value(field)));
    let mut form: Vec<(&str, &str)> =
        fields.iter().map(|(field, value)| (*field, &**value)).collect();
    form.extend([("action", "update"), ("nickname", user), ("email", &mail)]);
    if let Some(password) = password {
        form.extend([("pass1", password), ("pass2", password)]);
    }
    browser.post("/wp-admin/profile.php", &form).status
}

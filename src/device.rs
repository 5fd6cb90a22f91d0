//! What a User-Agent is called: browser, system and kind of device, as people name them. Parsed when
//! it is shown or compared, never for every request. Pure; nothing is decided by it here.
//!
//! Whoever sends it chooses it: a name is a hint for people, not a proof. An iPad says that it is a
//! Mac, unless its user asked for mobile pages.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use woothee::parser::Parser;

/// Bytes looked at; what is recorded is cut before already. It bounds what a hostile one costs.
const BYTES_MAX: usize = 512;
/// Longest name taken from a User-Agent nobody knows.
const NAME_CHARS_MAX: usize = 40;

/// What a User-Agent says of the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// `Firefox`, `Chrome`, `Googlebot`, `curl`; without a version.
    pub browser: Option<String>,
    /// `Windows`, `Mac`, `Linux`, `Android`, `iPhone`; without a version.
    pub system: Option<String>,
    pub class: DeviceClass,
}

/// What kind of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeviceClass {
    Desktop,
    Phone,
    Tablet,
    /// Crawlers and others that say that they are programs.
    Bot,
    /// Consoles, televisions, libraries of programs, and whatever nobody knows.
    Other,
}

impl DeviceClass {
    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Desktop => "desktop",
            Self::Phone => "phone",
            Self::Tablet => "tablet",
            Self::Bot => "bot",
            Self::Other => "other",
        }
    }
}

/// `Firefox on Windows`; nothing where nothing is known.
impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.browser, &self.system) {
            (Some(browser), Some(system)) => write!(f, "{browser} on {system}"),
            (Some(only), None) | (None, Some(only)) => f.write_str(only),
            (None, None) => Ok(()),
        }
    }
}

impl Device {
    /// It has a name that says both what and on what; else what was sent says more.
    pub fn is_known(&self) -> bool {
        self.browser.is_some() && self.system.is_some()
    }

    /// As [`fmt::Display`] writes it, if anything is known.
    pub fn name(&self) -> Option<String> {
        Some(self.to_string()).filter(|name| !name.is_empty())
    }
}

/// Names the device of a User-Agent. Takes some microseconds, whatever it says.
pub fn describe(user_agent: &str) -> Device {
    let agent = cut(user_agent);
    let found = Parser::new().parse(agent).unwrap_or_default();
    let system = system(found.os);
    let class = match found.category {
        "crawler" => DeviceClass::Bot,
        "smartphone" | "mobilephone" => mobile(system, agent),
        "pc" => DeviceClass::Desktop,
        _ => DeviceClass::Other,
    };
    let browser = browser(found.name).map(str::to_owned).or_else(|| product(agent));
    Device { browser, system: system.map(str::to_owned), class }
}

fn cut(agent: &str) -> &str {
    let mut end = agent.len().min(BYTES_MAX);
    while !agent.is_char_boundary(end) {
        end -= 1;
    }
    &agent[..end]
}

/// The library does not tell tablets from phones. Browsers on Android phones say `Mobile`.
fn mobile(system: Option<&str>, agent: &str) -> DeviceClass {
    match system {
        Some("iPad") => DeviceClass::Tablet,
        Some("Android") if !agent.contains("Mobile") => DeviceClass::Tablet,
        _ => DeviceClass::Phone,
    }
}

fn browser(name: &str) -> Option<&str> {
    match name {
        // Kinds of programs: the program's own name says more.
        "" | "UNKNOWN" | "HTTP Library" | "misc crawler" | "RSSReader" => None,
        "SamsungBrowser" => Some("Samsung Internet"),
        "Webview" => Some("an app"),
        name => Some(name),
    }
}

fn system(name: &str) -> Option<&str> {
    match name {
        "" | "UNKNOWN" => None,
        "Mac OSX" | "Mac OS Classic" => Some("Mac"),
        name if name.starts_with("Windows Phone") => Some("Windows Phone"),
        name if name.starts_with("Windows") => Some("Windows"),
        name => Some(name),
    }
}

/// `curl` of `curl/8.5.0`.
fn product(agent: &str) -> Option<String> {
    let name = agent.split(['/', ' ', '(']).find(|name| !name.is_empty())?;
    // What every browser begins with says nothing.
    let name = if name == "Mozilla" { "" } else { name };
    let name: String = name.chars().filter(char::is_ascii_graphic).take(NAME_CHARS_MAX).collect();
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    use DeviceClass::{Bot, Desktop, Other, Phone, Tablet};

    const NAMED: [(&str, &str, DeviceClass); 15] = [
        (
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:140.0) Gecko/20100101 Firefox/140.0",
            "Firefox on Windows",
            Desktop,
        ),
        (
            "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
            "Firefox on Linux",
            Desktop,
        ),
        (
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) \
             Chrome/141.0.0.0 Safari/537.36 Edg/141.0.0.0",
            "Edge on Windows",
            Desktop,
        ),
        (
            "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like \
             Gecko) Version/26.0 Safari/605.1.15",
            "Safari on Mac",
            Desktop,
        ),
        (
            "Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) AppleWebKit/537.36 (KHTML, like Gecko) \
             Chrome/141.0.0.0 Safari/537.36",
            "Chrome on ChromeOS",
            Desktop,
        ),
        (
            "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) \
             Chrome/141.0.0.0 Mobile Safari/537.36",
            "Chrome on Android",
            Phone,
        ),
        (
            "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) \
             Chrome/141.0.0.0 Safari/537.36",
            "Chrome on Android",
            Tablet,
        ),
        (
            "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) \
             SamsungBrowser/28.0 Chrome/130.0.0.0 Mobile Safari/537.36",
            "Samsung Internet on Android",
            Phone,
        ),
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 \
             (KHTML, like Gecko) Version/26.0 Mobile/15E148 Safari/604.1",
            "Safari on iPhone",
            Phone,
        ),
        (
            "Mozilla/5.0 (iPad; CPU OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like \
             Gecko) CriOS/141.0.0.0 Mobile/15E148 Safari/604.1",
            "Chrome on iPad",
            Tablet,
        ),
        (
            "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
            "Googlebot",
            Bot,
        ),
        ("curl/8.5.0", "curl", Other),
        ("python-requests/2.32", "python-requests", Other),
        ("Mozilla/5.0", "", Other),
        ("", "", Other),
    ];

    #[test]
    fn devices_have_the_names_people_give_them() {
        for (agent, name, class) in NAMED {
            let device = describe(agent);
            assert_eq!((device.to_string().as_str(), device.class), (name, class), "{agent}");
        }
    }

    #[test]
    fn a_hostile_one_costs_next_to_nothing() {
        let mut hostile: Vec<String> =
            ["(", "Mozilla/5.0 (", "; CPU OS ", "Windows ", "rss", "bot", "KDDI-", "é", "\u{0}"]
                .iter()
                .map(|piece| piece.repeat(100_000 / piece.len()))
                .collect();
        hostile.push(format!("Mozilla/5.0 (Mobile;{} rv:1", ";".repeat(100_000)));
        // The first time the expressions are compiled.
        hostile.iter().for_each(|agent| drop(describe(agent)));
        for agent in hostile {
            let began = Instant::now();
            let device = describe(&agent);
            let took = began.elapsed();
            assert!(took < Duration::from_millis(50), "{took:?} for {:.40}", agent);
            assert!(device.to_string().chars().count() <= 2 * NAME_CHARS_MAX + 4, "{device}");
        }
    }
}

//! How the page says things: names of browsers, reasons and events, and the chart of ends. Pure.

use serde::Serialize;

use crate::audit::{EndsSlot, EventKind, SLOT_MS};
use crate::device;
use crate::geo::Place;
use crate::session::{EndReason, Timestamp};

/// The browser and system in a User-Agent as most people would name them. Others count and judge by
/// the whole text; this is only shown beside it.
pub(super) fn device(agent: &str) -> Option<String> {
    device::describe(agent).name()
}

/// `Berlin, DE`.
pub(super) fn place(place: &Place) -> String {
    let parts = [place.city.as_deref(), place.country.as_deref()];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

pub(super) fn reason(reason: EndReason) -> &'static str {
    match reason {
        EndReason::Limit => "limit",
        EndReason::Logout => "signed out",
        EndReason::IdleTimeout => "idle",
        EndReason::AbsoluteTimeout => "too old",
        EndReason::Admin => "ended by admin",
        EndReason::SelfService => "ended by user",
        EndReason::PasswordChange => "password changed",
        EndReason::Replaced => "other user",
        EndReason::ClientChanged => "client changed",
        EndReason::App => "app",
    }
}

pub(super) fn event(kind: EventKind) -> &'static str {
    match kind {
        EventKind::SessionCreated => "Signed in",
        EventKind::SessionRenewed => "Signed in again",
        EventKind::SessionEnded => "Session ended",
        EventKind::SessionDenied => "Sign-in denied",
        EventKind::SessionUseAfterEnd => "Used after its end",
        EventKind::SessionClientChanged => "Client changed",
        EventKind::SessionDisowned => "End disowned by the user",
        EventKind::LoginFailed => "Sign-in failed",
        EventKind::LoginUnattributed => "Sign-in without a name",
        EventKind::LimitChanged => "Limit changed",
        EventKind::ConfigReloaded => "Configuration reloaded",
        EventKind::BackupTaken => "Backup taken",
        EventKind::UserExported => "User exported",
        EventKind::UserErased => "User erased",
    }
}

/// How long ago, in one unit.
pub(super) fn ago(ms: i64) -> String {
    let seconds = ms.max(0) / 1000;
    let (number, unit) = match seconds {
        0..10 => return "just now".to_owned(),
        10..60 => (seconds, "s"),
        60..3_600 => (seconds / 60, "min"),
        3_600..172_800 => (seconds / 3_600, "h"),
        _ => (seconds / 86_400, "days"),
    };
    format!("{number} {unit} ago")
}

/// Half hours shown.
const BARS: i64 = 48;
const WIDTH: i64 = 960;
const HEIGHT: i64 = 160;

/// Ends over the last day, as rectangles.
#[derive(Serialize)]
pub(super) struct Chart {
    width: i64,
    height: i64,
    bars: Vec<Bar>,
    ticks: Vec<Tick>,
    legend: Vec<Share>,
    total: u32,
    highest: u32,
}

#[derive(Serialize)]
struct Bar {
    x: i64,
    y: i64,
    width: i64,
    height: i64,
    class: &'static str,
    title: String,
}

#[derive(Serialize)]
struct Tick {
    x: i64,
    label: String,
}

#[derive(Serialize)]
struct Share {
    class: &'static str,
    words: &'static str,
    count: u32,
}

pub(super) fn chart(slots: &[EndsSlot], now: Timestamp) -> Chart {
    let newest = now.0.div_euclid(SLOT_MS);
    let place = |slot: &EndsSlot| slot.from.0.div_euclid(SLOT_MS) - newest + BARS - 1;
    let shown = || slots.iter().filter(|slot| (0..BARS).contains(&place(slot)));
    let sum = |slot: &EndsSlot| slot.ends.iter().fold(0_u32, |sum, ends| sum.saturating_add(*ends));
    let highest = shown().map(sum).max().unwrap_or(0);
    let step = WIDTH / BARS;
    let mut bars = Vec::new();
    for slot in shown() {
        let mut floor = HEIGHT;
        for (kind, ends) in EndReason::ALL.into_iter().zip(slot.ends).filter(|(_, ends)| *ends > 0)
        {
            let height = (i64::from(ends) * HEIGHT / i64::from(highest.max(1))).max(2);
            floor -= height;
            let title = format!("{} UTC: {ends} {}", hour(slot.from), reason(kind));
            let (x, width) = (place(slot) * step + 2, step - 4);
            bars.push(Bar { x, y: floor.max(0), width, height, class: kind.as_str(), title });
        }
    }
    let ticks = (0..BARS).map(|at| (at, (newest - BARS + 1 + at) * SLOT_MS));
    let ticks = ticks
        .filter(|(_, from)| from % (8 * SLOT_MS) == 0)
        .map(|(at, from)| Tick { x: at * step, label: hour(Timestamp(from)) });
    let legend: Vec<Share> = EndReason::ALL
        .into_iter()
        .enumerate()
        .map(|(at, kind)| Share {
            class: kind.as_str(),
            words: reason(kind),
            count: shown().fold(0, |sum: u32, slot| sum.saturating_add(slot.ends[at])),
        })
        .filter(|share| share.count > 0)
        .collect();
    let total = legend.iter().fold(0_u32, |sum, share| sum.saturating_add(share.count));
    Chart { width: WIDTH, height: HEIGHT, bars, ticks: ticks.collect(), legend, total, highest }
}

fn hour(at: Timestamp) -> String {
    at.to_string().get(11..16).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_have_names() {
        let of = |city: Option<&str>, country: Option<&str>| {
            let [city, country] = [city, country].map(|text| text.map(str::to_owned));
            place(&Place { country, city })
        };
        assert_eq!(of(Some("Berlin"), Some("DE")), "Berlin, DE");
        assert_eq!(of(None, Some("DE")), "DE");
    }

    #[test]
    fn the_chart_stacks_and_counts() {
        let mut ends = [0; EndReason::ALL.len()];
        (ends[0], ends[1]) = (3, 1);
        let now = Timestamp(100 * SLOT_MS + 5);
        let slots = [
            EndsSlot { from: Timestamp(10 * SLOT_MS), ends },
            EndsSlot { from: Timestamp(100 * SLOT_MS), ends },
        ];
        let chart = chart(&slots, now);
        assert_eq!((chart.total, chart.highest, chart.bars.len()), (4, 4, 2));
        assert_eq!((chart.bars[0].y, chart.bars[1].y), (40, 0));
        assert!(chart.bars[0].x > 900, "the newest is on the right");
    }
}

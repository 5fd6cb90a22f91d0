// The live feed: when something happens, the parts of the page that are marked as live are asked for
// anew. What they show is made and escaped on the server, as without this script.
"use strict";

const feed = document.querySelector("[data-feed]");
const PAUSE_MS = 400;
const EVENTS = [
    "session_created", "session_renewed", "session_ended", "session_denied",
    "session_use_after_end", "session_client_changed", "login_failed", "login_unattributed",
    "limit_changed", "config_reloaded",
];

let waiting = false;
let again = false;

async function refresh() {
    if (waiting) {
        again = true;
        return;
    }
    waiting = true;
    try {
        const answer = await fetch(location.href, { headers: { accept: "text/html" }, redirect: "manual" });
        if (answer.ok) {
            replace(new DOMParser().parseFromString(await answer.text(), "text/html"));
        }
    } catch {
        // The feed says that the line is down; it comes again by itself.
    }
    setTimeout(() => {
        waiting = false;
        if (again) {
            again = false;
            refresh();
        }
    }, PAUSE_MS);
}

function replace(fresh) {
    for (const part of document.querySelectorAll("[data-live]")) {
        const other = fresh.getElementById(part.id);
        // Nobody loses the place where the keyboard is.
        if (other && !part.contains(document.activeElement)) {
            part.replaceChildren(...Array.from(other.childNodes, (node) => document.importNode(node, true)));
        }
    }
}

function say(words, state) {
    feed.textContent = words;
    feed.dataset.state = state;
}

if (feed) {
    const source = new EventSource(feed.dataset.feed);
    let broken = false;
    source.addEventListener("open", () => {
        say("Live", "on");
        if (broken) {
            broken = false;
            refresh();
        }
    });
    source.addEventListener("error", () => {
        broken = true;
        say("Reconnecting", "off");
    });
    for (const event of EVENTS) {
        source.addEventListener(event, refresh);
    }
}

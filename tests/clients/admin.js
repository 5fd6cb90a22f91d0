// A browser at the admin page: `admin.js ORIGIN TOKEN USER`. Signs in, finds the user, ends a session
// while another window watches the feed, and lets axe-core look at every page, light, dark and on a
// phone, with and without scripts. One JSON line for each thing found out.
"use strict";
const fs = require("fs");
const { chromium } = require("playwright-core");

const [origin, token, user] = process.argv.slice(2);
const AXE = fs.readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const say = (line) => process.stdout.write(JSON.stringify(line) + "\n");
// A busy machine takes its time.
const PATIENCE_MS = 120_000;
const complaints = [];
const findings = [];

async function open(browser, options) {
    const context = await browser.newContext(options);
    await context.addInitScript(() => {
        document.addEventListener("securitypolicyviolation", (event) => {
            console.error(`CSP: ${event.violatedDirective} ${event.blockedURI}`);
        });
    });
    const page = await context.newPage();
    page.setDefaultTimeout(PATIENCE_MS);
    page.on("dialog", (dialog) => { complaints.push(`dialog: ${dialog.message()}`); dialog.dismiss(); });
    page.on("pageerror", (error) => complaints.push(`error: ${error}`));
    page.on("console", (message) => {
        if (message.type() === "error") complaints.push(message.text());
    });
    page.on("request", (request) => {
        if (!request.url().startsWith(origin)) complaints.push(`asks ${request.url()}`);
    });
    return page;
}

async function signIn(page) {
    await page.goto(`${origin}/`);
    await page.fill("#token", token);
    await page.keyboard.press("Enter");
    await page.waitForURL(`${origin}/`);
}

// evaluate() comes through the debugger, which no policy of the page concerns.
async function look(page, name) {
    await page.evaluate(AXE);
    const result = await page.evaluate(() => window.axe.run(document, {
        runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    }));
    for (const finding of result.violations) {
        if (finding.impact === "serious" || finding.impact === "critical") {
            findings.push(`${name}: ${finding.id}: ${finding.nodes[0].html}: ${finding.nodes[0].failureSummary}`);
        }
    }
    const [wide, window_] = await page.evaluate(() => [document.documentElement.scrollWidth, window.innerWidth]);
    if (wide > window_) findings.push(`${name}: ${wide} wide in a window of ${window_}`);
}

async function main() {
    const browser = await chromium.launch({
        executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
        args: ["--no-sandbox"],
    });
    const [desk, wall] = [await open(browser, {}), await open(browser, {})];
    await signIn(wall);
    await wall.waitForSelector("[data-feed][data-state=on]");
    await signIn(desk);
    await desk.fill("#find", user);
    await desk.keyboard.press("Enter");
    await desk.waitForURL(`${origin}/users/${user}`);
    await desk.click("td.acts a");
    await Promise.all([
        desk.waitForURL(`${origin}/users/${user}?done=*`),
        desk.click("button.solid"),
    ]);
    const ended = Date.now();
    await wall.waitForFunction((name) => {
        const first = document.querySelector("#latest tbody tr");
        return first && first.innerText.includes("Session ended") && first.innerText.includes(name);
    }, user);
    say({ feed_ms: Date.now() - ended });
    say({ ended: await desk.innerText("[role=status].notice") });
    const session = await desk.getAttribute("a.id", "href");
    const paths = [
        "/", "/users?q=a", `/users/${user}`, `/users/${user}/end`, "/sessions?state=all", session,
        "/events", "/limits", "/report", "/configuration",
    ];
    let pages = 0;
    for (const options of [
        { colorScheme: "light" },
        { colorScheme: "dark" },
        { colorScheme: "light", viewport: { width: 360, height: 740 } },
    ]) {
        const page = await open(browser, options);
        await page.goto(`${origin}/sign-in`);
        await look(page, "/sign-in");
        await signIn(page);
        for (const path of paths) {
            await page.goto(origin + path);
            await look(page, `${path} ${JSON.stringify(options)}`);
            pages += 1;
        }
        await page.context().close();
    }
    // Without scripts everything is there as well.
    const plain = await open(browser, { javaScriptEnabled: false });
    await signIn(plain);
    for (const path of paths) {
        const answer = await plain.goto(origin + path);
        if (answer.status() !== 200) complaints.push(`${path}: ${answer.status()}`);
        pages += 1;
    }
    say({ pages });
    say({ complaints });
    say({ findings });
    await browser.close();
}

main().catch((error) => {
    say({ error: String(error), complaints, findings });
    process.exit(1);
});

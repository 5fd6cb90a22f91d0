// Two browsers of one user at our pages: `self_service.js ORIGIN LOGIN USER NAME`. One ends the session
// of the other, which is told and reports it. Each page is looked at by axe-core, light, dark and on a
// phone. One JSON line for each thing found out. With SHOTS in the environment it leaves pictures there.
"use strict";
const fs = require("fs");
const { chromium } = require("playwright-core");

const [origin, login, user, name] = process.argv.slice(2);
const AXE = fs.readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const say = (line) => process.stdout.write(JSON.stringify(line) + "\n");
// A busy machine takes its time.
const PATIENCE_MS = 120_000;
const complaints = [];
const findings = [];
let lookedAt = 0;

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
        // That a page is a 401 is what is tested here.
        const text = message.text();
        if (message.type() === "error" && !text.startsWith("Failed to load")) complaints.push(text);
    });
    page.on("request", (request) => {
        if (!request.url().startsWith(origin)) complaints.push(`asks ${request.url()}`);
    });
    return page;
}

async function signIn(page) {
    await page.goto(origin + login);
    await page.fill("input[name=username], input[name=user]", user);
    const password = page.locator("input[name=password]");
    if (await password.count()) await password.fill(`secret-${user}`);
    await Promise.all([
        page.waitForURL(`${origin}/`),
        page.evaluate(() => document.forms[0].submit()),
    ]);
}

// evaluate() comes through the debugger, which no policy of the page concerns.
async function look(page, what) {
    await page.evaluate(AXE);
    const result = await page.evaluate(() => window.axe.run(document, {
        runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    }));
    for (const finding of result.violations) {
        findings.push(`${what}: ${finding.id}: ${finding.nodes[0].html}: ${finding.nodes[0].failureSummary}`);
    }
    const [wide, window_] = await page.evaluate(() => [document.documentElement.scrollWidth, window.innerWidth]);
    if (wide > window_) findings.push(`${what}: ${wide} wide in a window of ${window_}`);
    if (process.env.SHOTS) await page.screenshot({ path: `${process.env.SHOTS}/${name}-${what}.png` });
    lookedAt += 1;
}

const LOOKS = [
    ["light", { colorScheme: "light" }, { width: 900, height: 700 }],
    ["dark", { colorScheme: "dark" }, { width: 900, height: 700 }],
    ["phone", { colorScheme: "light" }, { width: 360, height: 740 }],
];

async function lookEveryWay(page, what) {
    for (const [way, media, size] of LOOKS) {
        await page.emulateMedia(media);
        await page.setViewportSize(size);
        await look(page, `${what}-${way}`);
    }
}

async function main() {
    const browser = await chromium.launch({
        executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
        args: ["--no-sandbox"],
    });
    const agent = "Mozilla/5.0 <script>alert(2)</script> '\"><img src=x onerror=alert(3)>";
    const [desk, phone] = [await open(browser, {}), await open(browser, { userAgent: agent })];
    await signIn(phone);
    await signIn(desk);
    await desk.goto(`${origin}/.headcount/`);
    await lookEveryWay(desk, "sessions");
    await Promise.all([
        desk.waitForURL(`${origin}/.headcount/?ended=1`),
        desk.locator("button[aria-label]").first().click(),
    ]);
    say({ ended: await desk.innerText("[role=status]") });
    await look(desk, "ended-one");
    await phone.goto(`${origin}/`);
    say({ told: await phone.innerText("main") });
    await lookEveryWay(phone, "ended");
    await Promise.all([
        phone.waitForURL(`${origin}/.headcount/not-me`),
        phone.locator("form button").click(),
    ]);
    say({ reported: await phone.innerText("main") });
    await lookEveryWay(phone, "reported");
    // Without scripts, and by the keyboard alone.
    const plain = await open(browser, { javaScriptEnabled: false, storageState: await desk.context().storageState() });
    await plain.goto(`${origin}/.headcount/`);
    await plain.locator("li button").focus();
    await Promise.all([
        plain.waitForURL((url) => !url.pathname.startsWith("/.headcount")),
        plain.keyboard.press("Enter"),
    ]);
    say({ led_to: new URL(plain.url()).pathname });
    say({ looked_at: lookedAt });
    say({ complaints });
    say({ findings });
    await browser.close();
}

main().catch((error) => {
    say({ error: String(error), complaints, findings });
    process.exit(1);
});

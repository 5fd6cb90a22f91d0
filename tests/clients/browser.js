// A browser that signs in at a Flask site and holds a WebSocket: `browser.js PORT USER`, for
// https://shop.test at that port. One JSON line when the socket is open, one when it is closed, one
// with what the start page says then.
"use strict";
const { chromium } = require("playwright-core");

const [port, user] = process.argv.slice(2);
const site = "https://shop.test";
const say = (line) => process.stdout.write(JSON.stringify(line) + "\n");

async function main() {
    const browser = await chromium.launch({
        executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
        args: ["--no-sandbox", `--host-resolver-rules=MAP shop.test 127.0.0.1:${port}`],
    });
    const context = await browser.newContext({ ignoreHTTPSErrors: true });
    const page = await context.newPage();
    await page.goto(`${site}/login`);
    await page.fill("input[name=username]", user);
    await page.fill("input[name=password]", `secret-${user}`);
    await Promise.all([
        page.waitForURL(`${site}/`),
        page.evaluate(() => document.forms[0].submit()),
    ]);
    const open = await page.evaluate(() => new Promise((resolve, reject) => {
        const socket = new WebSocket("wss://shop.test/ws");
        window.socketClosed = new Promise((tell) => {
            socket.onclose = (event) => { tell(event.code); reject(new Error("closed")); };
        });
        socket.onopen = () => socket.send("hello");
        socket.onmessage = (event) => resolve({
            echo: event.data,
            page: document.body.innerText,
            protocol: performance.getEntriesByType("navigation")[0].nextHopProtocol,
        });
    }));
    say({ open });
    say({ closed: await page.evaluate(() => window.socketClosed) });
    const answer = await page.goto(`${site}/`);
    say({ status: answer.status(), page: await page.innerText("body") });
    await browser.close();
}

main().catch((error) => { console.error(error); process.exit(1); });

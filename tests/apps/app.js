// An app that speaks what it is told to: `node app.js {http1|https|h2|h2only|h2c} WHERE [CERT KEY [CA]]`,
// where WHERE is a port (0: any) or the path of a unix socket. On standard error it says one JSON line when it listens
// and one for each connection. Node's own servers; nothing to install.
"use strict";
const crypto = require("crypto");
const fs = require("fs");
const http = require("http");
const http2 = require("http2");
const https = require("https");

const [kind, where, cert, key, ca] = process.argv.slice(2);
const tls = cert && { cert: fs.readFileSync(cert), key: fs.readFileSync(key) };
if (ca) Object.assign(tls, { ca: fs.readFileSync(ca), requestCert: true, rejectUnauthorized: true });
const say = (line) => process.stderr.write(JSON.stringify(line) + "\n");
let logins = 0;

function answer(request, response) {
    const target = request.url;
    const read = crypto.createHash("sha256");
    let body = "", length = 0;
    request.on("error", () => {});
    request.on("data", (piece) => {
        read.update(piece);
        length += piece.length;
        if (length < 1000) body += piece;
    });
    if (target === "/early") {
        response.writeHead(413);
        return response.end("too much");
    }
    if (target === "/stream") {
        response.writeHead(200, { "content-type": "text/plain" });
        const timer = setInterval(() => response.write("x".repeat(64)), 20);
        const over = () => { clearInterval(timer); say({ stream: "over" }); };
        return response.on("close", over);
    }
    request.on("end", () => {
        if (target === "/login") {
            const user = new URLSearchParams(body).get("user");
            const cookie = `sid=S-${user}-${++logins}; Path=/; HttpOnly`;
            response.writeHead(302, { location: "/", "set-cookie": cookie });
            return response.end();
        }
        if (target === "/big") {
            response.writeHead(200, { "content-type": "application/octet-stream" });
            return response.end(Buffer.alloc(8 << 20, "b"));
        }
        const socket = request.stream ? request.stream.session.socket : request.socket;
        const peer = socket.getPeerCertificate ? socket.getPeerCertificate().subject || {} : {};
        const said = JSON.stringify({
            version: request.httpVersion,
            method: request.method,
            target,
            host: request.authority || request.headers[":authority"] || request.headers.host || "",
            cookie: request.headers.cookie || "",
            connection: request.headers.connection || "",
            sni: socket.servername || "",
            peer: peer.CN || "",
            length: String(length),
            hash: read.digest("hex"),
        });
        const wait = target === "/slow" ? 500 : 0;
        setTimeout(() => {
            response.writeHead(200, { "content-type": "application/json" });
            response.end(said);
        }, wait);
    });
}

const server = {
    http1: () => http.createServer(answer),
    https: () => https.createServer(tls, answer),
    h2: () => http2.createSecureServer({ ...tls, allowHTTP1: true }, answer),
    h2only: () => http2.createSecureServer(tls, answer),
    h2c: () => http2.createServer(answer),
}[kind]();

// Says what it hears.
server.on("upgrade", (request, socket, head) => {
    const accept = crypto.createHash("sha1")
        .update(request.headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")
        .digest("base64");
    socket.write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        + `Sec-WebSocket-Accept: ${accept}\r\n\r\n`);
    socket.write(head);
    socket.pipe(socket);
    socket.on("error", () => {});
    socket.on("close", () => say({ tunnel: "closed" }));
});
server.on("tlsClientError", () => {});
server.on(tls ? "secureConnection" : "connection", (socket) =>
    say({ connection: socket.alpnProtocol || "plain" }));
server.listen(/^\d+$/.test(where) ? { port: Number(where), host: "127.0.0.1" } : { path: where }, () =>
    say({ listening: server.address().port || where }));

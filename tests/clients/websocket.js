// WebSockets by the `ws` package; what it does is told in websocket.py.
'use strict';
const crypto = require('crypto');
const http = require('http');
const { WebSocket, WebSocketServer } = require('../sites/express/node_modules/ws');

const OPTIONS = { perMessageDeflate: false, maxPayload: 0 };

function serve() {
  const server = http.createServer((request, response) => {
    const url = new URL(request.url, 'http://app');
    if (url.pathname !== '/login') return response.end();
    const cookie = `sid=js-${crypto.randomBytes(8).toString('hex')}-${url.searchParams.get('user')}; Path=/`;
    response.writeHead(302, { Location: '/', 'Content-Length': 0, 'Set-Cookie': cookie }).end();
  });
  new WebSocketServer({ server, ...OPTIONS }).on('connection', (socket) => {
    const { _socket: raw } = socket;
    socket.on('message', (message) => {
      socket.send(message);
      if (raw.writableNeedDrain) {
        raw.pause();
        raw.once('drain', () => raw.resume());
      }
    });
    socket.on('error', () => {});
  });
  server.listen(0, '127.0.0.1', () => console.error(`listens on 127.0.0.1:${server.address().port}`));
  process.stdin.on('end', () => process.exit(0)).resume();
}

function client(address, cookie, total) {
  const sent = crypto.createHash('sha256');
  const heard = crypto.createHash('sha256');
  const socket = new WebSocket(`ws://${address}/ws`, { headers: { Cookie: cookie }, ...OPTIONS });
  let left = total;
  let count = 0;
  const lengths = [0, 1, 125, 126, 65535, 65536, 300000];
  function send() {
    if (left === 0) return;
    const piece = crypto.randomBytes(Math.min(left, lengths[Math.floor(Math.random() * lengths.length)]));
    left -= piece.length;
    sent.update(piece);
    socket.send(piece, () => setImmediate(send));
  }
  socket.on('open', send);
  socket.on('message', (piece) => {
    heard.update(piece);
    count += piece.length;
    if (count === total) {
      const same = sent.digest('hex') === heard.digest('hex') ? 'the same' : 'other';
      console.error(`echoed ${count} bytes, ${same}`);
    }
  });
  socket.on('close', (code) => {
    console.error(`closed ${code}`);
    process.exit(0);
  });
  socket.on('error', (error) => console.error(`error ${error.message}`));
}

if (process.argv[2] === 'serve') serve();
else client(process.argv[2], process.argv[3], Number(process.argv[4]));

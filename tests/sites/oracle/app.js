// One small app for Node's own server and for Express: `app.js http` or `app.js express`. It answers
// every request with an account of it, and writes the same line to the file ORACLE_LOG. It ends when
// standard input does.
'use strict';
const fs = require('fs');
const http = require('http');

const log = fs.openSync(process.env.ORACLE_LOG, 'a');

function account(request, target, answer) {
  const pieces = [];
  request.on('data', (piece) => pieces.push(piece));
  request.on('end', () => {
    const body = Buffer.concat(pieces).toString('hex');
    // As far as it is a name.
    const id = /^[0-9A-Za-z]*/.exec(request.headers['x-oracle'] || '')[0];
    const line = `${id} ${request.method} ${target} ${body}`;
    fs.writeSync(log, line + '\n', null, 'latin1');
    answer(Buffer.from(line, 'latin1'));
  });
}

let app;
if (process.argv[2] === 'express') {
  const express = require('../express/node_modules/express');
  app = express();
  app.use((request, response) => account(request, request.originalUrl, (line) => response.send(line)));
} else {
  app = (request, response) => account(request, request.url, (line) => response.end(line));
}
const server = http.createServer(app);
server.keepAliveTimeout = 75000;
server.listen(0, '127.0.0.1', () => console.error(`listens on 127.0.0.1:${server.address().port}`));
process.stdin.on('end', () => process.exit(0)).resume();

// Node-RED as its documentation embeds it, with its own sign-in; everybody's password is secret-NAME.
//   node app.js FOLDER   keeps its data in FOLDER, which goes away with it
'use strict';

const fs = require('node:fs');
const http = require('node:http');
const RED = require('node-red');
const express = require('express');

const folder = process.argv[2];
const account = (name) => ({ username: name, permissions: '*' });
const app = express();
const server = http.createServer(app);
RED.init(server, {
  userDir: folder,
  httpAdminRoot: '/',
  httpNodeRoot: '/nodes',
  logging: { console: { level: 'error' } },
  telemetry: { enabled: false, updateNotification: false },
  adminAuth: {
    type: 'credentials',
    users: async (name) => account(name),
    authenticate: async (name, password) => (password === `secret-${name}` ? account(name) : null),
  },
});
app.use('/', RED.httpAdmin);

process.stdin.resume().on('end', () => {
  fs.rmSync(folder, { recursive: true, force: true });
  process.exit(0);
});
RED.start().then(() => server.listen(0, '127.0.0.1', () =>
  console.error(`listening on 127.0.0.1:${server.address().port}`)));

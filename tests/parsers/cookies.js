// The same as cookies.py, for npm's `cookie` as Express's session uses it.
'use strict';

const path = require('node:path');
const readline = require('node:readline');

const modules = path.join(__dirname, '../sites/express/node_modules');
const cookie = require(require.resolve('cookie', { paths: [path.join(modules, 'express-session')] }));

const hex = (text) => Buffer.from(text, 'utf8').toString('hex');
readline.createInterface({ input: process.stdin }).on('line', (line) => {
  // As Node's HTTP server hands it over.
  const read = cookie.parse(Buffer.from(line, 'hex').toString('latin1'));
  const shown = Object.entries(read).map(([name, value]) => [hex(name), hex(value)]);
  console.log(JSON.stringify({ node: Object.fromEntries(shown) }));
});

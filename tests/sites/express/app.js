// Express sites as the documentation of their packages writes them.
//   node app.js passport         express-session and passport-local
//   node app.js rolling          the same with `rolling: true`; the login page sends those who are
//                                signed in already to the start page
//   node app.js cookie-session   cookie-session; the cookies are the session
// SITE_PORT: where to listen, else on any free port.
'use strict';

const crypto = require('node:crypto');
const express = require('express');

const kind = process.argv[2];
const app = express();
app.use(express.urlencoded({ extended: false }));
app.use(express.json());

const correct = (name, password) => password === `secret-${name}`;
const page = '<form method="post"><input name="username"><input name="password"></form>';

if (kind === 'cookie-session') {
  const cookieSession = require('cookie-session');
  app.use(cookieSession({ name: 'session', keys: ['only for tests'] }));
  app.get('/login', (req, res) => res.send(page));
  app.post('/login', (req, res) => {
    if (!correct(req.body.username, req.body.password)) {
      req.session.message = 'Wrong name or password.';
      return res.redirect('/login');
    }
    req.session = { user: req.body.username };
    res.redirect('/');
  });
  app.post('/logout', (req, res) => {
    req.session = null;
    res.redirect('/');
  });
  app.use((req, res, next) => {
    req.user = req.session.user && { name: req.session.user };
    next();
  });
} else {
  const session = require('express-session');
  const passport = require('passport');
  const LocalStrategy = require('passport-local');
  const rolling = kind === 'rolling';

  passport.use(new LocalStrategy((username, password, done) =>
    done(null, correct(username, password) && { name: username })));
  passport.serializeUser((user, done) => done(null, user.name));
  passport.deserializeUser((name, done) => done(null, { name }));

  // connect.sid appears with the first visit, as with many older sites.
  app.use(session({ secret: 'only for tests', resave: false, saveUninitialized: true, rolling }));
  app.use(passport.authenticate('session'));
  app.get('/login', (req, res) => res.send(page));
  app.post('/login',
    (req, res, next) => (rolling && req.isAuthenticated() ? res.redirect('/') : next()),
    passport.authenticate('local', { successRedirect: '/', failureRedirect: '/login' }));
  app.post('/logout', (req, res, next) => {
    req.logout((error) => (error ? next(error) : res.redirect('/')));
  });
}

app.get('/', (req, res) => res.send(`hello ${req.user ? req.user.name : 'anonymous'}`));
app.get('/whoami', (req, res) => res.json({ user: req.user ? req.user.name : null }));
app.get('/touch', (req, res) => {
  req.session.touched = crypto.randomBytes(4).toString('hex');
  res.json({ user: req.user ? req.user.name : null });
});

process.stdin.resume().on('end', () => process.exit(0));
const server = app.listen(Number(process.env.SITE_PORT ?? 0), '127.0.0.1', () =>
  console.error(`listening on 127.0.0.1:${server.address().port}`));

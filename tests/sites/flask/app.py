"""A Flask site with Flask-Login, as its documentation writes one: the cookie is the session.

SITE_PERMANENT=1: permanent sessions, which are sent again with every answer, and a login page that
sends those who are signed in already to the start page.
"""

import os
import sys
import threading

from flask import Flask, flash, jsonify, redirect, request, session, url_for
from flask_login import (
    LoginManager,
    UserMixin,
    current_user,
    login_required,
    login_user,
    logout_user,
)
from flask_sock import Sock
from werkzeug.serving import WSGIRequestHandler, make_server

PERMANENT = os.environ.get("SITE_PERMANENT") == "1"

app = Flask(__name__)
app.secret_key = "only for tests"
login_manager = LoginManager(app)
login_manager.login_view = "login"


class User(UserMixin):
    def __init__(self, name):
        self.id = name


@login_manager.user_loader
def load_user(name):
    return User(name)


@app.before_request
def keep():
    session.permanent = PERMANENT


@app.route("/login", methods=["GET", "POST"])
def login():
    if PERMANENT and current_user.is_authenticated:
        return redirect(url_for("index"))
    if request.method == "GET":
        return '<form method="post"><input name="username"><input name="password"></form>'
    name = request.form["username"]
    if request.form["password"] != f"secret-{name}":
        flash("Invalid username or password.")
        return redirect(url_for("login"))
    login_user(User(name), remember="remember" in request.form)
    flash("Logged in successfully.")
    return redirect(request.args.get("next") or url_for("index"))


@app.route("/logout")
@login_required
def logout():
    logout_user()
    return redirect(url_for("index"))


@app.route("/")
def index():
    return f"hello {current_user.id}" if current_user.is_authenticated else "hello anonymous"


@app.route("/whoami")
def whoami():
    return jsonify(user=current_user.id if current_user.is_authenticated else None)


@app.route("/touch")
def touch():
    session["touched"] = os.urandom(4).hex()
    return jsonify(user=current_user.id if current_user.is_authenticated else None)


@Sock(app).route("/ws")
@login_required
def echo(socket):
    while True:
        socket.send(socket.receive())


class Handler(WSGIRequestHandler):
    def log(self, type, message, *args):
        pass


def end_with_the_tests():
    sys.stdin.read()
    os._exit(0)


threading.Thread(target=end_with_the_tests, daemon=True).start()
server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Handler)
print(f"listening on 127.0.0.1:{server.port}", file=sys.stderr, flush=True)
server.serve_forever()

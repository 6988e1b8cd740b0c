#!/usr/bin/env python3
"""A matcher for scepgate in Python, without anything but Python 3.

It answers the questions of `matcher webhook unix//…` from a JSON file of
devices: a request for an active device that asks for exactly its names is
agreed to, everything else is refused with a code.

    matcher webhook unix//run/scepgate/matcher.sock {
        decides subject san
        secret_file /etc/scepgate/webhook.secret
        notify
    }

    python3 matcher.py --socket /run/scepgate/matcher.sock \\
        --secret-file /etc/scepgate/webhook.secret --devices devices.json

It trusts whoever knows the secret to be the gateway, and nothing in a request.
What it cannot read, or cannot know, is an HTTP error: then the gateway decides
nothing and the device comes again. Only the word "agree" is an agreement.
"""

import argparse
import datetime
import hashlib
import hmac
import http.server
import json
import os
import re
import socket
import socketserver
import stat
import sys

MAX_BODY = 1 << 20  # a message of 64 KiB, however it is escaped
MAX_DEVICES = 16 << 20
MAX_AGE = 300  # seconds, either way: a question is not worth keeping for later
DECIDES = {"subject", "san"}
SAN_TYPES = ("dns", "email", "uri", "ip", "upn")
TIMESTAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d{1,9})?Z", re.ASCII)


class Unreadable(ValueError):
    """What was sent is no question."""


def unique(pairs):
    """Refuse a key that stands twice: readers differ in which one they take."""
    keys = [key for key, _ in pairs]
    if len(set(keys)) != len(keys):
        raise Unreadable("a key stands twice")
    return dict(pairs)


def signed(body, header, secret):
    """Tell whether header is the signature of body."""
    want = "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(want.encode(), header.encode("utf-8", "replace"))


def recent(timestamp, now):
    """Tell whether a signed body is from about now, and not one of long ago."""
    match = TIMESTAMP.fullmatch(timestamp) if isinstance(timestamp, str) else None
    if not match:
        return False
    try:
        at = datetime.datetime.strptime(match[1], "%Y-%m-%dT%H:%M:%S")
    except ValueError:
        return False
    return abs((now - at.replace(tzinfo=datetime.timezone.utc)).total_seconds()) <= MAX_AGE


def refuse(code, field=None, got=None):
    answer = {"verdict": "refuse", "code": code}
    if field:
        answer["findings"] = [{"field": field, "got": (got or "")[:256]}]
    return answer


def san_of(names):
    """Alternative names to compare: DNS names without regard to case."""
    return {t: sorted(v.lower() if t == "dns" else v for v in names.get(t) or []) for t in SAN_TYPES}


def decide(question, devices):
    """Answer one question. The expectation is not looked at: the file knows."""
    asked = set(question["decides"])
    if asked - DECIDES:
        return refuse("not_decided_here")
    request = question["request"]
    rdns = request["subject_rdns"]
    names = [a["value"] for rdn in rdns for a in rdn if a["type"] == "CN"]
    if len(names) != 1:
        return refuse("no_common_name", "subject")
    device = devices.get(names[0])
    if device is None:
        return refuse("not_in_inventory", "subject", names[0])
    if device["status"] != "active":
        return refuse("device_retired", "subject", names[0])
    asked = asked or DECIDES  # it may only object, and it does so to any wrong name
    if "subject" in asked:
        # Each part is one RDN of one attribute, in whatever order.
        have = sorted([(a["type"], a["value"]) for a in rdn] for rdn in rdns)
        if have != sorted([tuple(part)] for part in device["subject"]):
            return refuse("name_mismatch", "subject", json.dumps(have))
    if "san" in asked:
        san = request["san"]
        if san.get("other") or san_of(san) != san_of(device.get("san", {})):
            return refuse("name_mismatch", "san", json.dumps(san))
    return {"verdict": "agree"}


def load(path):
    """Read the devices, as they are now, by their common names."""
    with open(path, "rb") as file:
        text = file.read(MAX_DEVICES + 1)
    if len(text) > MAX_DEVICES:
        raise ValueError("the devices are too many")
    devices = {}
    for device in json.loads(text, object_pairs_hook=unique)["devices"]:
        (name,) = [value for kind, value in device["subject"] if kind == "CN"]
        if name in devices or not isinstance(device["status"], str):
            raise ValueError("a device is there twice, or has no status")
        devices[name] = device
    return devices


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 10  # for one question, and between two

    def do_POST(self):
        self.close_connection = True  # unless all goes well
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch(r"[0-9]{1,9}", length, re.ASCII) or "Transfer-Encoding" in self.headers:
            return self.answer(411, {})
        if int(length) > MAX_BODY:
            return self.answer(413, {})
        body = self.rfile.read(int(length))
        if len(body) != int(length):
            return None  # it hung up
        if not signed(body, self.headers.get("X-Scepgate-Signature", ""), self.server.secret):
            return self.answer(401, {})
        try:
            question = json.loads(body, object_pairs_hook=unique)
            if not recent(question["timestamp"], self.server.now()):
                return self.answer(401, {})
            kind = question["type"]
            if kind == "outcome":
                self.server.told(question["outcome"])
                return self.done({})
            if kind != "match" or question["version"] != 1:
                raise Unreadable("another kind of question")
        except (ValueError, KeyError, TypeError, RecursionError):
            return self.answer(400, {})
        try:
            return self.done(decide(question, load(self.server.devices)))
        except Exception as error:  # its text may quote the question
            print("cannot decide:", type(error).__name__, file=sys.stderr, flush=True)
            return self.answer(500, {})

    def done(self, answer):
        self.close_connection = self.headers.get("Connection", "").lower() == "close"
        self.answer(200, answer)

    def answer(self, status, answer):
        text = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        """Say nothing about requests: the gateway does."""


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, path, secret, devices):
        self.secret, self.devices = secret, devices
        load(devices)  # a file that is broken now is seen now
        try:
            if stat.S_ISSOCK(os.stat(path).st_mode):
                with socket.socket(socket.AF_UNIX) as probe:
                    if probe.connect_ex(path) == 0:
                        raise SystemExit("somebody else listens there")
                os.unlink(path)  # left behind by one that was killed
        except FileNotFoundError:
            pass
        before = os.umask(0o117)  # for its user and group alone
        try:
            super().__init__(path, Handler)
        finally:
            os.umask(before)

    def now(self):
        return datetime.datetime.now(datetime.timezone.utc)

    def told(self, outcome):
        """An outcome may come twice; its id is the same then."""
        line = {key: str(outcome[key])[:256] for key in ("id", "result", "reason", "transaction_id", "expectation_id")}
        print("outcome", json.dumps(line), file=sys.stderr, flush=True)

    def handle_error(self, *_):
        print("a connection broke:", sys.exc_info()[0].__name__, file=sys.stderr, flush=True)


def main():
    parser = argparse.ArgumentParser(description="A matcher for scepgate's webhook.")
    parser.add_argument("--socket", required=True)
    parser.add_argument("--secret-file", required=True)
    parser.add_argument("--devices", required=True)
    args = parser.parse_args()
    with open(args.secret_file, "rb") as file:
        secret = file.read(4096).strip()
    if len(secret) < 16:
        raise SystemExit("the secret is shorter than 16 bytes")
    with Server(args.socket, secret, args.devices) as server:
        print("listening", file=sys.stderr, flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            pass
        finally:
            os.unlink(args.socket)


if __name__ == "__main__":
    main()

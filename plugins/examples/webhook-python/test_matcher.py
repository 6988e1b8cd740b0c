"""python3 -m unittest, in this folder."""

import copy
import datetime
import hashlib
import hmac
import http.client
import json
import os
import socket
import tempfile
import threading
import unittest

import matcher

SECRET = b"a secret of the webhook"
NOW = datetime.datetime(2026, 11, 22, 12, 0, 0, tzinfo=datetime.timezone.utc)
DEVICES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "devices.json")


def question(cn="C02XK1", dns=("c02xk1.example.com",), **changes):
    return {
        "type": "match",
        "version": 1,
        "timestamp": "2026-11-22T12:00:00.123456789Z",
        "decides": ["subject", "san"],
        "request": {
            "subject_rdns": [[{"type": "O", "value": "Example Corp"}], [{"type": "CN", "value": cn}]],
            "san": {"dns": list(dns), "email": [], "uri": [], "ip": [], "upn": [], "other": []},
        },
        "expectation": None,
        **changes,
    }


class Decisions(unittest.TestCase):
    def says(self, want, asked):
        answer = matcher.decide(asked, matcher.load(DEVICES))
        self.assertEqual(answer["verdict"], "refuse" if want else "agree")
        self.assertEqual(answer.get("code", ""), want)

    def test_only_an_active_device_with_exactly_its_names_is_agreed_to(self):
        self.says("", question())
        self.says("", question(dns=["C02XK1.example.com"]))
        self.says("not_in_inventory", question(cn="administrator"))
        self.says("not_in_inventory", question(cn="c02xk1"))
        self.says("device_retired", question(cn="C02XK3", dns=[]))
        self.says("name_mismatch", question(dns=[]))
        self.says("name_mismatch", question(dns=["c02xk1.example.com", "dc01.example.com"]))
        self.says("name_mismatch", question(dns=["c02xk1.example.com"] * 2))

    def test_names_of_other_types_are_not_agreed_to(self):
        for kind in ("email", "uri", "ip", "upn", "other"):
            asked = question()
            asked["request"]["san"][kind] = ["x"]
            self.says("name_mismatch", asked)

    def test_the_form_of_the_subject_counts(self):
        parts = question()["request"]["subject_rdns"]
        for rdns, want in (
            ([], "no_common_name"),
            (parts + [[{"type": "CN", "value": "C02XK3"}]], "no_common_name"),
            (parts + [[{"type": "OU", "value": "Domain Admins"}]], "name_mismatch"),
            (parts + [[]], "name_mismatch"),
            ([parts[0] + parts[1]], "name_mismatch"),
            (parts[1:], "name_mismatch"),
        ):
            asked = question()
            asked["request"]["subject_rdns"] = rdns
            self.says(want, asked)

    def test_it_decides_only_what_it_can(self):
        self.says("not_decided_here", question(decides=["subject", "sid"]))
        self.says("", question(decides=["subject"], dns=["c02xk1.example.com"]))
        self.says("", question(decides=["subject"], dns=["x.example.com"]))
        self.says("name_mismatch", question(decides=[], dns=["x.example.com"]))


class Timestamps(unittest.TestCase):
    def test_only_about_now_is_recent(self):
        for text, want in (
            ("2026-11-22T12:00:00Z", True),
            ("2026-11-22T11:55:00Z", True),
            ("2026-11-22T12:05:00.000000001Z", True),
            ("2026-11-22T11:54:59Z", False),
            ("2026-11-22T12:05:01Z", False),
            ("2026-11-22T12:00:00+00:00", False),
            ("2026-11-22T12:00:00", False),
            ("2026-13-22T12:00:00Z", False),
            ("", False),
            (None, False),
            (1795348800, False),
        ):
            self.assertEqual(matcher.recent(text, NOW), want, text)


class Files(unittest.TestCase):
    def test_a_file_that_is_not_whole_is_an_error(self):
        whole = {"status": "active", "subject": [["CN", "a"]]}
        nameless, twice = {"status": "active", "subject": [["O", "a"]]}, [whole, whole]
        for text in ("", "{", "[]", "{}", '{"devices":[],"devices":[]}', json.dumps({"devices": twice}),
                     json.dumps({"devices": [nameless]}), '{"devices":[{"subject":[["CN","a"]]}]}'):
            with tempfile.NamedTemporaryFile("w") as file:
                file.write(text)
                file.flush()
                with self.assertRaises((ValueError, KeyError, TypeError)):
                    matcher.load(file.name)


class Wire(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = os.path.join(folder.name, "s")
        self.devices = os.path.join(folder.name, "devices.json")
        with open(DEVICES) as file:
            self.write(file.read())
        self.server = matcher.Server(self.path, SECRET, self.devices)
        self.server.now = lambda: NOW
        self.outcomes = []
        self.server.told = self.outcomes.append
        thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        self.addCleanup(self.server.server_close)
        self.addCleanup(thread.join)
        self.addCleanup(self.server.shutdown)

    def write(self, text):
        with open(self.devices, "w") as file:
            file.write(text)

    def post(self, body, signature=None, headers=()):
        if signature is None:
            signature = "sha256=" + hmac.new(SECRET, body, hashlib.sha256).hexdigest()
        connection = http.client.HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(10)
        connection.sock.connect(self.path)
        try:
            connection.request("POST", "/", body, {"X-Scepgate-Signature": signature, "Content-Type": "application/json", **dict(headers)})
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def ask(self, asked):
        return self.post(json.dumps(asked).encode())

    def test_a_signed_question_is_answered(self):
        self.assertEqual(self.ask(question()), (200, {"verdict": "agree"}))
        status, answer = self.ask(question(cn="administrator"))
        self.assertEqual((status, answer["verdict"], answer["code"]), (200, "refuse", "not_in_inventory"))

    def test_nobody_else_is_answered(self):
        body = json.dumps(question()).encode()
        good = hmac.new(SECRET, body, hashlib.sha256).hexdigest()
        other = hmac.new(b"another secret of somebody", body, hashlib.sha256).hexdigest()
        for signature in ("", "sha256=", good, "sha256=" + other, "sha256=" + good[:-1], "sha256=" + good.upper(), "sha1=" + good, "sha256=\u00fc"):
            self.assertEqual(self.post(body, signature)[0], 401, signature)
        self.assertEqual(self.post(body + b" ", "sha256=" + good)[0], 401)
        self.assertEqual(self.ask(question(timestamp="2026-11-22T11:00:00Z"))[0], 401)

    def test_what_is_no_question_is_an_error(self):
        without = copy.deepcopy(question())
        del without["timestamp"]
        for body in (b"", b"x", b"[]", b"1", b"null", b'"x"', b"\xff", b"[" * 20000, json.dumps(without).encode(),
                     json.dumps(question(type="x")).encode(), json.dumps(question(version=2)).encode(),
                     json.dumps(question())[:-1].encode() + b',"type":"match"}'):
            self.assertEqual(self.post(body)[0], 400, body[:80])
        for bad in (question(request=None), question(decides=None), question(request={})):
            self.assertEqual(self.ask(bad)[0], 500)
        self.assertEqual(self.post(b"", headers={"Content-Length": str(matcher.MAX_BODY + 1)})[0], 413)
        self.assertEqual(self.post(b"", headers={"Content-Length": "-1"})[0], 411)

    def test_the_file_counts_as_it_is_now(self):
        self.write("{")
        self.assertEqual(self.ask(question())[0], 500)
        self.write('{"devices":[]}')
        self.assertEqual(self.ask(question())[1]["code"], "not_in_inventory")

    def test_outcomes_are_heard(self):
        outcome = {"id": "out_1", "result": "issued", "reason": "ok", "transaction_id": "1", "expectation_id": "exp_1"}
        self.assertEqual(self.ask(question(type="outcome", outcome=outcome))[0], 200)
        self.assertEqual(self.outcomes, [outcome])

    def test_the_socket_is_for_its_user_and_group(self):
        self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o660)


if __name__ == "__main__":
    unittest.main()

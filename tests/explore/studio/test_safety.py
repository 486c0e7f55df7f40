"""Who is answered: our own page, and nobody else; and what a hostile page may send."""

import re
import socket

import numpy as np
import pytest
from studio_run import picture_bank, start

from featurebank import studio
from featurebank.errors import BankError, StorageError
from featurebank.explore.studio import app


@pytest.fixture(scope="module")
def quiet_run(tmp_path_factory):
    """A studio in which nothing is labelled."""
    bank, digests = picture_bank(tmp_path_factory.mktemp("quiet") / "pictures", np.eye(12))
    return start(bank, digests, list("ab") * 6)


OURS = {"host": "127.0.0.1:8000", "origin": "http://127.0.0.1:8000", "sec-fetch-site": "same-origin"}


def asked(run, address="/token/api/state", **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return run.client.get(address, headers=named)


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000", "[::1]:8000", "127.0.0.1"])
def test_our_own_page_is_answered(quiet_run, host):
    assert asked(quiet_run, host=host, origin=f"http://{host}", sec_fetch_site="same-origin").status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example:8000"},  # a name that was bound anew to this machine
        {"host": "127.0.0.1.evil.example"},
        {"host": "192.168.0.7:8000"},
        {"host": ""},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},  # another server on this machine
        {"origin": "http://localhost:8000"},
        {"sec_fetch_site": "cross-site", "sec_fetch_mode": "cors"},
        {"sec_fetch_site": "cross-site", "sec_fetch_mode": "no-cors"},
        {"sec_fetch_site": "same-site", "sec_fetch_mode": "no-cors"},
    ],
)
@pytest.mark.parametrize("address", ["/token/", "/token/api/state", "/token/static/main.js"])
def test_another_page_or_name_is_refused(quiet_run, headers, address):
    answer = asked(quiet_run, address, **headers)
    assert answer.status_code == 403
    assert set(answer.json()) == {"error"}


@pytest.mark.parametrize("address", ["/", "/api/state", "/Token/api/state", "/token2/api/state", "/tok/", "//token/"])
def test_without_the_token_there_is_nothing(quiet_run, address):
    assert quiet_run.client.get(address).status_code == 404


def test_another_page_labels_nothing(quiet_run):
    run, digest = quiet_run, next(iter(quiet_run.truth))
    body = {"tab": "x", "answers": [{"digest": digest, "label": "evil", "seen": None}]}
    assert run.client.post("/token/api/labels", json=body, headers={"origin": "http://evil.example"}).status_code == 403
    simple = {**OURS, "content-type": "text/plain"}  # what a form can send without being asked first
    assert run.client.post("/token/api/labels", json=body, headers=simple).status_code == 400
    assert run.get("state")["labelled"] == 0


@pytest.mark.parametrize(
    "digest",
    [
        "0" * 64,
        "f" * 64,
        "F" * 64,
        "",
        "abc",
        "../../../../etc/passwd",
        "..%2F..%2Fetc%2Fpasswd",
        "%2Fetc%2Fpasswd",
        "000.png",
    ],
)
def test_a_forged_digest_or_a_path_in_its_place_gives_no_picture(quiet_run, digest):
    answer = quiet_run.client.get(f"/token/api/image/{digest}")
    assert answer.status_code == 404
    assert b"root:" not in answer.content
    answer = quiet_run.client.get("/token/api/similar", params={"digest": digest})
    assert 400 <= answer.status_code < 500


@pytest.mark.parametrize(
    "name", ["../app.py", "..%2Fapp.py", "app.py", "__init__.py", "%2Fetc%2Fpasswd", ".gitkeep", ""]
)
def test_a_static_file_is_one_of_the_page(quiet_run, name):
    assert quiet_run.client.get(f"/token/static/{name}").status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        [],
        {},
        {"tab": "x"},
        {"tab": "x", "answers": [{}]},
        {"tab": "x", "answers": [{"digest": 7, "label": "a", "seen": None}]},
        {"tab": "x", "answers": [{"digest": "0" * 64, "label": "a", "seen": None}]},
        {"tab": "x", "answers": [{"digest": "DIGEST", "label": "", "seen": None}]},
        {"tab": "x", "answers": [{"digest": "DIGEST", "label": "a\nb", "seen": None}]},
        {"tab": "x", "answers": [{"digest": "DIGEST", "label": "x" * 201, "seen": None}]},
        {"tab": "x", "answers": [{"digest": "DIGEST", "label": 7, "seen": None}]},
        {"tab": "x", "answers": [{"digest": "DIGEST", "label": ["a"], "seen": None}]},
        {"tab": "x", "answers": [{"digest": "DIGEST", "label": "a", "seen": {}}]},
        {"tab": "x", "answers": 2 * [{"digest": "DIGEST", "label": "a", "seen": None}]},
    ],
)
def test_answers_that_no_page_of_ours_sends_are_refused_whole(quiet_run, body):
    digest = next(iter(quiet_run.truth))
    answers = body.get("answers", []) if isinstance(body, dict) else []
    for each in answers:
        each["digest"] = digest if each.get("digest") == "DIGEST" else each.get("digest", digest)
    answer = quiet_run.post("labels", body)
    assert answer.status_code == 400
    assert "\n" not in answer.json()["error"]
    assert quiet_run.get("state")["labelled"] == 0


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b'{"tab": "x", "answ', b"", b"null", b"\xff\xfe", b'{"tab": ' + b"9" * 5000 + b"}"]
)
@pytest.mark.parametrize("address", ["labels", "undo", "finish"])
def test_what_is_no_object_of_json_is_refused_in_one_line(quiet_run, address, body):
    answer = quiet_run.client.post(f"/token/api/{address}", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert "\n" not in answer.json()["error"]


def test_sizes_are_limited(quiet_run, monkeypatch):
    monkeypatch.setattr(app, "MOST_JSON", 1000)
    monkeypatch.setattr(app, "MOST_IMAGE", 1000)
    assert quiet_run.post("labels", {"tab": "x" * 1001}).status_code == 400
    assert quiet_run.client.post("/token/api/predict", content=bytes(1001)).status_code == 400
    assert len(quiet_run.get("next", count=10**9)["items"]) <= app.MOST_ITEMS


def test_the_page_may_run_its_own_files_alone(quiet_run):
    answer = asked(quiet_run, "/token/")
    assert answer.status_code == 200
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert "set-cookie" not in answer.headers
    assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|style=|https?://", answer.text)


def test_other_machines_take_a_word(quiet_run, tmp_path):
    with pytest.raises(StorageError, match=r"'0\.0\.0\.0' lets other machines see the images and label"):
        studio(quiet_run.bank, host="0.0.0.0")
    with pytest.raises(BankError, match="is not there; expected a bank or a folder of images"):
        studio(tmp_path / "nothing")


def test_a_port_that_cannot_be_had_is_told_of_in_one_line(quiet_run):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(StorageError, match=f"cannot listen at 127.0.0.1:{port}: Address already in use; choose"):
            studio(quiet_run.bank, port=port)
    with pytest.raises(StorageError, match="port must be 0-65535; choose another --port or --host"):
        studio(quiet_run.bank, port=70_000)

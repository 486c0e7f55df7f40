"""A studio as it runs: a server, its threads, a folder that becomes a bank, and a process that is killed."""

import os
import signal
import subprocess
import sys
import threading

import httpx
import numpy as np
import pytest
from made_bank import planted
from studio_run import picture_bank, until

from featurebank import Bank, studio
from featurebank.errors import SourceError
from featurebank.explore.studio.place import Place


def ready(client):
    return until(lambda: (state := client.get("api/state").json())["ready"] and state)


def test_a_notebook_shows_it_and_closes_it(tmp_path):
    X, _ = planted(np.random.default_rng(0), groups=2, size=10, width=6)
    bank, _ = picture_bank(tmp_path / "pictures", X)
    running = studio(bank, by="anna")
    try:
        assert f'src="{running.url}"' in running._repr_html_()
        with httpx.Client(base_url=running.url, trust_env=False, timeout=300) as client:
            assert client.get("").headers["content-security-policy"].endswith("https://127.0.0.1:*")
            state = ready(client)
            assert (state["images"], state["title"], state["by"]) == (20, "pictures.bank", "anna")
            item = client.get("api/next", params={"count": 1}).json()["items"][0]
            body = {"tab": "x", "answers": [{"digest": item["digest"], "label": "ant", "seen": None}]}
            assert client.post("api/labels", json=body).json()["saved"] == [item["digest"]]
    finally:
        running.close()
    assert Bank(bank.path).samples["label_by"].dropna().tolist() == ["anna"]
    with pytest.raises(httpx.ConnectError):
        httpx.get(running.url, trust_env=False)
    assert not [each for each in threading.enumerate() if each.name == "featurebank-server"]


def test_embeddings_are_read_once_the_first_picture_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr("featurebank.explore.studio.work.FIRST_PICTURE", 1000)
    X, _ = planted(np.random.default_rng(0), groups=2, size=20, width=6)
    bank, digests = picture_bank(tmp_path / "pictures", X)
    running = studio(bank)
    try:
        with httpx.Client(base_url=running.url, trust_env=False, timeout=300) as client:
            state = ready(client)
            assert (state["reading"], state["model_revision"]) == (True, 0)
            assert {each["why"] for each in client.get("api/next").json()["items"]} <= {"any", "random"}
            assert client.get(f"api/image/{digests[0].hex()}").status_code == 200
            until(lambda: client.get("api/state").json()["model_revision"])
            until(lambda: not client.get("api/state").json()["reading"])
            assert "coverage" in {each["why"] for each in client.get("api/next").json()["items"]}
    finally:
        running.close()


def test_the_rate_of_a_folder_that_is_embedded_leaves_out_what_the_network_took_to_load(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("featurebank.explore.studio.place.time.monotonic", lambda: now[0])
    place = Place(tmp_path, None, {})
    told = []
    for moment, done in ((0, 0), (20, 1), (20.01, 32), (22, 33), (22.02, 64)):
        now[0] = moment
        place._show(done, 96)
        told.append((place.extracting["rate"], place.extracting["left"]))
    assert told[:3] == [(None, None)] * 3
    assert told[-1] == pytest.approx((32 / 2.02, 2.02))


def test_a_folder_without_images_leaves_no_bank(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "notes.txt").write_text("none")
    place = Place(tmp_path / "photos", None, {})
    with pytest.raises(SourceError, match="no images in "):
        place.open()
    assert place.extracting is None
    assert [each.name for each in tmp_path.iterdir()] == ["photos"]


@pytest.mark.slow
def test_a_folder_becomes_a_bank_and_a_dropped_picture_is_explained(tmp_path, noise):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(24):
        noise(40, 40, number).point(lambda value, number=number: value // 2 + 127 * (number % 2)).save(
            folder / f"{number}.png"
        )
    running = studio(folder, backbone="resnet18", weights="random:0", size=64)
    try:
        with httpx.Client(base_url=running.url, trust_env=False, timeout=300) as client:
            until(
                lambda: (
                    (state := client.get("api/state").json())["ready"]
                    and state["extracting"] is None
                    and state["images"] == 24
                )
            )
            for item in client.get("api/next", params={"count": 20}).json()["items"]:
                label = "light" if int(item["name"].split(".")[0]) % 2 else "dark"
                body = {"tab": "x", "answers": [{"digest": item["digest"], "label": label, "seen": None}]}
                assert client.post("api/labels", json=body).status_code == 200
            until(lambda: "all 20 labels" in client.get("api/progress").json()["cross_validated"]["text"])
            found = client.post("api/predict", content=(folder / "1.png").read_bytes()).json()
            assert found["label"] == "light", found
            assert sum(found["probabilities"].values()) == pytest.approx(1)
            assert found["neighbours"][0]["name"] == "1.png"
            assert client.get(found["map"]).headers["content-type"] == "image/png"
            assert client.get("api/drop/99.png").status_code == 404
    finally:
        running.close()
    assert (tmp_path / "photos.bank" / "bank.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["loading", "embedding"])
def test_ctrl_c_while_a_folder_is_embedded_ends_in_one_line_and_leaves_a_whole_bank(tmp_path, noise, moment):
    (tmp_path / "photos").mkdir()
    for number in range(300):
        noise(40, 40, number).save(tmp_path / "photos" / f"{number}.png")
    options = ["--no-browser", "--backbone", "resnet18", "--weights", "random:0", "--size", "32"]
    process = subprocess.Popen(
        [sys.executable, "-m", "featurebank", "studio", str(tmp_path / "photos"), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    url = process.stdout.readline().split()[1]
    with httpx.Client(base_url=url, trust_env=False, timeout=300) as client:
        until(lambda: (under := client.get("api/state").json()["extracting"]) and under["total"])
        until(lambda: moment == "loading" or client.get("api/state").json()["images"])
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=300)
    assert process.returncode == 0, told
    assert len(told.splitlines()) == 1, told
    assert told.startswith("the studio has ended; every answer is in the bank; ")
    assert told.endswith(" images are not embedded yet: start it again to go on\n")
    assert Bank(tmp_path / "photos.bank").verify() == []


SERVE = """
import sys, time
from featurebank import studio
running = studio(sys.argv[1])
print(running.url, flush=True)
time.sleep(600)
"""


@pytest.mark.slow
def test_a_process_that_is_killed_loses_at_most_the_answer_under_way(tmp_path):
    X, _ = planted(np.random.default_rng(0), groups=3, size=200, width=8)
    bank, digests = picture_bank(tmp_path / "pictures", X)
    random, told, under_way, left = np.random.default_rng(0), {}, {}, list(digests)
    for round_ in range(int(os.environ.get("FEATUREBANK_KILLS", "6"))):
        process = subprocess.Popen([sys.executable, "-c", SERVE, str(bank.path)], stdout=subprocess.PIPE, text=True)
        url = process.stdout.readline().strip()
        with httpx.Client(base_url=url, trust_env=False, timeout=300) as client:
            ready(client)
            threading.Timer(random.uniform(0.05, 1.0), process.send_signal, (signal.SIGKILL,)).start()
            while left:
                digest = left.pop()
                label = f"kind {round_} {len(left)}"
                body = {"tab": "x", "answers": [{"digest": digest.hex(), "label": label, "seen": None}]}
                try:
                    assert client.post("api/labels", json=body).json()["saved"] == [digest.hex()]
                except httpx.TransportError:
                    under_way[digest] = label
                    break
                told[digest] = label
        process.wait()
    table = Bank(bank.path).samples
    found = {
        bytes.fromhex(key): label
        for key, label in zip(table["digest"], table["label"], strict=True)
        if label is not None
    }
    assert {key: label for key, label in found.items() if key not in under_way} == told
    assert all(found.get(key) in (None, label) for key, label in under_way.items())
    assert told
    assert Bank(bank.path).verify() == []

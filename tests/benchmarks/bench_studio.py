"""The studio's server: from an answer to the next item, opening, memory; and labels needed by simulated annotators.

    python tests/benchmarks/bench_studio.py speed [IMAGES WIDTH ANSWERS]
    python tests/benchmarks/bench_studio.py page [IMAGES WIDTH ANSWERS]
    python tests/benchmarks/bench_studio.py trial [IMAGES SECONDS]
    python tests/benchmarks/bench_studio.py labels [--seeds 6] [--solar solar.bank] [--features NAME ...]

``speed`` makes a bank of Gaussian rows (10,000 × 1,280 and 100,000 × 1,280 by default) and answers over HTTP, as the
page does: it posts an answer and asks for the next item, while the model refits in the background. ``page`` answers in
Chromium, over pictures of 800 × 600: from a key press to the next picture on the screen. ``trial`` goes a new user's
way: ``featurebank studio`` over a folder of images of three kinds (60 by default), all labelled by keys with so many
seconds between (2 by default), then Finish; it prints what the page said until the first image, and when each step was
reached. ``labels`` has annotators who know the truth label what the studio asks for, beside others who label at random,
on the solar cells (module type, defects; ``featurebank demo`` makes the bank), scikit-learn's digits and textures, and
prints the balanced accuracy on rows that nobody labels, and where choosing falls behind random order by more than a
point.
"""

from __future__ import annotations

import io
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import balanced_accuracy_score

sys.path.insert(0, str(Path(__file__).parents[1]))

from made_bank import make_bank
from studio_run import picture_bank
from studio_walks import KINDS, answer, go, save_photos

from featurebank import Bank
from featurebank.explore.studio.learner import learn
from featurebank.explore.studio.pool import make_pool
from featurebank.explore.studio.session import Session
from featurebank.explore.studio.work import Work

CLASSES = 5
SIZES = (20, 50, 100, 200)
MOST = 400
"""Labels of an annotator."""
SERVE = """
import resource, sys
from featurebank import studio
running = studio(sys.argv[1])
print(running.url, flush=True)
sys.stdin.readline()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, flush=True)
"""


# --- speed -------------------------------------------------------------------------------------------------


def speed(images: int, width: int, answers: int) -> None:
    """Print how long answers take."""
    X, y = _rows(images, width)
    with tempfile.TemporaryDirectory() as folder:
        make_bank(Path(folder) / "a.bank", X)
        del X
        began = time.perf_counter()
        process, url = _served(f"{folder}/a.bank")
        painted = time.perf_counter() - began
        with httpx.Client(base_url=url, trust_env=False, timeout=600) as client:
            while client.get("api/next", params={"count": 1}).status_code != 200:
                time.sleep(0.01)
            first = time.perf_counter() - began
            while not client.get("api/state").json()["model_revision"]:
                time.sleep(0.05)
            read = time.perf_counter() - began
            seconds = _answered(client, y, answers)
        memory = _ended(process)
    ends = np.percentile(1000 * np.array(seconds), [50, 95, 100])
    print(
        f"{images:,} x {width:,}: page {painted:.1f} s, first item {first:.1f} s, embeddings read {read:.1f} s; answer "
        f"to next item {ends[0]:.0f} ms, 95th percentile {ends[1]:.0f}, longest {ends[2]:.0f} of {answers}; "
        f"{memory:.2f} GB; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    )


def _rows(images: int, width: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return Gaussian rows and their classes."""
    random = np.random.default_rng(0)
    y = random.integers(0, CLASSES, images)
    X = random.normal(size=(images, width)).astype(np.float32)
    X[np.arange(images), y] += 4
    return X, y


def _served(bank: Any) -> tuple[subprocess.Popen[str], str]:
    """Start a studio of its own process; return that and the page's address."""
    command = [sys.executable, "-c", SERVE, str(bank)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def _ended(process: subprocess.Popen[str]) -> float:
    """End a studio; return the gigabytes that it took."""
    memory, _ = process.communicate("\n")
    return int(memory) / 1e6


def _answered(client: httpx.Client, y: NDArray[np.int64], answers: int) -> list[float]:
    """Answer what comes, as the page does with what it asked ahead; return the seconds of each."""
    seconds, ahead = [], client.get("api/next", params={"count": 8}).json()["items"]
    for _ in range(answers):
        item = ahead.pop(0)
        label = f"kind {y[int(item['digest'], 16)]}"
        body = {
            "tab": "bench",
            "answers": [{"digest": item["digest"], "label": label, "seen": None, "why": item["why"]}],
        }
        began = time.perf_counter()
        assert client.post("api/labels", json=body).json()["saved"] == [item["digest"]]
        skip = ",".join(each["digest"] for each in ahead)
        ahead += client.get("api/next", params={"count": 1, "skip": skip}).json()["items"]
        seconds.append(time.perf_counter() - began)
        time.sleep(0.2)  # nobody answers faster
    return seconds


# --- the page ----------------------------------------------------------------------------------------------


PRESS = """async (key) => {
    const stage = document.getElementById("stage"), before = stage.dataset.digest, started = performance.now();
    const picture = () => stage.dataset.digest && stage.dataset.digest !== before && stage.querySelector("img");
    document.body.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
    while (!picture()?.complete) await new Promise(requestAnimationFrame);
    await picture().decode();
    await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
    return performance.now() - started;
}"""
"""Presses a key and gives the milliseconds until the next picture was painted."""


def page(images: int, width: int, answers: int) -> None:
    """Print how long the next picture takes in a browser."""
    from playwright.sync_api import sync_playwright

    X, y = _rows(images, width)
    with tempfile.TemporaryDirectory() as folder:
        bank, _ = picture_bank(Path(folder) / "pictures", X, _photos())
        del X
        process, url = _served(bank.path)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            opened = browser.new_page(viewport={"width": 1280, "height": 800})
            began = time.perf_counter()
            opened.goto(url)
            opened.wait_for_selector("#stage[data-digest] img", timeout=120_000)
            opened.wait_for_function("() => document.querySelector('#stage img').complete")
            first = time.perf_counter() - began
            milliseconds = [_pressed(opened, y) for _ in range(answers)]
            opened.wait_for_selector("#saving[data-waiting='0']", timeout=60_000)
            browser.close()
        _ended(process)
    ends = np.percentile([each for each in milliseconds if each], [50, 95, 100])
    print(
        f"{images:,} x {width:,}: first picture {first:.1f} s after the page was asked for; key press to next picture "
        f"{ends[0]:.0f} ms, 95th percentile {ends[1]:.0f}, longest {ends[2]:.0f} of {answers}; "
        f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    )


def _pressed(opened: Any, y: NDArray[np.int64]) -> float | None:
    """Answer the image that is shown by its class's key; the name of a class that has none yet is typed, unmeasured."""
    opened.wait_for_timeout(200)  # nobody answers faster
    name = f"kind {y[int(opened.inner_text('#stage-name').split('.')[0])]}"
    classes = opened.locator("#classes b").all_inner_texts()
    if name in classes:
        return float(opened.evaluate(PRESS, str(classes.index(name) + 1)))
    opened.fill("#name", name)
    opened.press("#name", "Enter")
    return None


def _photos() -> Callable[[int], bytes]:
    """Return what gives each number a file of its own: one of a few pictures, with the number after its end."""
    random = np.random.default_rng(0)
    files = []
    for _ in range(24):
        coarse = Image.fromarray(random.integers(0, 256, (60, 80, 3), dtype=np.uint8))
        buffer = io.BytesIO()
        coarse.resize((800, 600), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=80)
        files.append(buffer.getvalue())
    return lambda number: files[number % len(files)] + b"%d" % number


# --- a new user ----------------------------------------------------------------------------------------------


SAID = """() => ["labelled", "extracting-text", "stage", "stage-why"].map((id) => document.getElementById(id).innerText)
    .filter((text) => text).join(" | ")"""


def trial(images: int, seconds: int) -> None:
    """Print when a new user has a first image, all labels, and a predictor."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        photos = save_photos(Path(folder) / "photos", images // len(KINDS))
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": 1280, "height": 800})
        opened.set_default_timeout(300_000)
        began = time.perf_counter()
        command = [sys.executable, "-m", "featurebank", "studio", str(photos), "--no-browser"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        opened.goto(process.stdout.readline().split()[1])
        said = _told_until_shown(opened, began)
        times = {"first image": time.perf_counter() - began}
        for _ in range(images // len(KINDS) * len(KINDS)):
            opened.wait_for_timeout(1000 * seconds)
            answer(opened, 1)
        times["all labelled"] = time.perf_counter() - began
        go(opened, "finish")
        opened.click("#finish-start")
        opened.wait_for_function("() => /^(?!Fitting)./.test(document.getElementById('finish-status').innerText)")
        times["predictor written"] = time.perf_counter() - began
        print(*said, opened.inner_text("#finish-status"), sep="\n", flush=True)
        browser.close()
        process.terminate()
        process.wait()
    reached = ", ".join(f"{name} {value:.0f} s" for name, value in times.items())
    print(
        f"{images} images, an answer in {seconds} s: {reached}; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    )


def _told_until_shown(opened: Any, began: float) -> list[str]:
    """Return what the page says until an image is shown, each with its time."""
    said: list[str] = []
    last = None
    while True:
        text = opened.evaluate(SAID)
        if text != last:
            said.append(f"{time.perf_counter() - began:6.1f} s  {text}")
            last = text
        if opened.locator("#stage[data-digest]").count():
            return said
        opened.wait_for_timeout(50)


# --- labels ------------------------------------------------------------------------------------------------


def tasks(solar: str, features: Sequence[str]) -> Iterator[tuple[str, NDArray[np.float32], NDArray[np.str_]]]:
    """Yield names, embeddings and classes; those of the solar cells where there is a bank of them."""
    from sklearn.datasets import load_digits

    if Path(solar).exists():
        bank = Bank(solar)
        for name, column in (("module type", "type"), ("defects", "A")):
            X, y = bank.load(list(features), column)
            yield name, X, y.astype(str)
    X, y = load_digits(return_X_y=True)
    yield "digits", X.astype(np.float32), y.astype(str)
    yield "textures", *textures()


def textures(n: int = 1200, side: int = 32) -> tuple[NDArray[np.float32], NDArray[np.str_]]:
    """Return the spectra of noisy stripes of eight directions and widths, some kinds rarer than others."""
    random = np.random.default_rng(0)
    shares = np.array([0.3, 0.2, 0.15, 0.1, 0.1, 0.05, 0.05, 0.05])
    y = random.choice(8, n, p=shares)
    rows, columns = np.mgrid[:side, :side]
    angle, rate = (y % 4) * np.pi / 4 + random.normal(0, 0.15, n), np.where(y < 4, 0.9, 1.4) * random.normal(1, 0.1, n)
    waves = np.cos(angle)[:, None, None] * rows + np.sin(angle)[:, None, None] * columns
    images = np.sin(rate[:, None, None] * waves + random.uniform(0, 6, (n, 1, 1))) + random.normal(
        0, 2, (n, side, side)
    )
    spectra = np.abs(np.fft.rfft2(images))
    return np.log(spectra[:, :, :12]).reshape(n, -1).astype(np.float32), y.astype(str)


def labels(seeds: int, solar: str, features: Sequence[str]) -> None:
    """Print the balanced accuracy by number of labels, and where choosing falls behind."""
    for name, X, y in tasks(solar, features):
        means = {}
        for way in ("random", "studio"):
            began = time.perf_counter()
            found = [annotated(X, y, seed, way, MOST) for seed in range(seeds)]
            means[way] = np.mean([[each[size] for size in SIZES] for each in found], axis=0)
            cells = "  ".join(f"{size}: {mean:5.1f}" for size, mean in zip(SIZES, means[way], strict=True))
            needed = np.median([each["needed"] for each in found])
            took = time.perf_counter() - began
            print(f"{name:12} {way:7} {cells}  95 % of all: {needed:.0f} labels  ({took:.0f} s)", flush=True)
        behind = [size for size, gain in zip(SIZES, means["studio"] - means["random"], strict=True) if gain < -1]
        print(f"{name:12} behind by more than a point at: {behind or 'none'}", flush=True)


def annotated(
    X: NDArray[np.float32], y: NDArray[np.str_], seed: int, way: str, most: int = max(SIZES)
) -> dict[Any, float]:
    """Return the balanced accuracy (%) at `SIZES`, and how many of the labels reach 95 % of what all rows' do."""
    random = np.random.default_rng(seed)
    order = random.permutation(len(X))
    known, held = np.sort(order[: int(0.7 * len(X))]), order[int(0.7 * len(X)) :]
    pool = make_pool(("all",), X[known].copy(), np.arange(len(known)), len(known), seed)
    test = pool.standardised(X[held])

    def score(rows: NDArray[np.int64]) -> float:
        learned = learn(pool.X[rows], y[known][rows])
        return 0.0 if learned is None else 100 * float(balanced_accuracy_score(y[held], learned.predict(test)))

    goal = 0.95 * score(np.arange(len(known)))
    asked = random.permutation(len(known)) if way == "random" else _asked(X[known], y[known], seed, most)
    found: dict[Any, float] = {size: score(asked[:size]) for size in SIZES}
    steps = range(10, min(len(asked), most) + 1, 10)
    found["needed"] = next((size for size in steps if score(asked[:size]) >= goal), np.inf)
    return found


def _asked(X: NDArray[np.float32], y: NDArray[np.str_], seed: int, count: int) -> NDArray[np.int64]:
    """Return the rows that a studio asks for, in order; its random tenth counts as labels too."""
    from featurebank.explore.studio.place import Place

    with tempfile.TemporaryDirectory() as folder:
        make_bank(Path(folder) / "a.bank", X)
        work = Work(Place(f"{folder}/a.bank", None, {}), "label", "", None, seed)
        work.open()
        session = Session(work)
        found: list[int] = []
        while len(found) < count:
            work.step()
            items = session.next(5, [])
            digests = [bytes.fromhex(each["digest"]) for each in items]
            rows = [int.from_bytes(digest, "big") for digest in digests]
            session.label("bench", [(digest, str(y[row]), None) for digest, row in zip(digests, rows, strict=True)])
            found += rows
            if len(found) % 50 == 0 and work.now is not None:
                work.look(work.now, is_new=False)
    return np.array(found)


def _options() -> Namespace:
    parser = ArgumentParser(description="The studio's speed, and what its choices are worth.")
    commands = parser.add_subparsers(dest="kind", required=True)
    for name, defaults in (("speed", []), ("page", []), ("trial", [60, 2])):
        commands.add_parser(name).add_argument("given", type=int, nargs="*", default=defaults)
    annotators = commands.add_parser("labels")
    annotators.add_argument("--seeds", type=int, default=6)
    annotators.add_argument("--solar", default="solar.bank", help="the bank that `featurebank demo` makes")
    annotators.add_argument("--features", nargs="+", default=["penultimate"], help="feature sets of that bank")
    return parser.parse_args()


if __name__ == "__main__":
    options = _options()
    if options.kind == "labels":
        labels(options.seeds, options.solar, options.features)
    elif options.kind == "trial":
        trial(*options.given)
    else:
        measure = {"speed": speed, "page": page}[options.kind]
        for shape in [options.given] if options.given else [[10_000, 1280, 200], [100_000, 1280, 200]]:
            measure(*shape)
    print(f"{resource.getrusage(resource.RUSAGE_SELF).ru_utime:.0f} s of this process")

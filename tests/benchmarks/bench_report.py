"""The report of the solar cells and of 50,000 made-up rows: seconds, megabytes, first paint and frames in Chromium.

    featurebank demo
    python tests/benchmarks/bench_report.py solar.bank

Without a bank, the made-up rows alone. They have pictures of noise, which no codec makes small. Everything is seeded;
seconds are those of the machine, and of the browser the median of three openings.
"""

import hashlib
import io
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from playwright.sync_api import sync_playwright

from featurebank import Bank, FeatureSpec, fit
from featurebank.bank.samples import make_table
from featurebank.report import make_report

ROWS, WIDTH, FILES = 50_000, 256, 4_000
OPENINGS = 3
FRAMES = """async () => {
    const canvas = document.getElementById("map-canvas"), took = [];
    for (let k = 0; k < 30; k++) {
        const started = performance.now();
        canvas.dispatchEvent(new WheelEvent("wheel", {deltaY: k % 2 ? 40 : -40, cancelable: true}));
        await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
        took.push(performance.now() - started);
    }
    return took.sort((a, b) => a - b)[15];
}"""
"""Zooms the map step by step; gives the median of the milliseconds until a step was painted."""


def made_up(folder: Path) -> Bank:
    """Return a bank of rows in ten clusters, a few thousand of them with a picture of its own."""
    random = np.random.default_rng(0)
    classes = random.integers(0, 10, ROWS)
    X = (random.normal(size=(10, WIDTH))[classes] + random.normal(size=(ROWS, WIDTH))).astype(np.float32)
    paths, digests = [], []
    for row in range(ROWS):
        path = folder / f"class_{classes[row]}" / f"image_{row:05}.jpg"
        data = picture(random) if row < FILES else str(row).encode()
        if row < FILES:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
        paths.append(str(path.relative_to(folder)).encode())
        digests.append(hashlib.sha256(data).digest())
    bank = Bank.create(folder / "made_up.bank")
    spec = FeatureSpec("made_up", "1", "0" * 64, "penultimate", "vector", 0, "none", {}, 1, "none", "fp32", "float16")
    bank.add_spec(spec)
    bank.add_features(spec, digests, X[:, None])
    fields = {
        "source": [str(folder)] * ROWS,
        "root": [str(folder)] * ROWS,
        "path": paths,
        "digest": digests,
        "size": [0] * ROWS,
        "mtime_ns": [0] * ROWS,
        "status": [0] * ROWS,
        "error": [""] * ROWS,
        "row_hash": [0] * ROWS,
        "stamp": [0] * ROWS,
    }
    columns = {
        "label": pd.Series([f"class {each}" for each in classes], dtype=object),
        "length": pd.Series(random.normal(size=ROWS), dtype="Float64"),
    }
    bank.add_samples(make_table(fields, pd.DataFrame(columns)), newest=0)
    return bank


def picture(random: np.random.Generator) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(random.integers(0, 256, (96, 128, 3), dtype=np.uint8)).save(buffer, "JPEG", quality=60)
    return buffer.getvalue()


def fitted(bank: Bank, folder: Path) -> Path:
    """Fit protocol B with all that a page can show of a fit; return the predictor's file."""
    result = fit(bank, target="B", models=["logreg"], calibrate="sigmoid", learning_curve=True)
    file = folder / "solar.featurebank"
    result.save(file)
    return file


def opened(file: Path) -> list[float]:
    """Return the seconds to a page's first paint and to its map being drawn, and those of a frame while it moves."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page()
        started = time.perf_counter()
        page.goto(file.as_uri(), wait_until="commit")
        page.wait_for_selector("#map-canvas[data-drawn]", timeout=60_000)
        drawn = time.perf_counter() - started
        paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime") / 1000
        page.locator("#map-canvas").scroll_into_view_if_needed()
        frame = page.evaluate(FRAMES) / 1000
        browser.close()
    return [paint, drawn, frame]


def measure(name: str, bank: Bank, predictor: Path | None, folder: Path) -> None:
    started, cpu = time.perf_counter(), time.process_time()
    page = make_report(bank, predictor)
    file = folder / "report.html"
    file.write_bytes(page.encode())
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    paint, drawn, frame = np.median([opened(file) for _ in range(OPENINGS)], axis=0)
    counts, size = page.counts(), file.stat().st_size / 1e6
    maps = " and ".join(counts["maps"])
    print(f"{name}: {counts['images']} rows, {counts['pictures']} pictures, {maps}, {size:.1f} MB")
    print(f"  made in {seconds:.0f} s ({cpu:.0f} s of processor)")
    print(f"  first paint {paint:.2f} s, map drawn {drawn:.2f} s, {1000 * frame:.0f} ms a frame while it is zoomed")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        if len(sys.argv) > 1:
            bank = Bank(sys.argv[1])
            measure("solar cells", bank, fitted(bank, Path(folder)), Path(folder))
        measure("made up", made_up(Path(folder)), None, Path(folder))


if __name__ == "__main__":
    main()

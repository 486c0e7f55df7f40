"""The report of the solar cells and of 50,000 made-up rows: seconds, megabytes, and the first paint in Chromium.

    python tests/benchmarks/bench_report.py BANK.bank [PREDICTOR.featurebank]

BANK is that of `featurebank demo`, for instance. The made-up rows have pictures of noise, which no codec makes small.
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

from featurebank import Bank, FeatureSpec
from featurebank.report import make_report
from featurebank.samples import make_table

ROWS, WIDTH, FILES = 50_000, 256, 4_000


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
        "origin": [0] * ROWS,
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


def first_paint(file: Path) -> tuple[float, float]:
    """Return the seconds from opening the page to its first paint, and to the map being drawn."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page()
        started = time.perf_counter()
        page.goto(file.as_uri(), wait_until="commit")
        page.wait_for_selector("#map-canvas[data-drawn]", timeout=60_000)
        drawn = time.perf_counter() - started
        paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime") / 1000
        browser.close()
    return paint, drawn


def measure(name: str, bank: Bank, predictor: str | None, folder: Path) -> None:
    started, cpu = time.perf_counter(), time.process_time()
    page = make_report(bank, predictor)
    file = folder / "report.html"
    file.write_bytes(page.encode())
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    paint, drawn = first_paint(file)
    counts, size = page.counts(), file.stat().st_size / 1e6
    print(f"{name}: {counts['images']} rows, {counts['pictures']} pictures, {size:.1f} MB")
    print(f"  made in {seconds:.0f} s ({cpu:.0f} s of processor); first paint {paint:.2f} s, map drawn {drawn:.2f} s")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        if len(sys.argv) > 1:
            measure("solar cells", Bank(sys.argv[1]), next(iter(sys.argv[2:]), None), Path(folder))
        measure("made up", made_up(Path(folder)), None, Path(folder))


if __name__ == "__main__":
    main()

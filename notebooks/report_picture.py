"""Make notebooks/report.png, the README's picture of the report: scikit-learn's handwritten digits, in Chromium.

python notebooks/report_picture.py
"""

import shutil
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import sync_playwright
from sklearn.datasets import load_digits

from featurebank import extract, fit
from featurebank.report import make_report

COUNT = 800
HERE = Path(__file__).parent


def make_page(folder: Path) -> Path:
    """Write the report of some digits; return its file."""
    digits = load_digits()
    for number, (pixels, label) in enumerate(zip(digits.images[:COUNT], digits.target[:COUNT], strict=True)):
        path = folder / "digits" / str(label) / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        grey = np.asarray(255 - pixels * 255 / 16, np.uint8)
        Image.fromarray(grey).resize((96, 96), Image.Resampling.BICUBIC).save(path)
    bank = extract(folder / "digits", folder / "digits.bank", layers=["blocks.2", "blocks.3", "blocks.4"], size=96)
    result = fit(bank, models=["logreg"])
    result.save(folder / "digits.featurebank")
    result.oof.to_csv(folder / "digits.oof.csv", index=False)
    file = folder / "report.html"
    file.write_bytes(make_report(bank, folder / "digits.featurebank", features="blocks.3").encode())
    return file


def take_picture(file: Path, picture: Path) -> None:
    """Open the page, put the pointer on an image, and save what is seen of the map and the candidates."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1000, "height": 1020})
        page.goto(file.as_uri())
        page.wait_for_selector("#map-canvas[data-drawn]")
        page.evaluate("document.documentElement.style.scrollBehavior = 'auto'")
        page.locator("#map").evaluate("element => element.scrollIntoView()")
        box = page.locator("#map-canvas").bounding_box()
        for share in np.linspace(0.2, 0.5, 40):
            page.mouse.move(box["x"] + share * box["width"], box["y"] + 0.4 * box["height"])
            if page.locator("#map-tip").is_visible():
                break
        page.screenshot(path=picture)
        browser.close()
    with Image.open(picture) as image:
        image.convert("P", palette=Image.Palette.ADAPTIVE, colors=128).save(picture, optimize=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        take_picture(make_page(Path(folder)), HERE / "report.png")

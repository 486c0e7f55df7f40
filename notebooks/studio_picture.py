"""Make notebooks/studio.png, the picture of the studio: scikit-learn's handwritten digits labelled in Chromium.

python notebooks/studio_picture.py
"""

import shutil
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import sync_playwright
from sklearn.datasets import load_digits

from featurebank import extract, studio

COUNT, ANSWERS = 360, 40
NAMES = ("zero", "one", "two", "three", "four", "five")
HERE = Path(__file__).parent


def make_bank(folder: Path) -> Path:
    """Return the bank of some digits, whose files' names hold what they are and which nobody has labelled."""
    digits = load_digits(n_class=len(NAMES))
    (folder / "digits").mkdir()
    for number, (pixels, label) in enumerate(zip(digits.images[:COUNT], digits.target[:COUNT], strict=True)):
        grey = np.asarray(255 - pixels * 255 / 16, np.uint8)
        image = Image.fromarray(grey).resize((256, 256), Image.Resampling.BICUBIC)
        image.save(folder / "digits" / f"{number:03}_{label}.png")
    return extract(
        folder / "digits", folder / "digits.bank", backbone="resnet18", weights="random:0", layers="layer2", size=64
    ).path


def take_picture(bank: Path, picture: Path) -> None:
    """Label some images by keys, and save what is seen once the model has a suggestion."""
    running = studio(bank, by="anna")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1100, "height": 720})
        page.goto(running.url)
        for _ in range(ANSWERS):
            page.wait_for_selector("#stage[data-digest]")
            name = page.inner_text("#stage-name")
            kind, classes = NAMES[int(name[4])], page.locator("#classes b").all_inner_texts()
            if kind in classes:
                page.keyboard.press(str(classes.index(kind) + 1))
            else:
                page.fill("#name", kind)
                page.press("#name", "Enter")
            page.wait_for_function("name => document.getElementById('stage-name').textContent !== name", arg=name)
            page.wait_for_timeout(100)
        page.wait_for_selector("#saving[data-waiting='0']")
        page.wait_for_selector("#honest-short:not(:empty)", timeout=60_000)
        while not page.locator("#classes .suggested").count():
            page.keyboard.press(" ")
            page.wait_for_timeout(500)
        page.screenshot(path=picture)
        browser.close()
    running.close()
    with Image.open(picture) as image:
        image.convert("RGB").quantize(256, Image.Quantize.FASTOCTREE).save(picture, optimize=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        take_picture(make_bank(Path(folder)), HERE / "studio.png")

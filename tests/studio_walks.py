"""A studio in a real browser: images of three kinds without labels, their bank, and a page that is watched."""

import shutil
from contextlib import contextmanager

import numpy as np
from PIL import Image

from featurebank import extract
from featurebank.explore.studio.handle import studio

KINDS = ("bars", "checks", "stripes")
PER_KIND = 16
NOT_YET = "status of 503"
"""What Chromium notes where the server says "ask again in a moment", as the page then does."""


def kind_of(name):
    """Return the kind of an image from its file's name, which does not say it in words."""
    return KINDS[int(name[6:9]) % len(KINDS)]


def save_photos(folder, count=PER_KIND, seed=0):
    """Save images of three kinds, told apart by their stripes and colours, in one folder."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    y, x = np.indices((64, 64)) // 8 % 2
    patterns = (y, x ^ y, x)
    for number in range(count * len(KINDS)):
        kind = number % len(KINDS)
        pixels = patterns[kind][..., None] * 90 + np.eye(3)[kind] * 60 + random.integers(0, 60, (64, 64, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"photo_{number:03}.png")
    return folder


def make_bank(folder):
    """Return the path of a bank of photos without labels."""
    save_photos(folder / "photos")
    options = {"backbone": "resnet18", "weights": "random:0", "size": 64}
    return extract(folder / "photos", folder / "photos.bank", layers=["layer3", "penultimate"], **options).path


@contextmanager
def running(bank, folder, **options):
    """Run the studio over a copy of a bank; yields the copy's path and the page's address."""
    copy = shutil.copytree(bank, folder / "walk.bank")
    handle = studio(copy, **options)
    try:
        yield copy, handle.url
    finally:
        handle.close()


@contextmanager
def watched(browser, url, *, allowed=(), prepare=None, **options):
    """Open a page; at the end it must have met no error and asked no other place than its own."""
    options.setdefault("viewport", {"width": 1280, "height": 800})
    page = browser.new_page(**options)
    page.set_default_timeout(20_000)
    said, asked = [], []
    page.on("console", lambda message: message.type in ("error", "warning") and said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    if prepare is not None:
        prepare(page)
    page.goto(url)
    yield page
    wrong = [text for text in said if not any(each in text for each in (*allowed, NOT_YET))]
    assert not wrong, wrong
    origin = "/".join(url.split("/")[:3])
    elsewhere = [each for each in asked if not each.startswith((origin, "blob:", "data:"))]
    assert not elsewhere, elsewhere
    page.close()


def shown(page):
    """Wait for an image and return its file's name."""
    page.wait_for_selector("#stage[data-digest]")
    return page.inner_text("#stage-name")


def press_kind(page, kind):
    """Answer with a class by the keyboard alone: its key, or its name where there is none yet."""
    classes = page.locator("#classes b").all_inner_texts()
    if kind in classes:
        page.keyboard.press(str(classes.index(kind) + 1))
        return
    page.keyboard.press("n")
    page.keyboard.type(kind)
    page.keyboard.press("Enter")


def answer(page, count):
    """Label images as they come; return the names of those."""
    names = []
    for _ in range(count):
        names.append(shown(page))
        press_kind(page, kind_of(names[-1]))
        page.wait_for_function("name => document.getElementById('stage-name').textContent !== name", arg=names[-1])
    saved(page)
    return names


def saved(page):
    """Wait until the page says that all answers are saved."""
    page.wait_for_selector("#saving[data-waiting='0']")


def go(page, view):
    page.keyboard.press({"label": "l", "grid": "g", "map": "m", "progress": "p", "try": "t", "finish": "f"}[view])
    page.wait_for_selector(f"body[data-view={view}]")


def labels_of(bank, target="label"):
    """Return the labels that a bank has, by file name."""
    from featurebank import Bank

    samples = Bank(bank).samples
    if target not in samples:
        return {}
    return dict(samples.dropna(subset=[target])[["path", target]].itertuples(index=False))

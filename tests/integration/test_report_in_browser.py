"""The page in a real browser, from disk: it draws, answers, is silent, and hostile names in it do nothing."""

import os
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from featurebank import extract, fit
from featurebank.report import make_report
from featurebank_cli.solar_cells import cells_folder, write_manifest

pytestmark = pytest.mark.slow
SCRIPT = "</script><script>window.hacked = 1; alert(1)</script>"
NAMES = [
    b"<img src=x onerror=alert(1)>.png",
    b"\"'><svg onload=alert(1)>.png",
    b"=1+1.png",
    b"two\nlines.png",
    b"\xff not utf-8.png",
    b"{{ 7 * 7 }}.png",
    b"<!--.png",
    "right\u202eto left.png".encode(),
]
ACROSS = 24


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    """48 images of two classes, the first ones with hostile names, and hostile classes in two columns."""
    folder = tmp_path_factory.mktemp("hostile") / "<b>photos"
    random = np.random.default_rng(0)
    for label, axis in (("=cmd()", 0), ("<i>cat", 1)):
        (folder / label).mkdir(parents=True)
        for number in range(ACROSS):
            stripes = np.indices((64, 96))[axis] // 8 % 2 * 60 + 80
            pixels = stripes[..., None] + random.integers(0, 90, (64, 96, 3))
            name = NAMES[number] if number < len(NAMES) else b"%02d.png" % number
            path = os.path.join(os.fsencode(folder / label), name)
            with open(path, "wb") as file:
                Image.fromarray(pixels.astype(np.uint8)).save(file, "PNG")
    made = extract(folder, folder.parent / "<u>a.bank", backbone="resnet18", weights="random:0", size=64)
    samples = made.samples[["path"]]
    kinds = [SCRIPT if number % 2 else "plain" for number in range(len(samples))]
    numbers = np.linspace(-1, 1, len(samples))
    endless = [float("inf"), 123456789.0, *[0.5] * (len(samples) - 2)]
    made.label(samples.assign(**{'"><script>alert(2)</script>': kinds, "number": numbers, "endless": endless}))
    return made


@pytest.fixture(scope="module")
def report(bank):
    """The page's file, made with a predictor that mistakes some images."""
    result = fit(bank, target="label", models=["centroid"], folds=3, learning_curve=True, calibrate="sigmoid")
    predictor = bank.path.with_suffix(".featurebank")
    oof = result.predictor.single.out_of_fold
    oof.loc[::5, "predicted"] = oof.loc[::5, "true"].map({"=cmd()": "<i>cat", "<i>cat": "=cmd()"})
    result.save(predictor)
    page = bank.path.parent / "report.html"
    page.write_bytes(make_report(bank, predictor).encode())
    return page


@pytest.fixture
def page(browser, report):
    with silent(browser, report) as opened:
        yield opened


@contextmanager
def silent(browser, file):
    """Open a page from disk; at the end it must have said nothing, asked for nothing and opened no dialog."""
    opened = browser.new_page(viewport={"width": 1100, "height": 900}, accept_downloads=True)
    said, asked, dialogs = [], [], []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda request: asked.append(request.url))
    opened.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    show(opened, file)
    yield opened
    opened.wait_for_timeout(100)
    assert [text for text in said if "willReadFrequently" not in text] == []  # said of the tests' own reading
    assert [url for url in asked if not url.startswith(("file://", "blob:", "data:"))] == []
    assert len([url for url in asked if url.startswith("file://")]) == 1
    assert dialogs == []
    assert opened.evaluate("window.hacked") is None
    opened.close()


def show(page, file):
    page.goto(Path(file).as_uri())
    page.wait_for_selector("html[data-ready=true]")
    page.wait_for_selector("#map-canvas[data-drawn]")


def colours(page):
    """Return the colours of the map's points and how many pixels each has."""
    page.wait_for_timeout(150)
    return page.evaluate("""() => {
        const canvas = document.getElementById("map-canvas");
        const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data, counts = {};
        for (let k = 0; k < data.length; k += 4) if (data[k + 3] > 200) {
            const name = [data[k], data[k + 1], data[k + 2]].map((v) => v >> 3).join();
            counts[name] = (counts[name] || 0) + 1;
        }
        return counts;
    }""")


def some_point(page):
    """Return where on the screen a point of the map is."""
    page.locator("#map-canvas").scroll_into_view_if_needed()
    x, y = page.evaluate("""() => {
        const canvas = document.getElementById("map-canvas"), ratio = window.devicePixelRatio;
        const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
        let k = 3;
        while (data[k] < 200) k += 4;
        const at = (k - 3) / 4, box = canvas.getBoundingClientRect();
        return [box.x + (at % canvas.width) / ratio + 2, box.y + Math.floor(at / canvas.width) / ratio + 2];
    }""")
    return x, y


def draw_lasso(page, share=1.0):
    box = page.locator("#map-canvas").bounding_box()
    right, bottom = box["x"] + box["width"] * share - 2, box["y"] + box["height"] - 2
    page.mouse.move(box["x"] + 2, box["y"] + 2)
    page.mouse.down()
    for x, y in ((right, box["y"] + 2), (right, bottom), (box["x"] + 2, bottom)):
        page.mouse.move(x, y, steps=4)
    page.mouse.up()


def status(page):
    page.wait_for_timeout(200)
    return page.locator("#map-status").inner_text()


def test_the_solar_cells_of_the_demo_make_a_page(browser, tmp_path):
    cells, file = cells_folder(), tmp_path / "cells.csv"
    pd.read_csv(write_manifest(cells, file)).iloc[::10].to_csv(file, index=False)
    layers = ["blocks.4:avgmax", "penultimate"]
    bank = extract(file, tmp_path / "solar.bank", layers=layers, root=cells, engine="eager")
    predictor = tmp_path / "solar.featurebank"
    result = fit(bank, target="B", models=["svm"], folds=5)
    result.save(predictor)
    made = tmp_path / "report.html"
    made.write_bytes(make_report(bank, predictor).encode())
    with silent(browser, made) as page:
        assert len([count for count in colours(page).values() if count > 50]) >= 2
        page.mouse.move(*some_point(page))
        page.locator("#map-tip").wait_for(state="visible")
        assert "images/cell" in page.locator("#map-tip").inner_text()
        page.select_option("#map-colour", label="type")
        assert [name in page.locator("#map-legend").inner_text() for name in ("mono (", "poly (")] == [True, True]
        page.locator("#map-lasso").click()
        draw_lasso(page)
        assert status(page).startswith(f"{len(bank.samples)} of {len(bank.samples)} images selected")
        assert len(page.locator("#confusion td button").all()) >= 2


def test_the_map_draws_points_in_the_colours_of_the_classes(page):
    assert len([count for count in colours(page).values() if count > 50]) >= 2


def test_hovering_shows_the_picture_and_what_is_known_of_it(page):
    tip = page.locator("#map-tip")
    assert tip.is_hidden()
    page.mouse.move(*some_point(page))
    tip.wait_for(state="visible")
    assert ".png" in tip.inner_text()
    assert "label: " in tip.inner_text()
    picture = tip.locator(".picture")
    assert "blob:" in picture.evaluate("e => getComputedStyle(e).backgroundImage")
    assert picture.bounding_box()["width"] == 96
    assert picture.bounding_box()["height"] == 64  # the images are 96 by 64
    page.mouse.move(5, 5)
    tip.wait_for(state="hidden")


def test_the_picture_is_the_one_of_the_file(page, bank):
    """The pixels that the browser shows of a row are those of its file."""
    row, pixels = page.evaluate("""async () => {
        const known = document.querySelector(`#mistakes .picture`);
        const style = getComputedStyle(known), address = style.backgroundImage.slice(5, -2);
        const image = new Image();
        image.src = address;
        await image.decode();
        const canvas = document.createElement("canvas");
        [canvas.width, canvas.height] = [96, 64];
        const [x, y] = style.backgroundPosition.split(" ").map(parseFloat);
        const pen = canvas.getContext("2d");
        pen.drawImage(image, x, y);
        return [Number(known.dataset.row), [...pen.getImageData(0, 0, 96, 64).data]];
    }""")
    rows = bank.select().rows.iloc[row]
    with Image.open(os.path.join(os.fsencode(rows["root"]), rows["path"])) as image:
        expected = np.asarray(image.convert("RGB"), float)
    found = np.array(pixels, float).reshape(64, 96, 4)[..., :3]
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.7  # WebP blurs the noise


def test_points_are_coloured_by_any_column(page):
    before = colours(page)
    options = page.locator("#map-colour option").all_inner_texts()
    assert options[:4] == ["label", "predicted, out of fold", "outcome", "confidence"]
    assert '"><script>alert(2)</script>' in options
    page.select_option("#map-colour", label='"><script>alert(2)</script>')
    assert f"{SCRIPT} (24)" in page.locator("#map-legend").inner_text()
    page.select_option("#map-colour", label="number")
    assert page.locator("#map-legend").inner_text().split() == ["-1", "1"]
    assert len(colours(page)) > len(before)
    page.select_option("#map-colour", label="endless")
    assert page.locator("#map-legend").inner_text().split() == ["0.5", "123456789"]


def test_a_class_is_hidden_from_the_legend(page):
    button = page.locator("#map-legend button").first
    total = sum(colours(page).values())
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    assert sum(colours(page).values()) < 0.8 * total


def test_a_lasso_selects_and_its_paths_are_exported_byte_by_byte(page, bank, tmp_path):
    page.locator("#map-lasso").click()
    page.locator("#map-canvas").scroll_into_view_if_needed()
    draw_lasso(page)
    assert status(page) == "48 of 48 images selected"
    assert page.locator("#chosen figure").count() == 48
    with page.expect_download() as started:
        page.locator("#chosen-export").click()
    started.value.save_as(tmp_path / "selected.csv")
    text = (tmp_path / "selected.csv").read_bytes()
    assert text.startswith(b"source,path\n")
    listed = [line for line in text.split(b"\n") if b"utf-8" in line]
    assert len(listed) == 2
    assert all(b"\xff not utf-8.png" in line for line in listed)
    assert b",'=cmd()/=1+1.png\n" in text  # a spreadsheet would run it
    assert text.count(b'two\nlines.png"') == 2
    page.locator("#chosen-clear").click()
    assert page.locator("#chosen figure").count() == 0


def test_half_a_lasso_selects_some(page):
    page.locator("#map-lasso").click()
    page.locator("#map-canvas").scroll_into_view_if_needed()
    draw_lasso(page, share=0.5)
    assert 0 < page.locator("#chosen figure").count() < 48


def test_search_finds_paths_and_values(page):
    page.fill("#map-search", "=CMD()/=1+1")
    assert status(page) == "1 of 48 images found"
    page.fill("#map-search", "window.hacked")
    assert status(page) == "24 of 48 images found"
    page.locator("#chosen-found").click()
    assert status(page) == "24 of 48 images selected"


def test_the_keyboard_goes_from_image_to_image(page):
    page.locator("#map-canvas").focus()
    page.keyboard.press("ArrowRight")
    first = status(page)
    assert ".png, label " in first
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowUp")
    assert status(page) != first
    page.keyboard.press("Enter")
    assert page.locator("#chosen figure").count() == 1
    page.keyboard.press("+")
    page.keyboard.press("Escape")
    assert page.locator("#chosen figure").count() == 0
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('#map-legend') !== null")


def test_a_cell_of_the_confusion_matrix_opens_its_pictures(page):
    cells = page.locator("#confusion td button")
    counts = [int(text) for text in cells.all_inner_texts()]
    assert sum(counts) == 48
    cells.nth(1).focus()
    page.keyboard.press("Enter")
    dialog = page.locator("dialog#cell")
    assert dialog.is_visible()
    assert dialog.locator("figure").count() == counts[1]
    assert dialog.locator("h2").inner_text().startswith(f"{counts[1]} images of ")
    page.keyboard.press("Escape")
    assert dialog.is_hidden()
    assert page.evaluate("document.activeElement.dataset.predicted") == "1"


def test_the_reasons_are_pictures(page):
    widths = page.eval_on_selector_all("#why img", "images => images.map((image) => image.naturalWidth)")
    assert len(widths) >= 2
    assert set(widths) == {96}


def test_hostile_names_are_shown_as_they_are(page):
    text = page.locator("#mistakes, #data").all_inner_texts()
    assert "<i>cat" in text[0]
    page.fill("#map-search", ".png")
    assert status(page) == "48 of 48 images found"
    page.locator("#chosen-found").click()
    shown = page.locator("#chosen").inner_text()
    for name in ("<img src=x onerror=alert(1)>.png", "two\\u000alines.png", "\\udcff not utf-8.png", "{{ 7 * 7 }}.png"):
        assert name in shown
    assert page.locator("img[src=x], svg[onload], u, i:not(#map-legend i)").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(page, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page.emulate_media(color_scheme=scheme)
    page.locator("#map-lasso").click()
    draw_lasso(page)
    violations = axe.Axe().run(page).response["violations"]
    bad = [(each["id"], each["nodes"][0]["html"]) for each in violations if each["impact"] in ("serious", "critical")]
    assert bad == []


def test_dark_is_dark(page):
    page.emulate_media(color_scheme="dark")
    red, green, blue = page.evaluate(
        "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)"
    )
    assert max(red, green, blue) < 60
    assert len(colours(page)) >= 2


def test_a_phone_scrolls_one_way_only(page):
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_the_print_has_no_controls(page):
    page.emulate_media(media="print")
    assert page.locator("nav, .controls").first.is_hidden()
    assert page.pdf()[:4] == b"%PDF"


def test_a_bank_alone_has_data_and_map(browser, bank):
    file = bank.path.parent / "bank.html"
    file.write_bytes(make_report(bank, target="label", maps=["pca"]).encode())
    opened = browser.new_page()
    errors = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    show(opened, file)
    assert errors == []
    assert opened.locator("#confusion .lacks code").inner_text().startswith("featurebank fit ")
    assert len(colours(opened)) >= 2
    opened.close()


def test_the_command_writes_the_page_of_the_library(run_json, bank, report, tmp_path):
    file = tmp_path / "a.html"
    made = run_json("report", bank.path, "--predictor", bank.path.with_suffix(".featurebank"), "-o", file)
    assert file.read_bytes() == report.read_bytes()
    assert (made["images"], made["pictures"], made["bytes"]) == (48, 48, file.stat().st_size)

"""The studio's grid, map, progress and predictions in a real browser; axe in light and dark; a tablet."""

import base64

import pytest
from studio_run import until
from studio_walks import KINDS, PER_KIND, answer, go, kind_of, labels_of, press_kind, save_photos, saved, watched

pytestmark = pytest.mark.slow
DROP = """([name, text]) => {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0)), data = new DataTransfer();
    data.items.add(new File([bytes], name, { type: "image/png" }));
    const options = { dataTransfer: data, bubbles: true, cancelable: true };
    for (const kind of ["dragover", "drop"]) document.body.dispatchEvent(new DragEvent(kind, options));
}"""
POINTS = """() => {
    const canvas = document.getElementById("map-canvas"), ratio = window.devicePixelRatio, found = [];
    const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    for (let k = 3, at = 0; k < data.length; k += 4, at++)
        if (data[k] > 200) found.push([at % canvas.width / ratio, Math.floor(at / canvas.width) / ratio]);
    return found;
}"""
"""Where on the canvas something is drawn."""


@pytest.fixture
def page(browser, studio):
    with watched(browser, studio[1], allowed=["willReadFrequently"]) as opened:  # said of the tests' own reading
        yield opened


def tiles(page):
    page.wait_for_selector("#grid [role=option]")
    return page.locator("#grid [role=option]")


def selected(page):
    return page.locator("#grid [aria-selected=true] .caption > span").all_inner_texts()


def learned(page, count=15):
    """Label images and wait until the model has suggestions."""
    names = answer(page, count)
    page.wait_for_selector("#stage[data-digest]")
    go(page, "grid")
    page.locator("#grid .caption b", has_text="%").first.wait_for()
    return names


def test_a_grid_is_selected_by_clicks_shift_and_a_dragged_box_and_one_key_labels_all(page, studio):
    bank, _ = studio
    learned(page)
    kind = page.locator("#classes b").first.inner_text()
    page.select_option("#grid-wanted", kind)
    page.wait_for_function(
        "kind => [...document.querySelectorAll('#grid .caption b')].every((each) => each.textContent.startsWith(kind))",
        arg=kind,
    )
    names = [each.split("\n")[-1] for each in tiles(page).all_inner_texts()]
    tiles(page).nth(0).click()
    tiles(page).nth(2).click(modifiers=["Shift"])
    assert selected(page) == names[:3]
    tiles(page).nth(1).click()
    assert selected(page) == [names[0], names[2]]
    first, third = tiles(page).nth(1).bounding_box(), tiles(page).nth(3).bounding_box()
    page.mouse.move(first["x"] + 5, first["y"] + 5)
    page.mouse.down()
    page.mouse.move(third["x"] + 20, third["y"] + 20, steps=5)
    page.mouse.up()
    assert selected(page) == names[1:4]
    page.keyboard.press("1")
    saved(page)
    found = labels_of(bank)
    assert {found[each] for each in names[1:4]} == {kind}
    assert names[0] not in found
    page.keyboard.press("u")
    page.locator("#status", has_text="Undone: 3 answers").wait_for()
    assert set(labels_of(bank)) == set(found) - set(names[1:4])


def test_an_empty_grid_says_where_the_images_are_that_are_left(page, studio):
    learned(page)
    names = page.locator("#classes b").all_inner_texts()
    while True:
        page.select_option("#grid-wanted", "")
        page.wait_for_timeout(500)
        if page.locator("#grid-count", has_text="All images here have a label.").count():
            break
        page.click("#grid-all")
        page.keyboard.press("1")
        saved(page)
    left = len(KINDS) * PER_KIND - len(labels_of(studio[0]))
    assert left > 1
    assert f" {left} images of the test part are left: Label (L)" in page.inner_text("#grid-count")
    page.select_option("#grid-wanted", names[0])
    page.locator("#grid-count", has_text=f"No image is suggested as {names[0]} any more.").wait_for()


def test_a_grid_is_selected_by_keys(page, studio):
    bank, _ = studio
    before = set(learned(page, 6))
    names = [each.split("\n")[-1] for each in tiles(page).all_inner_texts()]
    page.keyboard.press(" ")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("n")
    page.keyboard.type("by keys")
    page.keyboard.press("Enter")
    saved(page)
    assert {name for name, label in labels_of(bank).items() if label == "by keys"} == {names[0], names[2], names[3]}
    assert before <= set(labels_of(bank))


def test_what_looks_like_an_image_is_labelled_in_a_row(page, studio):
    bank, _ = studio
    answer(page, 6)
    until(lambda: page.evaluate("fetch('api/state').then((found) => found.json())")["model_revision"])
    name = page.inner_text("#stage-name")
    page.keyboard.press("s")
    page.wait_for_selector("body[data-view=grid]")
    assert page.inner_text("#grid-title") == f"Looks like {name}"
    nearest = [each.split("\n")[-1] for each in tiles(page).all_inner_texts()][:4]
    assert {kind_of(each) for each in nearest} == {kind_of(name)}
    tiles(page).nth(0).click()
    tiles(page).nth(3).click(modifiers=["Shift"])
    press_kind(page, kind_of(name))
    saved(page)
    assert {labels_of(bank)[each] for each in nearest} == {kind_of(name)}


def test_a_lasso_on_the_map_labels_a_region(page, studio):
    bank, _ = studio
    before = labels_of(bank) | {name: kind_of(name) for name in answer(page, 5)}
    go(page, "map")
    page.wait_for_selector("#map-canvas[data-drawn]")
    page.wait_for_timeout(200)
    box, points = page.locator("#map-canvas").bounding_box(), page.evaluate(POINTS)
    left, right = min(x for x, _ in points), max(x for x, _ in points)
    middle = (left + right) / 2
    page.mouse.move(box["x"] + 2, box["y"] + 2)
    page.mouse.down()
    for x, y in ((middle, 2), (middle, box["height"] - 4), (2, box["height"] - 4)):
        page.mouse.move(box["x"] + x, box["y"] + y, steps=4)
    page.mouse.up()
    count = int(page.inner_text("#map-status").split()[0])
    assert 0 < count < 48
    page.keyboard.press("n")
    page.keyboard.type("region")
    page.keyboard.press("Enter")
    saved(page)
    found = labels_of(bank)
    assert {name: found[name] for name in before} == before
    region = [name for name, label in found.items() if label == "region"]
    assert 0 < len(region) <= count
    page.keyboard.press("u")
    page.locator("#status", has_text="Undone").wait_for()
    assert labels_of(bank) == before


def test_the_map_is_coloured_by_label_prediction_and_doubt(page):
    learned(page)
    go(page, "map")
    page.wait_for_selector("#map-legend button")
    assert page.locator("#map-legend button", has_text="missing").count() == 1
    page.select_option("#map-colour", "1")
    assert page.locator("#map-legend button").count() == 3
    page.select_option("#map-colour", "2")
    assert page.locator("#map-legend .scale").count() == 1


def test_a_cell_of_the_confusion_opens_its_pictures_and_their_labels_can_be_mended(page, studio):
    bank, _ = studio
    names = answer(page, 17)
    go(page, "progress")
    page.wait_for_selector("#confusion button")
    assert page.locator("#counts tr").count() == 3
    page.get_by_role("button", name="answered bars, predicted bars: show").click()
    page.wait_for_selector("body[data-view=grid]")
    shown = [each.split("\n")[-1] for each in tiles(page).all_inner_texts()]
    assert {kind_of(each) for each in shown} == {"bars"}
    assert page.inner_text("#grid-title") == "Answered bars, predicted bars"
    assert set(shown) <= set(names)
    tiles(page).nth(0).click()
    press_kind(page, "mended")
    saved(page)
    assert labels_of(bank)[shown[0]] == "mended"


def test_the_honest_score_counts_the_random_tenth_alone(page):
    answer(page, 30)
    go(page, "progress")
    page.locator("#honest-text", has_text="drawn at random are right").wait_for(timeout=60_000)
    tested = int(page.inner_text("#honest-text").split(" of ")[1].split()[0])
    assert 1 <= tested <= 6
    assert "drawn at random" in page.inner_text("#honest-text")
    assert page.locator("#verdict").inner_text()
    assert page.inner_text("#paid").startswith("Whether choosing pays cannot be known with so few images: ")


def test_a_dropped_picture_is_predicted_with_neighbours_and_an_activation_map(page, tmp_path):
    learned(page)
    path = save_photos(tmp_path / "new", 1, seed=5) / "photo_001.png"
    page.evaluate(DROP, [path.name, base64.b64encode(path.read_bytes()).decode()])
    page.wait_for_selector("#try-found:not([hidden])", timeout=120_000)
    assert page.inner_text("#try-label").startswith("checks, ")
    assert page.inner_text("#try-model").startswith("Says the studio's own model: ridge over ")
    assert page.locator("#try-neighbours li").count() > 3
    assert page.locator("#try-map").evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    assert "Predicted: checks" in page.inner_text("#try-status")


STREAMS = """(() => {
    window.streams = [];
    const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
    navigator.mediaDevices.getUserMedia = async (wanted) => {
        const stream = await ask(wanted);
        window.streams.push(stream);
        return stream;
    };
})()"""
"""Notes which streams the page was given."""
TRACKS = (
    "() => window.streams.flatMap((stream) => stream.getTracks().map((track) => `${track.kind} ${track.readyState}`))"
)


@pytest.fixture(scope="module")
def browser_with_a_camera(launch):
    return launch("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")


def test_a_picture_of_the_camera_is_predicted_and_the_camera_is_let_go(browser_with_a_camera, studio):
    def open_camera(page):
        page.get_by_role("button", name="Use the camera").click()
        page.wait_for_function("() => document.getElementById('camera-picture').videoWidth")
        assert page.evaluate(TRACKS)[-1] == "video live"

    def ended(page, count):
        page.wait_for_function(f"count => ({TRACKS})().join() === Array(count).fill('video ended').join()", arg=count)
        assert page.locator("#camera").is_hidden()

    with watched(browser_with_a_camera, studio[1], prepare=lambda page: page.add_init_script(STREAMS)) as page:
        learned(page)
        go(page, "try")
        open_camera(page)
        page.get_by_role("button", name="Take the picture").click()
        page.locator("#try-status", has_text="Predicted").wait_for()
        taken = page.evaluate("() => document.getElementById('try-picture').naturalWidth")
        assert taken == page.evaluate("() => document.getElementById('camera-picture').videoWidth") > 0
        assert page.locator("#try-neighbours li").count() > 3
        page.get_by_role("button", name="Close the camera").click()
        ended(page, 1)
        open_camera(page)
        go(page, "label")
        ended(page, 2)


def test_a_browser_without_a_camera_says_so(browser, studio):
    with watched(browser, studio[1]) as page:
        go(page, "try")
        page.get_by_role("button", name="Use the camera").click()
        page.locator("#try-status", has_text="The browser gives no camera").wait_for()
        assert page.locator("#camera").is_hidden()


def test_what_is_no_picture_is_refused_in_words(browser, studio):
    with watched(browser, studio[1], allowed=["400 (Bad Request)"]) as page:
        learned(page)
        page.evaluate(DROP, ["not.png", base64.b64encode(b"no picture at all").decode()])
        page.wait_for_function("() => !/Embedding|^$/.test(document.getElementById('try-status').textContent)")
        assert "\n" not in page.inner_text("#try-status")
        assert not page.locator("#try-found").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(page, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page.emulate_media(color_scheme=scheme)
    learned(page)
    tiles(page).nth(1).click()
    for view in ("grid", "map", "progress", "try", "finish", "label"):
        go(page, view)
        page.wait_for_timeout(700)
        assert serious(axe, page) == []
    page.keyboard.press("?")
    assert serious(axe, page) == []


def serious(axe, page):
    violations = axe.run(page).response["violations"]
    return [(each["id"], each["nodes"][0]["html"]) for each in violations if each["impact"] in ("serious", "critical")]


def test_a_tablet_is_enough(browser, studio):
    with watched(browser, studio[1], viewport={"width": 820, "height": 1180}, has_touch=True) as page:
        learned(page, 6)
        for view in ("grid", "map", "progress", "try", "finish", "label"):
            go(page, view)
            assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        go(page, "grid")
        name = tiles(page).nth(1).inner_text().split("\n")[-1]
        tiles(page).nth(1).tap()
        assert selected(page) == [name]
        page.locator("#classes button").first.tap()
        saved(page)
        assert labels_of(studio[0])[name] == page.locator("#classes b").first.inner_text()

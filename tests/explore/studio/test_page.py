"""Labelling in a real browser: by keys, undo, new classes, reloads, two tabs, a server that is away."""

from contextlib import closing

import httpx
import pytest
from studio_run import until
from studio_walks import (
    answer,
    go,
    kind_of,
    labels_of,
    press_kind,
    save_photos,
    saved,
    shown,
    watched,
)

import featurebank
from featurebank import Predictor
from featurebank.topmodels.calibration import KEEP_LABELS

pytestmark = pytest.mark.slow


@pytest.fixture
def page(browser, studio):
    with watched(browser, studio[1]) as opened:
        yield opened


def test_from_a_folder_of_images_without_labels_to_a_predictor_by_keys_alone(browser, tmp_path):
    bank = tmp_path / "photos.bank"
    options = {"backbone": "resnet18", "weights": "random:0", "size": 64}
    handle = featurebank.studio(save_photos(tmp_path / "photos"), bank=bank, **options)
    with closing(handle), watched(browser, handle.url) as page:
        page.set_default_timeout(120_000)
        names = answer(page, 24)
        assert labels_of(bank) == {name: kind_of(name) for name in names}
        go(page, "finish")
        while page.evaluate("document.activeElement.id") != "finish-path":
            page.keyboard.press("Tab")
        page.keyboard.press("Control+a")
        page.keyboard.type(str(tmp_path / "photos.featurebank"))
        page.keyboard.press("Enter")
        page.locator("#finish-status", has_text="Written").wait_for()
        assert page.inner_text("#finish-status").count("ritten") == 1
        assert f"featurebank predict {tmp_path / 'photos.featurebank'} IMAGES" in page.inner_text("#finish-commands")
        assert page.input_value("#finish-path") == str(tmp_path / "photos-2.featurebank")
    paths = sorted(save_photos(tmp_path / "new", 2, seed=1).iterdir())
    predictor = Predictor.load(tmp_path / "photos.featurebank")
    assert list(predictor.predict(paths)) == [kind_of(each.name) for each in paths]
    assert predictor.report["calibration"]["method"] in KEEP_LABELS


def test_a_fit_that_begins_while_the_page_still_asks_is_followed_to_its_end(page, studio):
    held = []

    def hold(route):
        if route.request.method == "GET" and not held:
            held.append(route)  # before it is fetched: meanwhile the page may ask again
            held.append(route.fetch())
        else:
            route.continue_()

    answer(page, 12)
    page.route("**/api/finish", hold)
    go(page, "finish")
    while len(held) < 2:
        page.wait_for_timeout(50)
    with page.expect_response(lambda response: response.request.method == "POST" and "finish" in response.url):
        page.click("#finish-start")
    route, answered_before = held
    route.fulfill(response=answered_before)
    page.locator("#finish-status", has_text="Written").wait_for(timeout=60_000)
    page.unroute_all(behavior="ignoreErrors")


def test_undo_takes_back_answer_after_answer_and_shows_its_image(page, studio):
    bank, _ = studio
    names = answer(page, 4)
    for name in reversed(names[1:]):
        page.keyboard.press("u")
        page.wait_for_function("name => document.getElementById('stage-name').textContent === name", arg=name)
    saved(page)
    assert labels_of(bank) == {names[0]: kind_of(names[0])}
    press_kind(page, "something new")
    saved(page)
    assert labels_of(bank) == {names[0]: kind_of(names[0]), names[1]: "something new"}


def test_a_class_can_be_made_in_the_middle_and_keeps_its_key(page, studio):
    bank, _ = studio
    answer(page, 4)
    before = page.locator("#classes b").all_inner_texts()
    name = shown(page)
    press_kind(page, "a new one")
    page.wait_for_function("() => document.querySelectorAll('#classes b').length === " + str(len(before) + 1))
    saved(page)
    page.wait_for_timeout(1000)
    assert page.locator("#classes b").all_inner_texts() == [*before, "a new one"]
    assert labels_of(bank)[name] == "a new one"
    other = shown(page)
    page.keyboard.press(str(len(before) + 1))
    page.wait_for_function("name => document.getElementById('stage-name').textContent !== name", arg=other)
    saved(page)
    assert labels_of(bank)[other] == "a new one"


def test_a_start_says_what_takes_its_time(browser, studio):
    state = {"ready": True, "extracting": None, "reading": False, "classes": [], "images": 0, "labelled": 0}
    state |= {"revision": 0, "model_revision": 0, "message": None, "title": "a.bank"}

    def hold(page):
        page.route("**/api/state", lambda route: route.fulfill(json=state))
        page.route("**/api/next*", lambda route: route.fulfill(json={"items": []}))

    def told(page, text):
        page.locator("#extracting-text", has_text=text).wait_for()

    def extracting(done, total, rate=None, left=None):
        state["extracting"] = {"done": done, "total": total, "rate": rate, "left": left}

    extracting(0, 0)
    with watched(browser, studio[1], prepare=hold) as page:
        told(page, "Listing the images …")
        page.locator("#stage", has_text="The network is loading and the first images are being embedded").wait_for()
        assert page.inner_text("#labelled") == "No image is ready yet"
        extracting(0, 600)
        told(page, "Loading the network for 600 images …")
        extracting(32, 600)
        told(page, "Embedding: 32 of 600 images. What is there can be labelled already.")
        extracting(64, 600, 16.04, 33.4)
        told(page, "Embedding: 64 of 600 images, 16 a second, about 33 seconds left.")
        state |= {"extracting": None, "images": 600, "reading": True}
        told(page, "Reading the embeddings of 600 images. Until then they come at random.")
        page.unroute("**/api/next*")
        page.unroute("**/api/state")
        assert shown(page)
        page.locator("#extracting").wait_for(state="hidden")


def test_a_folder_without_images_is_told_of(browser, tmp_path):
    (tmp_path / "empty").mkdir()
    with closing(featurebank.studio(tmp_path / "empty")) as handle, watched(browser, handle.url) as page:
        page.locator("#message", has_text="no images").wait_for()
        page.locator("#stage", has_text="There is no image to label yet.").wait_for()
        assert page.inner_text("#labelled") == "No image is ready yet"


def test_every_image_says_why_it_comes(page):
    whys = set()
    for _ in range(24):
        shown(page)
        whys.add(page.inner_text("#stage-why"))
        answer(page, 1)
    assert "" not in whys
    assert any(each.startswith("drawn at random") for each in whys)
    page.keyboard.press("u")
    page.locator("#status", has_text="Undone").wait_for()
    assert page.inner_text("#stage-why") in whys
    page.reload()
    shown(page)
    page.keyboard.press("u")
    page.locator("#status", has_text="Undone").wait_for()
    assert page.inner_text("#stage-why") in {*whys, "opened again"}


def test_images_drawn_before_there_is_a_model_make_room_for_those_it_asks_for(browser, studio):
    is_early, random, revisions = True, "drawn at random, without a model", [0]

    def early(route):
        found = route.fetch().json()
        revisions.append(found.get("model_revision", 0))
        if is_early:
            found |= {"model_revision": 0} if "state" in route.request.url else {}
            found |= {"items": [{**each, "why": "any"} for each in found["items"]]} if "items" in found else {}
        route.fulfill(json=found)

    def hold(page):
        page.route("**/api/state", early)
        page.route("**/api/next*", early)

    with watched(browser, studio[1], prepare=hold) as page:
        shown(page)
        assert page.inner_text("#stage-why") == random
        while not max(revisions):  # the server's own model
            page.wait_for_timeout(100)
        is_early = False
        with page.expect_response("**/api/next*"):
            pass
        for _ in range(3):  # of the eight that waited
            answer(page, 1)
            if page.inner_text("#stage-why") != random:
                break
        assert page.inner_text("#stage-why") != random
        page.unroute_all(behavior="ignoreErrors")


def test_the_first_keys_are_keys_and_not_letters_of_a_name(page, studio):
    bank, _ = studio
    name = shown(page)
    page.wait_for_timeout(1000)  # another answer of the state
    page.keyboard.press("?")
    page.locator("#help").wait_for()
    page.keyboard.press("Escape")
    page.locator("#help").wait_for(state="hidden")
    page.wait_for_function(
        "document.activeElement === document.body"
    )  # the browser takes it from the help a little later
    page.keyboard.press("n")
    page.keyboard.type("flower")
    page.keyboard.press("Enter")
    saved(page)
    assert labels_of(bank) == {name: "flower"}


def test_a_skipped_image_has_no_label_and_does_not_come_back_at_once(page, studio):
    bank, _ = studio
    name = shown(page)
    page.keyboard.press(" ")
    page.wait_for_function("name => document.getElementById('stage-name').textContent !== name", arg=name)
    assert name not in answer(page, 5)
    assert name not in labels_of(bank)


def test_single_keys_can_be_switched_off(page):
    answer(page, 2)
    page.keyboard.press("?")
    page.locator("#single-keys").uncheck()
    page.keyboard.press("Escape")
    name = shown(page)
    page.keyboard.press("1")
    page.keyboard.press("g")
    page.wait_for_timeout(300)
    assert (shown(page), page.get_attribute("body", "data-view")) == (name, "label")
    page.reload()
    shown(page)
    assert not page.locator("#single-keys").is_checked()


def test_nothing_is_lost_by_a_reload_in_the_middle(page, studio):
    bank, _ = studio
    names = [shown(page)]
    press_kind(page, kind_of(names[0]))
    names.append(shown(page))
    press_kind(page, kind_of(names[1]))
    page.reload()
    page.wait_for_function("() => document.getElementById('labelled').textContent.startsWith('2 of')")
    assert labels_of(bank) == {name: kind_of(name) for name in names}
    assert shown(page) not in names
    page.keyboard.press("u")
    page.wait_for_function("name => document.getElementById('stage-name').textContent === name", arg=names[1])
    assert labels_of(bank) == {names[0]: kind_of(names[0])}


def test_two_tabs_never_overwrite_each_other_silently(browser, page, studio):
    bank, url = studio
    until(lambda: httpx.get(f"{url}api/state", trust_env=False).json()["model_revision"])
    page.reload()
    name = shown(page)
    with watched(browser, url) as other:
        assert shown(other) == name
        press_kind(page, "mine")
        saved(page)
        press_kind(other, "yours")
        alert = other.locator("#alert-conflict")
        alert.wait_for()
        assert name in alert.inner_text()
        assert "“mine”" in alert.inner_text()
        assert labels_of(bank) == {name: "mine"}
        alert.get_by_role("button", name="Make it “yours”").click()
        saved(other)
        assert labels_of(bank) == {name: "yours"}
        assert alert.count() == 0


def test_answers_wait_for_a_server_that_is_away(browser, studio):
    bank, url = studio
    with watched(browser, url, allowed=["ERR_FAILED"]) as page:
        name = shown(page)
        page.route("**/api/labels", lambda route: route.abort())
        press_kind(page, "kept")
        page.wait_for_selector("#alert-unsaved")
        assert page.inner_text("#saving") == "saving 1 …"
        assert labels_of(bank) == {}
        page.unroute("**/api/labels")
        saved(page)
        page.wait_for_selector("#alert-unsaved", state="detached")
        assert labels_of(bank) == {name: "kept"}


def test_the_page_is_painted_before_the_bank_is_read(browser, studio):
    held = []

    def hold(page):
        page.route("**/api/*", lambda route: held.append(route))

    with watched(browser, studio[1], prepare=hold) as page:
        page.wait_for_function("() => performance.getEntriesByName('first-contentful-paint').length")
        assert page.inner_text("h1") == "featurebank studio"
        assert page.inner_text("#labelled") == page.inner_text("#stage") == "Opening the bank …"
        page.unroute("**/api/*")  # lets what is held go on
        assert shown(page)


def test_hostile_names_are_text(page, studio):
    bank, _ = studio
    name, hostile = shown(page), "<img src=x onerror=alert(1)>"
    press_kind(page, hostile)
    saved(page)
    assert labels_of(bank) == {name: hostile}
    assert hostile in page.locator("#classes b").all_inner_texts()
    for view in ("grid", "map", "progress", "label"):
        go(page, view)
        page.wait_for_timeout(200)
        assert page.locator("img[src=x]").count() == 0


def test_a_class_that_is_typed_with_other_accents_is_the_same_class(page, studio):
    bank, _ = studio
    names = []
    for typed in ("caf\u00e9  noir", "cafe\u0301 noir ", "caf\u00e9\u00a0noir"):
        names.append(shown(page))
        press_kind(page, typed)
        saved(page)
    assert labels_of(bank) == dict.fromkeys(names, "caf\u00e9 noir")
    assert page.locator("#classes b").all_inner_texts() == ["caf\u00e9 noir"]


def test_an_image_answered_before_can_be_opened_and_corrected(page, studio):
    bank, _ = studio
    names = answer(page, 3)
    page.locator("#recent button").last.click()
    assert shown(page) == names[0]
    press_kind(page, "corrected")
    saved(page)
    assert labels_of(bank)[names[0]] == "corrected"
    assert set(labels_of(bank)) == set(names)
    assert {labels_of(bank)[each] for each in names[1:]} == {kind_of(each) for each in names[1:]}

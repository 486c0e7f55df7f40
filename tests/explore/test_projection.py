import base64
import json
import re

import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from featurebank import Bank, extract
from featurebank.errors import BankError, ColumnError, FeatureSetError, NotInstalledError
from featurebank.explore import embedding, map_page, project, projection
from featurebank.explore.projection import principal_components

SET = "resnet18/layer3"


def apart(points):
    """Return how far the middles of cats and dogs are apart, in deviations of the cats."""
    is_cat = points["path"].str.contains("cat")
    cats, dogs = points.loc[is_cat, ["x", "y"]], points.loc[~is_cat, ["x", "y"]]
    return np.linalg.norm(cats.mean() - dogs.mean()) / cats.std().mean()


def test_principal_components_are_those_of_scikit_learn(two_class_bank, monkeypatch):
    monkeypatch.setattr(embedding, "ROWS_AT_ONCE", 7)
    bank = Bank(two_class_bank)
    expected = PCA(10).fit_transform(StandardScaler().fit_transform(bank.load(SET).astype(np.float64)))
    found = principal_components(bank, [SET])[:, :10]
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("method", ["pca", "tsne", pytest.param("umap", marks=pytest.mark.slow)])
def test_classes_that_differ_lie_apart_and_every_run_is_the_same(two_class_bank, method):
    found = project(two_class_bank, SET, method, columns=["label"])
    assert found.columns.tolist() == ["source", "path", "x", "y", "label"]
    assert found["path"].tolist() == Bank(two_class_bank).load(SET, return_paths=True)[1]
    assert found[["x", "y"]].dtypes.tolist() == [np.float64, np.float64]
    assert apart(found) > 2
    pd.testing.assert_frame_equal(project(two_class_bank, SET, method, columns=["label"]), found)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, noise):
    """Banks of 1, 3 and 4 images; those of the last are all the same but for one."""
    made = {}
    for count in (1, 3, 4):
        folder = tmp_path_factory.mktemp("tiny")
        for number in range(count):
            noise(40, 40, min(number, 1) if count == 4 else number).save(folder / f"{number}.png")
        made[count] = extract(
            folder, folder / "a.bank", backbone="resnet18", weights="random:0", layers=["layer1"], size=32
        )
    return made


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_few_and_equal_samples_have_a_map_too(tiny, method):
    for count in (3, 4):
        found = project(tiny[count], method=method)
        assert len(found) == count
        assert np.isfinite(found[["x", "y"]].to_numpy()).all()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"method": "tnse"}, BankError, "no method 'tnse'; did you mean tsne"),
        ({"features": "layer9"}, FeatureSetError, "no feature set 'layer9'"),
        ({"columns": ["species"]}, ColumnError, "no column 'species'"),
        ({"columns": ["path"]}, ColumnError, "column 'path' is called as one of the map is"),
    ],
)
def test_what_cannot_be_mapped_is_an_error(two_class_bank, arguments, error, message):
    with pytest.raises(error, match=message):
        project(two_class_bank, **arguments)


def test_too_few_samples_are_an_error(tiny):
    with pytest.raises(BankError, match="a map of 1 sample; expected at least 3"):
        project(tiny[1])


def test_without_umap_the_error_names_the_extra(two_class_bank, monkeypatch):
    monkeypatch.setattr(projection, "find_spec", lambda name: None)
    with pytest.raises(NotInstalledError, match=r"pip install 'featurebank\[explore\]'"):
        project(two_class_bank, method="umap")


# --- the page ----------------------------------------------------------------------------------------------

HOSTILE = "</script><script>alert(1)</script>\"'&<img src=x onerror=alert(1)>"


def points_of(page):
    return json.loads(re.search(r'<script type="application/json" id="points">(.*?)</script>', page, re.DOTALL)[1])


def decoded(text, dtype):
    return np.frombuffer(base64.b64decode(text), dtype)


def test_the_page_holds_all_points_and_asks_for_nothing():
    points = pd.DataFrame({"path": list("abc"), "x": [0.0, 1.0, 2.0], "y": [1.0, 0.0, -1.0], "label": ["u", "v", None]})
    page = map_page(points, color="label", title="photos")
    found = points_of(page)
    coordinates = decoded(found["maps"][0]["coordinates"], "<u2").reshape(3, 2)
    np.testing.assert_allclose(coordinates / 65535, [[0, 1], [0.5, 0.5], [1, 0]], atol=1e-4)
    (column,) = found["columns"]
    assert (found["paths"], column["name"], column["names"]) == (["a", "b", "c"], "label", ["u", "v"])
    assert decoded(column["codes"], "<u4").tolist() == [1, 2, 0]
    assert not re.search(r"https?://|src=|href=|@import", page)
    assert "default-src 'none'" in page


def test_numbers_get_a_scale():
    points = pd.DataFrame({"path": list("abcd"), "x": 0.0, "y": 0.0, "p": pd.array([0.25, 0.5, None, 0.75], "Float64")})
    (column,) = points_of(map_page(points, color="p"))["columns"]
    np.testing.assert_array_equal(decoded(column["values"], "<f8"), [0.25, 0.5, np.nan, 0.75])
    assert column["kind"] == "number"


def test_the_chosen_column_comes_first_and_others_can_be_chosen():
    points = pd.DataFrame({"source": ["s"], "path": ["a"], "x": 0.0, "y": 0.0, "site": ["b"], "label": ["u"]})
    assert [each["name"] for each in points_of(map_page(points, color="label"))["columns"]] == ["label", "site"]
    assert [each["name"] for each in points_of(map_page(points.drop(columns=["site", "label"])))["columns"]] == [
        "source"
    ]


def test_hostile_names_are_inert():
    points = pd.DataFrame({"path": pd.Series([HOSTILE, "caf\udce9"], dtype=object), "x": 0.0, "y": 0.0})
    page = map_page(points.assign(label=[HOSTILE, "b"]), color="label", title=HOSTILE)
    assert points_of(page)["paths"] == [HOSTILE, "caf\udce9"]
    assert "<img" not in page
    assert page.count("<script") == page.count("</script>") == 2
    page.encode()


def test_a_column_that_was_not_projected_is_an_error():
    with pytest.raises(ColumnError, match=r"no column 'site'; project with columns=\['site'\]"):
        map_page(pd.DataFrame({"path": [], "x": [], "y": []}), color="site")


def test_the_page_works_in_a_browser(browser, tmp_path):
    points = pd.DataFrame({"path": ["a/1.png", HOSTILE], "x": [0.0, 1.0], "y": [0.0, 1.0], "label": ["u", HOSTILE]})
    (tmp_path / "map.html").write_text(map_page(points, color="label", title=HOSTILE))
    told, asked = [], []
    page = browser.new_page(viewport={"width": 1100, "height": 900})
    for event in ("console", "pageerror", "dialog"):
        page.on(event, lambda each: told.append(str(each)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto((tmp_path / "map.html").as_uri())
    page.wait_for_selector("html[data-ready]")
    page.wait_for_timeout(100)
    box = page.locator("canvas").bounding_box()
    half = (min(box["width"], box["height"]) - 24) / 2  # both axes have equal units
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    low, high = (middle[0] - half, middle[1] + half), (middle[0] + half, middle[1] - half)
    assert drawn(page) == {"left low", "right high"}
    page.mouse.move(*low)
    assert page.locator("#map-tip b").inner_text() == "a/1.png"
    assert page.locator("#map-tip p").inner_text() == "label: u"
    assert not page.locator("#map-tip .picture").is_visible()
    page.mouse.move(*high)
    assert page.locator("#map-tip b").inner_text() == HOSTILE
    assert page.locator("#map-tip p").inner_text() == f"label: {HOSTILE}"
    page.mouse.move(*low)
    page.mouse.wheel(0, -300)
    page.wait_for_timeout(100)
    assert drawn(page) == {"left low"}  # the other point was zoomed out of sight
    page.fill("#map-search", "a/1")
    page.wait_for_timeout(300)
    assert page.locator("#map-status").inner_text() == "1 of 2 images found"
    page.close()
    assert told == []
    assert asked == [(tmp_path / "map.html").as_uri()]


def drawn(page):
    """Return the quarters of the map in which something is drawn."""
    return set(
        page.evaluate("""() => {
            const canvas = document.querySelector("canvas"), {width, height} = canvas, quarters = [];
            const pen = new OffscreenCanvas(width, height).getContext("2d", {willReadFrequently: true});
            pen.drawImage(canvas, 0, 0);
            const {data} = pen.getImageData(0, 0, width, height);
            for (let k = 3; k < data.length; k += 4) if (data[k]) {
                const x = (k >> 2) % width, y = Math.floor((k >> 2) / width);
                quarters.push(`${x < width / 2 ? "left" : "right"} ${y < height / 2 ? "high" : "low"}`);
            }
            return [...new Set(quarters)];
        }""")
    )

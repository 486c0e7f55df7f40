import numpy as np
import pytest
import torch
from PIL import Image
from planted import photograph
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.model_selection import FixedThresholdClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from sklearn.svm import SVC

from featurebank import Backbone, Predictor, Preprocessing, extract, fit, load_backbone
from featurebank.errors import ImageError, PredictorError
from featurebank.explore import explain
from featurebank.explore.activation_maps import decisions, linear_of
from featurebank.predictor.features import PredictorFeature
from featurebank.predictor.task import Task
from featurebank.topmodels.transforms import SelectDimensions, SelectRelevant


def brightness_backbone(mode="center", resize=64, crop=(64, 64)):
    """A network whose map is the brightness of 8x8 squares, and nothing else."""
    conv = torch.nn.Conv2d(3, 1, 8, stride=8)
    torch.nn.init.constant_(conv.weight, 1 / 192)
    torch.nn.init.zeros_(conv.bias)
    net = torch.nn.Sequential(conv, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(1, 2))
    preprocessing = Preprocessing(resize, crop, "bilinear", (0.0,) * 3, (1.0,) * 3, mode)
    return Backbone("brightness", net, preprocessing, "1")


def brightness_predictor(backbone, layer="0", views="none", last=None):
    """Tells bright images from dark ones."""
    spec = backbone.spec(layer, views=views, store="float32")
    X = np.linspace(0, 1, 20, dtype=np.float32)[:, None]
    model = make_pipeline(StandardScaler(), last or LogisticRegression()).fit(
        X, np.where(X[:, 0] > 0.5, "bright", "dark")
    )
    return Predictor(Task([PredictorFeature(spec, "", None)], model, "label"), backbone=backbone)


def spot(width, height, left, top, side=16):
    """A dark image with one bright square."""
    image = Image.new("RGB", (width, height), (10, 10, 10))
    image.paste((250, 250, 250), (left, top, left + side, top + side))
    return image


def assert_exact(found):
    assert found.method == "cam"
    assert found.map.dtype == np.float32
    assert found.map.shape == (found.image.height, found.image.width)
    total = sum(cells.mean() for cells in found.cells) + found.bias
    assert total == pytest.approx(found.score, abs=1e-4)


# --- where -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("views", ["none", "hflip", "flips", "dihedral"])
@pytest.mark.parametrize(
    ("mode", "resize", "crop", "size"),
    [
        ("center", 64, (64, 64), (100, 80)),
        ("center", 64, (48, 48), (80, 120)),
        ("squash", 64, (64, 64), (120, 80)),
        ("center", 32, (64, 64), (80, 80)),  # black around the image
    ],
)
def test_the_peak_lies_where_the_image_is_bright(views, mode, resize, crop, size):
    predictor = brightness_predictor(brightness_backbone(mode, resize, crop), views=views)
    for left, top in ((size[0] // 2 - 20, size[1] // 2 + 2), (size[0] // 2 + 2, size[1] // 2 - 20)):
        found = explain(predictor, spot(*size, left, top, 18), "bright")
        assert_exact(found)
        row, column = found.peak
        assert left <= column < left + 18, (left, column)
        assert top <= row < top + 18, (top, row)


def test_the_map_of_the_other_class_is_the_negative_and_nothing_is_said_outside_of_what_is_seen():
    predictor = brightness_predictor(brightness_backbone(crop=(32, 32)))
    image = spot(64, 64, 30, 30)
    bright, dark = explain(predictor, image, "bright"), explain(predictor, image, "dark")
    np.testing.assert_array_equal(bright.map, -dark.map)
    assert bright.score == -dark.score
    assert not bright.map[:15].any()
    assert not bright.map[:, 49:].any()
    assert bright.map[17:47, 17:47].all()


@pytest.mark.parametrize("method", ["auto", "occlusion"])
def test_what_is_covered_and_matters_is_seen_in_a_model_of_any_kind(method):
    predictor = brightness_predictor(brightness_backbone(), last=SVC(kernel="rbf"))
    seen, image = [], Image.new("RGB", (96, 72), (110, 110, 110))
    image.paste((250, 250, 250), (50, 20, 70, 40))
    found = explain(predictor, image, "bright", method=method, progress=lambda *done: seen.append(done))
    assert found.method == "occlusion"
    row, column = found.peak
    assert 20 <= row < 40
    assert 50 <= column < 70
    assert seen[-1] == (121, 121)
    assert found.map.shape == (72, 96)


def test_the_penultimate_layer_is_traced_to_the_map_that_it_averages():
    predictor = brightness_predictor(brightness_backbone(), "penultimate")
    found = explain(predictor, spot(64, 64, 10, 40), "bright")
    assert_exact(found)
    assert found.cells[0].shape == (1, 8, 8)
    assert 40 <= found.peak[0] < 56


def test_a_plot_shows_the_image_with_the_map_over_it():
    found = explain(brightness_predictor(brightness_backbone()), spot(64, 48, 10, 20))
    ax = found.plot()
    assert [drawn.get_array().shape[:2] for drawn in ax.images] == [(48, 64), (48, 64)]
    assert ax.get_title().startswith("dark: ")


def test_a_map_shows_itself():
    found = explain(brightness_predictor(brightness_backbone()), spot(64, 48, 10, 20), "bright")
    row, column = found.peak
    assert repr(found) == f"<ActivationMap: 'bright', {found.score:.3g} by cam, peak at row {row}, column {column}>"
    assert found.to_dict() == {
        "label": "bright", "score": found.score, "method": "cam", "row": row, "column": column
    }  # fmt: skip
    assert found._repr_html_().startswith('<img src="data:image/webp;base64,')
    assert found.overlay(32).size == (32, 24)


# --- exactness ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    for number in range(36):
        path = folder / "abc"[number % 3] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        photograph(number, 80, 64).save(path)
    return folder


@pytest.mark.parametrize(
    ("layers", "views", "store", "model"),
    [
        (["layer3"], "none", "float32", "logreg"),
        (["layer3"], "none", "float16", "ridge"),
        (["penultimate"], "flips", "float16", "logreg"),
        (["layer2", "layer4"], "hflip", "float16", "lda"),
    ],
)
def test_the_maps_of_a_fitted_predictor_add_up_to_its_score(photographs, tmp_path, layers, views, store, model):
    net = {"backbone": "resnet18", "weights": "random:0", "size": 64}
    bank = extract(photographs, tmp_path / "a.bank", layers=layers, views=views, store=store, **net)
    predictor = fit(bank, features="+".join(f"resnet18/{layer}" for layer in layers), models=[model]).predictor
    image = photographs / "a" / "0.png"
    for label in ("a", "b", "c"):
        found = explain(predictor, image, label)
        assert_exact(found)
        assert len(found.cells) == len(layers)
        expected = decisions(predictor.model, predictor.embed([image]))[0, "abc".index(label)]
        assert found.score == pytest.approx(expected)
    assert explain(predictor, image).label == predictor.predict([image])[0]


@pytest.mark.parametrize(("seen", "views"), [("first", 1), ("all", 4), ("mean", 4)])
def test_a_model_may_see_the_first_view_or_all_side_by_side(photographs, seen, views):
    backbone = load_backbone("resnet18", "random:0", 64)
    feature = PredictorFeature(backbone.spec("layer2", views="flips"), "random:0", 64, seen)
    X = np.random.default_rng(0).normal(size=(30, 128 * (4 if seen == "all" else 1)))
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, np.arange(30) % 3)
    found = explain(Predictor(Task([feature], model, "label")), photographs / "a" / "0.png", 2)
    assert_exact(found)
    assert found.cells[0].shape == (views, 8, 8)


@pytest.mark.parametrize(
    ("name", "layer", "size", "cells"),
    [
        ("swin_t", "features.1", 64, (1, 16, 16)),
        ("timm:vit_tiny_patch16_224", "blocks.0:avg", 224, (1, 14, 14)),
    ],
)
def test_channels_last_and_tokens_are_maps_too(photographs, name, layer, size, cells):
    backbone = load_backbone(name, "random:0", size)
    spec = backbone.spec(layer, store="float32")
    X = np.random.default_rng(0).normal(size=(30, backbone.layers[spec.layer].shape[-1]))
    model = make_pipeline(StandardScaler(), RidgeClassifier()).fit(X, np.arange(30) % 3)
    predictor = Predictor(Task([PredictorFeature(spec, "random:0", size)], model, "label"))
    found = explain(predictor, photographs / "a" / "0.png", 1)
    assert_exact(found)
    assert found.cells[0].shape == cells


def test_a_predicted_number_has_a_map(photographs):
    backbone = brightness_backbone()
    predictor = brightness_predictor(backbone, last=None)
    X = np.linspace(0, 1, 20)[:, None]
    model = make_pipeline(StandardScaler(), LinearRegression()).fit(X, 3 * X[:, 0] + 1)
    numbers = Predictor(Task(predictor.features, model, "light", kind="regression"), backbone=backbone)
    found = explain(numbers, spot(64, 64, 10, 40))
    assert_exact(found)
    assert found.label is None
    assert found.score == pytest.approx(3 * numbers.embed([found.image])[0, 0] + 1, abs=1e-5)
    with pytest.raises(PredictorError, match="this predictor gives numbers of 'light'"):
        explain(numbers, found.image, "bright")


# --- errors ------------------------------------------------------------------------------------------------


def test_what_cannot_be_explained_is_an_error(tmp_path):
    linear, curved = (brightness_predictor(brightness_backbone(), last=last) for last in (None, SVC()))
    image = spot(64, 64, 10, 40)
    for arguments, message in (
        ((linear, image, "brigth"), "no class 'brigth'; did you mean bright"),
        ((curved, image, None), "no exact class activation map of this predictor: its model is not linear"),
    ):
        with pytest.raises(PredictorError, match=message):
            explain(*arguments, method="cam")
    with pytest.raises(PredictorError, match="no method 'cma'; did you mean cam"):
        explain(linear, image, method="cma")
    highest = brightness_predictor(brightness_backbone(), "0:max")
    with pytest.raises(PredictorError, match="its features are not all means of a map"):
        explain(highest, image, method="cam")
    random = brightness_predictor(brightness_backbone(), views="augment:2")
    assert explain(random, image).method == "occlusion"
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"a\.png': not a readable image"):
        explain(linear, tmp_path / "a.png")


# --- linear models -----------------------------------------------------------------------------------------

X = np.random.default_rng(0).normal(2, 3, (60, 5))
Y = np.digitize(X[:, 0] + X[:, 1], [2, 6])


@pytest.mark.parametrize(
    ("model", "y"),
    [
        (make_pipeline(StandardScaler(), LogisticRegression()), Y),
        (make_pipeline(StandardScaler(with_mean=False), RidgeClassifier()), Y > 0),
        (make_pipeline(StandardScaler(with_std=False), SVC(kernel="linear")), Y > 0),
        (make_pipeline(SelectDimensions([3, 0]), StandardScaler(), LogisticRegression()), Y),
        (make_pipeline(SelectRelevant(0.4), StandardScaler(), LogisticRegression()), Y),
        (make_pipeline(StandardScaler(), FixedThresholdClassifier(LogisticRegression(), threshold=0.3)), Y > 0),
        (make_pipeline(StandardScaler(), LinearRegression()), X[:, 2]),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_linear_pipeline_becomes_one_function(model, y):
    found = linear_of(model.fit(X, y), X)
    np.testing.assert_allclose(found(X), decisions(model, X), atol=1e-9)


@pytest.mark.parametrize(
    "model",
    [
        make_pipeline(StandardScaler(), SVC()),
        make_pipeline(StandardScaler(), SVC(kernel="linear")),  # of three classes: votes of pairs
        make_pipeline(Normalizer(), LogisticRegression()),
        make_pipeline(StandardScaler(), KNeighborsClassifier()),
    ],
    ids=str,
)
def test_what_is_not_linear_is_told(model):
    assert linear_of(model.fit(X, Y), X) is None


# --- planted patches ---------------------------------------------------------------------------------------

PATCH = 64


def marked(seed, is_marked):
    """A photograph, on every other one a red chequered patch in the part that the network sees; and its corner."""
    image, random = photograph(10_000 + seed, 224, 224), np.random.default_rng(seed)
    left, top = (int(value) for value in random.integers(14, 210 - PATCH, 2))
    if is_marked:
        squares = np.indices((PATCH, PATCH)).sum(axis=0) // 8 % 2
        pixels = np.where(squares[..., None] == 1, (255, 40, 40), (255, 255, 255)).astype(np.uint8)
        image.paste(Image.fromarray(pixels), (left, top))
    return image, (left, top)


@pytest.mark.slow
@pytest.mark.parametrize("layer", ["blocks.3", "blocks.4", "blocks.6"])
def test_the_peak_lies_on_the_patch_that_decides(tmp_path, layer):
    for number in range(160):
        path = tmp_path / "photos" / ("plain", "marked")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        marked(number, number % 2)[0].save(path)
    bank = extract(tmp_path / "photos", tmp_path / "a.bank", layers=[layer])
    predictor = fit(bank, models={"logreg": {"C": [0.01]}}).predictor
    hits = 0
    for seed in range(1000, 1060):
        image, (left, top) = marked(seed, True)
        row, column = explain(predictor, image, "marked").peak
        hits += left <= column < left + PATCH and top <= row < top + PATCH
    print(f"{layer}: {hits} of 60 peaks on the patch")
    assert hits >= 57

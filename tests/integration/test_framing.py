"""Another framing than the crop, from images to predictors of every kind."""

import numpy as np
import pytest
from PIL import Image

from featurebank import FineTuner, Predictor, Recipe, export_predictor, extract, finetune, fit
from featurebank.errors import FineTuneError, PredictorError

NET = {"backbone": "resnet18", "weights": "random:0", "size": 32}
TRAINED = {"epochs": 1, "validation": 0.25, "batch_size": 8}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Dark images, some of which have a bright rim that the crop of the middle leaves out."""
    folder = tmp_path_factory.mktemp("rims") / "photos"
    random = np.random.default_rng(0)
    for label in ("plain", "rim"):
        (folder / label).mkdir(parents=True)
        for number in range(12):
            pixels = random.integers(0, 60, (120, 120, 3), dtype=np.uint8)
            if label == "rim":
                pixels[:4], pixels[-4:], pixels[:, :4], pixels[:, -4:] = 255, 255, 255, 255
            Image.fromarray(pixels).save(folder / label / f"{number:02}.png")
    return folder


@pytest.fixture(scope="module")
def banks(photos):
    made = {}
    for framing in ("crop", "pad", "tiles"):
        path = photos.parent / f"{framing}.bank"
        made[framing] = extract(photos, path, layers=["layer3", "penultimate"], framing=framing, **NET)
    return made


def test_a_predictor_sees_new_images_as_its_features_did(photos, banks, tmp_path):
    images = sorted(photos.glob("*/*.png"))
    y = np.array([path.parent.name for path in images])
    for framing in ("pad", "tiles"):
        bank = banks[framing]
        result = fit(bank, models={"logreg": {"C": 1.0}}, features="resnet18/penultimate", folds=3)
        assert result.report["best"]["mean"] == 1
        result.save(tmp_path / "a.featurebank")
        predictor = Predictor.load(tmp_path / "a.featurebank")
        assert (predictor.predict(images) == y).all()
        rows = bank.load("resnet18/penultimate")
        np.testing.assert_allclose(predictor.embed(images), rows, rtol=0, atol=2e-3 * np.abs(rows).max())
    assert (
        fit(banks["crop"], models={"logreg": {"C": 1.0}}, features="resnet18/penultimate", folds=3).report["best"][
            "mean"
        ]
        < 0.8
    )


def test_rows_that_are_missing_name_the_framing(banks, photos):
    from featurebank.bank.repair_hints import extract_command

    spec = banks["pad"].feature_sets[0].spec
    assert "--fit pad" in extract_command(banks["pad"], spec, str(photos))


@pytest.mark.parametrize("cut", ["layer4", "input"])
def test_fine_tuning_trains_on_what_the_features_saw(banks, photos, cut, tmp_path):
    augment = {"augment": "live"} if cut == "input" else {"augment": "cached:2"}
    result = finetune(banks["pad"], Recipe(cut, **augment, **TRAINED))
    result.save(tmp_path / "tuned.featurebank")
    tuned = extract(photos, tmp_path / "tuned.bank", backbone=str(tmp_path / "tuned.featurebank"))
    assert tuned.feature_sets[0].spec.preprocessing["framing"] == "pad"
    whole = extract(photos, tuned.path, backbone=str(tmp_path / "tuned.featurebank"), framing="crop")
    assert sorted(each.to_dict()["fit"] for each in whole.feature_sets) == ["crop", "pad"]
    assert Predictor.load(tmp_path / "tuned.featurebank").features[0].spec.preprocessing["framing"] == "pad"


def test_tiles_are_not_fine_tuned_and_not_exported_to_onnx(banks, photos, tmp_path):
    with pytest.raises(FineTuneError, match="features of tiles are averages"):
        finetune(banks["tiles"], Recipe("layer4", **TRAINED))
    images = [str(path) for path in sorted(photos.glob("*/*.png"))]
    tuner = FineTuner("layer4", framing="tiles", **NET, **TRAINED)
    with pytest.raises(FineTuneError, match="expected features that were extracted with --fit crop, squash or pad"):
        tuner.fit(images, [path.split("/")[-2] for path in images])
    fit(banks["tiles"], models={"logreg": {"C": 1.0}}, features="resnet18/penultimate", folds=3).save(
        tmp_path / "a.featurebank"
    )
    pytest.importorskip("onnx")
    with pytest.raises(PredictorError, match="averaged over tiles"):
        export_predictor(Predictor.load(tmp_path / "a.featurebank"), tmp_path / "a.onnx")


def test_an_explanation_of_tiles_is_made_by_occlusion(banks, photos, tmp_path):
    from featurebank import explain

    image = next(photos.glob("rim/*.png"))
    for framing, method in (("pad", "cam"), ("tiles", "occlusion")):
        fit(banks[framing], models={"logreg": {"C": 1.0}}, features="resnet18/layer3", folds=3).save(
            tmp_path / "a.featurebank"
        )
        assert explain(Predictor.load(tmp_path / "a.featurebank"), image).method == method

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score
from sklearn.utils.estimator_checks import (
    check_estimator_cloneable,
    check_estimator_repr,
    check_get_params_invariance,
    check_no_attributes_set_in_init,
    check_parameters_default_constructible,
    check_set_params,
    check_valid_tag_types,
)

from featurebank import Backbone, Bank, FeatureBankError, FineTuner, Predictor, Preprocessing
from featurebank.backbones.devices import MANY
from featurebank.errors import FineTuneError

QUICK = {"backbone": "resnet18", "weights": "random:0", "size": 32, "augment": "cached:2", "epochs": 2, "batch_size": 8}


@pytest.fixture(scope="module")
def photos(two_classes):
    paths = sorted(two_classes.glob("*/*.png"))
    return [str(path) for path in paths], np.array([path.parent.name for path in paths])


def test_it_learns_paths_and_predicts_new_ones(photos, two_classes, tmp_path):
    paths, y = photos
    tuner = FineTuner("layer4", bank=tmp_path / "a.bank", **QUICK).fit(paths, y)
    new = sorted((two_classes.parent / "new").glob("*/*.png"))
    assert tuner.predict(new).tolist() == [path.parent.name for path in new]
    proba = tuner.predict_proba(new)
    assert proba.shape == (10, 2)
    np.testing.assert_allclose(proba.sum(1), 1, rtol=1e-6)
    assert tuner.classes_.tolist() == ["cat", "dog"]
    assert tuner.score(paths, y) > 0.9
    tuner.predictor_.save(tmp_path / "a.featurebank")
    assert np.array_equal(Predictor.load(tmp_path / "a.featurebank").predict(new), tuner.predict(new))


@pytest.mark.slow
def test_many_images_are_cached_through_an_exported_network(photos, tmp_path, monkeypatch):
    paths, y = photos
    plain = FineTuner("layer4", bank=tmp_path / "a.bank", **QUICK).fit(paths, y)
    monkeypatch.setenv("FEATUREBANK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(MANY, "onnx", 1)
    exported = FineTuner("layer4", bank=tmp_path / "b.bank", **QUICK).fit(paths, y)
    assert list((tmp_path / "cache" / "onnx").glob("*.onnx"))
    assert np.array_equal(exported.predict(paths), plain.predict(paths))


def test_cross_validation_and_clones_share_the_activations_of_one_bank(photos, tmp_path):
    paths, y = photos
    tuner = FineTuner("head", bank=tmp_path / "a.bank", **QUICK)
    scores = cross_val_score(tuner, paths, y, cv=3)
    assert scores.mean() > 0.8
    assert [each.rows for each in Bank(tmp_path / "a.bank").feature_sets] == [40]
    assert len(Bank(tmp_path / "a.bank").samples) == 0
    assert clone(tuner).get_params() == tuner.get_params()


def test_images_in_memory_groups_and_weights_are_taken(noise):
    images = [noise(40, 40, seed) for seed in range(12)]
    groups, weight = np.arange(12) // 2, np.arange(12) + 1.0
    tuner = FineTuner("head", validation=0.3, **QUICK)
    y = [(number // 2) % 2 for number in range(12)]
    tuner.fit(images, y, groups=groups, sample_weight=weight)
    assert tuner.predict(images).dtype.kind == "i"
    assert tuner.predict(np.stack([np.asarray(image) for image in images])).shape == (12,)


def test_a_module_of_ones_own_is_tuned_and_predicts_in_memory(noise):
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(4, 5),
    )
    half = (0.5, 0.5, 0.5)
    own = Backbone.from_module(
        net, name="own", version="1", transform=Preprocessing(16, (16, 16), "bilinear", half, half)
    )
    options = {"augment": "live", "epochs": 1, "batch_size": 4, "validation": 0.0}
    tuner = FineTuner("input", backbone=own, **options).fit([noise(20, 20, seed) for seed in range(8)], [0, 1] * 4)
    assert tuner.predict_proba([noise(20, 20)]).shape == (1, 2)
    assert tuner.tuned_.backbone.weights != own.weights
    assert net[4].weight.shape == (5, 4)


@pytest.mark.parametrize(
    ("y", "options", "message"),
    [
        ([0, 1, 0], {}, "y of shape (3,) for 4 images; expected one class an image"),
        ([0, 0, 0, 0], {}, "4 rows of one class; expected two classes or more"),
        ([0, 1, 0, 1], {"cut": "layer7"}, "no module 'layer7' to cut before"),
        ([0, 1, 0, 1], {"optimizer": "adams"}, "no optimizer 'adams'; did you mean adam"),
    ],
)
def test_what_does_not_fit_is_an_error(noise, y, options, message):
    tuner = FineTuner(**{"cut": "head", **QUICK, **options})
    with pytest.raises(FeatureBankError) as caught:
        tuner.fit([noise(20, 20, seed) for seed in range(4)], y)
    assert message in str(caught.value)


def test_it_must_be_fitted_first(noise):
    with pytest.raises(NotFittedError):
        FineTuner("head").predict([noise(20, 20)])


@pytest.mark.parametrize(
    "check",
    [
        check_estimator_cloneable,
        check_no_attributes_set_in_init,
        check_parameters_default_constructible,
        check_get_params_invariance,
        check_set_params,
        check_estimator_repr,
        check_valid_tag_types,
    ],
)
def test_it_follows_the_rules_of_scikit_learn(check):
    check("FineTuner", FineTuner())


@pytest.mark.parametrize("gone", [None, float("nan"), pd.NA])
def test_missing_labels_are_no_class(noise, gone):
    images = [noise(40, 40, seed) for seed in range(6)]
    for y in (["a", "b", gone] * 2, pd.Series([0, 1, gone] * 2, dtype="Int64")):
        with pytest.raises(FineTuneError, match=r"^2 of 6 rows have no label"):
            FineTuner("head", **QUICK).fit(images, y)

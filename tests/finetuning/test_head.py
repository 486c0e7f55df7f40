import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from sklearn.svm import SVC
from torch import nn

from featurebank.errors import TopModelError
from featurebank.finetuning.head import (
    fit_head,
    fold,
    hidden_units,
    is_logistic,
    penalty,
    random_layers,
    to_layers,
    to_model,
)
from featurebank.predictor.serialization import dump, undump


def rows(classes, count=80, width=12):
    random = np.random.default_rng(classes)
    codes = np.arange(count) % classes
    X = random.normal(size=(count, width)) * 3 + 2 * np.eye(width)[codes] * 3 + 5
    return X.astype(np.float32), np.array(list("abcdef"))[codes]


def probabilities(layers, X):
    with torch.no_grad():
        return layers(torch.from_numpy(X)).softmax(1).numpy()


@pytest.mark.parametrize("head", ["linear", "mlp:16"])
@pytest.mark.parametrize("classes", [2, 4])
def test_the_layers_say_what_the_top_model_says_and_the_other_way_round(classes, head):
    X, y = rows(classes)
    model = fit_head(X, y, head=head, random_state=1)
    layers = to_layers(model)
    np.testing.assert_allclose(probabilities(layers, X), model.predict_proba(X), atol=1e-5)
    plain = fold(layers)
    np.testing.assert_allclose(probabilities(plain, X), model.predict_proba(X), atol=1e-5)
    back = undump(dump(to_model(plain, model.classes_)))  # as a predictor file keeps it
    np.testing.assert_allclose(back.predict_proba(X), model.predict_proba(X), atol=1e-5)
    assert (back.predict(X) == model.predict(X)).all()
    assert back.classes_.tolist() == sorted(set(y))


@pytest.mark.parametrize(
    "scaler", [StandardScaler(with_mean=False), StandardScaler(with_std=False), StandardScaler(), None]
)
def test_every_kind_of_scaler_is_kept_and_folded_in(scaler):
    X, y = rows(3)
    model = make_pipeline(*filter(None, [scaler]), LogisticRegression(max_iter=2000)).fit(X, y)
    assert is_logistic(model)
    layers = to_layers(model)
    np.testing.assert_allclose(probabilities(layers, X), model.predict_proba(X), atol=1e-5)
    np.testing.assert_allclose(probabilities(fold(layers), X), model.predict_proba(X), atol=1e-5)
    assert type(fold(layers)) is nn.Linear


def test_a_step_of_all_weights_does_not_shift_every_logit():
    X, y = rows(2)
    layers = to_layers(fit_head(X, y))
    before = probabilities(layers, X).mean(axis=0)
    with torch.no_grad():
        layers.weight[0] += 0.1
    shifted = probabilities(layers, X).mean(axis=0)
    with torch.no_grad():
        raw = fold(to_layers(fit_head(X, y)))
        raw.weight[0] += 0.1
    assert np.abs(shifted - before).max() < 0.1 < np.abs(probabilities(raw, X).mean(axis=0) - before).max()


@pytest.mark.parametrize("classes", [2, 4])
def test_training_begins_at_the_minimum_that_the_logistic_regression_found(classes):
    X, y = rows(classes)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.3, tol=1e-8, max_iter=5000)).fit(X, y)
    layers, codes = to_layers(model, len(y)), torch.from_numpy(np.unique(y, return_inverse=True)[1])
    loss = nn.functional.cross_entropy(layers(torch.from_numpy(X)), codes)
    (loss + penalty(layers)).backward()
    assert layers.weight.grad.abs().max().item() < 1e-4
    layers.weight.grad = None
    loss = nn.functional.cross_entropy(layers(torch.from_numpy(X)), codes)
    loss.backward()
    assert layers.weight.grad.abs().max().item() > 1e-3  # without the penalty the weights would grow


def test_a_head_of_hidden_units_or_of_no_known_rows_has_no_penalty():
    X, y = rows(2)
    assert penalty(to_layers(fit_head(X, y))).item() == 0
    assert penalty(to_layers(fit_head(X, y, head="mlp:4"), len(y))).item() == 0


def test_two_classes_have_rows_of_opposite_signs():
    layers = to_layers(fit_head(*rows(2)))
    assert layers.weight.shape == (2, 12)
    assert torch.equal(layers.weight[0], -layers.weight[1])


def test_a_recipe_is_fitted_on_these_rows_with_its_own_parameters():
    X, y = rows(2)
    recipe = make_pipeline(StandardScaler(), LogisticRegression(C=0.05)).fit(X[:20], y[:20])
    before = recipe[-1].coef_.copy()
    fitted = fit_head(X, y, top_model=recipe)
    assert fitted[-1].C == 0.05
    expected = make_pipeline(StandardScaler(), LogisticRegression(C=0.05)).fit(X, y)
    np.testing.assert_allclose(fitted[-1].coef_, expected[-1].coef_)
    np.testing.assert_array_equal(recipe[-1].coef_, before)


@pytest.mark.parametrize(
    "model",
    [
        SVC(),
        make_pipeline(Normalizer(), LogisticRegression()),
        make_pipeline(StandardScaler(), StandardScaler(), LogisticRegression()),
        make_pipeline(StandardScaler(), LogisticRegression(solver="liblinear")),
        MLPClassifier(),
    ],
)
def test_what_no_linear_layer_can_say_is_no_recipe(model):
    assert not is_logistic(model)


def test_weights_and_classes_weigh_in():
    X, y = rows(2)
    weight = np.where(y == "a", 5.0, 1.0)
    plain, weighted, balanced = (
        fit_head(X, y, **how).predict_proba(X)[:, 0].mean()
        for how in ({}, {"sample_weight": weight}, {"class_weight": {"a": 5.0, "b": 1.0}})
    )
    assert weighted > plain
    assert balanced > plain


def test_random_layers_repeat_with_the_seed_and_leave_the_global_state():
    before = torch.get_rng_state()
    first, again, other = (random_layers(4, 3, "mlp:5", seed) for seed in (1, 1, 2))
    assert torch.equal(first[0].weight, again[0].weight)
    assert not torch.equal(first[0].weight, other[0].weight)
    assert torch.equal(torch.get_rng_state(), before)
    assert isinstance(random_layers(4, 3, "linear", 0), nn.Linear)


@pytest.mark.parametrize("head", ["", "mlp", "mlp:0", "mlp:-3", "mlp:x", "linear:3", "mlp:123456"])
def test_an_unknown_head_is_an_error(head):
    with pytest.raises(TopModelError, match="expected linear, or mlp:H with H hidden units"):
        hidden_units(head)


def test_a_class_of_one_row_is_an_error():
    X, y = rows(2)
    y[:] = "a"
    y[0] = "b"
    with pytest.raises(TopModelError, match="class 'b' has a single row"):
        fit_head(X, y)

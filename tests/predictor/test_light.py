import json
import warnings
import zipfile
from io import BytesIO

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from sklearn.svm import SVC, SVR

from featurebank.errors import CorruptError
from featurebank.predictor.light import read_light
from featurebank.predictor.serialization import dump
from featurebank.topmodels.calibration import Calibrator
from featurebank.topmodels.novelty import Unlike

CLASSIFIERS = [
    SVC(C=3.0), SVC(kernel="linear", C=0.1), LogisticRegression(), MLPClassifier((8,), max_iter=3),
]  # fmt: skip
NUMBERS = [Ridge(), SVR(), SVR(kernel="linear"), MLPRegressor(hidden_layer_sizes=(8,), max_iter=3)]


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the MLPs have not converged
        yield


def rows(classes):
    random = np.random.default_rng(0)
    y = np.repeat([f"class {i}" for i in range(classes)], 15)
    X = random.normal(size=(len(y), 24)) + np.arange(classes).repeat(15)[:, None] * 0.3
    return X.astype(np.float32), y, random.normal(size=(20, 24)).astype(np.float32)


@pytest.mark.parametrize(
    "model", CLASSIFIERS, ids=lambda model: f"{type(model).__name__}-{getattr(model, 'kernel', '')}"
)
@pytest.mark.parametrize(("classes", "step"), [(2, StandardScaler()), (4, Normalizer())])
def test_arrays_say_what_the_fitted_pipeline_says_bit_by_bit(model, classes, step):
    X, y, new = rows(classes)
    fitted = Pipeline([("step", step), ("model", model)]).fit(X, y)
    if hasattr(fitted, "predict_proba"):
        calibrator, expected = None, fitted.predict_proba(new)
    else:
        calibrator = Calibrator("class-temperature").fit(fitted.decision_function(X), y)
        expected = calibrator.predict_proba(fitted.decision_function(new).reshape(len(new), -1))
    light = read_light(dump(fitted), None if calibrator is None else dump(calibrator), None, "classification")
    assert light.predict(new).tolist() == fitted.predict(new).tolist()
    assert np.array_equal(light.chances(new), expected)
    assert light.classes.tolist() == fitted.classes_.tolist()


@pytest.mark.parametrize("model", NUMBERS, ids=lambda model: f"{type(model).__name__}-{getattr(model, 'kernel', '')}")
def test_arrays_say_the_numbers_that_the_fitted_pipeline_says(model):
    X, _, new = rows(2)
    fitted = Pipeline([("step", StandardScaler()), ("model", model)]).fit(X, X[:, 0] * 2)
    light = read_light(dump(fitted), None, None, "regression")
    assert np.array_equal(light.predict(new), fitted.predict(new))
    assert light.chances is None


def test_arrays_say_how_unlike_a_row_is():
    X, y, new = rows(2)
    fitted, unlike = Pipeline([("model", LogisticRegression())]).fit(X, y), Unlike().fit(X, y)
    light = read_light(dump(fitted), None, dump(unlike), "classification")
    assert light.share(new).tolist() == unlike.share(new).tolist()


def test_other_models_and_other_kinds_are_left_to_skops():
    X, y, _ = rows(2)
    plain = Pipeline([("model", LogisticRegression())]).fit(X, y)
    for model, kind in ((plain, "multilabel"), (plain, "regression"), (SVC().fit(X, y), "classification")):
        with pytest.raises(CorruptError):
            read_light(dump(model), None, None, kind)
    forest = Pipeline([("model", RandomForestClassifier(2))]).fit(X, y)
    with pytest.raises(CorruptError, match="it holds"):
        read_light(dumps(forest), None, None, "classification")


def dumps(model):
    import skops.io

    return skops.io.dumps(model)


@pytest.mark.parametrize("change", ["module", "loader", "key", "missing", "compressed"])
def test_an_archive_with_anything_but_plain_values_is_refused(change):
    X, y, _ = rows(2)
    data = dump(Pipeline([("model", LogisticRegression())]).fit(X, y))
    with zipfile.ZipFile(BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    schema = json.loads(members["schema.json"])
    model = schema["content"]["content"]["steps"]["content"][0]["content"][1]
    if change == "module":
        model["__module__"] = "os"
    elif change == "loader":
        model["content"]["content"]["C"]["__loader__"] = "FunctionNode"
    elif change == "key":
        model["content"]["key_types"]["content"][0] |= {"__module__": "os", "__class__": "system"}
    elif change == "missing":
        del model["content"]["content"]["coef_"]
    members["schema.json"] = json.dumps(schema).encode()
    buffer = BytesIO()
    with zipfile.ZipFile(
        buffer, "w", zipfile.ZIP_DEFLATED if change == "compressed" else zipfile.ZIP_STORED
    ) as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    with pytest.raises(CorruptError):
        read_light(buffer.getvalue(), None, None, "classification")

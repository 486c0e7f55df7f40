"""A predictor as one ONNX file gives what the predictor gives, to 1e-4; what cannot be expressed is named."""

import json

import numpy as np
import pytest
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier, SGDClassifier
from sklearn.model_selection import FixedThresholdClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from sklearn.svm import SVC, SVR

from featurebank import Backbone, Predictor, Preprocessing, extract, fit
from featurebank.errors import NotInstalledError, PredictorError
from featurebank.predictor.features import PredictorFeature
from featurebank.predictor.task import Task
from featurebank.topmodels.calibration import Calibrator
from featurebank.topmodels.centroid import LikeliestCentroid
from featurebank.topmodels.transforms import SelectDimensions, SelectRelevant, SignedSquareRoot

torch = pytest.importorskip("torch")
onnxruntime = pytest.importorskip("onnxruntime")

from featurebank.predictor import onnx as onnx_file  # noqa: E402
from featurebank.predictor.graphs import graph_of  # noqa: E402


def rows(classes, n=120, d=12):
    """Rows of classes that overlap, so that probabilities are not all 0 and 1."""
    random, y = np.random.default_rng(0), np.arange(n) % classes
    X = random.normal(size=(n, d)) + 1.5 * np.eye(classes, d)[y] + 3
    return X.astype(np.float32), np.array(list("abcde"))[y]


def difference(model, calibrator, X, task="classification"):
    predictor = Predictor(Task([], model, "label", kind=task, calibrator=calibrator))
    expected = model.predict(X) if task == "regression" else predictor.probabilities(X)
    with torch.inference_mode():
        found = graph_of(model, calibrator, task)(torch.from_numpy(X)).numpy()
    assert found.shape == expected.shape
    return np.abs(found - expected).max()


MODELS = {
    "logreg": LogisticRegression(max_iter=1000),
    "lda": LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.1),
    "mlp": MLPClassifier((8,), max_iter=100, random_state=0),
    "deep": MLPClassifier((8, 6), activation="tanh", max_iter=100, random_state=0),
    "centroid": LikeliestCentroid(),
    "sgd-logreg": SGDClassifier(loss="log_loss", average=True, alpha=0.1, random_state=0),
}
DECIDERS = {
    "svm": SVC(C=3.0),
    "linear-svm": SVC(kernel="linear"),
    "ridge": RidgeClassifier(),
    "sgd-svm": SGDClassifier(average=True, alpha=0.1, random_state=0),
    "gamma": SVC(C=30.0, gamma=0.5),
}


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_models_with_probabilities(name, classes):
    X, y = rows(classes)
    model = Pipeline([("scale", StandardScaler()), ("model", MODELS[name])]).fit(X, y)
    assert difference(model, None, X) < 1e-5


@pytest.mark.parametrize("method", ["sigmoid", "isotonic", "temperature"])
@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("name", ["svm", "ridge", "sgd-svm"])
def test_models_with_a_calibrator(name, classes, method):
    X, y = rows(classes)
    model = Pipeline([("scale", StandardScaler()), ("model", DECIDERS[name])]).fit(X, y)
    assert difference(model, Calibrator(method).fit(model.decision_function(X), y), X) < 1e-4


def far_rows(classes):
    """Rows of classes that overlap in part, and as many again that are far from all."""
    random, y = np.random.default_rng(1), np.arange(240) % classes
    X = random.normal(size=(240, 512)) + 8 * np.eye(classes, 512)[y] + 3
    y = np.array(list("abc"))[y]
    return np.concatenate([X, X + 3 * random.normal(size=X.shape)]).astype(np.float32), np.concatenate([y, y])


@pytest.mark.parametrize("method", ["sigmoid", "temperature", "class-temperature"])
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", [*MODELS, "svm", "linear-svm", "ridge", "sgd-svm"])
@pytest.mark.filterwarnings("ignore:Stochastic Optimizer", "ignore:divide by zero")
def test_calibrated_models_that_are_surer_than_single_precision_holds(name, classes, method):
    X, y = far_rows(classes)
    model = Pipeline([("scale", StandardScaler()), ("model", (MODELS | DECIDERS)[name])]).fit(X[:120], y[:120])
    scores = np.log(model.predict_proba(X)) if hasattr(model, "predict_proba") else model.decision_function(X)
    calibrator = Calibrator(method).fit(scores, y)
    assert difference(model, calibrator, X) < 1e-4
    if name == "centroid":
        assert scores.min() < -103  # exp(-104) is 0 in single precision
    if method != "sigmoid" and name in ("centroid", "lda", "logreg", "mlp"):
        with torch.inference_mode():
            found = graph_of(model, calibrator, "classification")(torch.from_numpy(X)).argmax(1).numpy()
        assert model.classes_[found].tolist() == model.predict(X).tolist()


def test_classes_that_have_no_chance_at_all_are_equally_likely():
    X, y = rows(3)
    model = Pipeline([("model", SGDClassifier(loss="log_loss", random_state=0))]).fit(X, y)
    model[-1].intercept_ -= 1e6
    assert model.predict_proba(X).min() == np.float32(1 / 3)
    assert difference(model, None, X) < 1e-6


@pytest.mark.parametrize("name", ["linear-svm", "gamma"])
def test_kernels_and_their_packed_coefficients(name):
    X, y = rows(5, n=60)  # classes of unequal numbers of support vectors
    model = Pipeline([("model", DECIDERS[name])]).fit(X[5:], y[5:])
    assert difference(model, Calibrator().fit(model.decision_function(X), y), X) < 1e-4


@pytest.mark.parametrize("method", ["sigmoid", "isotonic", "temperature"])
@pytest.mark.parametrize("classes", [2, 3])
def test_calibrated_probabilities(classes, method):
    X, y = rows(classes)
    model = Pipeline([("model", LogisticRegression(max_iter=1000))]).fit(X, y)
    assert difference(model, Calibrator(method).fit(np.log(model.predict_proba(X)), y), X) < 1e-4


STEPS = {
    "unit": [Normalizer()],
    "centred": [StandardScaler(with_std=False), Normalizer()],
    "root": [SignedSquareRoot(), StandardScaler()],
    "relevant": [SelectRelevant(0.5), StandardScaler()],
    "chosen": [SelectDimensions([3, 1, 0])],
    "whitened": [PCA(5, whiten=True, random_state=0)],
    "projected": [PCA(5, random_state=0)],
}


@pytest.mark.parametrize("name", STEPS)
def test_steps_before_the_model(name):
    X, y = rows(3)
    steps = [(str(number), step) for number, step in enumerate(STEPS[name])]
    model = Pipeline([*steps, ("model", LogisticRegression(max_iter=1000))]).fit(X, y)
    assert difference(model, None, X) < 1e-5


@pytest.mark.parametrize("model", [Ridge(), SVR(), MLPRegressor(hidden_layer_sizes=(8,), max_iter=100, random_state=0)])
@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_numbers(model):
    X, _ = rows(2)
    fitted = Pipeline([("scale", StandardScaler()), ("model", model)]).fit(X, X[:, 0] - X[:, 1])
    assert difference(fitted, None, X, "regression") < 1e-5


def test_a_threshold_leaves_the_probabilities_as_they_are():
    X, y = rows(2)
    model = Pipeline([("model", FixedThresholdClassifier(LogisticRegression(), threshold=0.3, pos_label="b"))]).fit(
        X, y
    )
    assert difference(model, None, X) < 1e-5


def labelled(model, calibrator, X):
    """What the metadata's threshold makes of probabilities."""
    predictor = Predictor(Task([], model, "label", calibrator=calibrator))
    told, classes = onnx_file._threshold(predictor), model.classes_.tolist()
    chances = predictor.probabilities(X)[:, classes.index(told["positive"])]
    other = classes[1 - classes.index(told["positive"])]
    return told, np.where(chances >= told["threshold"], told["positive"], other)


@pytest.mark.parametrize("positive", ["a", "b"])
@pytest.mark.parametrize(("plain", "cut"), [(LogisticRegression(), 0.2), (SVC(C=3.0), -0.8)])
@pytest.mark.parametrize("method", [None, "sigmoid", "temperature"])
def test_a_tuned_threshold_is_told_of_the_probabilities_of_the_file(plain, cut, method, positive):
    X, y = rows(2)
    fixed = FixedThresholdClassifier(plain, threshold=cut, pos_label=positive)
    model = Pipeline([("model", fixed)]).fit(X[:60], y[:60])
    is_chance = hasattr(model, "predict_proba")
    scores = np.log(model.predict_proba(X)) if is_chance else model.decision_function(X)
    calibrator = Calibrator(method or "sigmoid").fit(scores, y) if method or not is_chance else None
    told, found = labelled(model, calibrator, X)
    assert told["positive"] == positive
    assert (found == model.predict(X)).all()
    assert (found != model[-1].estimator_.predict(X)).any()
    assert told["threshold"] == 0.2 or calibrator is not None


def test_a_threshold_that_no_probability_says_is_refused():
    X, y = rows(2)
    model = Pipeline([("model", FixedThresholdClassifier(SVC(), threshold=5.0, pos_label="b"))]).fit(X, y)
    isotonic = Calibrator("isotonic").fit(model.decision_function(X), y)
    with pytest.raises(PredictorError, match="no probability of an ONNX file says the same: fit with another"):
        labelled(model, isotonic, X)


@pytest.mark.parametrize(
    ("model", "named"),
    [
        (KNeighborsClassifier(), "KNeighborsClassifier cannot be expressed in ONNX; these can: LogisticRegression"),
        (GaussianNB(), "GaussianNB cannot be expressed"),
        (SVC(kernel="poly"), "SVC with the kernel 'poly' cannot be expressed in ONNX; expected 'rbf' or 'linear'"),
        (NearestCentroid(metric="manhattan"), r"NearestCentroid\('manhattan'\) cannot be expressed"),
        (Pipeline([("a", Normalizer("l1")), ("model", LogisticRegression())]), r"Normalizer\('l1'\) cannot"),
    ],
)
def test_what_cannot_be_expressed_is_named(model, named):
    X, y = rows(2)
    fitted = (model if isinstance(model, Pipeline) else Pipeline([("model", model)])).fit(X, y)
    with pytest.raises(PredictorError, match=named):
        graph_of(fitted, None, "classification")


def test_several_labels_are_refused():
    with pytest.raises(PredictorError, match="several labels an image cannot be expressed in ONNX"):
        graph_of(Pipeline([("model", LogisticRegression())]), None, "multilabel")


# --- whole files -------------------------------------------------------------------------------------------


def answers(file, images, height, width):
    """What the file says of images, prepared by nothing but its metadata."""
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    facts = json.loads(session.get_modelmeta().custom_metadata_map["featurebank"])
    told = facts["preprocessing"]
    assert (told["crop"], told["channels"], told["layout"]) == ([height, width], "RGB", "NHWC")
    keep = ("resize", "crop", "interpolation", "mean", "std", "mode", "decoder")
    preprocessing = Preprocessing.from_dict({key: told[key] for key in keep if key in told})
    pixels = np.stack([preprocessing(Image.open(path).convert("RGB")) for path in images])
    return session.run(None, {facts["input"]: pixels})[0], facts


@pytest.fixture(scope="module")
def photos(two_classes):
    return sorted((two_classes.parent / "new").rglob("*.png"))


@pytest.mark.slow
def test_a_fitted_predictor_as_one_file(two_class_predictor, photos, tmp_path):
    predictor = Predictor.load(two_class_predictor)
    facts = onnx_file.export_predictor(predictor, tmp_path / "a.onnx")
    assert facts["worst"] < 1e-4
    assert facts["bytes"] == (tmp_path / "a.onnx").stat().st_size
    found, told = answers(tmp_path / "a.onnx", photos, 64, 64)
    assert np.abs(found - predictor.predict_proba(photos)).max() < 1e-4
    assert (told["classes"], told["output"], told["target"]) == (["cat", "dog"], "probabilities", "label")
    one = answers(tmp_path / "a.onnx", photos[:1], 64, 64)[0]  # a batch of any size
    assert np.abs(one - found[:1]).max() < 1e-5


FITTED = {"logreg": {"C": 0.01}, "mlp": {"alpha": 1.0}, "svm": {"C": 3.0}}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "exported"),
    [
        ("efficientnet_lite0", ["mlp"]),
        ("mobilenet_v3_small", list(FITTED)),
        ("vit_b_16", ["logreg"]),
        ("timm:convnext_atto", ["svm"]),
    ],
)
def test_backbones_and_models(two_classes, photos, tmp_path, backbone, exported):
    """Each model's graph on each backbone's rows; whole files of each backbone, and of each model on the smallest."""
    size = 224 if backbone == "vit_b_16" else 64
    options = {"backbone": backbone, "weights": "random:0", "size": size, "store": "float32"}
    bank = extract(two_classes, tmp_path / "a.bank", **options)
    for name, cells in FITTED.items():
        predictor = fit(bank, models={name: cells}, folds=2).predictor
        assert difference(predictor.model, predictor.calibrator, bank.load("penultimate")) < 1e-4
        if name in exported:
            onnx_file.export_predictor(predictor, tmp_path / "a.onnx")
            found, _ = answers(tmp_path / "a.onnx", photos, size, size)
            assert np.abs(found - predictor.predict_proba(photos)).max() < 1e-4


@pytest.mark.slow
def test_several_layers_and_numbers_of_one_network(two_classes, photos, tmp_path):
    layers = ["layer2:avgmax", "penultimate"]
    bank = extract(two_classes, tmp_path / "a.bank", backbone="resnet18", weights="random:0", size=64, layers=layers)
    frame = bank.samples[["path"]].assign(score=np.linspace(0.5, 9.7, 40))
    bank.label(frame)
    names = "resnet18/penultimate+resnet18/layer2:avgmax"
    predictor = fit(bank, features=names, models={"ridge": {"alpha": 100.0}}, target="score").predictor
    onnx_file.export_predictor(predictor, tmp_path / "a.onnx")
    found, told = answers(tmp_path / "a.onnx", photos, 64, 64)
    assert np.abs(found - predictor.predict(photos)).max() < 1e-3
    assert (told["output"], len(told["feature_sets"])) == ("values", 2)


class Tiny(torch.nn.Module):
    """Mean colour, an own module."""

    def __init__(self):
        super().__init__()
        self.last = torch.nn.Linear(3, 4)

    def forward(self, images):
        return self.last(images.mean((2, 3)))


def own_predictor(views="none", how="mean", precision="fp32", module=None, transform=None):
    torch.manual_seed(0)
    half = Preprocessing(16, (16, 16), "bilinear", (0.5,) * 3, (0.5,) * 3)
    own = Backbone.from_module(module or Tiny(), name="tiny", version="1", transform=transform or half)
    spec = own.spec("logits", views=views, precision=precision)
    X, y = rows(2, d=4)
    feature = PredictorFeature(spec, "", None, how)
    model = Pipeline([("model", LogisticRegression())]).fit(X, y)
    return Predictor(Task([feature], model, "label"), backbone=own)


def test_a_module_of_ones_own(tmp_path):
    assert onnx_file.export_predictor(own_predictor(), tmp_path / "a.onnx")["worst"] < 1e-4


def test_the_first_of_several_views_is_the_image_itself(tmp_path):
    assert onnx_file.export_predictor(own_predictor("hflip", "first"), tmp_path / "a.onnx")["worst"] < 1e-4


class Untraceable(Tiny):
    """Control flow that depends on the numbers."""

    def forward(self, images):
        return super().forward(images) if float(images.sum()) > 0 else super().forward(images) * 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"views": "hflip"}, r"tiny/logits has views \(hflip\).*fit with --views first"),
        ({"precision": "bf16"}, "tiny/logits is computed in bf16"),
        ({"module": Untraceable()}, "this network cannot be expressed in ONNX"),
    ],
)
def test_predictors_that_cannot_be_exported(tmp_path, options, message):
    with pytest.raises(PredictorError, match=message):
        onnx_file.export_predictor(own_predictor(**options), tmp_path / "a.onnx")
    assert not (tmp_path / "a.onnx").exists()


def test_a_file_that_would_say_something_else_is_not_written(tmp_path, monkeypatch):
    predictor = own_predictor()
    monkeypatch.setattr(predictor.single, "probabilities", lambda X: np.full((len(X), 2), 0.5))
    with pytest.raises(PredictorError, match=r"off this predictor's own answers on noise; expected below 0.0001"):
        onnx_file.export_predictor(predictor, tmp_path / "a.onnx")
    assert not (tmp_path / "a.onnx").exists()


def test_libraries_that_are_not_installed_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(NotInstalledError, match=r"pip install 'featurebank\[onnx\]'"):
        onnx_file.export_predictor(own_predictor(), tmp_path / "a.onnx")

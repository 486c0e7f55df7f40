"""A predictor file is untrusted input: nothing in it runs, nothing it names is read or fetched."""

import contextlib
import io
import json
import os
import pickle
import stat
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from bank_maker import SPEC
from predictor_maker import make_predictor, probabilities, rows
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from featurebank import Predictor
from featurebank.errors import BackboneError, FeatureBankError, PredictorError, WeightsError
from featurebank.predictor.features import PredictorFeature
from featurebank.predictor.task import Task
from featurebank.topmodels.calibration import CALIBRATIONS, Calibrator, LabelsCalibrator
from featurebank.topmodels.models import KNOWN, REGRESSORS
from featurebank.topmodels.novelty import Mahalanobis, Unlike
from featurebank.topmodels.transforms import NORMALIZATIONS, normalization

MEMBERS = ("predictor.json", "fit.json", "model.skops", "calibrator.skops", "unlike.skops")


class Canary:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a.featurebank"
    make_predictor(unlike=Unlike().fit(*rows())).save(path)
    return path


@pytest.fixture
def canary(tmp_path):
    path = tmp_path / "canary"
    yield path
    assert not path.exists(), "the payload ran"


def read_members(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_members(path, members, digests=True, method=zipfile.ZIP_STORED):
    """Write a predictor file by hand; with `digests`, as an attacker who mends them would."""
    import hashlib

    if digests and b"members" in members.get("predictor.json", b""):
        facts = json.loads(members["predictor.json"])
        facts["members"] = {n: hashlib.sha256(d).hexdigest() for n, d in members.items() if n != "predictor.json"}
        members = {**members, "predictor.json": json.dumps(facts).encode()}
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def payloads(canary):
    array = np.empty(1, object)
    array[0] = Canary(canary)
    numpy_file = io.BytesIO()
    np.save(numpy_file, array, allow_pickle=True)
    return {"pickle": pickle.dumps(Canary(canary)), "npy": numpy_file.getvalue(), "torch": torch_file(canary)}


def torch_file(canary):
    import torch

    buffer = io.BytesIO()
    torch.save({"weight": Canary(canary)}, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["pickle", "npy", "torch"])
@pytest.mark.parametrize("member", MEMBERS)
def test_a_payload_in_any_member_never_runs(file, canary, member, kind):
    members = read_members(file)
    members[member] = payloads(canary)[kind]
    for digests in (True, False):
        write_members(file, members, digests)
        with pytest.raises(PredictorError) as caught:
            Predictor.load(file)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("extension", [".pkl", ".joblib", ".pt", ".npy", ".py", ".so", ".skops", ".safetensors"])
def test_a_payload_under_any_extension_never_runs(file, canary, extension):
    for data in payloads(canary).values():
        write_members(file, {**read_members(file), f"extra{extension}": data})
        with pytest.raises(PredictorError, match="unknown, compressed or too large"):
            Predictor.load(file)


@pytest.mark.parametrize("kind", ["pickle", "npy", "torch"])
def test_a_payload_as_the_whole_file_never_runs(tmp_path, canary, kind):
    path = tmp_path / "evil.featurebank"
    path.write_bytes(payloads(canary)[kind])
    with pytest.raises(PredictorError):
        Predictor.load(path)


@pytest.mark.parametrize("kind", ["pickle", "npy", "torch"])
def test_a_payload_inside_the_skops_archive_never_runs(file, canary, kind):
    members = read_members(file)
    with zipfile.ZipFile(io.BytesIO(members["model.skops"])) as archive:
        inner = {name: archive.read(name) for name in archive.namelist()}
    assert len(inner) > 3
    for name in inner:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for each, data in {**inner, name: payloads(canary)[kind]}.items():
                archive.writestr(each, data)
        write_members(file, {**members, "model.skops": buffer.getvalue()})
        if kind == "torch":  # NumPy takes any zip for an archive of arrays and opens it without reading one
            with contextlib.suppress(PredictorError):
                Predictor.load(file)
        else:
            with pytest.raises(PredictorError):
                Predictor.load(file)


def evil_schema(members, old, new):
    """Replace text in the schema of the skops archive."""
    with zipfile.ZipFile(io.BytesIO(members["model.skops"])) as archive:
        inner = {name: archive.read(name) for name in archive.namelist()}
    assert old in inner["schema.json"]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in inner.items():
            archive.writestr(name, data.replace(old, new) if name == "schema.json" else data)
    return {**members, "model.skops": buffer.getvalue()}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"__class__": "SVC"', b'"__class__": "Popen"'),
        (b'"__module__": "sklearn.svm._classes"', b'"__module__": "subprocess"'),
        (b'"__module__": "sklearn.preprocessing._data"', b'"__module__": "os"'),
        (b'"__class__": "StandardScaler"', b'"__class__": "FunctionTransformer"'),
    ],
)
def test_another_type_in_the_schema_is_refused(file, canary, old, new):
    write_members(file, evil_schema(read_members(file), old, new))
    with pytest.raises(PredictorError):
        Predictor.load(file)


def test_saving_refuses_what_loading_would(tmp_path):
    X, y = rows()
    model = Pipeline([("own", FunctionTransformer(np.load)), ("model", LogisticRegression())])
    model[-1].fit(X, y)
    predictor = Predictor(Task([PredictorFeature(SPEC, "DEFAULT", None)], model, "label"))
    with pytest.raises(PredictorError, match="which a predictor may not"):
        predictor.save(tmp_path / "a.featurebank")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("model", sorted(KNOWN["classification"]))
def test_the_allow_list_covers_every_shipped_top_model(tmp_path, model):
    X, y = rows()
    pipeline = Pipeline([("scale", StandardScaler()), ("model", clone(KNOWN["classification"][model].estimator))]).fit(
        X, y
    )
    path = tmp_path / "a.featurebank"
    make_predictor(model=pipeline).save(path)
    assert (Predictor.load(path).model.predict(X) == pipeline.predict(X)).all()


@pytest.mark.parametrize("model", sorted(REGRESSORS))
def test_the_allow_list_covers_every_regressor(tmp_path, model):
    X, _ = rows()
    pipeline = Pipeline([("scale", StandardScaler()), ("model", clone(REGRESSORS[model].estimator))]).fit(X, X[:, 0])
    path = tmp_path / "a.featurebank"
    Predictor(Task([PredictorFeature(SPEC, "DEFAULT", None)], pipeline, "age", kind="regression")).save(path)
    np.testing.assert_array_equal(Predictor.load(path).model.predict(X), pipeline.predict(X))


@pytest.mark.parametrize("method", CALIBRATIONS)
@pytest.mark.parametrize("normalize", NORMALIZATIONS)
def test_the_allow_list_covers_every_normalisation_calibration_and_threshold(tmp_path, normalize, method):
    X, y = rows(2)
    fixed = FixedThresholdClassifier(LogisticRegression(), threshold=0.3, pos_label=y[-1])
    model = Pipeline([*normalization(normalize, 0.5), ("model", fixed)]).fit(X, y)
    calibrator = Calibrator(method).fit(model.decision_function(X), y)
    path = tmp_path / "a.featurebank"
    Predictor(Task([PredictorFeature(SPEC, "DEFAULT", None)], model, "label", calibrator=calibrator)).save(path)
    loaded = Predictor.load(path)
    assert (loaded.model.predict(X) == model.predict(X)).all()
    np.testing.assert_array_equal(loaded.calibrator.predict_proba(X[:, 0]), calibrator.predict_proba(X[:, 0]))


def test_the_allow_list_covers_several_labels(tmp_path):
    X, y = rows()
    labels = np.column_stack([y == name for name in np.unique(y)]).astype(int)
    model = Pipeline([("model", OneVsRestClassifier(clone(KNOWN["classification"]["svm"].estimator)))]).fit(X, labels)
    calibrator = LabelsCalibrator().fit(model.decision_function(X), labels)
    path = tmp_path / "a.featurebank"
    names = {"kind": "multilabel", "labels": ["a", "b", "c"], "calibrator": calibrator}
    Predictor(Task([PredictorFeature(SPEC, "DEFAULT", None)], model, "tags", **names)).save(path)
    assert (Predictor.load(path).model.predict(X) == model.predict(X)).all()


def test_what_is_usual_comes_back_as_it_was(file):
    X, y = rows()
    np.testing.assert_array_equal(Predictor.load(file).single.unlike.share(X - 5), Unlike().fit(X, y).share(X - 5))


@pytest.mark.parametrize(
    ("held", "message"),
    [
        (Mahalanobis().fit(rows()[0]), "its unlike.skops holds Mahalanobis"),
        (Unlike(), "holds no model"),
        (Unlike().fit(rows()[0][:, 1:]), "takes 5 columns; expected 6"),
    ],
)
def test_what_says_how_unlike_a_row_is_must_fit_the_model(tmp_path, held, message):
    path = tmp_path / "a.featurebank"
    make_predictor(unlike=held).save(path)
    with pytest.raises(PredictorError, match=message):
        Predictor.load(path)


# --- zip tricks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../../evil", "/tmp/evil", "weights/../../evil.safetensors", "weights/x.safetensors"])
def test_members_with_paths_are_refused(file, name):
    write_members(file, {**read_members(file), name: b"x"})
    with pytest.raises(PredictorError, match="unknown, compressed or too large"):
        Predictor.load(file)


def test_a_compressed_bomb_is_refused_before_it_is_inflated(file):
    write_members(file, {**read_members(file), "fit.json": b" " * (1 << 24)}, method=zipfile.ZIP_DEFLATED)
    with pytest.raises(PredictorError, match="compressed or too large"):
        Predictor.load(file)


def test_a_bomb_inside_the_skops_archive_is_refused(file):
    members = read_members(file)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("schema.json", b" " * (1 << 24))
    write_members(file, {**members, "model.skops": buffer.getvalue()})
    with pytest.raises(PredictorError, match="may hide a bomb"):
        Predictor.load(file)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("member", MEMBERS)
def test_a_member_that_is_there_twice_is_refused(file, member):
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(member, b"{}")
    with pytest.raises(PredictorError, match="once"):
        Predictor.load(file)


def test_a_member_marked_as_a_link_is_just_bytes(file, tmp_path):
    members = read_members(file)
    info = zipfile.ZipInfo("fit.json")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(info if name == "fit.json" else name, b"/etc/passwd" if name == "fit.json" else data)
    with pytest.raises(PredictorError, match="does not match its digest"):
        Predictor.load(file)


# --- what it names -----------------------------------------------------------------------------------------


def renamed(tmp_path, weights, backbone="resnet18", crop=(8, 8)):
    path = tmp_path / "named.featurebank"
    spec = replace(
        SPEC,
        backbone=backbone,
        preprocessing={
            "resize": 8,
            "crop": list(crop),
            "interpolation": "bilinear",
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "mode": "center",
        },
    )
    make_predictor(weights, spec).save(path)
    return path


@pytest.mark.parametrize("weights", ["/etc/evil.pth", "evil.pth", "../evil.safetensors", "https://evil/x", "a b"])
def test_a_predictor_cannot_name_a_file(tmp_path, weights):
    with pytest.raises(PredictorError, match="not a name: bring them with --weights FILE"):
        Predictor.load(renamed(tmp_path, weights))


@pytest.mark.parametrize(
    "backbone", ["resnet18", "timm:resnet18.a1_in1k", "timm:hf-hub:evil/model", "timm:local-dir:/tmp"]
)
def test_a_predictor_cannot_have_weights_fetched(tmp_path, monkeypatch, backbone):
    import torch

    def refuse(*arguments, **options):
        raise AssertionError("the network was asked")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    monkeypatch.setattr("socket.socket.connect", refuse)
    predictor = Predictor.load(renamed(tmp_path, "DEFAULT", backbone))
    with pytest.raises(FeatureBankError) as caught:
        predictor.predict([np.zeros((8, 8, 3), np.uint8)])
    if "hf-hub" not in backbone and "local-dir" not in backbone:
        assert isinstance(caught.value, WeightsError)
        assert "--allow-download" in str(caught.value)


def test_weights_can_be_brought_and_must_be_the_ones_it_was_trained_on(tmp_path):
    import torch
    import torchvision

    torch.manual_seed(0)
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "brought.pth")
    predictor = Predictor.load(renamed(tmp_path, "DEFAULT"), weights_file=tmp_path / "brought.pth")
    with pytest.raises(PredictorError, match="trained on 000000000000: bring the weights it was trained on"):
        predictor.predict([np.zeros((8, 8, 3), np.uint8)])


@pytest.mark.parametrize("size", ["8", 8.0, [8], True])
def test_an_impossible_input_size_is_refused(file, size):
    members = read_members(file)
    facts = json.loads(members["predictor.json"])
    facts["features"][0]["size"] = size
    write_members(file, {**members, "predictor.json": json.dumps(facts).encode()})
    with pytest.raises(PredictorError):
        Predictor.load(file)


@pytest.mark.parametrize("backbone", ["resnet18", "efficientnet_lite0", "timm:test_vit"])
def test_a_predictor_cannot_ask_for_an_input_that_fills_the_memory(tmp_path, backbone):
    def predict():
        Predictor.load(file).predict([np.zeros((8, 8, 3), np.uint8)])

    file = renamed(tmp_path, "random:0", backbone, crop=(10**6, 10**6))
    with pytest.raises(BackboneError, match=r"crops to \(1000000, 1000000\); expected .* 1 to 8192$"):
        predict()
    file = renamed(tmp_path, "random:0", backbone)
    members = read_members(file)
    facts = json.loads(members["predictor.json"])
    facts["features"][0]["size"] = 10**6
    write_members(file, {**members, "predictor.json": json.dumps(facts).encode()})
    with pytest.raises(BackboneError, match=r"an input size of 1000000 pixels; expected 1 to 8192$"):
        predict()


def test_an_untouched_file_reads_the_same(file):
    assert probabilities(Predictor.load(file)) == probabilities(make_predictor())

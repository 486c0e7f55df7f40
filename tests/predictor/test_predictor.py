import hashlib
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from predictor_files import members_of, with_facts, write_members
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import make_pipeline

from featurebank import Backbone, Bank, Predictor, extract, fit, load_backbone, scan
from featurebank.errors import ColumnError, ImageError, PredictorError
from featurebank.predictor.task import Task

SVM = {"svm": {"C": [1.0]}}
MODELS = {"logreg": {"C": [0.01]}, "svm": {"C": [1.0]}, "mlp": {"alpha": [1.0]}}
PARTS = {"predictor.json", "fit.json", "model.skops", "calibrator.skops", "unlike.skops"}
PICKLES = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def new_images(two_classes):
    return sorted((two_classes.parent / "new").rglob("*.png"))


@pytest.fixture(scope="module")
def predictor(two_class_predictor):
    return Predictor.load(two_class_predictor)


# --- predictions -------------------------------------------------------------------------------------------


def test_new_images_get_the_right_labels(predictor, two_classes):
    images = new_images(two_classes)
    assert predictor.predict(images).tolist() == [path.parent.name for path in images]
    assert predictor.classes.tolist() == ["cat", "dog"]


def test_training_images_are_known_again_from_this_and_from_earlier_files(two_class_predictor, two_classes):
    """Earlier files hold how each content's digest begins as a list."""
    known = sorted(two_classes.rglob("*.png"))
    heads = sorted(hashlib.sha256(file.read_bytes()).hexdigest()[:16] for file in known)
    now, earlier = Predictor.load(two_class_predictor), Predictor.load(two_class_predictor)
    assert now.report["contents"] == "".join(heads)
    earlier.report["contents"] = heads
    images = [*known[:3], *new_images(two_classes)]
    source = scan(images, columns={"label": [file.parent.name for file in images]})
    assert now.evaluate(source)["seen_in_training"] == earlier.evaluate(source)["seen_in_training"] == 3


def test_paths_images_and_arrays_are_the_same_to_it(predictor, two_classes):
    path = new_images(two_classes)[0]
    image = Image.open(path)
    ways = [path, str(path), image, np.asarray(image)]
    expected = predictor.predict_proba([path])
    each = np.concatenate([predictor.predict_proba([way]) for way in ways])
    np.testing.assert_array_equal(each, np.tile(expected, (4, 1)))
    together = predictor.predict_proba(ways)  # some processors sum a batch of four otherwise than one of one
    np.testing.assert_array_equal(together, together[[0] * 4])
    np.testing.assert_allclose(together, each, atol=1e-5)
    assert predictor.predict(str(path)).tolist() == ["cat"]


@pytest.fixture(scope="module")
def resnet():
    return load_backbone("resnet18", "random:0", 64)


@pytest.mark.parametrize("name", MODELS)
def test_single_files_get_what_the_rows_of_the_bank_get(two_class_bank, two_classes, resnet, name):
    result = fit(two_class_bank, models={name: MODELS[name]}, features="resnet18/layer3+resnet18/penultimate")
    result.predictor.backbone = resnet  # loaded once for all three
    table = result.predictor.predict_bank(Bank(two_class_bank))
    files = [two_classes / path for path in table["path"]]
    np.testing.assert_allclose(result.predictor.predict_proba(files), table[["proba_cat", "proba_dog"]], atol=1e-4)
    assert result.predictor.predict(files[:3]).tolist() == table["label"][:3].tolist()


@pytest.mark.parametrize("name", MODELS)
def test_labels_are_the_models_own_decision_and_probabilities_sum_to_one(two_class_bank, name):
    result = fit(two_class_bank, models={name: MODELS[name]}, features="resnet18/layer3")
    X = Bank(two_class_bank).load("resnet18/layer3")
    table = result.predictor.predict_bank(Bank(two_class_bank))
    assert table["label"].tolist() == result.search.predict(X).tolist()
    chances = table[["proba_cat", "proba_dog"]].to_numpy()
    np.testing.assert_allclose(chances.sum(axis=1), 1)
    own = np.where(table["label"] == "cat", chances[:, 0], chances[:, 1])
    np.testing.assert_array_equal(table["probability"], own)


def test_a_label_may_disagree_with_its_calibrated_probability_and_stays(two_class_bank):
    result = fit(two_class_bank, models=SVM, features="resnet18/layer3", calibrate="sigmoid")
    result.predictor.calibrator.intercept_ += 100  # now every probability says dog
    table = result.predictor.predict_bank(Bank(two_class_bank))
    assert set(table["label"]) == {"cat", "dog"}
    assert (table.loc[table["label"] == "cat", "probability"] < 0.5).all()


def test_an_unreadable_image_is_an_error_or_a_row_with_its_reason(predictor, two_classes, tmp_path):
    good, bad = new_images(two_classes)[0], tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"bad.png': not a readable image"):
        predictor.predict([good, bad])
    with pytest.raises(ImageError, match="'list': a list is no image"):
        predictor.predict([[]])
    table = predictor.predict_table([bad, good, tmp_path / "none.png"])
    assert table["path"].tolist() == [str(bad), str(good), str(tmp_path / "none.png")]
    assert table["label"].isna().tolist() == [True, False, True]
    assert table["probability"].isna().tolist() == [True, False, True]
    assert table["error"][0].startswith("not a readable image")
    assert (table["error"][1], table["error"][2]) == ("", "cannot be read: No such file or directory")


def test_many_images_are_embedded_in_batches_and_counted(predictor, two_classes):
    images = sorted(two_classes.rglob("*.png"))[:18]
    seen = []
    table = predictor.predict_table(images, progress=lambda *now: seen.append(now))
    assert seen == [(16, 18), (18, 18)]
    assert table["label"].tolist() == ["cat"] * 18


# --- the file ----------------------------------------------------------------------------------------------


def test_the_file_holds_json_and_skops_and_no_pickle(two_class_predictor):
    members = members_of(two_class_predictor)
    assert set(members) == {*PARTS, "outoffold.safetensors"}
    for name, data in members.items():
        if name.endswith(".json"):
            json.loads(data)
        elif name.endswith(".skops"):  # skops is a zip of a JSON schema and of arrays
            inner = members_of(io.BytesIO(data))
            assert {Path(each).suffix for each in inner} <= {".json", ".npy"}
            assert not any(b"|O" in array[:128] for array in inner.values())
            assert not any(array.startswith(PICKLES) for array in inner.values())
        assert not data.startswith(PICKLES)


@pytest.mark.parametrize("name", MODELS)
def test_what_is_saved_and_loaded_predicts_the_same(two_class_bank, tmp_path, name):
    result = fit(two_class_bank, models={name: MODELS[name]}, features="resnet18/layer3+resnet18/penultimate")
    result.save(tmp_path / "a.featurebank")
    loaded = Predictor.load(tmp_path / "a.featurebank")
    bank = Bank(two_class_bank)
    pd.testing.assert_frame_equal(loaded.predict_bank(bank), result.predictor.predict_bank(bank), check_exact=True)
    assert loaded.report == result.predictor.report
    assert (loaded.target, loaded.classes.tolist()) == ("label", ["cat", "dog"])


def test_a_loaded_predictor_saves_again(predictor, tmp_path, two_classes):
    predictor.save(tmp_path / "b.featurebank")
    again = Predictor.load(tmp_path / "b.featurebank")
    image = new_images(two_classes)[:1]
    np.testing.assert_array_equal(again.predict_proba(image), predictor.predict_proba(image))


def test_a_model_outside_the_allow_list_is_refused_at_saving(predictor, tmp_path):
    forest = make_pipeline(RandomForestClassifier(2)).fit(np.eye(4), [0, 1, 0, 1])
    with pytest.raises(PredictorError, match="which a predictor may not: use models of plain arrays"):
        Predictor(Task(predictor.features, forest, "label")).save(tmp_path / "a.featurebank")
    assert not (tmp_path / "a.featurebank").exists()


# --- the backbone ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("weights", "0" * 64, "weights of resnet18 here have digest [0-9a-f]{12}, the predictor was trained on 0{12}"),
        ("pixel_policy", 99, "the pixel_policy of resnet18/penultimate is 1 here, the predictor was trained with 99"),
        ("views", "hflp", "resnet18/penultimate: no views 'hflp'; did you mean hflip.; use the featurebank it was"),
        ("views", "augment:999999999", "expected augment:K with K from 2 to 256, e.g. augment:8; use the featurebank"),
        ("precision", "fp8", "unknown precision"),
    ],
)
def test_another_spec_than_the_models_is_refused(two_class_predictor, two_classes, tmp_path, field, value, message):
    changed = with_facts(
        two_class_predictor,
        tmp_path / "a.featurebank",
        lambda facts: facts["features"][0]["spec"].update({field: value}),
    )
    with pytest.raises(PredictorError, match=message):
        Predictor.load(changed).predict(new_images(two_classes)[:1])


@pytest.fixture(scope="module")
def from_checkpoint(two_classes, tmp_path_factory):
    """A predictor over a backbone whose weights came from a checkpoint, which is then deleted: its file, the fit."""
    folder = tmp_path_factory.mktemp("checkpoint")
    torch.save(load_backbone("shufflenet_v2_x0_5", "random:5").model.state_dict(), folder / "mine.pth")
    weights = str(folder / "mine.pth")
    bank = extract(two_classes, folder / "a.bank", backbone="shufflenet_v2_x0_5", weights=weights, size=32)
    result = fit(bank, models=SVM)
    result.save(folder / "a.featurebank")
    (folder / "mine.pth").unlink()
    return folder / "a.featurebank", result


def test_weights_from_a_file_travel_inside(from_checkpoint, two_classes):
    path, result = from_checkpoint
    digest = result.predictor.features[0].spec.weights
    assert f"weights/{digest}.safetensors" in members_of(path)
    loaded = Predictor.load(path)
    table = loaded.predict_bank(Bank(path.parent / "a.bank"))
    files = [two_classes / name for name in table["path"]]
    np.testing.assert_allclose(loaded.predict_proba(files), table[["proba_cat", "proba_dog"]], atol=1e-4)
    np.testing.assert_array_equal(loaded.predict_proba(files[:3]), result.predictor.predict_proba(files[:3]))


def test_embedded_weights_are_checked_against_their_digest(from_checkpoint, two_classes, tmp_path):
    members = members_of(from_checkpoint[0])
    (name,) = [name for name in members if name.startswith("weights/")]
    data = bytearray(members[name])
    data[-1] ^= 1
    loaded = Predictor.load(write_members(tmp_path / "b.featurebank", {**members, name: bytes(data)}))
    with pytest.raises(PredictorError, match="bring the weights it was trained on"):
        loaded.predict(new_images(two_classes)[:1])
    without = {key: value for key, value in members.items() if key != name}
    with pytest.raises(PredictorError, match="the weights of shufflenet_v2_x0_5/penultimate are not in it"):
        Predictor.load(write_members(tmp_path / "c.featurebank", without))


@pytest.fixture(scope="module")
def viewed_bank(two_classes, tmp_path_factory):
    """Three feature sets of one backbone that differ in their views; the bank and their names by views."""
    path = tmp_path_factory.mktemp("views") / "a.bank"
    for views in ("none", "flips", "augment:3"):
        bank = extract(
            two_classes, path, backbone="resnet18", weights="random:0", size=64, layers="layer3", views=views
        )
    return bank, {each.spec.views: each.name for each in bank.feature_sets}


@pytest.mark.parametrize("views", [["flips"], ["augment:3"], ["none", "flips", "augment:3"]], ids="+".join)
def test_new_images_get_the_views_that_the_model_was_trained_on(viewed_bank, two_classes, tmp_path, monkeypatch, views):
    bank, names = viewed_bank
    wanted = "+".join(names[each] for each in views)
    fit(bank, models=MODELS, features=wanted).save(tmp_path / "a.featurebank")
    loads = []
    monkeypatch.setattr(
        "featurebank.backbones.registry.load_backbone",
        lambda *args, **kw: loads.append(args) or load_backbone(*args, **kw),
    )
    loaded = Predictor.load(tmp_path / "a.featurebank")
    table = loaded.predict_bank(bank)
    files = [two_classes / path for path in table["path"]]
    expected = table[["proba_cat", "proba_dog"]].to_numpy()
    np.testing.assert_allclose(loaded.predict_proba(files), expected, atol=1e-4)
    for number in (0, 17, 39):
        np.testing.assert_allclose(loaded.predict_proba([files[number]])[0], expected[number], atol=1e-4)
        np.testing.assert_allclose(
            loaded.embed(files[number]), bank.load(wanted.split("+"), paths=[table["path"][number]]), atol=2e-3
        )
    assert len(loads) == 1
    assert loaded.evaluate(scan(two_classes))["accuracy"] == np.mean(table["label"] == [f.parent.name for f in files])


@pytest.mark.parametrize("views", ["first", "all"])
@pytest.mark.parametrize("name", MODELS)
def test_new_images_get_what_the_model_learned_of_views(viewed_bank, two_classes, tmp_path, views, name):
    bank, names = viewed_bank
    result = fit(bank, models={name: MODELS[name]}, features=names["augment:3"], views=views)
    result.save(tmp_path / "a.featurebank")
    loaded = Predictor.load(tmp_path / "a.featurebank", backbone=load_backbone("resnet18", "random:0", 64))
    assert [each.views for each in loaded.features] == [views]
    X = bank.load(names["augment:3"], views=views).reshape(40, -1)
    table = loaded.predict_bank(bank)
    assert table["label"].tolist() == result.search.predict(X).tolist()
    files = [two_classes / path for path in table["path"][::8]]
    np.testing.assert_allclose(loaded.embed(files), X[::8], atol=2e-3)
    np.testing.assert_allclose(loaded.predict_proba(files), table[["proba_cat", "proba_dog"]][::8], atol=1e-3)


def test_what_is_made_of_views_is_one_of_three(viewed_bank, tmp_path):
    bank, names = viewed_bank
    fit(bank, models=SVM, features=names["flips"], views="first").save(tmp_path / "a.featurebank")
    other = with_facts(
        tmp_path / "a.featurebank", tmp_path / "b.featurebank", lambda facts: facts["features"][0].update(views="last")
    )
    with pytest.raises(PredictorError, match="the views of resnet18/layer3 are 'last'"):
        Predictor.load(other)


class Tiny(torch.nn.Module):
    """Mean colours of four tiles, each way, and a linear classifier."""

    def __init__(self, seed=0):
        super().__init__()
        self.pool = torch.nn.AdaptiveAvgPool2d(8)
        self.flat = torch.nn.Flatten()
        torch.manual_seed(seed)
        self.head = torch.nn.Linear(192, 5)

    def forward(self, images):
        return self.head(self.flat(self.pool(images)))


def to_tensor(image):
    return torch.from_numpy(np.array(image.resize((32, 32)))).permute(2, 0, 1).float() / 255


def tiny(version="1", seed=0):
    return Backbone.from_module(Tiny(seed), name="tiny", version=version, transform=to_tensor)


def test_your_own_module_is_given_again_at_loading(two_classes, tmp_path):
    bank = extract(two_classes, tmp_path / "a.bank", backbone=tiny())
    result = fit(bank, models=SVM)
    result.save(tmp_path / "a.featurebank")
    images = new_images(two_classes)
    with pytest.raises(PredictorError, match="'tiny' is your own module: give it as backbone= to"):
        Predictor.load(tmp_path / "a.featurebank").predict(images)
    loaded = Predictor.load(tmp_path / "a.featurebank", backbone=tiny())
    table = loaded.predict_bank(bank)
    files = [two_classes / path for path in table["path"]]
    np.testing.assert_allclose(loaded.predict_proba(files), table[["proba_cat", "proba_dog"]], atol=1e-4)
    assert loaded.predict(images).tolist() == [path.parent.name for path in images]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (tiny(seed=1), "bring the weights it was trained on"),
        (tiny(version="2"), "the version of tiny/penultimate is '2' here, the predictor was trained with '1'"),
    ],
)
def test_another_module_or_version_is_refused(two_classes, tmp_path, other, message):
    fit(extract(two_classes, tmp_path / "a.bank", backbone=tiny()), models=SVM).save(tmp_path / "a.featurebank")
    with pytest.raises(PredictorError, match=message):
        Predictor.load(tmp_path / "a.featurebank", backbone=other).predict(new_images(two_classes)[:1])


def test_your_own_module_and_a_named_backbone_work_together(own_bank, two_classes, tmp_path):
    bank = extract(two_classes, own_bank, backbone=tiny())
    fit(bank, models=SVM, features="tiny/penultimate+resnet18/layer3").save(tmp_path / "a.featurebank")
    loaded = Predictor.load(tmp_path / "a.featurebank", backbone=tiny())
    table = loaded.predict_bank(bank)
    files = [two_classes / path for path in table["path"][:2]]
    np.testing.assert_allclose(loaded.predict_proba(files), table[["proba_cat", "proba_dog"]][:2], atol=1e-4)


# --- files that are not what save writes -------------------------------------------------------------------


def refused(path):
    with pytest.raises(PredictorError) as caught:
        Predictor.load(path)
    message = str(caught.value)
    assert "\n" not in message
    assert repr(str(path)) in message
    return message


def test_a_missing_file_or_another_kind_of_file_is_refused(tmp_path):
    assert "no predictor at" in refused(tmp_path / "none.featurebank")
    assert "no predictor at" in refused(tmp_path)
    (tmp_path / "text.featurebank").write_text("hello")
    assert "is no predictor" in refused(tmp_path / "text.featurebank")


@pytest.mark.parametrize("kept", [0, 10, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(two_class_predictor, tmp_path, kept):
    data = two_class_predictor.read_bytes()
    path = tmp_path / "a.featurebank"
    path.write_bytes(data[: kept if isinstance(kept, int) else int(kept * len(data))])
    refused(path)


def test_any_changed_byte_is_refused_or_changes_nothing(two_class_predictor, two_class_bank, tmp_path):
    data = two_class_predictor.read_bytes()
    bank = Bank(two_class_bank)
    expected = Predictor.load(two_class_predictor).predict_bank(bank)
    random = np.random.default_rng(0)
    outcomes = []
    for position in random.integers(0, len(data), 60):
        changed = bytearray(data)
        changed[position] ^= 1 << int(random.integers(8))
        path = tmp_path / "a.featurebank"
        path.write_bytes(changed)
        try:
            loaded = Predictor.load(path)
        except PredictorError:
            outcomes.append("refused")
        else:
            pd.testing.assert_frame_equal(loaded.predict_bank(bank), expected)
            outcomes.append("same")
    assert outcomes.count("refused") > 50


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda members: {**members, "model.skops": members["model.skops"][:-1]}, "cannot be trusted or read"),
        (lambda members: {**members, "run.py": b"print()"}, "member 'run.py' is unknown, compressed or too large"),
        (lambda members: {**members, "../evil.json": b"{}"}, "member '../evil.json' is unknown"),
        (
            lambda members: {**members, "weights/short.safetensors": b""},
            "member 'weights/short.safetensors' is unknown",
        ),
        (lambda members: {**members, "model.skops": b"\x80\x04N."}, "its model cannot be trusted or read"),
        (lambda members: {**members, "predictor.json": b"[]"}, "is no predictor that this featurebank reads"),
        (lambda members: {**members, "predictor.json": b"{"}, "is no predictor that this featurebank reads"),
        (lambda members: {**members, "predictor.json": b" " * (1 << 20) + b"{}"}, "'predictor.json' is unknown, comp"),
        (lambda members: {**members, "fit.json": b"?"}, "is no predictor that this featurebank reads"),
        (lambda members: {name: members[name] for name in members if name != "fit.json"}, "expected each of"),
        (
            lambda members: {name: members[name] for name in members if name != "calibrator.skops"},
            "its model is no classifier with probabilities",
        ),
        (lambda members: {**members, "model.skops": members["calibrator.skops"][:-40]}, "cannot be trusted or read"),
    ],
)
def test_members_that_save_never_writes_are_refused(two_class_predictor, tmp_path, change, message):
    assert message in refused(write_members(tmp_path / "a.featurebank", change(members_of(two_class_predictor))))


def test_a_compressed_file_is_refused(two_class_predictor, tmp_path):
    members = members_of(two_class_predictor)
    message = refused(write_members(tmp_path / "a.featurebank", members, zipfile.ZIP_DEFLATED))
    assert "is unknown, compressed or too large" in message


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_is_there_twice_is_refused(two_class_predictor, tmp_path):
    path = write_members(tmp_path / "a.featurebank", members_of(two_class_predictor))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("fit.json", b"{}")
    assert "expected each of" in refused(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda facts: facts.update(version=9), "is a predictor of version 9, this reads up to 4: upgrade"),
        (lambda facts: facts.update(format="other"), "is no predictor; expected format 'featurebank-predictor'"),
        (lambda facts: facts.update(features=[]), "it names no feature set"),
        (lambda facts: facts["features"][0]["spec"].pop("pool"), "a feature spec with other fields"),
        (
            lambda facts: facts["features"][0].update(weights="embedded"),
            "the weights of resnet18/penultimate are not in",
        ),
        (lambda facts: facts["features"][0].update(size="big"), "the input size of resnet18/penultimate is no number"),
    ],
)
def test_facts_that_save_never_writes_are_refused(two_class_predictor, tmp_path, change, message):
    assert message in refused(with_facts(two_class_predictor, tmp_path / "a.featurebank", change))


@pytest.mark.parametrize("weights", ["/etc/passwd", "../mine.pth", "timm/other"])
def test_a_file_cannot_name_another_file_as_its_weights(two_class_predictor, tmp_path, weights):
    changed = with_facts(
        two_class_predictor, tmp_path / "a.featurebank", lambda facts: facts["features"][0].update(weights=weights)
    )
    assert f"its weights are {weights!r}, not a name" in refused(changed)


# --- evaluation --------------------------------------------------------------------------------------------


def test_evaluation_counts_known_mistakes(predictor, two_classes, tmp_path):
    images = new_images(two_classes)
    labels = [path.parent.name for path in images]
    labels[0], labels[1], labels[9] = "dog", "dog", "cat"  # two cats called dogs, one dog called a cat
    pd.DataFrame({"path": images, "label": labels, "w": [2.0] * 5 + [1.0] * 5}).to_csv(
        tmp_path / "new.csv", index=False
    )
    source = scan(tmp_path / "new.csv", root=two_classes.parent)
    report = predictor.evaluate(source)
    assert report["confusion"] == [[3, 1], [2, 4]]
    assert (report["n_samples"], report["classes"], report["accuracy"]) == (10, ["cat", "dog"], 0.7)
    assert report["balanced_accuracy"] == pytest.approx((3 / 4 + 4 / 6) / 2)
    assert report["macro_f1"] == pytest.approx((6 / 9 + 8 / 11) / 2)
    assert report["ci95"][0] < 0.7 < report["ci95"][1]
    assert (report["failures"], report["unlabelled"]) == ([], 0)
    weighted = predictor.evaluate(source, sample_weight="w")
    assert weighted["confusion"] == [[6, 1], [4, 4]]
    assert weighted["accuracy"] == pytest.approx(10 / 15)
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_unlabelled_and_unreadable_images_are_counted_apart(predictor, two_classes, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"")
    for name, path in (("a.png", new_images(two_classes)[0]), ("b.png", new_images(two_classes)[9])):
        (tmp_path / name).write_bytes(path.read_bytes())
    (tmp_path / "new.csv").write_text("path,label\nbad.png,cat\na.png,\nb.png,dog\n")
    report = predictor.evaluate(scan(tmp_path / "new.csv"))
    assert (report["n_samples"], report["unlabelled"], report["confusion"]) == (1, 1, [[0, 0], [0, 1]])
    assert report["failures"] == [{"path": "bad.png", "error": "the file is empty"}]


def test_labels_are_matched_by_their_text(two_classes, tmp_path):
    paths = sorted(two_classes.rglob("*.png"))
    columns = {"label": [1 if path.parent.name == "dog" else 0 for path in paths]}
    bank = extract(paths, tmp_path / "a.bank", columns=columns, backbone="resnet18", weights="random:0", size=64)
    numbers = fit(bank, models=SVM).predictor
    assert numbers.classes.dtype == np.int64
    (tmp_path / "0").symlink_to(two_classes.parent / "new" / "cat")
    (tmp_path / "test").mkdir()
    (tmp_path / "0").rename(tmp_path / "test" / "0")
    (tmp_path / "test" / "1").symlink_to(two_classes.parent / "new" / "dog")
    assert numbers.evaluate(scan(tmp_path / "test"))["confusion"] == [[5, 0], [0, 5]]


def test_what_evaluation_does_not_know_is_an_error(predictor, two_classes, tmp_path):
    source = scan(two_classes)
    with pytest.raises(PredictorError, match="'species'; it has 'label': give the one with the true values of 'label'"):
        predictor.evaluate(source, target="species")
    with pytest.raises(
        PredictorError, match="the source has no column 'w'; it has 'label': name one of them with --sample-weight"
    ):
        predictor.evaluate(source, sample_weight="w")
    with pytest.raises(ColumnError, match="'label' is no column of numbers"):
        predictor.evaluate(source, sample_weight="label")
    with pytest.raises(
        PredictorError, match="no column 'label'; it has none: give folders named by class, or a manifest"
    ):
        predictor.evaluate(scan(two_classes / "cat"))
    (tmp_path / "bird").symlink_to(two_classes / "cat")
    (tmp_path / "dog").symlink_to(two_classes / "dog")
    with pytest.raises(PredictorError, match=r"column 'label' holds \['bird'\]; this predictor knows cat, dog"):
        predictor.evaluate(scan(tmp_path))
    (tmp_path / "other" / "cat").mkdir(parents=True)
    (tmp_path / "other" / "cat" / "a.png").write_bytes(b"")
    with pytest.raises(PredictorError, match="no labelled image of the source could be read"):
        predictor.evaluate(scan(tmp_path / "other"))


def test_predict_bank_needs_the_models_feature_set(predictor, two_classes, tmp_path):
    bank = extract(two_classes, tmp_path / "a.bank", backbone="resnet18", weights="random:1", size=64)
    with pytest.raises(ValueError, match="40 of 40 samples have no row in 'resnet18/penultimate': run extract again"):
        predictor.predict_bank(bank)


def test_a_predictor_says_in_one_line_what_it_predicts_from_what(two_class_predictor):
    assert repr(Predictor.load(two_class_predictor)) == "Predictor(label from resnet18/penultimate)"

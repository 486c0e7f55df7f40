import shutil

import numpy as np
import pytest
from PIL import Image
from sklearn.covariance import oas

from featurebank import Bank, extract, load_backbone
from featurebank.errors import BankError, FeatureSetError, ImageError, NotInstalledError
from featurebank.explore import embedding, similar, similarity
from featurebank.explore.similarity import Whitening, shrunk

SET = "resnet18/layer3"


def cosines(X, one):
    return X @ one / np.linalg.norm(X, axis=1) / np.linalg.norm(one)


def test_the_most_similar_by_cosine_are_those_of_all_rows(two_class_bank):
    X, paths = Bank(two_class_bank).load(SET, return_paths=True)
    found = similar(two_class_bank, "cat/04.png", k=7, features=SET)
    assert found.columns.tolist() == ["source", "path", "similarity"]
    every = cosines(X, X[paths.index("cat/04.png")])
    order = [number for number in np.argsort(-every) if paths[number] != "cat/04.png"][:7]
    assert found["path"].tolist() == [paths[number] for number in order]
    np.testing.assert_allclose(found["similarity"], every[order], atol=1e-6)


def test_rows_are_read_in_blocks(two_class_bank, monkeypatch):
    expected = similar(two_class_bank, "dog/00.png", metric="whitened")
    monkeypatch.setattr(embedding, "ROWS_AT_ONCE", 7)
    found = similar(two_class_bank, "dog/00.png", metric="whitened")
    assert found["path"].tolist() == expected["path"].tolist()
    np.testing.assert_allclose(found["similarity"], expected["similarity"], atol=1e-5)


def test_a_file_is_embedded_as_the_bank_was(two_class_bank, two_classes):
    changed = Image.open(two_classes / "cat" / "04.png").transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    found = similar(two_class_bank, changed, k=50, features=SET)
    assert len(found) == len(Bank(two_class_bank).select())
    assert "cat/04.png" in found["path"].tolist()[:3]  # upright stripes stay as they are


def test_a_file_whose_content_is_in_the_bank_loads_no_network(two_class_bank, two_classes, tmp_path, monkeypatch):
    monkeypatch.setattr(similarity, "embed_like", None)
    shutil.copy(two_classes / "cat" / "04.png", tmp_path / "copy.png")
    found = similar(two_class_bank, tmp_path / "copy.png", k=2, features=SET)
    assert found["path"][0] == "cat/04.png"
    assert found["similarity"][0] == pytest.approx(1, abs=1e-6)


def test_an_image_of_the_bank_given_as_pixels_finds_itself(two_class_bank, two_classes):
    found = similar(two_class_bank, np.asarray(Image.open(two_classes / "dog" / "07.png")), k=1)
    assert found["path"][0] == "dog/07.png"
    assert found["similarity"][0] == pytest.approx(1, abs=1e-4)


def test_several_sets_are_looked_at_side_by_side(two_class_bank):
    names = ["resnet18/layer3", "resnet18/penultimate"]
    X, paths = Bank(two_class_bank).load(names, return_paths=True)
    for given in (names, "+".join(names)):
        found = similar(two_class_bank, "cat/04.png", k=1, features=given)
        expected = np.sort(cosines(X, X[paths.index("cat/04.png")]))[-2]
        assert found["similarity"][0] == pytest.approx(expected, abs=1e-6)


def test_whitened_rows_are_uncorrelated_and_equally_wide():
    random = np.random.default_rng(0)
    X = (random.normal(size=(5000, 6)) @ random.normal(size=(6, 6)) + 3).astype(np.float32)
    white = (X - (found := Whitening.of(iter([X[:10], X[10:]]))).mean) @ found.turn
    np.testing.assert_allclose(np.cov(white.T, bias=True), np.eye(6), atol=0.05)
    np.testing.assert_allclose(np.linalg.norm(found(X), axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("shape", [(40, 6), (6, 40), (3, 2)])
def test_the_covariance_is_shrunk_as_scikit_learn_does(shape):
    X = np.random.default_rng(1).normal(size=shape) * np.arange(1, shape[1] + 1)
    centred = X - X.mean(axis=0)
    np.testing.assert_allclose(shrunk(centred.T @ centred / len(X), len(X)), oas(X)[0], rtol=1e-10, atol=1e-12)


def test_whitening_finds_what_is_rare(two_class_bank):
    found = similar(two_class_bank, "cat/04.png", k=50, metric="whitened")
    assert len(found) == len(Bank(two_class_bank).select()) - 1
    assert found["similarity"].abs().max() < 1
    assert found["similarity"].is_monotonic_decreasing


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"image": "cow.png"}, BankError, "'cow.png' is neither a path of the bank nor a file"),
        ({"image": "cat/00.png", "k": 0}, BankError, "the 0 most similar; expected a number from 1 up"),
        ({"image": "cat/00.png", "metric": "cosin"}, BankError, "no metric 'cosin'; did you mean cosine?"),
        ({"image": "cat/00.png", "features": "layer9"}, FeatureSetError, "no feature set 'layer9'"),
        ({"image": "cat/00.png", "approximate": True, "metric": "whitened"}, BankError, "expected cosine"),
        ({"image": np.zeros((4, 4))}, ImageError, "floating-point pixels have no fixed range"),
    ],
)
def test_what_cannot_be_found_is_an_error(two_class_bank, arguments, error, message):
    with pytest.raises(error, match=message.replace("?", r"\?")):
        similar(two_class_bank, **arguments)


def test_an_unreadable_file_is_an_error(two_class_bank, tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"a\.png': not a readable image"):
        similar(two_class_bank, tmp_path / "a.png")
    with pytest.raises(ImageError, match="not a regular file"):
        similar(two_class_bank, tmp_path)


def test_rows_that_are_all_the_same_cannot_be_whitened():
    with pytest.raises(BankError, match="3 rows that are all the same cannot be whitened"):
        Whitening.of(iter([np.ones((3, 4), np.float32)]))


def test_a_bank_of_your_own_module_needs_it(tmp_path, noise):
    from featurebank import Backbone

    named = load_backbone("resnet18", "random:0", 32)
    own = Backbone("mine", named.model, named.preprocessing, "1")
    noise(40, 40).save(tmp_path / "a.png")
    bank = extract(tmp_path, tmp_path / "a.bank", backbone=own, layers=["layer1"])
    with pytest.raises(BankError, match="made by a module of your own: give it as backbone="):
        similar(bank, noise(40, 40, 1))
    assert similar(bank, noise(40, 40, 1), backbone=own)["path"].tolist() == ["a.png"]
    other = Backbone("mine", load_backbone("resnet18", "random:1", 32).model, named.preprocessing, "1")
    with pytest.raises(BankError, match="the backbone mine here is not the one that made 'mine/layer1'"):
        similar(bank, noise(40, 40, 1), backbone=other)


def test_an_index_finds_the_same_and_is_kept(two_class_bank, monkeypatch):
    pytest.importorskip("faiss")
    exact = similar(two_class_bank, "cat/04.png", k=5)
    for _ in range(2):
        found = similar(two_class_bank, "cat/04.png", k=5, approximate=True)
        assert found["path"].tolist() == exact["path"].tolist()
        np.testing.assert_allclose(found["similarity"], exact["similarity"], atol=1e-6)
        monkeypatch.setattr(similarity, "_make_index", None)


def test_without_faiss_the_error_names_the_extra(two_class_bank, monkeypatch):
    monkeypatch.setattr(similarity, "find_spec", lambda name: None)
    with pytest.raises(NotInstalledError, match=r"pip install 'featurebank\[faiss\]'"):
        similar(two_class_bank, "cat/04.png", approximate=True)

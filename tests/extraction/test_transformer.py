import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks

from featurebank import Bank, FeatureExtractor, extract
from featurebank.errors import BankError, ImageError, LayerError
from featurebank.images import listing

NET = {"weights": "random:0", "size": 64}
CHECKS = [  # with honest tags (strings, 1-d) check_estimator runs almost none: these say something about any estimator
    estimator_checks.check_estimator_cloneable,
    estimator_checks.check_no_attributes_set_in_init,
    estimator_checks.check_parameters_default_constructible,
    estimator_checks.check_get_params_invariance,
    estimator_checks.check_set_params,
    estimator_checks.check_estimator_repr,
    estimator_checks.check_valid_tag_types,
    estimator_checks.check_set_output_transform,
    estimator_checks.check_transformer_get_feature_names_out,
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_extractor_follows_scikit_learns_rules(check):
    check("FeatureExtractor", FeatureExtractor("resnet18", **NET))


@pytest.fixture
def paths(two_classes):
    return sorted(two_classes.rglob("*.png"))


@pytest.fixture
def labels(paths):
    return np.array([path.parent.name for path in paths])


def segments(bank):
    """Return the digests of all rows of all feature segments, repeats included."""
    return [row.tobytes() for each in Bank(bank).feature_sets for file in each.segments for row in file.read("digest")]


# --- the bank ----------------------------------------------------------------------------------------------


def test_embeddings_are_those_of_the_bank(two_class_bank, two_classes, paths):
    X, names = Bank(two_class_bank).load(["resnet18/layer3", "resnet18/penultimate"], return_paths=True)
    extractor = FeatureExtractor("resnet18", layer=["layer3", "penultimate"], bank=two_class_bank, **NET)
    np.testing.assert_array_equal(extractor.fit_transform([two_classes / name for name in names]), X)
    np.testing.assert_array_equal(extractor.transform([str(paths[3]), paths[3]]), X[[3, 3]])


def test_without_a_bank_they_are_the_same_to_the_stored_precision(two_class_bank, paths, distance):
    kept = FeatureExtractor("resnet18", bank=two_class_bank, **NET).transform(paths)
    computed = FeatureExtractor("resnet18", **NET).transform(paths)
    assert computed.dtype == np.float32
    assert distance(computed, kept) < 1e-3  # float16 may round the other way
    assert np.array_equal(computed, computed.astype(np.float16))


def test_what_is_cached_is_read_without_loading_torch(two_class_bank, two_classes):
    code = (
        "import sys; from pathlib import Path; from featurebank import FeatureExtractor\n"
        f"paths = sorted(Path({str(two_classes)!r}).rglob('*.png'))\n"
        f"extractor = FeatureExtractor('resnet18', bank={str(two_class_bank)!r}, weights='random:0', size=64)\n"
        "assert extractor.set_output(transform='pandas').fit_transform(paths).shape == (40, 512)\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_miss_is_computed_once_and_kept(paths, tmp_path):
    extractor = FeatureExtractor("resnet18", bank=tmp_path / "a.bank", **NET)
    first = extractor.transform(paths[:3])
    both = clone(extractor).transform(paths[:5])
    np.testing.assert_array_equal(both[:3], first)
    assert len(segments(tmp_path / "a.bank")) == len(set(segments(tmp_path / "a.bank"))) == 5
    (tmp_path / "copy.png").write_bytes(paths[0].read_bytes())
    np.testing.assert_array_equal(extractor.transform([tmp_path / "copy.png", paths[0]]), first[[0, 0]])
    assert len(segments(tmp_path / "a.bank")) == 5


def test_another_layer_computes_and_writes_just_what_it_lacks(paths, tmp_path):
    FeatureExtractor("resnet18", bank=tmp_path / "a.bank", **NET).transform(paths[:4])
    X = FeatureExtractor("resnet18", layer=["penultimate", "layer2"], bank=tmp_path / "a.bank", **NET).transform(
        paths[:6]
    )
    assert X.shape == (6, 512 + 128)
    assert [
        (each.name, sum(len(file.read("digest")) for file in each.segments))
        for each in Bank(tmp_path / "a.bank").feature_sets
    ] == [
        ("resnet18/layer2", 6),
        ("resnet18/penultimate", 6),
    ]


def test_no_sample_is_ever_written(paths, tmp_path):
    FeatureExtractor("resnet18", bank=tmp_path / "a.bank", **NET).transform(paths[:2])
    bank = Bank(tmp_path / "a.bank")
    assert len(bank.samples) == 0
    assert list((bank.path / "samples").iterdir()) == []


def test_an_extraction_reuses_what_the_extractor_embedded(two_classes, paths, tmp_path):
    FeatureExtractor("resnet18", bank=tmp_path / "a.bank", **NET).transform(paths)
    before = segments(tmp_path / "a.bank")
    bank = extract(two_classes, tmp_path / "a.bank", backbone="resnet18", **NET)
    assert segments(bank.path) == before
    assert len(bank.samples) == 40


@pytest.mark.slow
def test_processes_that_miss_the_same_images_at_once_embed_none_twice(two_classes, paths, tmp_path):
    code = (
        "from pathlib import Path; from featurebank import FeatureExtractor\n"
        f"paths = sorted(Path({str(two_classes)!r}).rglob('*.png'))\n"
        f"extractor = FeatureExtractor('resnet18', bank={str(tmp_path / 'a.bank')!r}, weights='random:0', size=64)\n"
        "print(extractor.transform(paths).tobytes().hex())"
    )
    started = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(2)]
    outputs = [process.communicate()[0] for process in started]
    assert [process.returncode for process in started] == [0, 0]
    assert outputs[0] == outputs[1]
    rows = segments(tmp_path / "a.bank")
    assert len(rows) == len(set(rows)) == 40


# --- views -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("views", ["flips", "augment:3"])
def test_views_are_averaged_as_the_bank_does_with_or_without_one(two_classes, paths, tmp_path, distance, views):
    options = {**NET, "views": views}
    bank = extract(two_classes, tmp_path / "a.bank", backbone="resnet18", **options)
    names = [str(path.relative_to(two_classes)) for path in paths[:5]]
    X = bank.load("resnet18/penultimate", paths=names)
    kept = FeatureExtractor("resnet18", bank=bank.path, **options)
    np.testing.assert_array_equal(kept.transform(paths[:5]), X)
    assert len(segments(bank.path)) == 40
    for without in (FeatureExtractor("resnet18", **options), FeatureExtractor("resnet18", batch_size=3, **options)):
        assert distance(without.transform(paths[:5]), X) < 1e-3  # float16 may round the other way
    own = FeatureExtractor("resnet18", bank=tmp_path / "b.bank", **options)
    np.testing.assert_array_equal(own.transform(paths[:5]), X)
    (each,) = Bank(tmp_path / "b.bank").feature_sets
    assert (each.rows, each.shape) == (5, bank.feature_sets[0].shape)
    assert len(without.get_feature_names_out()) == len(own.get_feature_names_out()) == 512


# --- inside scikit-learn -----------------------------------------------------------------------------------


def test_a_pipeline_learns_from_paths(two_class_bank, two_classes, paths, labels):
    extractor = FeatureExtractor("resnet18", bank=two_class_bank, **NET)
    pipeline = make_pipeline(extractor, StandardScaler(), LogisticRegression()).fit(paths, labels)
    new = sorted((two_classes.parent / "new").rglob("*.png"))
    in_memory = make_pipeline(FeatureExtractor("resnet18", **NET), *pipeline[1:])
    assert in_memory.predict(new).tolist() == [path.parent.name for path in new]


def test_cross_val_score_over_paths_equals_that_over_loaded_rows(two_class_bank, two_classes, paths):
    folds = StratifiedKFold(4, shuffle=True, random_state=0)
    labels = np.random.default_rng(0).permutation(["x", "y"] * 20)  # so that the scores are not all 1
    extractor = FeatureExtractor("resnet18", bank=two_class_bank, **NET)
    over_paths = cross_val_score(
        make_pipeline(extractor, StandardScaler(), LogisticRegression()), paths, labels, cv=folds
    )
    names = [str(path.relative_to(two_classes)) for path in paths]
    X = Bank(two_class_bank).load("resnet18/penultimate", paths=names)
    over_rows = cross_val_score(make_pipeline(StandardScaler(), LogisticRegression()), X, labels, cv=folds)
    assert over_paths.tolist() == over_rows.tolist()


def test_a_grid_search_chooses_the_layer_and_embeds_nothing_twice(paths, labels, tmp_path):
    extractor = FeatureExtractor("resnet18", bank=tmp_path / "a.bank", **NET)
    pipeline = make_pipeline(extractor, StandardScaler(), LogisticRegression())
    grid = {"featureextractor__layer": ["layer1", "layer2"], "logisticregression__C": [0.01, 1.0]}
    search = GridSearchCV(pipeline, grid, cv=3).fit(paths, labels)
    assert search.best_score_ > 0.9
    assert search.best_estimator_.predict(paths[:2]).tolist() == ["cat", "cat"]
    sets = {
        each.name: [len(file.read("digest")) for file in each.segments]
        for each in Bank(tmp_path / "a.bank").feature_sets
    }
    assert {name: sum(rows) for name, rows in sets.items()} == {"resnet18/layer1": 40, "resnet18/layer2": 40}


def test_columns_have_names_and_pandas_output_uses_them(two_class_bank, paths):
    layers = ["layer3", "penultimate"]
    extractor = FeatureExtractor("resnet18", layer=layers, bank=two_class_bank, **NET)
    frame = extractor.set_output(transform="pandas").fit_transform(paths[:2])
    assert frame.shape == (2, 256 + 512)
    assert [frame.columns[i] for i in (0, 255, 256, -1)] == [
        "resnet18/layer3_0",
        "resnet18/layer3_255",
        "resnet18/penultimate_0",
        "resnet18/penultimate_511",
    ]
    without_bank = FeatureExtractor("resnet18", layer=layers, **NET)
    assert without_bank.get_feature_names_out().tolist() == frame.columns.tolist()


# --- inputs ------------------------------------------------------------------------------------------------


def test_images_in_memory_are_embedded_and_kept_by_their_pixels(paths, tmp_path):
    extractor = FeatureExtractor("resnet18", bank=tmp_path / "a.bank", **NET)
    files = extractor.transform(paths[:2])
    opened = [Image.open(path) for path in paths[:2]]
    np.testing.assert_array_equal(extractor.transform(opened), files)
    np.testing.assert_array_equal(extractor.transform([np.asarray(image) for image in opened]), files)
    assert len(segments(tmp_path / "a.bank")) == 4  # two files, two images without a file


@pytest.mark.parametrize("with_bank", [True, False])
def test_an_unreadable_image_is_an_error_that_names_it(paths, tmp_path, with_bank):
    bad = tmp_path / "bad.png"
    bad.write_bytes(paths[0].read_bytes()[:200])
    extractor = FeatureExtractor("resnet18", bank=tmp_path / "a.bank" if with_bank else None, **NET)
    with pytest.raises(ImageError, match=r"bad.png': cannot be decoded"):
        extractor.transform([paths[0], bad])
    with pytest.raises(ImageError, match=r"gone.png': cannot be read: No such file"):
        extractor.transform([paths[0], tmp_path / "gone.png"])
    assert not with_bank or segments(tmp_path / "a.bank") == []


def test_wrong_options_are_errors_at_transform_not_before(paths):
    with pytest.raises(LayerError, match="no layer 'layer9'"):
        FeatureExtractor("resnet18", layer="layer9", **NET).transform(paths[:1])
    with pytest.raises(BankError, match="no views 'mirror'"):
        FeatureExtractor("resnet18", views="mirror", **NET).transform(paths[:1])
    with pytest.raises(BankError, match="store 'int8'; expected one of float16, float32"):
        FeatureExtractor("resnet18", store="int8", **NET).transform(paths[:1])


def test_float32_is_kept_as_it_is(paths, tmp_path):
    extractor = FeatureExtractor("resnet18", store="float32", bank=tmp_path / "a.bank", **NET)
    X = extractor.transform(paths[:2])
    assert not np.array_equal(X, X.astype(np.float16))
    np.testing.assert_array_equal(X, FeatureExtractor("resnet18", store="float32", **NET).transform(paths[:2]))


def test_a_file_that_changes_between_digest_and_decoding_is_not_stored_under_its_old_digest(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    Image.new("RGB", (16, 16), "red").save(path)
    read = listing.read_file

    def read_and_change(name):
        data = read(name)
        Image.new("RGB", (16, 16), "blue").save(path)
        return data

    monkeypatch.setattr(listing, "read_file", read_and_change)
    extractor = FeatureExtractor("resnet18", weights="random:0", bank=tmp_path / "a.bank")
    with pytest.raises(ImageError, match="changed while it was read"):
        extractor.transform([path])
    assert not list((tmp_path / "a.bank").glob("features/*/*.h5"))


# --- what nobody asked for ---------------------------------------------------------------------------------


def test_a_bank_of_another_size_wants_that_size_here_too(two_class_bank, paths):
    extractor = FeatureExtractor("resnet18", weights="random:0", bank=two_class_bank)
    with pytest.raises(BankError, match=r"has resnet18 with size=64 alone, which is not asked for: pass size=64"):
        extractor.transform(paths[:1])
    with pytest.raises(BankError, match="weights='random:0', size=64 alone"):
        FeatureExtractor("resnet18", bank=two_class_bank).get_feature_names_out()
    assert {each.name for each in Bank(two_class_bank).feature_sets} == {"resnet18/layer3", "resnet18/penultimate"}


def test_what_is_asked_for_is_added_beside_it(own_bank, paths):
    FeatureExtractor("resnet18", bank=own_bank, weights="random:0", size=32).transform(paths[:1])
    FeatureExtractor("resnet18", bank=own_bank, **NET, views="hflip", store="float32").transform(paths[:1])
    made = [(each["name"].partition("@")[0], each["options"]) for each in Bank(own_bank).info()["feature_sets"]]
    assert ("resnet18/penultimate", {"weights": "random:0", "size": 32}) in made
    assert ("resnet18/penultimate", {**NET, "views": "hflip", "store": "float32"}) in made
    with pytest.raises(BankError, match=r"with weights='random:0', size=64 or .* pass one of these"):
        FeatureExtractor("resnet18", bank=own_bank).transform(paths[:1])


def test_a_search_over_options_in_a_bank_of_its_own_tries_the_defaults_too(paths, labels, tmp_path):
    pipeline = make_pipeline(FeatureExtractor("resnet18", bank=tmp_path / "a.bank", **NET), LogisticRegression())
    grid = {"featureextractor__views": ["hflip", "none"]}
    GridSearchCV(pipeline, grid, cv=2, error_score="raise").fit(paths[::4], labels[::4])
    assert {each.spec.views for each in Bank(tmp_path / "a.bank").feature_sets} == {"none", "hflip"}

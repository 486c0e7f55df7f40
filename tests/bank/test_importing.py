"""Files of other tools, written here as those tools write them, become feature sets that can be fitted."""

import hashlib
import json

import h5py
import numpy as np
import pandas as pd
import pytest

from featurebank import Bank, Predictor, extract, fit
from featurebank.bank.formats import collection
from featurebank.bank.formats.importing import import_features, kind_of_file, name_digest, origin_of
from featurebank.errors import BankError, CorruptError, FeatureBankError, FeatureSetError, PredictorError, SourceError

RANDOM = np.random.default_rng(0)


def vectors(n, d=4, dtype=np.float32):
    return RANDOM.normal(size=(n, d)).astype(dtype)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(collection, "BATCH_BYTES", 48)


def numpy_file(folder, X, **columns):
    """X.npy beside X.csv."""
    np.save(folder / "X.npy", X)
    pd.DataFrame({"path": [f"{i}.png" for i in range(len(X))], **columns}).to_csv(folder / "X.csv", index=False)
    return folder / "X.npy"


# --- NumPy and Parquet -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "stored"), [("f2", "float16"), ("<f4", "float32"), (">f4", "float32"), ("f8", "float32")]
)
def test_numpy_beside_a_csv(tmp_path, dtype, stored):
    X = vectors(7).astype(dtype)
    found = import_features(numpy_file(tmp_path, X, label=[*"abcabc", ""]), tmp_path / "a.bank")
    (each,) = found["feature_sets"]
    assert (each["name"], each["rows"], each["written"], each["dtype"]) == ("X/features", 7, 7, stored)
    bank = Bank(tmp_path / "a.bank")
    loaded, y, paths = bank.load("X/features", "label", return_paths=True)
    assert np.array_equal(loaded, X[:6].astype(np.float32))
    assert (y.tolist(), paths) == (list("abcabc"), [f"{i}.png" for i in range(6)])
    assert len(bank.load("X/features")) == 7  # the label that is missing stays missing


def test_the_spec_says_where_it_came_from(tmp_path):
    file = numpy_file(tmp_path, vectors(3))
    import_features(file, tmp_path / "a.bank", backbone="clip")
    spec = Bank(tmp_path / "a.bank").feature_set("clip/features").spec
    rows, names = (hashlib.sha256(path.read_bytes()).hexdigest() for path in (file, file.with_suffix(".csv")))
    listed = json.dumps([["X.csv", names], ["X.npy", rows]], separators=(",", ":")).encode()
    assert spec.origin == {
        "format": "numpy",
        "url": file.as_uri(),
        "sha256": hashlib.sha256(listed).hexdigest(),
    }
    assert origin_of("parquet", file, [file])["sha256"] == rows  # of one file: what sha256sum says


def test_other_numbers_are_another_feature_set_and_the_same_ones_from_elsewhere_are_not(tmp_path):
    (tmp_path / "moved").mkdir()
    for folder, seed in ((tmp_path, 0), (tmp_path / "moved", 0), (tmp_path, 1)):
        X = np.random.default_rng(seed).normal(size=(3, 2)).astype("f4")
        import_features(numpy_file(folder, X), tmp_path / "a.bank", source="photos")
    bank = Bank(tmp_path / "a.bank")
    assert [each.rows for each in bank.feature_sets] == [3, 3]
    with pytest.raises(FeatureSetError, match="fits 2 feature sets; add one of @"):
        bank.feature_set("X/features")


def test_stacks_of_tokens_and_maps_keep_their_shape(tmp_path):
    for shape, layout in (((5, 3), "tokens"), ((4, 2, 2), "NCHW")):
        X = RANDOM.normal(size=(3, *shape)).astype("f4")
        import_features(numpy_file(tmp_path, X), tmp_path / "a.bank", backbone=layout)
        each = Bank(tmp_path / "a.bank").feature_set(f"{layout}/features:none")
        assert (each.shape, each.spec.layout) == ((1, *shape), layout)
        assert np.array_equal(Bank(tmp_path / "a.bank").load(each.name), X.reshape(3, -1))


def test_another_table_names_the_rows(tmp_path):
    np.save(tmp_path / "X.npy", vectors(2))
    pd.DataFrame({"file": ["b", "a"], "site": [1, 2], "note": ["x", "y"]}).to_parquet(tmp_path / "names.parquet")
    options = {"samples": tmp_path / "names.parquet", "path_column": "file", "columns": ["site"]}
    import_features(tmp_path / "X.npy", tmp_path / "a.bank", **options)
    bank = Bank(tmp_path / "a.bank")
    assert bank.samples["path"].tolist() == ["a", "b"]
    assert bank.samples["site"].tolist() == [2, 1]
    assert "note" not in bank.samples


@pytest.mark.parametrize("kind", ["fixed", "list"])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_parquet_of_another_tool(tmp_path, kind, dtype):
    import pyarrow as pa
    from pyarrow import parquet

    X = vectors(5).astype(dtype)
    values = pa.array(X.reshape(-1))
    lists = (
        pa.FixedSizeListArray.from_arrays(values, 4) if kind == "fixed" else pa.array(X.tolist(), pa.list_(values.type))
    )
    table = pa.table({"path": list("edcba"), "embedding": lists, "label": ["x", None, "y", "x", "y"]})
    parquet.write_table(table, tmp_path / "dino.parquet")
    found = import_features(tmp_path / "dino.parquet", tmp_path / "a.bank")
    assert found["feature_sets"][0]["name"] == "dino/embedding"
    loaded, paths = Bank(tmp_path / "a.bank").load("dino/embedding", return_paths=True)
    assert paths == list("abcde")
    assert np.array_equal(loaded, X[::-1].astype("f4"))
    assert Bank(tmp_path / "a.bank").samples["label"].isna().tolist() == [False, False, False, True, False]


def test_parquet_that_leaves_it_open_what_is_meant(tmp_path):
    frame = pd.DataFrame({"name": ["a", "b"], "x": [[1.0, 2.0], [3.0, 4.0]], "y": [[1.0], [2.0]]})
    frame.to_parquet(tmp_path / "a.parquet")
    with pytest.raises(BankError, match=r"the columns of numbers 'x', 'y'; expected one .*--features"):
        import_features(tmp_path / "a.parquet", tmp_path / "a.bank")
    with pytest.raises(BankError, match="no column 'path'; it has 'name': name it with --path-column"):
        import_features(tmp_path / "a.parquet", tmp_path / "a.bank", features="x")
    import_features(tmp_path / "a.parquet", tmp_path / "a.bank", features="x", path_column="name")
    assert Bank(tmp_path / "a.bank").load("a/x").tolist() == [[1, 2], [3, 4]]
    frame.assign(x=[[1.0, 2.0], [3.0]]).to_parquet(tmp_path / "b.parquet")
    with pytest.raises(BankError, match=r"column 'x' of .* has rows that are not 2 numbers long"):
        import_features(tmp_path / "b.parquet", tmp_path / "a.bank", features="x", path_column="name")


# --- clip-retrieval ----------------------------------------------------------------------------------------


def clip_folder(folder, sizes=(3, 2), kinds=("img_emb", "text_emb"), digits=1):
    """As clip_retrieval/clip_inference/writer.py writes it: one file of each kind a partition."""
    parts = {kind: [vectors(size, 6, np.float16) for size in sizes] for kind in kinds}
    for kind, arrays in parts.items():
        (folder / kind).mkdir(parents=True)
        for number, X in enumerate(arrays):
            np.save(folder / kind / f"{kind}_{str(number).zfill(digits)}.npy", X)
    (folder / "metadata").mkdir()
    for number, size in enumerate(sizes):
        names = [f"/data/{number}_{row}.jpg" for row in range(size)]
        frame = pd.DataFrame({"image_path": names, "caption": [f"a {name}" for name in names], "width": range(size)})
        frame.to_parquet(folder / "metadata" / f"metadata_{str(number).zfill(digits)}.parquet")
    return {kind: np.concatenate(arrays) for kind, arrays in parts.items()}


def test_a_folder_of_clip_retrieval(tmp_path):
    expected = clip_folder(tmp_path / "clip", sizes=[1] * 11, digits=2)
    found = import_features(tmp_path / "clip", tmp_path / "a.bank")
    assert (found["kind"], found["samples"]) == ("clip-retrieval", 11)
    bank = Bank(tmp_path / "a.bank")
    assert [each.name for each in bank.feature_sets] == ["clip/img_emb", "clip/text_emb"]
    paths = [f"/data/{number}_0.jpg" for number in range(11)]
    for kind, X in expected.items():
        assert np.array_equal(bank.load(f"clip/{kind}", paths=paths), X.astype("f4"))
        assert bank.feature_set(f"clip/{kind}").dtype == "float16"
    assert bank.samples["caption"][0] == "a /data/0_0.jpg"


def test_partitions_that_do_not_fit(tmp_path):
    clip_folder(tmp_path / "clip", kinds=("img_emb",))
    (tmp_path / "clip" / "img_emb" / "img_emb_1.npy").unlink()
    with pytest.raises(SourceError, match=r"partitions \[1\] of .* have not both img_emb and metadata"):
        import_features(tmp_path / "clip", tmp_path / "a.bank")
    np.save(tmp_path / "clip" / "img_emb" / "img_emb_1.npy", vectors(7, 6, np.float16))
    with pytest.raises(BankError, match=r"img_emb_1\.npy' has 7 rows for 2 names"):
        import_features(tmp_path / "clip", tmp_path / "a.bank")


# --- slides ------------------------------------------------------------------------------------------------


def save_h5(path, assets, attributes=None, mode="w"):
    """As TRIDENT's IO.save_h5 and CLAM's save_hdf5 write: chunks of a row, extended by appending."""
    with h5py.File(path, mode) as file:
        for key, values in assets.items():
            if key in file:
                file[key].resize(len(file[key]) + len(values), axis=0)
                file[key][-len(values) :] = values
                continue
            shape = (None, *values.shape[1:])
            rows = file.create_dataset(key, data=values, maxshape=shape, chunks=(1, *values.shape[1:]))
            for name, value in (attributes or {}).get(key, {}).items():
                rows.attrs[name] = value


TRIDENT = {"coords": {"patch_size": 256, "level0_magnification": 40, "target_magnification": 20, "name": "A"}}


@pytest.mark.parametrize("shape", ["(n, d)", "(1, n, d)"])
def test_a_folder_of_trident(tmp_path, shape):
    (tmp_path / "features_uni").mkdir()
    expected = {}
    for slide, count in (("B", 2), ("A", 3), ("empty", 0)):
        X, coords = vectors(count), np.arange(2 * count).reshape(count, 2)
        expected[slide] = X
        assets = {"features": X if shape == "(n, d)" or not count else X[None], "coords": coords}
        save_h5(tmp_path / "features_uni" / f"{slide}.h5", assets, TRIDENT) if count else empty_slide(tmp_path)
    found = import_features(tmp_path / "features_uni", tmp_path / "a.bank", backbone="uni")
    assert (found["kind"], found["samples"]) == ("slides", 5)
    bank = Bank(tmp_path / "a.bank")
    assert bank.samples["path"].tolist() == ["A/000000", "A/000001", "A/000002", "B/000000", "B/000001"]
    assert bank.samples["slide"].tolist() == list("AAABB")
    assert bank.samples["x"].tolist() == [0, 2, 4, 0, 2]
    assert np.array_equal(bank.load("uni/features"), np.concatenate([expected["A"], expected["B"]]))


def empty_slide(folder):
    with h5py.File(folder / "features_uni" / "empty.h5", "w") as file:
        file.create_dataset("features", (0, 4), "f4", maxshape=(None, 4))
        file.create_dataset("coords", (0, 2), "i8", maxshape=(None, 2))


def test_a_folder_of_clam(tmp_path):
    (tmp_path / "h5_files").mkdir()
    (tmp_path / "pt_files").mkdir()
    X, coords = vectors(5), np.arange(10, dtype=np.int32).reshape(5, 2)
    for start in (0, 3):  # the loader appends batch after batch
        part = {"features": X[start : start + 3], "coords": coords[start : start + 3]}
        save_h5(tmp_path / "h5_files" / "slide.h5", part, mode="a")
    import_features(tmp_path, tmp_path / "a.bank", backbone="resnet50_trunc")
    bank = Bank(tmp_path / "a.bank")
    assert np.array_equal(bank.load("resnet50_trunc/features"), X)
    assert bank.samples["y"].tolist() == [1, 3, 5, 7, 9]


def test_one_embedding_a_slide(tmp_path):
    (tmp_path / "titan").mkdir()
    X = vectors(2)
    for slide, row in zip("AB", X, strict=True):
        save_h5(tmp_path / "titan" / f"{slide}.h5", {"features": row, "coords": np.zeros((9, 2), int)})
    import_features(tmp_path / "titan", tmp_path / "a.bank")
    bank = Bank(tmp_path / "a.bank")
    assert bank.samples["path"].tolist() == ["A", "B"]
    assert np.array_equal(bank.load("titan/features"), X)
    assert "x" not in bank.samples


def test_slides_that_do_not_fit(tmp_path):
    save_h5(tmp_path / "a.h5", {"features": vectors(3), "coords": np.zeros((2, 2), int)})
    with pytest.raises(BankError, match=r"has 3 rows and coordinates of \(2, 2\)"):
        import_features(tmp_path / "a.h5", tmp_path / "a.bank")
    save_h5(tmp_path / "a.h5", {"coords": np.zeros((2, 2), int)})
    with pytest.raises(CorruptError, match="no array 'features'"):
        import_features(tmp_path / "a.h5", tmp_path / "a.bank")


# --- thingsvision ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["npy", "hdf5", "npy in parts", "hdf5 in parts"])
def test_a_folder_of_thingsvision(tmp_path, form):
    """As utils/storing/helpers.py stores features, and utils/data/helpers.py the names beside them."""
    folder, X = tmp_path / "alexnet", vectors(5)
    folder.mkdir()
    (folder / "file_names.txt").write_bytes(b"".join(b"%d\xe9.png\n" % i for i in range(5)))
    parts = {"features": X} if "parts" not in form else {"features_01": X[:2], "features_02": X[2:]}
    if form.startswith("npy"):
        for name, part in parts.items():
            np.save(folder / f"{name}.npy", part)
    else:
        with h5py.File(folder / "features.hdf5", "w") as file:
            for name, part in parts.items():
                file.create_dataset(name, data=part)
    found = import_features(folder, tmp_path / "a.bank")
    assert (found["kind"], found["feature_sets"][0]["name"]) == ("thingsvision", "alexnet/features")
    bank = Bank(tmp_path / "a.bank")
    assert bank.table.rows["path"].tolist() == [b"%d\xe9.png" % i for i in range(5)]
    assert np.array_equal(bank.load("alexnet/features"), X)


def test_thingsvision_in_a_format_that_is_not_read(tmp_path):
    (tmp_path / "file_names.txt").write_text("a\n")
    (tmp_path / "features.mat").write_bytes(b"")
    with pytest.raises(SourceError, match=r"no features.npy or features.hdf5 .*file_format='npy'"):
        import_features(tmp_path, tmp_path / "a.bank")
    np.save(tmp_path / "features.npy", vectors(3))
    with pytest.raises(BankError, match="have 3 rows for 1 names"):
        import_features(tmp_path, tmp_path / "a.bank")


# --- beside what was extracted -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photo_bank(two_classes, tmp_path_factory):
    """The photos with two layers of a network, and one imported set of rows for the same images."""
    folder = tmp_path_factory.mktemp("import")
    bank = extract(two_classes, folder / "photos.bank", backbone="resnet18", weights="random:0", size=32)
    paths, labels = bank.samples["path"], bank.samples["label"]
    X = np.random.default_rng(0).normal(size=(len(paths), 8)) + 6 * (labels == "dog").to_numpy()[:, None]
    np.save(folder / "clip.npy", X.astype("f4"))
    pd.DataFrame({"path": paths, "batch": range(len(paths))}).to_csv(folder / "clip.csv", index=False)
    import_features(folder / "clip.npy", bank, source=two_classes)
    return bank


def test_rows_go_beside_those_of_the_same_images(photo_bank):
    assert photo_bank.info()["samples"] == {"ok": 40, "failed": 0, "gone": 0}
    assert photo_bank.info()["incomplete"] == []
    assert photo_bank.load(["clip/features", "resnet18/penultimate"]).shape == (40, 8 + 512)
    assert photo_bank.samples["batch"].tolist() == list(range(40))
    assert set(photo_bank.samples["label"]) == {"cat", "dog"}


def test_full_paths_are_those_below_the_source(photo_bank, two_classes, tmp_path):
    np.save(tmp_path / "full.npy", vectors(40))
    names = [f"{two_classes}/{path}" for path in photo_bank.samples["path"]]
    pd.DataFrame({"path": names}).to_csv(tmp_path / "full.csv", index=False)
    assert import_features(tmp_path / "full.npy", photo_bank, source=two_classes)["new"] == 0


def test_names_that_the_source_does_not_have_are_refused(photo_bank, two_classes, tmp_path):
    file = numpy_file(tmp_path, vectors(2))
    pd.DataFrame({"path": ["cat/00.png", "photos/dog/01.png"]}).to_csv(tmp_path / "X.csv", index=False)
    with pytest.raises(BankError, match=r"1 of 2 names are not in .*'photos/dog/01.png' \(near: 'dog/01.png'\)"):
        import_features(file, photo_bank, source=two_classes)


def test_a_predictor_of_imported_rows_takes_banks_and_says_why_it_takes_no_images(photo_bank, two_classes, tmp_path):
    result = fit(photo_bank, features="clip/features", models={"logreg": {"C": 1.0}}, target="label")
    assert result.report["best"]["mean"] == 1.0
    result.save(tmp_path / "a.featurebank")
    predictor = Predictor.load(tmp_path / "a.featurebank")
    assert (predictor.predict_bank(photo_bank)["label"] == photo_bank.samples["label"]).all()
    with pytest.raises(PredictorError, match=r"^'clip/features' was imported from file://.*not images$"):
        predictor.predict([two_classes / "cat" / "00.png"])


def test_extract_says_why_it_cannot_extend_an_imported_set(photo_bank, two_classes):
    with pytest.raises(BankError, match=r"^'clip/features' was imported from file://.*extract cannot extend it"):
        extract(two_classes, photo_bank, backbone="clip", layers="features")


def test_rows_that_are_missing_are_to_be_imported(photo_bank, tmp_path, two_classes):
    bank = extract(two_classes / "cat", tmp_path / "a.bank", backbone="resnet18", weights="random:0", size=32)
    paths = bank.samples["path"][:5]
    np.save(tmp_path / "few.npy", vectors(5))
    pd.DataFrame({"path": paths}).to_csv(tmp_path / "few.csv", index=False)
    import_features(tmp_path / "few.npy", bank, source=two_classes / "cat")
    (line,) = bank.info()["incomplete"]
    assert line.startswith("15 of 20 samples have no row in 'few/features': 'few/features' was imported from file://")
    with pytest.raises(BankError, match="import a file that has them"):
        bank.load("few/features")


# --- hostile and degenerate --------------------------------------------------------------------------------


def test_rows_of_no_known_image_are_told_apart_by_their_names(tmp_path):
    file = numpy_file(tmp_path, np.ones((2, 3), "f4"))
    import_features(file, tmp_path / "a.bank", source="s")
    assert Bank(tmp_path / "a.bank").table.rows["digest"].tolist() == [
        name_digest("s", b"0.png"),
        name_digest("s", b"1.png"),
    ]


def test_a_source_that_was_pruned_comes_back(tmp_path):
    file = numpy_file(tmp_path, vectors(2))
    import_features(file, tmp_path / "a.bank", source="s")
    Bank(tmp_path / "a.bank").prune(source="s", grace=0)
    assert Bank(tmp_path / "a.bank").info()["samples"]["gone"] == 2
    import_features(file, tmp_path / "a.bank", source="s")
    assert len(Bank(tmp_path / "a.bank").load("X/features")) == 2


def test_a_value_that_is_no_number_is_named(tmp_path):
    X = vectors(3)
    X[1, 0] = np.nan
    with pytest.raises(BankError, match=r"the row of '1\.png' holds values that are not finite"):
        import_features(numpy_file(tmp_path, X), tmp_path / "a.bank")
    assert len(Bank(tmp_path / "a.bank").samples) == 0


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.zeros((3, 4), "i8"), "holds int64; expected floating-point numbers"),
        (np.zeros(3, "f4"), r"has the shape \(3,\); expected \(n, d\)"),
        (np.zeros((4, 2), "f4"), "has 4 rows for 3 names"),
        (np.zeros((3, 0), "f4"), r"has the shape \(3, 0\)"),
        (np.asfortranarray(np.zeros((3, 4), "f4")), "Fortran's order; .*ascontiguousarray"),
        (np.array([[{}], [{}], [{}]], object), "expected rows of plain numbers"),
    ],
)
def test_arrays_that_are_no_rows_of_features(tmp_path, X, message):
    file = numpy_file(tmp_path, vectors(3))
    np.save(file, X, allow_pickle=True)
    with pytest.raises(FeatureBankError, match=message):
        import_features(file, tmp_path / "a.bank")


def test_an_array_that_is_cut_short(tmp_path):
    file = numpy_file(tmp_path, vectors(30))
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(CorruptError, match="an array of 30 rows ends in row"):
        import_features(file, tmp_path / "a.bank")


def test_names_that_are_none(tmp_path):
    file = numpy_file(tmp_path, vectors(2))
    for names, message in ((["a", "a"], "names 'a' more than once"), (["a", ""], "no 'path' in row 1")):
        pd.DataFrame({"path": names, "x": 1}).to_csv(tmp_path / "X.csv", index=False)
        with pytest.raises(BankError, match=message):
            import_features(file, tmp_path / "a.bank")
    (tmp_path / "X.csv").unlink()
    with pytest.raises(SourceError, match=r"no names beside .*X\.npy'; expected 'X\.csv'"):
        import_features(file, tmp_path / "a.bank")


def test_options_that_do_not_go_with_a_format(tmp_path):
    save_h5(tmp_path / "a.h5", {"features": vectors(3)})
    with pytest.raises(BankError, match="path column does not go with slides"):
        import_features(tmp_path / "a.h5", tmp_path / "a.bank", path_column="x")
    with pytest.raises(BankError, match="no format 'slide'; did you mean slides"):
        import_features(tmp_path / "a.h5", tmp_path / "a.bank", kind="slide")
    for backbone in ("a@b", "a\nb"):
        with pytest.raises(FeatureSetError, match="cannot name a feature set"):
            import_features(tmp_path / "a.h5", tmp_path / "a.bank", backbone=backbone)


def test_what_a_path_looks_like(tmp_path):
    for name in ("a.npy", "a.npz", "a.parquet", "a.h5ad", "a.safetensors"):
        (tmp_path / name).touch()
    kinds = [kind_of_file(tmp_path / name) for name in ("a.npy", "a.npz", "a.parquet", "a.h5ad", "a.safetensors")]
    assert kinds == ["numpy", "npz", "parquet", "h5ad", "safetensors"]
    with pytest.raises(SourceError, match="does not exist"):
        kind_of_file(tmp_path / "none")
    (tmp_path / "a.txt").touch()
    with pytest.raises(SourceError, match=r"looks like no file of features; .*--from"):
        kind_of_file(tmp_path / "a.txt")

"""What `export_bank` writes comes back as it was, and other tools read it."""

import json
import zipfile

import h5py
import numpy as np
import pandas as pd
import pytest

from featurebank import Bank
from featurebank.bank import samples
from featurebank.bank.formats import collection
from featurebank.bank.formats.exporting import FORMATS, export_bank
from featurebank.bank.formats.importing import import_features
from featurebank.bank.spec import FeatureSpec
from featurebank.errors import BankError, ColumnError, CorruptError, FeatureSetError, StorageError
from featurebank.images.columns import tidy

SUFFIX = {name: ends[0] for name, ends in FORMATS.items()}
PATHS = [b"a/1.png", b"b/caf\xe9.png", b"b/\xf0\x9f\x90\x88.png", b"c 'quoted'\n.png", b"d/same.png"]
COLUMNS = {
    "label": pd.Series(["cat", None, "d\udce9g", "cat", "=1+1"], dtype=object),
    "age": pd.array([3, None, -(2**62), 0, 1], "Int64"),
    "weight": pd.array([0.5, 1e-300, None, 0.0, 2.0], "Float64"),
    "seen": pd.array([True, False, None, True, False], "boolean"),
    "path": ["x", "y", None, "z", "zero\0byte"],
    "a/b.c": list("vwxyz"),
}


def spec(layer, views, store):
    preprocessing = {"crop": [4, 4]}
    return FeatureSpec("my:net", "1", "0" * 64, layer, "vector", 0, "none", preprocessing, 1, views, "fp32", store)


@pytest.fixture
def bank(tmp_path):
    """Five samples of two sources, two of one content; a float16 set of two views and a float32 one of one."""
    bank = Bank.create(tmp_path / "a.bank")
    digests = [bytes([number]) * 32 for number in (1, 2, 3, 4, 1)]
    random = np.random.default_rng(0)
    bank.add_spec(spec("last", "hflip", "float16"), {"backbone": "my:net", "weights": "random:0", "size": 4})
    bank.add_spec(spec("first", "none", "float32"))
    bank.add_features(spec("last", "hflip", "float16"), digests[:4], random.normal(size=(4, 2, 3)).astype(np.float16))
    bank.add_features(spec("first", "none", "float32"), digests[:4], random.normal(size=(4, 1, 5)).astype(np.float32))
    same = {"size": 1, "mtime_ns": 1, "status": samples.OK, "error": "", "row_hash": 0, "stamp": 0}
    fields = {key: [value] * 5 for key, value in same.items()} | {"digest": digests, "path": PATHS}
    fields["source"] = fields["root"] = ["/photos"] * 4 + ["/zoo"]
    bank.add_samples(samples.make_table(fields, tidy(pd.DataFrame(COLUMNS))), newest=0)
    return bank


def assert_same(found, expected):
    left, right = found.select(), expected.select()
    assert left.rows["path"].tolist() == right.rows["path"].tolist()
    assert left.rows["source"].tolist() == right.rows["source"].tolist()
    assert left.rows["digest"].tolist() == right.rows["digest"].tolist()
    pd.testing.assert_frame_equal(left.columns[right.columns.columns], right.columns)
    assert [each.spec for each in found.feature_sets] == [each.spec for each in expected.feature_sets]
    for each, other in zip(found.feature_sets, expected.feature_sets, strict=True):
        assert (each.shape, each.dtype, each.rows) == (other.shape, other.dtype, other.rows)
        assert np.array_equal(found.load(each.name, views="all"), expected.load(other.name, views="all"))
        assert found.requests_of(each.spec) == expected.requests_of(other.spec)


@pytest.mark.parametrize("form", FORMATS)
def test_a_bank_comes_back_as_it_was(bank, tmp_path, form, monkeypatch):
    monkeypatch.setattr(collection, "BATCH_BYTES", 64)  # two rows of both sets: several batches, the last one short
    file = tmp_path / f"out{SUFFIX[form]}"
    steps = []
    facts = export_bank(bank, file, progress=lambda done, total: steps.append((done, total)))
    assert (facts["format"], facts["samples"], facts["bytes"]) == (form, 5, file.stat().st_size)
    assert steps[-1] == (10, 10)
    assert len(steps) > 2
    found = import_features(file, tmp_path / "b.bank")
    assert (found["kind"], found["samples"], found["new"]) == (form, 5, 5)
    assert [each["written"] for each in found["feature_sets"]] == [4, 4]  # the content that two samples share once
    assert_same(Bank(tmp_path / "b.bank"), bank)


@pytest.mark.parametrize("form", FORMATS)
def test_importing_again_writes_nothing(bank, tmp_path, form):
    export_bank(bank, tmp_path / f"out{SUFFIX[form]}")
    before = sorted(bank.path.rglob("*.h5"))
    found = import_features(tmp_path / f"out{SUFFIX[form]}", bank)
    assert (found["new"], [each["written"] for each in found["feature_sets"]]) == (0, [0, 0])
    assert sorted(bank.path.rglob("*.h5")) == before


def test_two_files_of_the_same_bank_are_the_same_bytes(bank, tmp_path):
    for form in ("hdf5", "parquet", "safetensors"):
        for name in "ab":
            export_bank(bank, tmp_path / name, to=form)
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes(), form


def test_chosen_feature_sets_and_columns(bank, tmp_path):
    facts = export_bank(bank, tmp_path / "a.parquet", features=["first"], columns=["age", "label", "age"])
    assert [each["name"] for each in facts["feature_sets"]] == ["my:net/first"]
    frame = pd.read_parquet(tmp_path / "a.parquet")
    assert list(frame.columns) == ["source", "path", "digest", "age", "label", "my:net/first"]


# --- other readers -----------------------------------------------------------------------------------------


def rows_of(bank, name):
    return bank.load(name, views="all")


def test_numpy_reads_npz(bank, tmp_path):
    export_bank(bank, tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        assert file["my:net/last"].dtype == np.float16
        assert np.array_equal(file["my:net/last"], rows_of(bank, "last"))
        assert file["path"][1] == "b/caf\\udce9.png"
        assert np.array_equal(file["weight"], [0.5, 1e-300, np.nan, 0, 2], equal_nan=True)
        assert file["age.missing"].tolist() == [False, True, False, False, False]


def test_pandas_and_arrow_read_parquet(bank, tmp_path):
    from pyarrow import parquet

    export_bank(bank, tmp_path / "a.parquet")
    table = parquet.read_table(tmp_path / "a.parquet")
    assert str(table.schema.field("my:net/last").type).startswith("fixed_size_list<")
    assert str(table.schema.field("my:net/last").type.value_type) == "halffloat"
    frame = pd.read_parquet(tmp_path / "a.parquet")
    assert np.array_equal(np.stack(frame["my:net/first"]), rows_of(bank, "first")[:, 0])
    assert frame["label"].isna().tolist() == [False, True, False, False, False]
    assert frame["path_"].tolist()[:2] == ["x", "y"]  # the user's column, told from the samples' own
    assert frame["a_b_c"].tolist() == list("vwxyz")


def test_h5py_reads_hdf5(bank, tmp_path):
    export_bank(bank, tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["features/my:net/last"].dtype == np.float16
        assert np.array_equal(file["features/my:net/last"][()], rows_of(bank, "last"))
        assert file["samples/label"].asstr()[0] == "cat"


def test_safetensors_are_read_by_their_own_library(bank, tmp_path):
    from safetensors import safe_open
    from safetensors.numpy import load_file

    export_bank(bank, tmp_path / "a.safetensors")
    found = load_file(tmp_path / "a.safetensors")
    assert sorted(found) == ["my:net/first", "my:net/last"]
    assert np.array_equal(found["my:net/last"], rows_of(bank, "last").astype(np.float16))
    with safe_open(tmp_path / "a.safetensors", "np") as file:
        assert json.loads(file.metadata()["age"]) == [3, None, -(2**62), 0, 1]


def test_h5ad_is_as_its_specification_has_it(bank, tmp_path):
    export_bank(bank, tmp_path / "a.h5ad")
    with h5py.File(tmp_path / "a.h5ad") as file:
        found = {name: (file[name].attrs["encoding-type"], file[name].attrs["encoding-version"]) for name in file}
        assert found["X"] == ("array", "0.2.0")
        assert found["obs"] == found["var"] == ("dataframe", "0.2.0")
        assert all(found[name] == ("dict", "0.1.0") for name in ("obsm", "varm", "obsp", "varp", "layers", "uns"))
        assert (file.attrs["encoding-type"], file.attrs["encoding-version"]) == ("anndata", "0.1.0")
        assert file["obs"].attrs["_index"] == "_index"
        assert list(file["obs"].attrs["column-order"])[:4] == ["source", "path", "digest", "label"]
        assert file["obs/label"].attrs["encoding-type"] == "categorical"
        assert file["obs/label/codes"][1] == -1
        assert file["obs/age"].attrs["encoding-type"] == "nullable-integer"
        assert file["X"].shape == (5, 5 + 2 * 3)
        assert file["X"].dtype == np.float32


def test_anndata_reads_h5ad(bank, tmp_path):
    anndata = pytest.importorskip("anndata")  # it holds pandas below 3, so it is no requirement of the tests
    export_bank(bank, tmp_path / "a.h5ad")
    found = anndata.read_h5ad(tmp_path / "a.h5ad")
    assert found.shape == (5, 11)
    assert np.array_equal(found.X[:, :5], rows_of(bank, "first")[:, 0])
    assert found.var["feature_set"].tolist() == ["my:net/first"] * 5 + ["my:net/last"] * 6
    assert found.obs["label"].isna().tolist() == [False, True, False, False, False]
    assert found.obs["age"].isna().tolist() == [False, True, False, False, False]
    assert found.obs_names[0] == "a/1.png"


# --- errors ------------------------------------------------------------------------------------------------


def test_what_cannot_be_exported_is_one_line(bank, tmp_path):
    with pytest.raises(BankError, match=r"ends in none of \.h5, .*or --to hdf5"):
        export_bank(bank, tmp_path / "a.txt")
    with pytest.raises(BankError, match="no format 'parket'; did you mean parquet"):
        export_bank(bank, tmp_path / "a", to="parket")
    with pytest.raises(FeatureSetError, match="no feature set 'net/third'"):
        export_bank(bank, tmp_path / "a.npz", features="net/third")
    with pytest.raises(ColumnError, match="no column 'colour'"):
        export_bank(bank, tmp_path / "a.npz", columns=["colour"])
    with pytest.raises(StorageError, match="no folder"):
        export_bank(bank, tmp_path / "no" / "a.npz")
    with pytest.raises(BankError, match="has no pooled feature set"):
        export_bank(Bank.create(tmp_path / "empty.bank"), tmp_path / "a.npz")


def test_a_set_that_lacks_rows_is_not_exported(bank, tmp_path):
    other = spec("third", "none", "float32")
    bank.add_spec(other)
    bank.add_features(other, [bytes([1]) * 32], np.ones((1, 1, 2), np.float32))
    with pytest.raises(BankError, match="3 of 5 samples have no row in 'my:net/third'"):
        export_bank(bank, tmp_path / "a.npz", features="third")
    assert list(tmp_path.glob("*.npz")) == []


@pytest.mark.parametrize("form", FORMATS)
def test_an_interrupted_export_leaves_the_old_file(bank, tmp_path, form):
    def stop(done, total):
        raise KeyboardInterrupt

    file = tmp_path / f"out{SUFFIX[form]}"
    file.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt):
        export_bank(bank, file, progress=stop)
    assert file.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".tmp")] == []


@pytest.mark.parametrize("form", FORMATS)
def test_a_damaged_file_is_refused(bank, tmp_path, form):
    file = tmp_path / f"out{SUFFIX[form]}"
    export_bank(bank, file)
    whole = file.read_bytes()
    for data in (b"", whole[: len(whole) // 2], b"\x00" * len(whole)):
        file.write_bytes(data)
        with pytest.raises(CorruptError, match=r"make (it|the file) again"):
            import_features(file, tmp_path / "new.bank", kind=form)
    assert not (tmp_path / "new.bank").exists()


@pytest.mark.parametrize("options", [{"backbone": "x"}, {"source": "x"}, {"path_column": "x"}])
def test_an_export_says_itself_what_it_holds(bank, tmp_path, options):
    export_bank(bank, tmp_path / "a.parquet")
    with pytest.raises(BankError, match=r"does not go with .*, which featurebank exported: leave it out"):
        import_features(tmp_path / "a.parquet", tmp_path / "b.bank", **options)
    assert not (tmp_path / "b.bank").exists()


def test_a_newer_export_is_refused(bank, tmp_path):
    export_bank(bank, tmp_path / "a.npz")
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    facts = str(np.load(tmp_path / "a.npz")["featurebank"]).replace('"version": 1', '"version": 7')
    np.savez(tmp_path / "b.npz", featurebank=np.array(facts))
    assert members
    with pytest.raises(CorruptError, match="'featurebank-export' 7; this reads 'featurebank-export' 1: upgrade"):
        import_features(tmp_path / "b.npz", tmp_path / "new.bank")


def test_an_export_whose_image_has_changed_since_is_refused(bank, tmp_path):
    export_bank(bank, tmp_path / "a.npz")
    other = Bank.create(tmp_path / "b.bank")
    table = bank.select()
    rows = table.rows.assign(digest=[bytes([9]) * 32] * 5)
    other.add_samples(samples.SampleTable(rows, table.columns), newest=0)
    with pytest.raises(BankError, match=r"other content in the bank than in the file.*import into a new bank"):
        import_features(tmp_path / "a.npz", other)


@pytest.mark.parametrize("kind", ["soft", "external"])
def test_hdf5_that_leads_out_of_its_file_is_refused(bank, tmp_path, kind):
    export_bank(bank, tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        del file["features/my:net/last"]
        link = h5py.SoftLink("/samples/age") if kind == "soft" else h5py.ExternalLink("secret.h5", "/x")
        file["features/my:net/last"] = link
    with pytest.raises(CorruptError, match="of its own"):
        import_features(tmp_path / "a.h5", tmp_path / "b.bank")

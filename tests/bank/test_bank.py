import numpy as np
import pandas as pd
import pytest

from featurebank import Bank
from featurebank.bank import samples
from featurebank.bank.features import as_keys, as_loaded
from featurebank.bank.spec import FeatureSpec
from featurebank.errors import BankError, ColumnError, CorruptError, FeatureSetError
from featurebank.images.columns import tidy

CROP = {"crop": [4, 4]}
SPEC = FeatureSpec("net", "", "0" * 64, "penultimate", "vector", 0, "none", CROP, 1, "none", "fp32", "float16")
MAPS = FeatureSpec("net", "", "0" * 64, "layer3", "NCHW", 0, "none", CROP, 1, "none", "fp32", "float32")


def digest(number: int) -> bytes:
    return bytes([number]) * 32


def rows(paths, digests, status=samples.OK, source="/photos", columns=None):
    n = len(paths)
    fields = {
        "source": [source] * n,
        "root": [source] * n,
        "path": [path.encode() for path in paths],
        "digest": digests,
        "size": [1] * n,
        "mtime_ns": [1] * n,
        "status": [status] * n,
        "error": ["broken" if status == samples.FAILED else ""] * n,
        "row_hash": [0] * n,
        "stamp": [0] * n,
    }
    return samples.make_table(fields, tidy(pd.DataFrame(columns or {}, index=range(n))))


@pytest.fixture
def bank(tmp_path):
    """Four samples, b.jpg and d.jpg of the same content; two feature sets, rows over two segments."""
    bank = Bank.create(tmp_path / "a.bank")
    bank.add_spec(SPEC)
    bank.add_features(SPEC, [digest(3), digest(1)], np.array([[[3, 3.5]], [[1, 1.5]]], np.float32))
    bank.add_features(SPEC, [digest(2)], np.array([[[2, 2.5]]], np.float32))
    bank.add_spec(MAPS)
    maps = np.arange(3 * 2 * 4, dtype=np.float32).reshape(3, 2, 1, 2, 2)  # (rows, views, c, h, w)
    bank.add_features(MAPS, [digest(1), digest(2), digest(3)], maps)
    table = rows(
        ["c.jpg", "a.jpg", "b.jpg", "d.jpg"],
        [digest(3), digest(1), digest(2), digest(2)],
        columns={
            "label": ["y", "x", "y", None],
            "weight": [3.0, 1.0, 2.0, 2.0],
            "n": pd.array([7, None, 9, 9], dtype="Int64"),
        },
    )
    bank.add_samples(table, newest=0)
    return bank


def test_a_new_bank_is_empty_and_says_what_it_is(tmp_path):
    bank = Bank.create(tmp_path / "a.bank")
    assert (bank.path / "bank.json").read_text().startswith('{\n  "format": "featurebank",\n  "version": 1')
    assert bank.info()["samples"] == {"ok": 0, "failed": 0, "gone": 0}
    assert bank.verify() == []
    assert len(Bank.create(tmp_path / "a.bank").samples) == 0


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir(), lambda path: path.write_text("")])
def test_opening_what_is_no_bank_is_an_error(tmp_path, make):
    make(tmp_path / "a.bank")
    with pytest.raises(BankError, match="expected a folder made by"):
        Bank(tmp_path / "a.bank")


def test_a_folder_with_other_things_is_not_made_a_bank(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(BankError, match="is no bank; name a new folder"):
        Bank.create(tmp_path)


def test_a_newer_bank_says_upgrade(bank):
    file = bank.path / "bank.json"
    file.write_text(file.read_text().replace('"version": 1', '"version": 9'))
    with pytest.raises(BankError, match="version 9; this reads 1: upgrade"):
        Bank(bank.path)


def test_load_sorts_rows_by_path_however_they_were_written(bank):
    X, paths = bank.load("net/penultimate", return_paths=True)
    assert paths == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    assert X.dtype == np.float32
    np.testing.assert_array_equal(X, [[1, 1.5], [2, 2.5], [3, 3.5], [2, 2.5]])


def test_load_with_a_target_leaves_out_the_unlabelled(bank):
    X, y, weight, groups, paths = bank.load(
        "net/penultimate", "label", sample_weight="weight", groups="label", return_paths=True
    )
    assert (y.tolist(), weight.tolist(), groups.tolist()) == (["x", "y", "y"], [1, 2, 3], ["x", "y", "y"])
    assert paths == ["a.jpg", "b.jpg", "c.jpg"]
    assert X.shape == (3, 2)
    assert bank.classes("label").tolist() == ["x", "y"]


def test_targets_keep_their_kind(bank):
    assert bank.load("net/penultimate", "n")[1].dtype == np.int64
    assert bank.load("net/penultimate", "weight")[1].dtype == np.float64


def test_paths_select_and_order(bank):
    X, paths = bank.load("net/penultimate", paths=["c.jpg", "a.jpg"], return_paths=True)
    assert paths == ["c.jpg", "a.jpg"]
    np.testing.assert_array_equal(X[:, 0], [3, 1])
    with pytest.raises(BankError, match=r"'z.jpg' is not in the bank"):
        bank.load("net/penultimate", paths=["z.jpg"])


@pytest.mark.parametrize("store", ["float16", "float32"])
def test_what_is_computed_now_is_brought_to_the_very_bits_that_a_bank_would_load(tmp_path, store):
    spec = FeatureSpec(**{**MAPS.to_dict(), "store": store, "views": "augment:5"})
    values = np.random.default_rng(0).normal(size=(3, 5, 7, 2, 2)).astype(np.float32)
    bank = Bank.create(tmp_path / "b.bank")
    bank.add_spec(spec)
    bank.add_features(spec, [digest(number) for number in range(3)], values)
    loaded = bank.feature_set_of(spec).read(as_keys([digest(number) for number in range(3)]))
    found = as_loaded(values, spec)
    assert found.dtype == loaded.dtype == np.float32
    np.testing.assert_array_equal(found, loaded)
    np.testing.assert_array_equal(as_loaded(values[1:2], spec), loaded[1:2])


def test_views_are_averaged_taken_first_or_all(bank):
    name = "net/layer3:none"
    everything = bank.load(name, views="all")
    assert everything.shape == (4, 2, 4)
    np.testing.assert_array_equal(everything[0], [[0, 1, 2, 3], [4, 5, 6, 7]])
    np.testing.assert_array_equal(bank.load(name, views="first")[0], [0, 1, 2, 3])
    np.testing.assert_array_equal(bank.load(name)[0], [2, 3, 4, 5])
    with pytest.raises(BankError, match="expected one of mean, first, all"):
        bank.load(name, views="last")


def test_several_names_concatenate_and_blocks_say_where(bank):
    names = ["net/layer3:none", "net/penultimate"]
    assert bank.blocks(names) == {"net/layer3:none": slice(0, 4), "net/penultimate": slice(4, 6)}
    X = bank.load(names)
    np.testing.assert_array_equal(X[:, 4:], bank.load("net/penultimate"))


def test_unknown_names_say_what_there_is(bank):
    with pytest.raises(FeatureSetError, match=r"no feature set 'net/layer9'.*net/layer3:none, net/penultimate"):
        bank.load("net/layer9")
    with pytest.raises(ColumnError, match=r"no column 'species'; it has 'label', 'weight', 'n'"):
        bank.load("net/penultimate", "species")


def test_a_set_is_found_by_its_layer_alone(bank):
    assert bank.feature_set("penultimate").name == "net/penultimate"
    np.testing.assert_array_equal(bank.load(["layer3:none", "penultimate"])[:, 4:], bank.load("net/penultimate"))


def test_two_sets_of_one_name_are_told_apart_by_their_fingerprint(bank):
    other = FeatureSpec(**{**SPEC.to_dict(), "weights": "1" * 64})
    bank.add_spec(other)
    bank.add_features(other, [digest(i) for i in (1, 2, 3)], np.zeros((3, 1, 2), np.float32))
    with pytest.raises(FeatureSetError, match="fits 2 feature sets; add one of @"):
        bank.load("net/penultimate")
    assert not bank.load(f"net/penultimate@{other.fingerprint[:8]}").any()


def test_a_sample_without_a_row_is_an_error_not_a_lost_row(bank):
    bank.add_samples(rows(["e.jpg"], [digest(9)]), newest=bank.table.newest_stamp)
    with pytest.raises(BankError, match="1 of 5 samples have no row in 'net/penultimate': extract '/photos' again"):
        bank.load("net/penultimate")
    bank.add_spec(MAPS, {"backbone": "net", "weights": "DEFAULT", "size": None})
    ((line, other),) = [bank.info()["incomplete"]]
    assert line.startswith("1 of 5 samples have no row in 'net/layer3:none': '/photos' (1 sample) is no longer there")
    assert other.startswith("1 of 5 samples have no row in 'net/penultimate': ")


def test_contents_without_a_row_name_the_layer_to_ask_for(bank):
    with pytest.raises(BankError) as caught:
        bank.feature_set("layer3:none").read(as_keys([digest(1), digest(9)]))
    ending = "run extract again with --backbone net --layer layer3:none"
    assert str(caught.value) == f"1 of 2 samples have no row in 'net/layer3:none': {ending}"


def test_failed_and_gone_samples_are_left_out_of_loads(bank):
    bank.add_samples(rows(["a.jpg"], [digest(1)], samples.GONE), newest=bank.table.newest_stamp)
    bank.add_samples(rows(["b.jpg"], [digest(2)], samples.FAILED), newest=bank.table.newest_stamp)
    assert bank.load("net/penultimate", return_paths=True)[1] == ["c.jpg", "d.jpg"]
    assert bank.samples["status"].tolist() == ["gone", "failed", "ok", "ok"]
    assert bank.samples["error"].tolist() == ["", "broken", "", ""]


def test_rows_written_twice_load_once(bank):
    bank.add_features(SPEC, [digest(1), digest(2)], np.array([[[1, 1.5]], [[2, 2.5]]], np.float32))
    assert bank.feature_set("net/penultimate").rows == 3
    assert bank.load("net/penultimate").shape == (4, 2)


def test_missing_are_the_digests_without_a_row(bank):
    assert bank.missing(SPEC, [digest(1), digest(7), digest(7)]) == {digest(7)}
    assert bank.missing(SPEC, []) == set()


def test_float16_that_cannot_hold_a_value_names_the_remedy(bank):
    with pytest.raises(BankError, match=r"70000, more than float16 holds .* use --store float32"):
        bank.add_features(SPEC, [digest(4)], np.array([[[70000, 0]]], np.float32))
    with pytest.raises(BankError, match="not finite"):
        bank.add_features(MAPS, [digest(4)], np.full((1, 2, 1, 2, 2), np.nan, np.float32))


def test_label_attaches_corrects_and_keeps_the_rest(bank):
    frame = pd.DataFrame({"path": ["d.jpg", "a.jpg"], "label": ["x", None], "site": ["north", "south"]})
    assert bank.label(frame) == 2
    columns = bank.samples.set_index("path")
    assert columns["label"].tolist() == ["x", "y", "y", "x"]
    assert columns.loc["d.jpg", "site"] == "north"
    assert columns["weight"].tolist() == [1, 2, 3, 2]
    assert bank.label(frame) == 0
    assert len(list(bank.path.glob("samples/*.h5"))) == 2


def test_a_label_for_an_unknown_path_writes_nothing(bank):
    before = sorted(bank.path.rglob("*.h5"))
    with pytest.raises(BankError, match=r"'z.jpg' is not in the bank"):
        bank.label(pd.DataFrame({"path": ["a.jpg", "z.jpg"], "label": ["y", "y"]}))
    assert sorted(bank.path.rglob("*.h5")) == before


@pytest.mark.parametrize("path", ["./c.jpg", "/photos/c.jpg", "C.JPG", "c"])
def test_a_path_of_another_machine_is_the_one_that_is_meant(bank, path):
    bank.label(pd.DataFrame({"path": [path], "label": ["z"]}))
    assert bank.samples.set_index("path")["label"]["c.jpg"] == "z"


@pytest.mark.parametrize("path", ["photos/c.jpg", "c.jpeg", "cc.jpg"])
def test_an_unknown_path_suggests_the_one_that_was_meant(bank, path):
    with pytest.raises(BankError) as caught:
        bank.label(pd.DataFrame({"path": [path], "label": ["z"]}))
    hint = "did you mean 'c.jpg'? `featurebank info BANK --samples` lists its paths"
    assert str(caught.value) == f"path {path!r} is not in the bank; {hint}"


def test_a_user_column_may_carry_one_of_our_names(bank):
    bank.label(pd.DataFrame({"path": ["a.jpg"], "size": ["huge"]}))
    assert bank.samples.loc[0, ["size", "size_"]].tolist() == [1, "huge"]
    assert bank.classes("size").tolist() == ["huge"]


@pytest.mark.parametrize("weights", [[-1.0, 1, 1, 1], [0.0, 0, 0, 0], [np.inf, 1, 1, 1]])
def test_impossible_sample_weights_are_refused(bank, weights):
    bank.label(pd.DataFrame({"path": ["a.jpg", "b.jpg", "c.jpg", "d.jpg"], "w": weights}))
    with pytest.raises(ColumnError, match="expected numbers from 0 up"):
        bank.load("net/penultimate", sample_weight="w")


def test_verify_names_the_damaged_file_and_load_refuses_it(bank):
    file = sorted(bank.feature_folder(SPEC).glob("*.h5"))[0]
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    (problem,) = bank.verify()
    assert problem["file"] == str(file)
    assert "run extract again" in problem["problem"]
    with pytest.raises(CorruptError, match=file.name):
        bank.load("net/penultimate")


def test_a_segment_of_another_feature_set_is_refused(bank):
    file = next(bank.feature_folder(MAPS).glob("*.h5"))
    file.rename(bank.feature_folder(SPEC) / file.name)
    with pytest.raises(CorruptError):
        bank.load("net/penultimate")
    assert len(bank.verify()) == 1


def test_a_changed_spec_is_refused(bank):
    file = bank.feature_folder(SPEC) / "spec.json"
    file.write_text(file.read_text().replace("fp32", "bf16"))
    with pytest.raises(CorruptError, match="spec of another feature set"):
        bank.load("net/penultimate")


def test_requests_lead_back_to_their_spec(bank):
    bank.add_spec(SPEC, {"backbone": "net", "weights": "DEFAULT"})
    assert bank.find_spec({"backbone": "net", "weights": "DEFAULT"}) == SPEC
    assert bank.find_spec({"backbone": "net", "weights": "OTHER"}) is None
    assert bank.requests_of(SPEC) == [{"backbone": "net", "weights": "DEFAULT"}]


def test_a_path_in_two_sources_is_labelled_by_naming_its_source(bank):
    bank.add_samples(rows(["a.jpg"], [digest(1)], source="/more"), newest=bank.table.newest_stamp)
    with pytest.raises(BankError, match="is in 2 sources of the bank; expected one: name it in a column 'source'"):
        bank.label(pd.DataFrame({"path": ["a.jpg"], "label": ["z"]}))
    with pytest.raises(BankError, match=r"'b.jpg' is not in source '/more'; expected one of '/photos'"):
        bank.label(pd.DataFrame({"path": ["b.jpg"], "source": ["/more"], "label": ["z"]}))
    assert bank.label(pd.DataFrame({"path": ["a.jpg"], "source": ["/more"], "label": ["z"]})) == 1
    labels = bank.samples.set_index(["source", "path"])["label"]
    assert labels["/more", "a.jpg"] == "z"
    assert labels["/photos", "a.jpg"] == "x"


# --- batches -----------------------------------------------------------------------------------------------


def name(number):
    return int(number).to_bytes(2, "big") * 16


@pytest.fixture
def many(tmp_path):
    """1,000 samples with a label and a weight, rows over three segments in another order than the samples."""
    bank = Bank.create(tmp_path / "many.bank")
    bank.add_spec(SPEC)
    order = np.random.default_rng(0).permutation(1000)
    for part in np.array_split(order, 3):
        values = np.stack([part, -part], axis=1)[:, None].astype(np.float32)
        bank.add_features(SPEC, [name(number) for number in part], values)
    columns = pd.DataFrame({"label": [f"c{n % 3}" for n in range(1000)], "weight": np.arange(1000.0)})
    fields = {
        **{field: ["/s"] * 1000 for field in ("source", "root")},
        **{field: [0] * 1000 for field in ("size", "mtime_ns", "row_hash", "stamp", "status")},
        "path": [b"%04d.jpg" % n for n in range(1000)],
        "digest": [name(n) for n in range(1000)],
        "error": [""] * 1000,
    }
    bank.add_samples(samples.make_table(fields, tidy(columns)), newest=0)
    return bank


def test_batches_joined_are_what_load_gives(many):
    X, y, weight = many.load(SPEC.name, target="label", sample_weight="weight")
    parts = list(many.iter_batches(SPEC.name, target="label", sample_weight="weight", batch_size=64))
    assert [len(part[0]) for part in parts] == [64] * 15 + [40]
    for joined, expected in zip(map(np.concatenate, zip(*parts, strict=True)), (X, y, weight), strict=True):
        np.testing.assert_array_equal(joined, expected)
    assert np.array_equal(X[:, 0], np.arange(1000))


def test_shuffled_batches_take_each_row_once_and_keep_its_label(many, monkeypatch):
    monkeypatch.setattr("featurebank.bank.loading.ROWS_AT_ONCE", 100)
    first, again, other = (
        list(many.iter_batches(SPEC.name, "label", batch_size=30, shuffle=True, seed=seed)) for seed in (0, 0, 1)
    )
    rows = np.concatenate([X[:, 0] for X, _ in first])
    assert sorted(rows) == list(range(1000))
    assert not np.array_equal(rows, np.sort(rows))
    assert [f"c{int(row) % 3}" for row in rows] == list(np.concatenate([y for _, y in first]))
    assert all(np.array_equal(a, b) for (a, _), (b, _) in zip(first, again, strict=True))
    assert not np.array_equal(first[0][0], other[0][0])


def test_batches_select_paths_and_concatenate_sets(many):
    paths = ["0007.jpg", "0003.jpg", "0005.jpg"]
    (X,) = many.iter_batches([SPEC.name, SPEC.name], paths=paths, views="all")
    np.testing.assert_array_equal(X[:, 0], [[7, -7, 7, -7], [3, -3, 3, -3], [5, -5, 5, -5]])


def test_batches_refuse_what_load_refuses(many):
    with pytest.raises(BankError, match="batch size 0; expected at least 1"):
        many.iter_batches(SPEC.name, batch_size=0)
    with pytest.raises(ColumnError, match="no column 'lable'"):
        many.iter_batches(SPEC.name, "lable")


def test_what_the_caller_changes_is_not_what_the_bank_gives_next(many):
    X, weight = many.load(SPEC.name, sample_weight="weight")
    (y,) = many.load(SPEC.name, target="weight")[1:]
    X[:], weight[:], y[:] = 0, 0, 0
    X, y, weight = many.load(SPEC.name, target="weight", sample_weight="weight")
    assert (X[5, 0], y[5], weight[5]) == (5, 5, 5)


def test_another_processs_rows_are_seen_by_an_open_bank(many):
    assert many.feature_set(SPEC.name).rows == 1000
    Bank(many.path).add_features(SPEC, [name(2000)], np.zeros((1, 1, 2), np.float32))
    assert many.feature_set(SPEC.name).rows == 1001


def test_the_repr_is_one_line_with_samples_and_sets_and_is_escaped_in_notebooks(bank):
    names = [each.name for each in bank.feature_sets]
    assert repr(bank) == f"Bank({str(bank.path)!r}, {len(bank.samples)} samples, {', '.join(names)})"
    assert "&#x27;" in bank._repr_html_()
    assert names[1] in bank._repr_html_()
    next(bank.path.glob("samples/*.h5")).write_bytes(b"damaged")
    assert repr(Bank(bank.path)) == f"Bank({str(bank.path)!r})"
    assert "damaged" not in Bank(bank.path)._repr_html_()

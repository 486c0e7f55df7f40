import io
import itertools
import os

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from pictures import encode
from PIL import Image

from featurebank import Bank, FeatureExtractor, Predictor, extract, fit
from featurebank.errors import ImageError, SourceError
from featurebank.images import decoding
from featurebank.images.frames import as_items
from featurebank.images.items import picture_of
from featurebank.images.pixels import PixelRules
from featurebank.images.scanning import scan

NET = {"backbone": "resnet18", "weights": "random:0", "size": 32, "engine": "eager"}
HOW = {**NET, "layers": ["layer1"]}


def picture(number):
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (32, 40, 3), dtype=np.uint8))


def png(number):
    return encode(picture(number))


@pytest.fixture
def paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d").mkdir()
    for number in range(4):
        picture(number).save(f"d/{number}.png")
    return [f"d/{number}.png" for number in range(4)]


def labels_of(source):
    return [None if pd.isna(label) else label for label in source.columns["label"]]


# --- tables of paths ---------------------------------------------------------------------------------------

LABELS = ["cat", "dog", "cat", None]


@pytest.mark.parametrize(
    "make",
    [
        lambda paths: pd.DataFrame({"label": LABELS, "path": paths}, index=[7, 3, 3, 1]),
        lambda paths: pd.DataFrame({"Filename": paths, "label": pd.Categorical(LABELS)}),
        lambda paths: pd.DataFrame({"path": pd.array(paths, "string[pyarrow]"), "label": LABELS}),
        lambda paths: {"path": paths, "label": LABELS},
        lambda paths: {"file_name": pd.Series(paths, index=[9, 8, 7, 6]), "label": np.array(LABELS, object)},
        lambda paths: dict(zip(paths, LABELS, strict=True)),
        lambda paths: {path: {"label": label} for path, label in zip(paths, LABELS, strict=True)},
        lambda paths: list(zip(paths, LABELS, strict=True)),
        lambda paths: [{"path": path, "label": label} for path, label in zip(paths, LABELS, strict=True)],
        lambda paths: pa.table({"path": paths, "label": pa.array(LABELS).dictionary_encode()}),
    ],
    ids=[
        "frame",
        "categorical",
        "arrow-backed",
        "columns",
        "columns-of-kinds",
        "labels",
        "facts",
        "pairs",
        "dicts",
        "arrow",
    ],
)
def test_tables_of_paths_are_lists_of_paths_with_columns(paths, make):
    source = scan(make(paths))
    assert source.paths == [os.fsencode(os.path.abspath(path)).lstrip(b"/") for path in paths]
    assert labels_of(source) == LABELS
    assert (source.name, source.root) == ("files", "/")
    assert source.read(2)[0] == decoding.content_digest(png(2))


def test_root_and_path_column_are_those_of_a_table(paths):
    frame = pd.DataFrame({"a": ["0.png", "1.png"], "b": ["x", "y"]})
    assert scan(frame, root="d", path_column="a").read(1)[1]().size == (40, 32)
    with pytest.raises(
        SourceError, match="no column of the table, 'a', 'b', is known to hold images or paths: name it as"
    ):
        scan(frame)
    with pytest.raises(SourceError, match="no column 'c'; it has 'a', 'b'"):
        scan(frame, path_column="c")


def test_rows_of_a_table_without_a_path_are_told_and_left_out(paths, caplog):
    source = scan(pd.DataFrame({"path": [paths[0], None, "", np.nan, paths[1]], "label": list("abcde")}))
    assert labels_of(source) == ["a", "e"]
    assert caplog.messages == ["3 rows have nothing in column 'path' and are left out: 2, 3, 4"]
    with pytest.raises(SourceError, match="has no image in its column 'path'"):
        scan(pd.DataFrame({"path": [None, ""]}))


def test_urls_in_a_table_are_called_urls(paths):
    source = scan(pd.DataFrame({"path": [f"file://{os.path.abspath(paths[0])}", "https://example.org/1.png"]}))
    assert (sorted(source.problems), source.paths[1]) == ([1], b"https://example.org/1.png")
    assert source.problems[1].startswith("a URL, and only files are read: download it")
    with pytest.raises(SourceError, match=r"the first is 'https://example.org/1.png': a URL, and only files are read"):
        scan(["https://example.org/1.png"])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({}, "a dict of nothing"),
        (
            {"train": torch.utils.data.TensorDataset(torch.zeros(1)), "test": 3},
            "of TensorDataset, int ('train', 'test')",
        ),
        ({"path": ["a", "b"], "label": ["x"]}, "different lengths ('path' 2, 'label' 1)"),
        ((path for path in ("a.png",)), "a generator is no image source; expected a folder"),
        (
            torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.zeros(1))),
            "a DataLoader is no image source",
        ),
        ([{"label": 3}], "no column of the table"),
        (pd.DataFrame({"x": [1.5], "y": [2]}), "no column of the table, 'x', 'y'"),
    ],
    ids=["empty", "datasets", "lengths", "generator", "loader", "no path", "numbers"],
)
def test_what_is_no_table_of_images_is_refused_in_one_line(source, message):
    with pytest.raises(SourceError) as caught:
        scan(source)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


# --- tables of images --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cells",
    [
        [picture(number) for number in range(3)],
        [np.asarray(picture(number)) for number in range(3)],
        [torch.tensor(np.asarray(picture(number)).transpose(2, 0, 1)) for number in range(3)],
        [png(number) for number in range(3)],
        [{"bytes": png(number), "path": f"{number}.png"} for number in range(3)],
    ],
    ids=["PIL", "arrays", "tensors", "bytes", "structs"],
)
@pytest.mark.parametrize("column", ["image", "photo of it"])
def test_a_column_of_images_is_one_whatever_their_kind(cells, column):
    frame = pd.DataFrame({"label": ["x", "y", "x"], column: pd.Series(cells, dtype=object)}).set_axis(list("abc"))
    source = scan(frame)
    assert source.paths == [b"a", b"b", b"c"]
    assert labels_of(source) == ["x", "y", "x"]
    assert np.array_equal(source.read(1)[1](), np.asarray(picture(1)))
    is_file = isinstance(cells[0], (bytes, dict))
    assert source.read(1)[0] == (decoding.content_digest(png(1)) if is_file else decoding.pixel_digest(picture(1)))
    assert scan(frame[column]).paths == [b"a", b"b", b"c"]
    assert scan({"label": [1, 2, 3], column: cells}).paths == [b"0", b"1", b"2"]
    assert [name.decode() for name in scan(dict(zip("xyz", cells, strict=True))).paths] == ["x", "y", "z"]


def test_a_stack_of_pixels_is_a_column():
    stack = np.stack([np.asarray(picture(number)) for number in range(3)])
    source = scan({"image": stack, "label": [3, 4, 5]}, ids=["a", "b", "c"])
    assert labels_of(source) == [3, 4, 5]
    assert np.array_equal(source.read(2)[1](), stack[2])


def test_an_arrow_table_of_images_keeps_class_names_and_nested_cells():
    features = '{"info": {"features": {"label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}}}'
    columns = {"image": [{"bytes": png(n), "path": None} for n in range(2)], "label": [1, 0], "box": [[1], [2, 3]]}
    source = scan(pa.table(columns).replace_schema_metadata({"huggingface": features}))
    assert source.columns.to_dict("list") == {"label": ["dog", "cat"], "box": ["[1]", "[2, 3]"]}
    assert source.read(1)[0] == decoding.content_digest(png(1))


def test_polars_frames_are_taken_through_arrow(paths):
    pl = pytest.importorskip("polars")
    frame = pl.DataFrame({"path": paths, "label": pl.Series(LABELS, dtype=pl.Categorical), "n": [1, None, 3, 4]})
    for each in (frame, frame.lazy()):
        source = scan(each)
        assert labels_of(source) == LABELS
        assert source.columns["n"].dtype == "Int64"
    assert as_items(frame["path"]) == as_items(frame) == as_items(frame[["path"]]) == paths
    held = scan(pl.DataFrame({"image": [png(0), png(1)], "label": [0, 1]}))
    assert held.read(1)[0] == decoding.content_digest(png(1))


# --- Datasets ----------------------------------------------------------------------------------------------


class Items:
    """A Dataset of given items."""

    def __init__(self, *items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, position):
        item = self.items[position]
        if isinstance(item, Exception):
            raise item
        return item


def test_items_that_are_dicts_give_image_and_columns():
    facts = {"label": np.int64(3), "site": "north", "box": [1, 2], "mask": np.zeros((2, 2))}
    source = scan(Items({"image": picture(0), **facts}, {"img": png(1), "label": torch.tensor(4)}))
    assert source.columns.to_dict("list") == {"label": [3, 4], "site": ["north", None]}
    assert [np.array_equal(source.read(n)[1](), np.asarray(picture(n))) for n in range(2)] == [True, True]


def test_an_item_that_cannot_be_had_fails_alone():
    source = scan(Items((picture(0), "cat"), OSError("gone"), {"label": 3}, (picture(1), "dog")))
    assert labels_of(source) == ["cat", None, None, "dog"]
    with pytest.raises(ImageError, match="cannot be read: gone"):
        source.read(1)
    with pytest.raises(ImageError, match="a dict of 'label' has no images; expected one, under the key 'image'"):
        source.read(2)


def test_items_may_be_paths(paths):
    source = scan(Items(*((path, number) for number, path in enumerate(paths))))
    assert labels_of(source) == [0, 1, 2, 3]
    assert np.array_equal(source.read(3)[1](), np.asarray(picture(3)))


def test_the_picture_of_a_tuple_may_come_second_and_its_facts_in_a_dict():
    source = scan(Items((7, picture(0)), (8, picture(1))))
    assert (source.columns["label"].tolist(), source.read(1)[1]().size) == ([7, 8], (40, 32))
    facts = scan(Items((picture(0), {"label": "x", "box": [1, 2]}), (picture(1), {"label": "y"}))).columns
    assert facts.to_dict("list") == {"label": ["x", "y"]}
    assert scan(Items((picture(0), np.array([3])), (picture(1), np.array([4])))).columns["label"].tolist() == [3, 4]


def test_files_in_memory_half_floats_and_many_channels_are_images():
    assert np.array_equal(scan([io.BytesIO(png(0))], ids=["a"]).read(0)[1](), np.asarray(picture(0)))
    half = scan([torch.tensor([[[0.0, 1.0], [0.5, 0.25]]]).bfloat16()], ids=["a"]).read(0)[1]
    assert np.asarray(half(pixels=PixelRules(range=(0, 1))))[:, :, 0].tolist() == [[0, 255], [128, 64]]
    five = scan([np.arange(20, dtype="u1").reshape(2, 2, 5)], ids=["a"]).read(0)[1]
    assert np.asarray(five(pixels=PixelRules(channels=(4,))))[:, :, 0].tolist() == [[4, 9], [14, 19]]
    with pytest.raises(ImageError, match="or with channels= any number of channels"):
        five()


def test_an_index_of_paths_is_a_column_of_them(paths):
    for index in (pd.Index(paths), pd.Index(paths, name="filename")):
        source = scan(pd.DataFrame({"label": list("abab")}, index=index))
        assert [os.path.basename(path) for path in source.paths] == [b"0.png", b"1.png", b"2.png", b"3.png"]
        assert source.columns.to_dict("list") == {"label": list("abab")}
    with pytest.raises(SourceError, match="the table has no rows"):
        scan(pd.DataFrame({"path": []}))


def test_a_part_of_a_dataset_knows_its_class_names():
    whole = Items((picture(0), 0), (picture(1), 1), (picture(2), 0))
    whole.classes = ["cat", "dog"]
    assert labels_of(scan(torch.utils.data.Subset(whole, [1, 2]))) == ["dog", "cat"]


def test_of_several_images_in_a_dict_the_usual_name_counts():
    assert picture_of({"mask": b"m", "image": png(0)}) == png(0)
    with pytest.raises(ImageError, match="a dict of 'left', 'right' has 2 images"):
        picture_of({"left": png(0), "right": png(1)})


def test_a_dataset_of_the_library_is_read_by_the_bytes_of_its_files(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])}
    features |= {"tags": datasets.Sequence(datasets.ClassLabel(names=["a", "b"])), "n": datasets.Value("int64")}
    cells = [{"bytes": png(number), "path": None} for number in range(5)]
    columns = {"image": cells, "label": [0, 1, 0, 1, -1], "tags": [[0, 1]] * 5, "n": range(5)}
    whole = datasets.Dataset.from_dict(columns, datasets.Features(features))
    source = scan(whole.shuffle(3).sort("n"))
    assert labels_of(source) == ["cat", "dog", "cat", "dog", None]
    assert source.columns["tags"].tolist() == ["a|b"] * 5
    assert [source.read(n)[0] for n in range(5)] == [decoding.content_digest(png(n)) for n in range(5)]
    changed = whole.with_transform(lambda batch: {"image": [each.rotate(90) for each in batch["image"]]})
    assert np.array_equal(scan(changed).read(1)[1](), np.asarray(picture(1).rotate(90)))
    assert scan(whole, name="mine", ids=list("vwxyz")).paths == [b"v", b"w", b"x", b"y", b"z"]
    whole.to_parquet(tmp_path / "a.parquet")
    assert scan(tmp_path / "a.parquet").columns.equals(source.columns)
    with pytest.raises(SourceError, match=r"a dict of Dataset \('train'\).*give one at a time"):
        scan(datasets.DatasetDict(train=whole))
    with pytest.raises(SourceError, match="a IterableDataset is no image source"):
        scan(whole.to_iterable_dataset())


# --- lists for predictors ----------------------------------------------------------------------------------


def test_a_dataset_of_the_library_may_hold_paths(paths):
    datasets = pytest.importorskip("datasets")
    source = scan(datasets.Dataset.from_dict({"path": paths, "label": list("abab")}))
    assert (len(source.paths), source.columns["label"].tolist()) == (4, list("abab"))


def test_columns_tables_and_single_images_become_lists(paths):
    series = pd.Series(paths, index=[5, 5, 1, 0])
    frame = pd.DataFrame({"label": LABELS, "filename": paths})
    for each in (
        *(series, series.astype("category"), series.astype("string[pyarrow]"), series.to_numpy(), tuple(paths)),
        *(frame, frame[["filename"]].set_axis(["anything"], axis=1), series.to_frame().to_numpy(), pa.array(paths)),
        *(pd.Index(paths), pa.chunked_array([paths]), np.array(paths)[:, None], (path for path in paths)),
    ):
        assert as_items(each) == paths
    assert as_items(paths[0]) == [paths[0]]
    assert as_items(png(0)) == [png(0)]


def test_extractor_and_predictor_take_columns(paths, tmp_path):
    frame = pd.DataFrame({"path": paths * 3, "label": ["x", "y", "x", "y"] * 3}, index=range(30, 18, -1))
    extractor = FeatureExtractor("resnet18", layer="layer1", weights="random:0", size=32, engine="eager")
    expected = extractor.transform(list(frame["path"]))
    for X in (frame, frame[["path"]], frame["path"], frame["path"].astype("category"), frame[["path"]].to_numpy()):
        assert np.array_equal(extractor.transform(X), expected)
    bank = extract(frame.head(4), tmp_path / "a.bank", **HOW)
    fit(bank, models="logreg", folds=2).predictor.save(tmp_path / "p.featurebank")
    predictor = Predictor.load(tmp_path / "p.featurebank")
    labels = predictor.predict(paths)
    assert predictor.predict(frame["path"]).tolist() == [*labels] * 3
    assert predictor.predict(frame).tolist() == [*labels] * 3
    assert predictor.predict(picture(0)).tolist() == [labels[0]]
    assert predictor.predict_proba(frame["path"].astype("category")).shape == (12, 2)
    assert predictor.predict_table(frame["path"])["path"].tolist() == [*paths] * 3


# --- names of images in memory -----------------------------------------------------------------------------


class Pictures:
    def __init__(self, *numbers):
        self.numbers = numbers

    def __len__(self):
        return len(self.numbers)

    def __getitem__(self, position):
        return picture(self.numbers[position]), self.numbers[position]


def counts(folder):
    return Bank(folder).samples["source"].value_counts().to_dict()


def test_two_datasets_of_one_class_are_two_sources(tmp_path):
    folder = tmp_path / "a.bank"
    extract(Pictures(*range(6)), folder, **HOW)
    with pytest.warns(UserWarning, match=r"other images under 'Pictures', so these are 'Pictures-2'; name= decides"):
        extract(Pictures(10, 11, 12), folder, **HOW)
    assert counts(folder) == {"Pictures": 6, "Pictures-2": 3}
    assert sorted(Bank(folder).samples["label"]) == [0, 1, 2, 3, 4, 5, 10, 11, 12]


@pytest.mark.filterwarnings("error")
def test_the_same_dataset_again_or_grown_is_the_same_source(tmp_path):
    folder = tmp_path / "a.bank"
    for count in (3, 3, 5):
        extract(Pictures(*range(count)), folder, **HOW)
    with pytest.warns(UserWarning, match="Pictures-2"):
        extract(Pictures(7, 8), folder, **HOW)
    extract(Pictures(7, 8), folder, **HOW)
    extract(Pictures(*range(5)), folder, **HOW)
    assert counts(folder) == {"Pictures": 5, "Pictures-2": 2}


def test_a_name_decides(tmp_path):
    folder = tmp_path / "a.bank"
    extract(Pictures(0, 1), folder, name="train", **HOW)
    extract(Pictures(5, 6, 7), folder, name="test", **HOW)
    extract(Pictures(8, 9), folder, name="test", **HOW)
    assert counts(folder) == {"train": 2, "test": 3}
    assert sorted(Bank(folder).samples["label"]) == [0, 1, 7, 8, 9]


def test_images_that_change_need_a_name(tmp_path):
    numbers = itertools.count()

    class Changing(Pictures):
        def __getitem__(self, position):
            return picture(next(numbers)), 0

    extract(Changing(0, 1), tmp_path / "a.bank", **HOW)
    with pytest.raises(SourceError, match=r"'Changing' change from one reading to the next.*give name="):
        extract(Changing(0, 1), tmp_path / "a.bank", **HOW)
    extract(Changing(0, 1), tmp_path / "a.bank", name="Changing", **HOW)
    assert counts(tmp_path / "a.bank") == {"Changing": 2}


def test_images_that_take_the_place_of_others_under_their_ids_are_told(tmp_path):
    extract([picture(0), picture(1)], tmp_path / "a.bank", ids=["a", "b"], **HOW)
    with pytest.warns(UserWarning, match="other images under these ids of 'memory', and these take their place: name="):
        extract([picture(2), picture(3)], tmp_path / "a.bank", ids=["a", "b"], **HOW)
    assert counts(tmp_path / "a.bank") == {"memory": 2}


@pytest.mark.parametrize("name", ["", "/photos", "s3://bucket/photos"])
def test_a_name_is_no_path(name):
    with pytest.raises(SourceError, match="reads as a path; expected a word"):
        scan(Pictures(0), name=name)


def test_files_have_no_name(paths):
    for source in (paths, "d"):
        with pytest.raises(SourceError, match="a name goes with images in memory"):
            scan(source, name="mine")

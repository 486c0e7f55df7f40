import json
import os

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from object_maker import new_address
from pictures import png

from featurebank import extract
from featurebank.bank import repair_hints
from featurebank.bank.images import all_images
from featurebank.errors import ImageError, SourceError
from featurebank.images import decoding, parquet
from featurebank.images.listing import read_file
from featurebank.images.reading import read_ahead
from featurebank.images.scanning import scan
from featurebank.storage import files

FEATURES = {
    "image": {"_type": "Image"},
    "label": {"names": ["cat", "dog"], "_type": "ClassLabel"},
    "tags": {"feature": {"names": ["red", "big"], "_type": "ClassLabel"}, "_type": "List"},
    "n": {"dtype": "int64", "_type": "Value"},
}
HOW = {"backbone": "resnet18", "weights": "random:0", "layers": ["layer1"], "size": 32, "engine": "eager"}


def images(numbers, names=None):
    """Return a column as `datasets` has it: structs of bytes and path."""
    return [{"bytes": png(number), "path": names and names[row]} for row, number in enumerate(numbers)]


def write(path, columns, features=None, **options):
    """Write a Parquet file, with the schema's metadata as `datasets` writes it."""
    table = pa.table(columns)
    if features:
        info = {"info": {"features": {name: features[name] for name in columns}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **options)
    return path


def hub(path, numbers, names=None, **options):
    """Write a Parquet file of some photos as the Hub has them."""
    columns = {"image": images(numbers, names), "label": [number % 2 for number in numbers]}
    columns |= {"tags": [[number % 2, 1] for number in numbers], "n": list(numbers)}
    return write(path, columns, FEATURES, **options)


def test_a_file_of_datasets_is_a_source_with_class_names(tmp_path):
    path = hub(tmp_path / "photos.parquet", range(11), row_group_size=4)
    found = scan(path)
    assert (found.name, found.root, found.whole) == (str(path), str(tmp_path), True)
    assert found.paths == [b"photos.parquet/%02d" % row for row in range(11)]
    assert found.columns["label"].tolist() == ["cat", "dog"] * 5 + ["cat"]
    assert found.columns["tags"].tolist()[:2] == ["red|big", "big|big"]
    assert found.columns["n"].tolist() == list(range(11))
    assert [found.read(row)[0] for row in (10, 0, 5)] == [decoding.content_digest(png(row)) for row in (10, 0, 5)]
    assert found.read(3)[1]().size == (40, 40)


def test_rows_go_by_their_file_names_where_these_are_distinct(tmp_path):
    assert scan(hub(tmp_path / "a.parquet", [0, 1], ["d/b.png", "a.png"])).paths == [
        b"a.parquet/d/b.png",
        b"a.parquet/a.png",
    ]
    assert scan(hub(tmp_path / "b.parquet", [0, 1], ["a.png", "a.png"])).paths == [b"b.parquet/0", b"b.parquet/1"]
    assert scan(hub(tmp_path / "c.parquet", [0, 1], ["a.png", None])).paths == [b"c.parquet/0", b"c.parquet/1"]
    assert read_file(tmp_path / "a.parquet" / "a.png") == png(1)


def test_a_class_of_minus_one_is_missing_and_one_without_a_name_an_error(tmp_path):
    columns = {"image": images([0, 1]), "label": [-1, 1]}
    assert scan(write(tmp_path / "a.parquet", columns, FEATURES)).columns["label"].tolist() == [None, "dog"]
    with pytest.raises(SourceError, match="'label' holds class 2, and names 2"):
        scan(write(tmp_path / "a.parquet", columns | {"label": [2, 1]}, FEATURES))


@pytest.mark.parametrize("metadata", [b"{", b"[]", b'{"info": {"features": {"label": 3}}}'])
def test_metadata_that_is_damaged_names_no_classes(tmp_path, metadata):
    table = pa.table({"image": images([0, 1]), "label": [0, 1]}).replace_schema_metadata({"huggingface": metadata})
    pq.write_table(table, tmp_path / "a.parquet")
    assert scan(tmp_path / "a.parquet").columns["label"].tolist() == [0, 1]


@pytest.mark.parametrize("kind", ["binary", "large_binary", "binary_view"])
@pytest.mark.parametrize("name", ["image", "content"])
def test_a_column_of_plain_bytes_is_one_of_images(tmp_path, kind, name):
    cells = pa.array([png(0), png(1)], getattr(pa, kind)())
    labels = pa.array(["a", "b"], pa.string_view() if kind == "binary_view" else pa.string())
    found = scan(write(tmp_path / "a.pq", {name: cells, "thumb": [b"no", b"image"], "label": labels}))
    assert found.paths == [b"a.pq/0", b"a.pq/1"]
    assert found.columns.to_dict("list") == {"label": ["a", "b"]}
    assert found.read(1)[0] == decoding.content_digest(png(1))


def test_a_frame_of_pandas_with_structs_is_a_source(tmp_path):
    pd.DataFrame({"image": images([0, 1]), "label": pd.Categorical(["x", "y"])}).to_parquet(tmp_path / "a.parquet")
    found = scan(tmp_path / "a.parquet")
    assert found.columns["label"].tolist() == ["x", "y"]
    assert found.read(1)[0] == decoding.content_digest(png(1))


def test_nested_columns_become_json(tmp_path):
    found = scan(
        write(tmp_path / "a.parquet", {"image": images([0]), "boxes": [[{"x": 1, "y": [2, 3]}]], "mask": [b"1"]})
    )
    assert found.columns.to_dict("list") == {"boxes": ['[{"x": 1, "y": [2, 3]}]']}


def test_of_several_columns_of_images_one_is_named(tmp_path):
    path = write(tmp_path / "a.parquet", {"left": images([0, 1]), "right": images([2, 3])})
    with pytest.raises(SourceError, match=r"2 columns of images, 'left', 'right': name the one.*--path-column"):
        scan(path)
    found = scan(path, path_column="right")
    assert found.paths == [b"a.parquet/right/0", b"a.parquet/right/1"]
    assert read_file(f"{path}/right/1") == read_file(f"{path}/right/1") == png(3)
    usual = write(tmp_path / "b.parquet", {"mask": images([0]), "image": images([1])})
    assert scan(usual).read(0)[0] == decoding.content_digest(png(1))
    assert scan(usual, path_column="mask").read(0)[0] == decoding.content_digest(png(0))


def test_a_folder_has_its_column_named_too(tmp_path):
    for number in range(2):
        columns = {"left": images([number]), "right": images([number + 2])}
        write(tmp_path / f"{number}.PARQUET", columns)
    found = scan(tmp_path, path_column="right")
    assert [found.read(row)[0] for row in range(2)] == [decoding.content_digest(png(row + 2)) for row in range(2)]


def test_several_files_are_one_source(tmp_path):
    for number in range(2):
        hub(tmp_path / "hub" / "data" / f"train-0000{number}-of-00002.parquet", range(3 * number, 3 * number + 3))
    (tmp_path / "hub" / "README.md").write_text("---\n")
    write(tmp_path / "hub" / "stats.parquet", {"mean": [1.0]})
    pattern = scan(tmp_path / "hub" / "data" / "train-{00000..00001}-of-00002.parquet")
    folder = scan(tmp_path / "hub")
    assert [f"data/{os.fsdecode(path)}".encode() for path in pattern.paths] == folder.paths
    assert folder.paths[3] == b"data/train-00001-of-00002.parquet/0"
    assert folder.columns["n"].tolist() == pattern.columns["n"].tolist() == list(range(6))
    assert [folder.read(row)[0] for row in range(6)] == [decoding.content_digest(png(row)) for row in range(6)]
    assert (folder.name, folder.root, folder.whole) == (str(tmp_path / "hub"), str(tmp_path / "hub"), True)
    assert folder.ignored == {".parquet": 1}
    assert not repair_hints.is_missing(pattern.name, pattern.root)


@pytest.mark.parametrize("name", ["data/{}-00000-of-00001.parquet", "{}.parquet", "default/{}/0000.parquet"])
def test_the_parts_of_a_split_become_a_column(tmp_path, name):
    for number, part in enumerate(("test", "train", "validation")):
        hub(tmp_path / name.format(part), [2 * number, 2 * number + 1])
    found = scan(tmp_path)
    assert found.columns["split"].tolist() == ["test", "test", "train", "train", "val", "val"]
    assert found.notes == ["the files' names say which part of a split they are (column split: train 2, val 2, test 2)"]
    (tmp_path / name.format("train")).unlink()
    (tmp_path / name.format("validation")).unlink()
    assert "split" not in scan(tmp_path).columns


def test_a_folder_of_images_beside_parquet_is_one_of_images(tmp_path):
    hub(tmp_path / "a.parquet", [0])
    (tmp_path / "b.png").write_bytes(png(1))
    assert scan(tmp_path).paths == [b"b.png"]


def test_root_says_where_the_file_is_now(tmp_path):
    hub(tmp_path / "new" / "a.parquet", [0, 1])
    found = scan(tmp_path / "old" / "a.parquet", root=tmp_path / "new")
    assert (found.name, found.root) == (str(tmp_path / "old" / "a.parquet"), str(tmp_path / "new"))
    assert found.read(1)[0] == decoding.content_digest(png(1))


def test_a_manifest_of_paths_stays_one_beside_bytes_that_are_no_images(tmp_path):
    (tmp_path / "a.png").write_bytes(png(0))
    found = scan(write(tmp_path / "a.parquet", {"path": ["a.png"], "digest": [b"\0\1"]}))
    assert found.paths == [b"a.png"]


def test_a_row_without_bytes_fails_alone(tmp_path):
    cells = [{"bytes": png(0), "path": "a.png"}, {"bytes": None, "path": "b.png"}, None]
    found = scan(write(tmp_path / "a.parquet", {"image": cells}))
    assert found.read(0)[0] == decoding.content_digest(png(0))
    with pytest.raises(ImageError, match=r"row 1 holds no image, only the path 'b.png'"):
        found.read(1)
    with pytest.raises(ImageError, match=r"row 2 holds no image$"):
        found.read(2)


NO_BYTES = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
ONLY_PATHS = {
    "text": ["a.png", "b"],
    "structs of null bytes": pa.array([{"bytes": None, "path": "a.png"}, {"bytes": None, "path": "b"}], NO_BYTES),
    "structs of bytes of no type": [{"bytes": None, "path": "a.png"}, {"bytes": None, "path": "b"}],
    "structs of paths": [{"path": "a.png"}, {"path": "b"}],
    "dictionary": pa.array(["a.png", "b"]).dictionary_encode(),
}


@pytest.mark.parametrize("kind", ONLY_PATHS)
def test_paths_without_bytes_are_a_manifest_as_a_csv_is(tmp_path, kind):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, name in enumerate(("a.png", "b.png")):
        (folder / name).write_bytes(png(number))
    columns = {"picture": ONLY_PATHS[kind], "label": [1, 0]}
    path = write(tmp_path / "photos.parquet", columns, {"picture": {"_type": "Image"}, "label": FEATURES["label"]})
    found = scan(path, root=folder, path_column="picture")
    assert (found.paths, found.problems, found.name, found.root) == ([b"a.png", b"b.png"], {}, str(path), str(folder))
    assert found.columns.to_dict("list") == {"label": ["dog", "cat"]}
    assert [found.read(row)[0] for row in (0, 1)] == [decoding.content_digest(png(row)) for row in (0, 1)]
    in_memory = scan(pq.read_table(path), root=folder, path_column="picture")
    assert [os.path.basename(each) for each in in_memory.paths] == [b"a.png", b"b.png"]
    assert in_memory.columns.to_dict("list") == {"label": ["dog", "cat"]}
    with pytest.raises(SourceError, match=r"no column 'path'.*such as --path-column picture"):
        scan(path, root=folder)


def test_the_index_that_pandas_writes_is_no_column_and_one_of_paths_is_found(tmp_path):
    (tmp_path / "a.png").write_bytes(png(0))
    frame = pd.DataFrame({"path": ["a.png"], "size": [1.5]}, index=[7])
    frame.to_parquet(tmp_path / "list.parquet")
    frame.set_index("path").to_parquet(tmp_path / "named.parquet")
    for name in ("list.parquet", "named.parquet"):
        found = scan(tmp_path / name)
        assert (found.paths, found.columns.to_dict("list")) == ([b"a.png"], {"size": [1.5]})


def test_a_table_in_memory_has_its_paths_matched_below_a_root(tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(png(0))
    found = scan({"path": ["a", "sub\\B.PNG", "c"]}, root=tmp_path)
    assert [os.path.basename(each) for each in found.paths[:2]] == [b"a.png", b"b.png"]
    assert found.read(1)[0] == decoding.content_digest(png(0))
    assert list(found.problems) == [2]
    assert found.problems[2].startswith("no file has this name")


def test_files_that_cannot_be_read_are_refused_in_one_line(tmp_path):
    hub(tmp_path / "hub" / "a.parquet", [0])
    (tmp_path / "hub" / "b.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(SourceError, match=r"b.parquet' cannot be read: .*; make it again, or leave it out"):
        scan(tmp_path / "hub")
    with pytest.raises(SourceError, match="cannot be read: No such file"):
        scan(tmp_path / "hub" / "{0..1}.parquet")
    with pytest.raises(ImageError, match="has no image '7'"):
        read_file(tmp_path / "hub" / "a.parquet" / "7")


def test_a_file_that_is_cut_short_after_it_was_listed_fails_its_images(tmp_path):
    path = hub(tmp_path / "a.parquet", range(40))
    found = scan(path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ImageError, match="cannot be read") as caught:
        found.read(0)
    assert "\n" not in str(caught.value)


def test_rows_are_read_a_few_at_a_time_in_any_order_by_many_threads(tmp_path):
    found = scan(hub(tmp_path / "a.parquet", range(150), row_group_size=100, data_page_size=1024, write_batch_size=4))
    order = [*range(150), 149, 3, 99, 100, 20]
    digests = list(read_ahead(lambda row: found.read(row)[0], order, workers=8))
    assert digests == [decoding.content_digest(png(row)) for row in order]


def test_only_a_few_rows_are_held(tmp_path):
    rows = [{"bytes": os.urandom(1 << 16), "path": None} for _ in range(800)]
    path = write(tmp_path / "a.parquet", {"image": rows}, row_group_size=100, use_dictionary=False)
    del rows
    images = parquet.open_images(path)
    before, most = pa.total_allocated_bytes(), 0
    for row in range(800):
        images.read(row)
        most = max(most, pa.total_allocated_bytes() - before)
    assert most < 25e6  # of 52 MB; a row group has 6.5


def test_extraction_resumes_and_all_that_follows_reads_the_images_again(tmp_path, memory_commands, run_json):
    path = hub(tmp_path / "photos.parquet", range(12))
    for number in range(12):
        (tmp_path / "files").mkdir(exist_ok=True)
        (tmp_path / "files" / f"{number:02}.png").write_bytes(png(number))
    arguments = ["extract", path, "--bank", tmp_path / "x.bank", "--backbone", "resnet18", "--weights", "random:0"]
    arguments += ["--size", 32, "--layer", "layer1", "--engine", "eager"]
    first, again = run_json(*arguments), run_json(*arguments)
    assert (first["embedded"], first["failed"], again["embedded"], again["reused"]) == (12, 0, 0, 12)
    packed, plain = extract(path, tmp_path / "x.bank", **HOW), extract(tmp_path / "files", tmp_path / "y.bank", **HOW)
    assert np.array_equal(packed.load("resnet18/layer1"), plain.load("resnet18/layer1"))
    seen = list(all_images(packed.select(), lambda image: np.asarray(image).copy()))
    assert np.array_equal(seen[7], decoding.decode(png(7)))
    hub(path, [*range(10), 20, 21, 22])
    changed = run_json(*arguments)
    assert (changed["samples"], changed["embedded"], changed["reused"]) == (13, 3, 10)


def test_on_object_storage(tmp_path):
    address = files.as_path(new_address("photos"))
    for number in range(2):
        path = hub(tmp_path / "a.parquet", range(5 * number, 5 * number + 5))
        files.commit(address / f"data/train-{number}.parquet", path.read_bytes())
    found = scan(address)
    assert found.paths[5] == b"data/train-1.parquet/0"
    assert [found.read(row)[0] for row in range(10)] == [decoding.content_digest(png(row)) for row in range(10)]
    assert scan(address / "data" / "train-{0..1}.parquet").columns["n"].tolist() == list(range(10))
    assert read_file(f"{address}/data/train-1.parquet/3") == png(8)

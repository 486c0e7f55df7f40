import json

import pandas as pd
import pytest
from object_maker import new_address
from PIL import Image

from featurebank import Bank, extract
from featurebank.errors import ImageError, SourceError
from featurebank.images.scanning import scan
from featurebank.storage import files

NET = {"backbone": "resnet18", "weights": "random:0", "layers": ["layer1"], "size": 32, "engine": "eager"}


@pytest.fixture
def folder(tmp_path):
    """A folder of the images a.png, b.png and c.png."""

    def make(*names):
        for number, name in enumerate(names):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 40), (9 * number, 9, 9)).save(tmp_path / name)
        return tmp_path

    return make


def write(path, rows):
    frame = pd.DataFrame(rows)
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    elif path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        path.write_text("\n".join(map(json.dumps, rows)))


def cells(source, name):
    return [None if pd.isna(value) else value for value in source.columns[name]]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_table_beside_the_images_gives_columns(folder, suffix):
    root = folder("a.png", "b.png", "c.png")
    write(root / f"metadata{suffix}", [{"file_name": "c.png", "text": "see"}, {"file_name": "a.png", "text": "ay"}])
    source = scan(root)
    assert source.paths == [b"a.png", b"b.png", b"c.png"]
    assert cells(source, "text") == ["ay", None, "see"]
    assert (source.name, source.whole, source.ignored) == (str(root), True, {})
    assert source.notes == [f"'text' from metadata{suffix}; 1 image has no row"]


def test_each_part_of_a_split_has_its_table(folder):
    root = folder("train/1.png", "train/2.png", "test/1.png", "test/deep/2.png")
    write(root / "train" / "metadata.csv", [{"file_name": "1.png", "label": 0}, {"file_name": "2.png", "label": 1}])
    write(
        root / "test" / "metadata.jsonl", [{"file_name": "1.png", "label": 1}, {"file_name": "deep/2.png", "label": 0}]
    )
    source = scan(root)
    assert source.paths == [b"test/1.png", b"test/deep/2.png", b"train/1.png", b"train/2.png"]
    assert cells(source, "label") == [1, 0, 0, 1]
    assert cells(source, "split") == ["test", "test", "train", "train"]
    assert source.notes[-1] == "'label' from test/metadata.jsonl, train/metadata.csv"
    assert not source.class_folders


def test_class_folders_stay_unless_the_table_has_labels(folder):
    root = folder("cat/1.png", "dog/2.png")
    write(root / "metadata.csv", [{"file_name": "dog/2.png", "site": "north"}])
    source = scan(root)
    assert (cells(source, "label"), cells(source, "site")) == (["cat", "dog"], [None, "north"])
    assert source.class_folders
    write(root / "metadata.csv", [{"file_name": "dog\\2.png", "label": "wolf"}])
    assert (cells(scan(root), "label"), scan(root).class_folders) == ([None, "wolf"], False)


def test_a_row_without_its_file_is_a_sample_that_cannot_be_read(folder):
    root = folder("a.png")
    write(root / "metadata.csv", [{"file_name": "a.png", "n": 1}, {"file_name": "z.png", "n": 2}, {"n": 3}])
    source = scan(root)
    assert source.paths == [b"a.png", b"z.png"]
    assert cells(source, "n") == [1, 2]
    with pytest.raises(ImageError, match="no file has this name"):
        source.read(1)


def test_rows_without_a_file_name_are_told(folder, caplog):
    root = folder("a.png")
    write(root / "metadata.csv", [{"file_name": None, "n": 1}, {"file_name": "a.png", "n": 2}])
    assert cells(scan(root), "n") == [2]
    assert "1 row has no path and is left out: 1" in caplog.text


def test_a_file_in_two_rows_is_refused_and_a_table_of_other_things_is_none(folder):
    root = folder("a.png")
    write(root / "metadata.csv", [{"camera": "x"}])
    assert (list(scan(root).columns), scan(root).ignored) == ([], {".csv": 1})
    write(root / "metadata.csv", [{"file_name": "a.png"}, {"file_name": "./a.png"}])
    with pytest.raises(SourceError, match=r"'a.png' more than once"):
        scan(root)


def test_metadata_that_comes_later_labels_what_is_in_the_bank(folder, tmp_path):
    root = folder("photos/a.png", "photos/b.png") / "photos"
    extract(root, tmp_path / "x.bank", **NET)
    write(root / "metadata.csv", [{"file_name": "a.png", "label": "x"}, {"file_name": "b.png", "label": "y"}])
    extract(root, tmp_path / "x.bank", **NET)
    samples = Bank(tmp_path / "x.bank").samples
    assert samples["label"].tolist() == ["x", "y"]


def test_metadata_on_object_storage(folder):
    root = folder("a.png")
    address = files.as_path(new_address("photos"))
    files.commit(address / "d" / "a.png", (root / "a.png").read_bytes())
    files.commit(address / "d" / "metadata.csv", b"file_name,label\na.png,x\n")
    assert cells(scan(address), "label") == ["x"]

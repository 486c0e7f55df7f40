"""What a tree of folders says: classes, parts of a split, folders around all of it."""

from __future__ import annotations

import pytest

from featurebank.images.layout import read_layout
from featurebank.images.splits import is_plain, parts_of


def read(*paths):
    columns, notes = read_layout([path.encode() for path in paths])
    return columns.to_dict("list"), notes


@pytest.mark.parametrize(
    ("folders", "parts"),
    [
        (("train", "val", "test"), ["train", "val", "test"]),
        (("train", "valid"), ["train", "val"]),
        (("Training", "Validation"), ["train", "val"]),
        (("TRAIN", "Test"), ["train", "test"]),
        (("test", "train"), ["test", "train"]),
        (("train", "dev"), ["train", "val"]),
        (("train", "eval"), ["train", "test"]),
        (("train", "eval", "test"), ["train", "val", "test"]),
        (("train", "dev", "eval"), ["train", "val", "test"]),
        (("val", "test"), ["val", "test"]),
        (("training_set", "test_set"), ["train", "test"]),
        (("TrainImages", "TestImages"), ["train", "test"]),
        (("train2017", "val2017"), ["train", "val"]),
        (("01-train", "02-test"), ["train", "test"]),
        (("train_part1", "train_part2", "test"), ["train", "train", "test"]),
    ],
)
def test_below_parts_of_a_split_are_the_classes(folders, parts):
    columns, notes = read(*[f"{folder}/{name}/1.png" for folder in folders for name in ("cat", "dog")])
    assert columns == {"label": ["cat", "dog"] * len(folders), "split": [part for part in parts for _ in range(2)]}
    assert len(notes) == 1
    assert "parts of a split" in notes[0]


def test_parts_of_a_split_in_each_class_are_one_too():
    columns, notes = read("cat/Train/1.png", "cat/Test/2.png", "dog/Train/3.png", "4.png")
    assert columns == {"label": ["cat", "cat", "dog", None], "split": ["train", "test", "train", None]}
    assert notes == [
        "'Train', 'Test' are the parts of a split (column split: train 2, test 1), the folders around them are the "
        "classes; 1 image outside has neither"
    ]


@pytest.mark.parametrize(
    "paths",
    [
        ("cat/train/1.png", "cat/other/2.png", "dog/test/3.png"),
        ("cat/train/1.png", "cat/2.png", "dog/test/3.png"),
        ("cable/train/good/1.png", "cable/test/bent/2.png", "pill/train/good/3.png"),
        ("cat/train/1.png", "dog/train/2.png"),
    ],
)
def test_other_folders_in_classes_are_no_split(paths):
    columns, _ = read(*paths)
    assert columns == {"label": [path.split("/")[0] for path in paths]}


@pytest.mark.parametrize(
    "folders",
    [
        ("train", "car", "bus"),
        ("train", "test", "car"),
        ("control", "test"),
        ("train station", "bus station"),
        ("Strain", "valve"),
        ("training", "race"),
        ("cat", "dog"),
        ("cat", "dog", "images"),
    ],
)
def test_other_folders_are_classes(folders):
    columns, notes = read(*[f"{name}/1.png" for name in folders])
    assert columns == {"label": list(folders)}
    assert len(notes) == (1 if folders == ("train", "test", "car") else 0)


def test_a_class_of_parts_has_its_folders_too():
    columns, _ = read("train/steam/1.png", "train/diesel/1.png", "car/red/1.png", "bus/1.png")
    assert columns == {"label": ["train", "train", "car", "bus"]}


def test_images_right_in_the_parts_have_no_class():
    assert read("train/1.png", "val/2.png")[0] == {"split": ["train", "val"]}
    columns, notes = read("train/cat/1.png", "train/dog/1.png", "val/cat/1.png", "test/1.png")
    assert columns == {"label": ["cat", "dog", "cat", None], "split": ["train", "train", "val", "test"]}
    assert notes == [
        "'train', 'val', 'test' are the parts of a split (column split: train 2, val 1, test 1), "
        "the folders in them are the classes"
    ]


@pytest.mark.parametrize("around", ["photos/", "download/photos/", "a/b/c/d/"])
def test_a_folder_around_all_others_is_seen_through(around):
    columns, notes = read(f"{around}cat/1.png", f"{around}dog/deep/2.png")
    assert columns == {"label": ["cat", "dog"]}
    assert notes == [f"seen through {around[:-1]!r}, the one folder that all others lie in"]
    columns, notes = read(f"{around}train/cat/1.png", f"{around}val/cat/2.png")
    assert columns == {"label": ["cat", "cat"], "split": ["train", "val"]}
    assert len(notes) == 2


def test_a_picture_beside_the_folders_is_no_reason_to_stop():
    assert read("cover.png", "photos/cat/1.png", "photos/dog/1.png")[0] == {"label": [None, "cat", "dog"]}
    assert read("photos/cover.png", "photos/cat/1.png", "photos/dog/1.png")[0] == {"label": [None, "cat", "dog"]}
    assert read("cover.png", "train/cat/1.png", "test/cat/1.png")[0] == {
        "label": [None, "cat", "cat"],
        "split": [None, "train", "test"],
    }


def test_one_folder_of_images_is_one_class_unless_its_name_is_none():
    assert read("cat/1.png", "cat/2.png")[0] == {"label": ["cat", "cat"]}
    assert read("cat/1.png", "cat/deep/2.png")[0] == {"label": ["cat", "cat"]}
    assert read("photos/cat/1.png")[0] == {"label": ["cat"]}
    assert read("images/1.png")[0] == read("data/train/1.png")[0] == read("1.png")[0] == {}
    assert read("train/cat/1.png", "train/dog/2.png")[0] == {"label": ["cat", "dog"]}


@pytest.mark.parametrize(
    ("paths", "labels"),
    [
        (
            ("training_set/training_set/cats", "training_set/training_set/dogs", "test_set/test_set/cats"),
            "cats dogs cats",
        ),
        (("train/images/cat", "train/images/dog", "val/images/cat"), "cat dog cat"),
        (("train/v1/cat", "train/v1/dog", "val/v2/cat"), "cat dog cat"),
        (("train/cat/p1", "train/dog/p2", "test/cat/p3"), "cat dog cat"),
        (("train/image", "train/text", "test/image"), "image text image"),
        (("train/cat", "train/dog", "test/test"), "cat dog -"),
        (
            ("seg_train/seg_train/cat", "seg_train/seg_train/dog", "seg_test/seg_test/cat", "seg_pred/seg_pred"),
            "cat dog cat -",
        ),
        (("train/good", "test/good", "test/broken", "ground_truth/broken"), "good good broken -"),
        (("train/cat", "test/cat", "unlabelled"), "cat cat -"),
    ],
)
def test_folders_between_the_parts_and_the_classes_are_none(paths, labels):
    columns, _ = read(*[f"{path}/1.png" for path in paths])
    assert [label or "-" for label in columns["label"]] == labels.split()
    assert [part or "-" for part in columns["split"]] == [
        "train" if "train" in path else "test" if "test" in path else "val" if "val" in path else "-" for path in paths
    ]


def test_what_lies_in_no_part_is_counted():
    _, notes = read("train/cat/1.png", "test/cat/1.png", "unlabelled/1.png", "unlabelled/2.png")
    assert notes[0].endswith("the folders in them are the classes; 2 images outside have neither")


def test_names_that_are_no_text_keep_their_bytes():
    columns, _ = read_layout([b"train/caf\xe9/1.png", b"val/caf\xe9/1.png"])
    assert [label.encode("utf-8", "surrogateescape") for label in columns["label"]] == [b"caf\xe9", b"caf\xe9"]


def test_words_of_other_kinds_are_no_parts():
    assert parts_of(["1", "2", "", "a", "train test", "trained", "contest", "валидация"]) == {}
    assert not any(map(is_plain, ["", "123", "cat", "cat images", "изображения"]))

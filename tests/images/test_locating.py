"""Paths of manifests from elsewhere: the file that is meant, or a reason whose remedy works when it is followed."""

import logging
import os
import re
import unicodedata

import pytest
from PIL import Image

from featurebank.errors import SourceError
from featurebank.images.scanning import scan


@pytest.fixture
def images(tmp_path):
    for name in ("data/images/cat/000.png", "data/images/cat/001.png", "data/images/dog/002.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (5, 4)).save(tmp_path / name)
    return tmp_path / "data" / "images"


def write(path, *cells, head="path,label"):
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(head + "\n" + "".join(f"{cell},x\n" for cell in cells))
    return path


FOUND = [b"cat/000.png", b"cat/001.png", b"dog/002.png"]
NAMES = [name.decode() for name in FOUND]


@pytest.mark.parametrize(
    "change",
    [
        lambda name: name,
        lambda name: name.replace("/", "\\"),
        lambda name: f".\\{name}",
        lambda name: "C:\\Users\\me\\data\\images\\" + name.replace("/", "\\"),
        lambda name: f"/home/me/images/{name}",
        lambda name: f"images/{name}",
        lambda name: f"../images/{name}",
        lambda name: name.removesuffix(".png"),
        lambda name: name.rpartition("/")[2],
        lambda name: name.rpartition("/")[2].removesuffix(".png"),
        lambda name: name.upper(),
    ],
    ids=["as is", "backslashes", "dot", "drive", "absolute", "above", "up", "no suffix", "no folder", "id", "case"],
)
def test_the_file_that_is_meant_is_found(images, change):
    source = scan(write(images / "list.csv", *map(change, NAMES)))
    assert source.paths == FOUND
    assert not source.problems
    assert source.read(0)[1]().size == (5, 4)


def test_the_root_may_be_another_folder_than_the_manifests(images, tmp_path):
    assert scan(write(tmp_path / "train.csv", "000", "001", "002", head="id,label"), root=images).paths == FOUND


def test_composed_and_decomposed_letters_are_alike_and_it_is_said(tmp_path, caplog):
    caplog.set_level(logging.INFO, "featurebank")
    nfc, nfd = (unicodedata.normalize(form, "Müller.png") for form in ("NFC", "NFD"))
    Image.new("RGB", (5, 4)).save(tmp_path / nfd)
    assert scan(write(tmp_path / "list.csv", nfc)).paths == [nfd.encode()]
    assert "1 path fits a file, ignoring Unicode normalisation" in caplog.text


def test_the_root_that_an_error_names_works(images, tmp_path):
    absolute = write(tmp_path / "project" / "abs.csv", *(str(images / name) for name in NAMES))
    upward = write(tmp_path / "project" / "up.csv", *(f"../data/images/{name}" for name in NAMES))
    for manifest in (absolute, upward):
        with pytest.raises(
            SourceError, match=r"none of the 3 paths in .* name the folder that has them with --root"
        ) as caught:
            scan(manifest)
        root = re.search(r"--root (\S+)$", str(caught.value)).group(1)
        assert root == str(images)
        assert scan(manifest, root=root).paths == FOUND


def test_a_folder_further_up_that_has_the_files_is_named(images, tmp_path):
    manifest = write(tmp_path / "data" / "labels" / "a.csv", *(f"images/{name}" for name in NAMES))
    with pytest.raises(SourceError, match=f"--root {tmp_path / 'data'}$"):
        scan(manifest)
    assert scan(manifest, root=tmp_path / "data").paths == [b"images/" + name for name in FOUND]


def test_some_paths_outside_name_the_root_that_holds_all(images):
    manifest = write(images / "cat" / "list.csv", "000.png", "../dog/002.png", "gone.png")
    source = scan(manifest)
    assert source.problems[1] == f"the manifest's path leaves the root: --root {images} has it"
    assert source.problems[2].startswith("cannot be read: No such file")
    assert scan(manifest, root=images).paths == [b"cat/000.png", b"dog/002.png", b"gone.png"]


def test_rows_without_a_path_are_named_and_left_out(images, caplog):
    source = scan(write(images / "list.csv", "", "cat/000.png", " ", "cat/001.png", '""'))
    assert source.paths == FOUND[:2]
    assert "3 rows have no path and are left out: 1, 3, 5" in caplog.text
    with pytest.raises(SourceError, match="has no path in its column 'path'"):
        scan(write(images / "list.csv", "", ""))


def test_urls_are_called_urls(images):
    source = scan(write(images / "list.csv", "cat/000.png", "https://example.org/cat/001.png"))
    assert source.problems == {1: "a URL, and only files are read: download it, and write where the file is"}
    with pytest.raises(SourceError, match=r"none of the 1 paths .*: a URL, and only files are read"):
        scan(write(images / "list.csv", "HTTP://example.org/1.png"))


def test_two_rows_never_get_the_same_file_by_ignoring_something(images):
    source = scan(write(images / "list.csv", "cat/000.png", "CAT/000.PNG"))
    assert source.paths == [b"cat/000.png", b"CAT/000.PNG"]
    assert source.problems[1] == ("no file has this name; ignoring letter case, it fits 'cat/000.png' like another row")


def test_a_name_that_fits_several_files_is_not_guessed(images):
    Image.new("RGB", (5, 4)).save(images / "dog" / "000.png")
    source = scan(write(images / "list.csv", "000", "cat/001.png"))
    assert "2 files fit, ignoring the folders above it: 'cat/000.png', 'dog/000.png'" in source.problems[0]


@pytest.mark.parametrize("name", ["path", "Path", "file_name", "filename", "image", "id", "image_id"])
def test_the_column_of_paths_goes_by_several_names(images, name):
    assert scan(write(images / "list.csv", *NAMES, head=f"{name},label")).paths == FOUND


@pytest.mark.parametrize("name", ["Bild", "Datei", "Dateiname", "Pfad", "Nom de fichier", "fichier", "Archivo", "ruta"])
def test_names_in_other_languages_count_where_images_stand_there(images, name):
    assert scan(write(images / "list.csv", *NAMES, head=f"{name},label")).paths == FOUND
    with pytest.raises(SourceError, match=r"has no column 'path'; .*--path-column"):
        scan(write(images / "list.csv", "cat/000.png", "letter.pdf", head=f"{name},label"))


@pytest.mark.parametrize(
    ("head", "hint"),
    [
        ("foto,label", r"name the one with the paths \(--path-column, such as --path-column foto\)"),
        ("cat/000.png,cat", "its first line looks like a row: add a line of column names above it, such as path,label"),
    ],
)
def test_without_a_column_of_paths_the_error_says_what_to_do(images, head, hint):
    with pytest.raises(SourceError, match=f"has no column 'path'; .*{hint}"):
        scan(write(images / "list.csv", *NAMES, head=head))


def test_paths_that_are_not_utf_8_are_found_by_their_bytes_or_in_the_tables_encoding(tmp_path):
    Image.new("RGB", (5, 4)).save(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    (tmp_path / "a.csv").write_bytes(b"path,label\ncaf\xe9.png,x\n")
    assert scan(tmp_path / "a.csv").paths == [b"caf\xe9.png"]
    Image.new("RGB", (5, 4)).save(tmp_path / "Käfer.png")
    (tmp_path / "b.csv").write_bytes("path,label\nKäfer.png,Käfer\n".encode("cp1252"))
    source = scan(tmp_path / "b.csv")
    assert (source.paths, source.columns["label"].tolist()) == (["Käfer.png".encode()], ["Käfer"])
    assert not source.problems


def test_a_cell_that_is_too_long_for_a_path_is_no_file(images, tmp_path):
    assert "File name too long" in scan(write(tmp_path / "t.csv", "x/" * 3000 + "y")).problems[0]


def test_column_names_below_a_title_are_pointed_at(images):
    with pytest.raises(SourceError, match="line 2 or so looks like the column names: delete the lines above it"):
        scan(write(images / "t.csv", "path", "a.png", head="My photos,2024"))

import os
import re

import numpy as np
import pandas as pd
import pytest
import torch
import torchvision
from object_maker import new_address
from pictures import encode
from PIL import Image

from featurebank import Bank
from featurebank.bank import repair_hints
from featurebank.bank.images import source_of
from featurebank.errors import ColumnError, ImageError, SourceError
from featurebank.images import decoding
from featurebank.images.scanning import scan
from featurebank.images.tables import read_table
from featurebank.storage import files

GREY = Image.new("RGB", (5, 4), (9, 9, 9))


def png(colour=(9, 9, 9)):
    return encode(Image.new("RGB", (5, 4), colour))


def make(folder, *names):
    """Write a small PNG under each name, given as text or bytes."""
    for name in names:
        path = os.path.join(os.fsencode(folder), os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(png())
    return folder


def table_of(source):
    """Return the user's columns as plain lists, gaps as None."""
    return {name: [None if pd.isna(value) else value for value in column] for name, column in source.columns.items()}


def refusal(source, position):
    with pytest.raises(ImageError) as caught:
        source.read(position)
    return str(caught.value)


# --- folders -----------------------------------------------------------------------------------------------


def test_class_folders_give_labels_and_sorted_relative_paths(tmp_path):
    source = scan(make(tmp_path, "dog/b.JPG", "cat/z.png", "cat/deep/er/a.jpeg", "dog/a.webp"))
    assert source.paths == [b"cat/deep/er/a.jpeg", b"cat/z.png", b"dog/a.webp", b"dog/b.JPG"]
    assert table_of(source) == {"label": ["cat", "cat", "dog", "dog"]}
    assert (source.name, source.root, source.whole) == (str(tmp_path), str(tmp_path), True)


def test_paths_are_sorted_as_bytes_across_folders(tmp_path):
    source = scan(make(tmp_path, "a/x.png", "a.png", "a-b.png", "B.png", "ä.png"))
    assert source.paths == [b"B.png", b"a-b.png", b"a.png", b"a/x.png", "ä.png".encode()]


def test_a_flat_folder_has_no_label_column(tmp_path):
    source = scan(str(make(tmp_path, "b.png", "a.png")))
    assert source.paths == [b"a.png", b"b.png"]
    assert table_of(source) == {}


def test_an_image_beside_class_folders_has_no_label(tmp_path):
    assert table_of(scan(make(tmp_path, "a.png", "cat/b.png"))) == {"label": [None, "cat"]}


def test_sizes_and_times_are_those_of_the_files(tmp_path):
    source = scan(make(tmp_path, "a.png", "b.png"))
    status = [os.stat(tmp_path / name) for name in ("a.png", "b.png")]
    assert source.sizes.tolist() == [each.st_size for each in status]
    assert source.mtimes.tolist() == [each.st_mtime_ns for each in status]


def test_reading_gives_the_digest_of_the_bytes_and_the_decoded_pixels(tmp_path):
    (tmp_path / "a.png").write_bytes(png((1, 2, 3)))
    digest, decode = scan(tmp_path).read(0)
    assert digest == decoding.content_digest(png((1, 2, 3)))
    assert decode().getpixel((0, 0)) == (1, 2, 3)


def test_hidden_files_hidden_folders_and_other_suffixes_are_ignored_and_counted(tmp_path):
    make(
        tmp_path, "a.png", ".hidden.png", "cat/._b.jpg", "cat/notes.TXT", "cat/more.txt", "README", ".thumbnails/c.png"
    )
    source = scan(tmp_path)
    assert source.paths == [b"a.png"]
    assert source.ignored == {".png": 1, ".jpg": 1, ".txt": 2, "": 2}


@pytest.mark.parametrize(
    "name",
    [b"caf\xe9.png", b"\xff\xfe.png", "日本.png".encode(), b"two\nlines.png", b"\x1b[31mred.png", b" .png", b"-rf.png"],
)
def test_any_file_name_the_system_allows_is_kept_byte_for_byte_and_read(tmp_path, name):
    source = scan(make(tmp_path, name, b"folder " + name + b"/" + name))
    assert source.paths == sorted([name, b"folder " + name + b"/" + name])
    assert [source.read(position)[1]().size for position in range(2)] == [(5, 4), (5, 4)]


def test_an_undecodable_class_folder_gives_a_label_that_turns_back_into_its_bytes(tmp_path):
    source = scan(make(tmp_path, b"caf\xe9/a.png"))
    assert [os.fsencode(label) for label in source.columns["label"]] == [b"caf\xe9"]


def test_broken_links_pipes_and_looping_links_are_listed_with_their_problem_and_do_not_block(tmp_path):
    make(tmp_path, "good.png")
    (tmp_path / "broken.png").symlink_to("nowhere.png")
    (tmp_path / "itself.png").symlink_to("itself.png")
    os.mkfifo(tmp_path / "pipe.png")
    source = scan(tmp_path)
    assert source.paths == [b"broken.png", b"good.png", b"itself.png", b"pipe.png"]
    assert sorted(source.problems) == [0, 2, 3]
    assert "No such file" in refusal(source, 0)
    assert "symbolic links" in refusal(source, 2)
    assert refusal(source, 3) == "not a regular file"
    assert source.read(1)[1]().size == (5, 4)


def test_a_file_that_becomes_a_pipe_after_the_scan_does_not_block(tmp_path):
    source = scan(make(tmp_path, "a.png"))
    (tmp_path / "a.png").unlink()
    os.mkfifo(tmp_path / "a.png")
    assert refusal(source, 0) == "not a regular file"


def test_a_file_that_vanishes_after_the_scan_cannot_be_read(tmp_path):
    source = scan(make(tmp_path, "a.png"))
    (tmp_path / "a.png").unlink()
    assert refusal(source, 0) == "cannot be read: No such file or directory"


def test_a_link_to_a_folder_is_one_more_way_to_its_images_and_loops_end(tmp_path):
    make(tmp_path, "cat/a.png")
    (tmp_path / "cat" / "loop").symlink_to(tmp_path)
    (tmp_path / "zebra").symlink_to(tmp_path / "cat")
    source = scan(tmp_path)
    assert source.paths == [b"cat/a.png", b"zebra/a.png"]
    assert table_of(source) == {"label": ["cat", "zebra"]}


def test_two_links_to_one_folder_and_a_link_in_two_classes_are_samples_each(tmp_path):
    make(tmp_path / "elsewhere", "a.png", "deep/b.png")
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        (tmp_path / "photos" / name / "same").symlink_to(tmp_path / "elsewhere")
        (tmp_path / "photos" / name / "c.png").symlink_to(tmp_path / "elsewhere" / "a.png")
    inside = [b"c.png", b"same/a.png", b"same/deep/b.png"]
    assert scan(tmp_path / "photos").paths == [each + path for each in (b"cat/", b"dog/") for path in inside]


def test_folders_that_link_to_each_other_end(tmp_path):
    make(tmp_path, "a/1.png", "b/2.png")
    (tmp_path / "a" / "to-b").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "to-a").symlink_to(tmp_path / "a")
    assert scan(tmp_path).paths == [b"a/1.png", b"a/to-b/2.png", b"b/2.png", b"b/to-a/1.png"]


SYSTEM = ["@eaDir", "$RECYCLE.BIN", "System Volume Information", "__MACOSX", "lost+found", "#recycle", "FOUND.000"]
CLUTTER = [f"{folder}{name}/t.jpg" for name in SYSTEM for folder in ("", "cat/", "cat/deep/")] + [
    *(
        ".ipynb_checkpoints/a-checkpoint.png",
        "cat/.thumbnails/b.png",
        "cat/._a.png",
        "cat/Thumbs.db",
        "__MACOSX/cat/._a.png",
    ),
    "cat/@eaDir/a.png/SYNOPHOTO_THUMB_M.jpg",
]


def test_what_systems_leave_is_neither_a_class_nor_a_sample(tmp_path):
    source = scan(make(tmp_path, *CLUTTER, "cat/a.png", "dog/b.png", "trash/c.png"))
    assert source.paths == [b"cat/a.png", b"dog/b.png", b"trash/c.png"]
    assert {name for name in source.ignored if name.endswith("/")} == {f"{name}/" for name in SYSTEM}
    assert source.ignored["@eaDir/"] == 3
    assert source.ignored[".db"] == 1


def test_a_folder_with_no_image_says_what_it_has(tmp_path):
    make(tmp_path, "a.txt", "b.txt", "deep/c.psd", "README", "@eaDir/a.jpg", "._d.png")
    expected = (
        "(left out by their suffix: 2 .txt, 1 without, 1 .psd; hidden: 1 .png; made by systems: @eaDir); expected"
    )
    with pytest.raises(SourceError, match=re.escape(expected)):
        scan(tmp_path)


def test_a_link_to_a_folder_elsewhere_is_followed(tmp_path):
    make(tmp_path / "elsewhere", "a.png")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "cat").symlink_to(tmp_path / "elsewhere")
    assert scan(tmp_path / "here").paths == [b"cat/a.png"]


def test_root_rebinds_a_folder_that_moved_and_keeps_its_name(tmp_path):
    make(tmp_path / "new", "cat/a.png")
    source = scan(tmp_path / "old", root=tmp_path / "new")
    assert (source.name, source.root) == (str(tmp_path / "old"), str(tmp_path / "new"))
    assert source.read(0)[1]().size == (5, 4)


@pytest.mark.parametrize(
    ("make_source", "message"),
    [
        (lambda folder: folder / "missing", "does not exist"),
        (lambda folder: make(folder, "a.png") / "a.png", "is a file; expected a folder"),
        (lambda folder: folder, "no images in"),
        (lambda folder: make(folder, "notes.txt", ".a.png"), "no images in"),
        (lambda folder: folder / "missing.csv", "cannot be read as a table"),
    ],
    ids=["missing", "file", "empty", "nothing but others", "missing manifest"],
)
def test_a_missing_or_empty_source_is_an_error(tmp_path, make_source, message):
    with pytest.raises(SourceError, match=message):
        scan(make_source(tmp_path))


# --- manifests ---------------------------------------------------------------------------------------------

ROWS = 'path,label,code,note,age,share\na.png,cat,007,NA,3,0.5\n"sub/b.png",dog,042,,,1e-3\nc.png,cat,1,None,12,2\n'
COLUMNS = {
    "label": ["cat", "dog", "cat"],
    "code": ["007", "042", "1"],
    "note": ["NA", None, "None"],
    "age": [3, None, 12],
    "share": [0.5, 0.001, 2.0],
}


@pytest.fixture
def manifest(tmp_path):
    make(tmp_path, "a.png", "sub/b.png", "c.png")
    (tmp_path / "list.csv").write_text(ROWS)
    return tmp_path / "list.csv"


def test_a_csv_manifest_keeps_every_other_column_and_guesses_nothing(manifest):
    source = scan(manifest)
    assert source.paths == [b"a.png", b"sub/b.png", b"c.png"]
    assert table_of(source) == COLUMNS
    assert source.columns.dtypes.astype(str).tolist() == ["object", "object", "object", "Int64", "Float64"]
    assert (source.name, source.root, source.whole) == (str(manifest), str(manifest.parent), True)
    assert source.problems == {}


@pytest.mark.parametrize("suffix", [".parquet", ".pq"])
def test_a_parquet_manifest_keeps_every_other_column_and_its_types(manifest, suffix):
    path = manifest.with_suffix(suffix)
    frame = pd.DataFrame({"path": ["a.png", "sub/b.png", "c.png"], **COLUMNS})
    frame["age"] = frame["age"].astype("Int64")
    frame["ok"] = pd.array([True, None, False], dtype="boolean")
    frame["large"] = pd.array([2**53 + 1, None, 1], dtype="Int64")
    frame.to_parquet(path)
    source = scan(path)
    assert source.paths == [b"a.png", b"sub/b.png", b"c.png"]
    assert table_of(source) == {**COLUMNS, "ok": [True, None, False], "large": [2**53 + 1, None, 1]}
    assert source.columns.dtypes.astype(str).tolist()[3:] == ["Int64", "Float64", "boolean", "Int64"]


def test_root_says_where_a_manifests_paths_start(manifest, tmp_path):
    moved = make(tmp_path / "moved", "a.png", "sub/b.png")
    source = scan(manifest, root=moved)
    assert (source.name, source.root) == (str(manifest), str(moved))
    assert list(source.problems) == [2]
    assert "No such file" in refusal(source, 2)
    with pytest.raises(SourceError, match="not a folder"):
        scan(manifest, root=tmp_path / "nowhere")


def test_the_path_column_can_have_another_name(tmp_path):
    make(tmp_path, "a.png")
    (tmp_path / "list.csv").write_text("file,path\na.png,ignore me\n")
    source = scan(tmp_path / "list.csv", path_column="file")
    assert source.paths == [b"a.png"]
    assert table_of(source) == {"path": ["ignore me"]}


def test_a_wrong_path_column_lists_the_columns(manifest):
    with pytest.raises(SourceError, match=r"no column 'image'; .*it has 'path', 'label', 'code'.*--path-column"):
        scan(manifest, path_column="image")


@pytest.mark.parametrize("second", ["a.png", "./a.png", "sub/../a.png"])
def test_a_manifest_that_names_an_image_twice_is_refused(tmp_path, second):
    (tmp_path / "list.csv").write_text(f"path\na.png\n{second}\nb.png\n")
    with pytest.raises(SourceError, match=r"'a.png' more than once \(1 such path\)"):
        scan(tmp_path / "list.csv")


def test_paths_that_leave_the_root_become_listed_problems_and_rows_without_one_are_left_out(tmp_path):
    make(tmp_path, "outside.png", "in/a.png")
    cells = ["../outside.png", str(tmp_path / "outside.png"), "sub/../../outside.png", "a.png", ""]
    pd.DataFrame({"path": cells, "n": range(5)}).to_csv(tmp_path / "in" / "list.csv", index=False)
    source = scan(tmp_path / "in" / "list.csv")
    assert source.paths == [os.fsencode(cell) for cell in cells[:4]]
    reason = f"the manifest's path leaves the root: --root {tmp_path} has it"
    assert [refusal(source, position) for position in (0, 1, 2)] == [reason] * 3
    assert source.read(3)[1]().size == (5, 4)
    assert table_of(source) == {"n": [0, 1, 2, 3]}


def test_an_absolute_path_inside_the_root_is_the_relative_one(tmp_path):
    make(tmp_path, "sub/a.png")
    (tmp_path / "list.csv").write_text(f"path\n{tmp_path / 'sub' / 'a.png'}\n")
    assert scan(tmp_path / "list.csv").paths == [b"sub/a.png"]


def test_missing_files_and_pipes_of_a_manifest_are_listed_and_do_not_block(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "list.csv").write_text("path\ngone.png\npipe.png\nfolder\n")
    (tmp_path / "folder").mkdir()
    source = scan(tmp_path / "list.csv")
    assert "No such file" in refusal(source, 0)
    assert refusal(source, 1) == refusal(source, 2) == "not a regular file"


def test_a_csv_keeps_undecodable_bytes_of_paths_and_labels(tmp_path):
    make(tmp_path, b"caf\xe9.png")
    (tmp_path / "list.csv").write_bytes(b"path,label\ncaf\xe9.png,th\xe9\n")
    source = scan(tmp_path / "list.csv")
    assert source.paths == [b"caf\xe9.png"]
    assert source.read(0)[1]().size == (5, 4)
    assert os.fsencode(source.columns["label"][0]) == b"th\xe9"


def test_a_csv_keeps_newlines_commas_and_quotes_and_drops_a_byte_order_mark(tmp_path):
    make(tmp_path, "two\nlines.png", "a,b.png")
    (tmp_path / "list.csv").write_bytes(b'\xef\xbb\xbfpath,label\n"two\nlines.png","say ""x"""\n"a,b.png",y\n')
    source = scan(tmp_path / "list.csv")
    assert source.paths == [b"two\nlines.png", b"a,b.png"]
    assert source.problems == {}
    assert table_of(source) == {"label": ['say "x"', "y"]}


def test_a_csv_row_that_ends_early_has_missing_cells(tmp_path):
    (tmp_path / "list.csv").write_text("path,label,n\na.png\nb.png,cat,3\n")
    assert table_of(scan(tmp_path / "list.csv")) == {"label": [None, "cat"], "n": [None, 3]}


def test_a_comma_at_the_end_of_every_csv_row_does_not_shift_the_columns(tmp_path):
    (tmp_path / "list.csv").write_text("path,label\na.png,cat,\nb.png,dog,\n")
    source = scan(tmp_path / "list.csv")
    assert source.paths == [b"a.png", b"b.png"]
    assert table_of(source) == {"label": ["cat", "dog"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "No columns"),
        ("path,label\n", "has no rows"),
        (
            "path,label\na.png,cat,x\nb.png,dog,y\n",
            "cannot be read as a table: line 2 has 3 cells, and the first line has 2 column names: delete",
        ),
        (
            "path,label\na.png,cat\nb.png,dog,y\n",
            "cannot be read as a table: line 3 has 3 cells, .* name another separator",
        ),
    ],
    ids=["no bytes", "header only", "a nameless column", "one long row"],
)
def test_a_csv_that_is_no_table_is_refused_in_one_line(tmp_path, text, message):
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(SourceError, match=message) as caught:
        scan(tmp_path / "list.csv")
    assert "\n" not in str(caught.value)


def test_a_damaged_parquet_file_is_refused_and_lists_are_kept_as_json_lines_keep_them(tmp_path):
    (tmp_path / "list.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(SourceError, match="cannot be read as a table"):
        scan(tmp_path / "list.parquet")
    make(tmp_path, "a.png")
    pd.DataFrame({"path": ["a.png"], "boxes": [[1, 2]]}).to_parquet(tmp_path / "list.parquet")
    (tmp_path / "list.jsonl").write_text('{"path": "a.png", "boxes": [1, 2]}')
    found = [table_of(scan(tmp_path / name)) for name in ("list.parquet", "list.jsonl")]
    assert found == [{"boxes": ["[1, 2]"]}] * 2


@pytest.mark.parametrize("suffix", [".jsonl", ".NDJSON"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_json_lines_are_a_manifest_whose_cells_keep_their_kinds(tmp_path, suffix, encoding):
    make(tmp_path, "a.png", "b.png", "c.png")
    rows = ['{"path": "a.png", "label": "Kätzchen", "code": "007", "age": 3, "box": [1, {"x": 2}]}', ""]
    rows += ['{"path": "b.png", "code": "1e5", "ok": true, "large": 36893488147419103232}\r']
    rows += ['{"path": "c.png", "label": null, "code": "NA", "age": null, "share": 0.1}']
    (tmp_path / f"list{suffix}").write_bytes("\n".join(rows).encode(encoding))
    source = scan(tmp_path / f"list{suffix}")
    assert source.paths == [b"a.png", b"b.png", b"c.png"]
    assert table_of(source) == {
        "label": ["Kätzchen", None, None],
        "code": ["007", "1e5", "NA"],
        "age": [3, None, None],
        "box": ['[1, {"x": 2}]', None, None],
        "ok": [None, True, None],
        "large": [None, "36893488147419103232", None],
        "share": [None, None, 0.1],
    }
    assert source.read(1)[1]().size == (5, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"path": "a.png"}\n{"path"', r"line 2 is no JSON \(.*\); expected an object a line"),
        ('\n[{"path": "a.png"}]', r"line 2 holds a list; expected an object a line, {...}"),
        ("\n", "has no rows"),
    ],
    ids=["cut short", "a list", "nothing"],
)
def test_json_lines_that_are_none_are_refused_in_one_line(tmp_path, text, message):
    (tmp_path / "list.jsonl").write_text(text)
    with pytest.raises(SourceError, match=message) as caught:
        scan(tmp_path / "list.jsonl")
    assert "\n" not in str(caught.value)


# --- lists, arrays and datasets ----------------------------------------------------------------------------


def test_a_list_of_paths_is_keyed_by_absolute_path_and_is_not_the_whole_source(tmp_path, monkeypatch):
    make(tmp_path, "a.png", "b.png")
    monkeypatch.chdir(tmp_path)
    source = scan([tmp_path / "b.png", "a.png"], columns={"label": ["x", None]})
    assert source.paths == [os.fsencode(tmp_path / name).lstrip(b"/") for name in ("b.png", "a.png")]
    assert (source.root, source.whole, source.problems) == ("/", False, {})
    assert table_of(source) == {"label": ["x", None]}
    assert source.read(1)[1]().size == (5, 4)


def test_a_list_of_paths_lists_missing_files_and_refuses_repeats(tmp_path):
    make(tmp_path, "a.png")
    assert "No such file" in refusal(scan([str(tmp_path / "gone.png"), str(tmp_path / "a.png")]), 0)
    with pytest.raises(SourceError, match="more than once"):
        scan([str(tmp_path / "a.png"), tmp_path / "." / "a.png"])


def test_a_pandas_column_of_paths_is_a_list_whatever_its_index(tmp_path):
    make(tmp_path, "a.png", "b.png")
    paths = pd.Series([str(tmp_path / "b.png"), str(tmp_path / "a.png")], index=[7, 3])
    assert scan(paths).paths == scan(paths.tolist()).paths


def test_pil_images_with_ids_follow_the_pixel_policy():
    clear = Image.new("RGBA", (2, 2), (1, 2, 3, 0))
    source = scan([GREY, clear], ids=["one", "two"], columns={"n": [1, 2]})
    assert source.paths == [b"one", b"two"]
    assert source.whole is False
    assert table_of(source) == {"n": [1, 2]}
    digest, decode = source.read(1)
    assert decode().getpixel((0, 0)) == (255, 255, 255)
    assert digest == decoding.pixel_digest(Image.new("RGB", (2, 2), "white"))


def test_arrays_with_ids_are_images_of_their_pixels():
    stack = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3), dtype=np.uint8)
    source = scan(stack, ids=["a", "b", "c"])
    assert np.array_equal(source.read(2)[1](), stack[2])
    mixed = scan([stack[0], stack[1, :, :, 0]], ids=["rgb", "grey"])
    assert np.asarray(mixed.read(1)[1]())[..., 2].tolist() == stack[1, :, :, 0].tolist()


def test_one_unreadable_item_in_memory_is_refused_alone(tmp_path):
    (tmp_path / "cut.png").write_bytes(png()[:50])
    lazy = Image.open(tmp_path / "cut.png")
    source = scan([GREY, np.zeros((4, 4), np.int64), lazy], ids=["good", "int64", "cut"])
    assert source.read(0)[1]().size == (5, 4)
    assert "expected uint8" in refusal(source, 1)
    assert "cannot be read" in refusal(source, 2)


@pytest.mark.parametrize(
    ("tensor", "shape"),
    [
        (torch.zeros(3, 4, 5), (4, 5, 3)),
        (torch.zeros(1, 4, 5), (4, 5)),
        (torch.zeros(4, 5), (4, 5)),
        (torch.zeros(3, 1, 5), (1, 5, 3)),
    ],
    ids=["rgb", "one channel", "grey", "one row"],
)
def test_uint8_tensors_are_channels_first(tensor, shape):
    tensor = torch.randint_like(tensor, 256).to(torch.uint8)
    expected = tensor.numpy().reshape(shape) if len(tensor) != 3 else tensor.permute(1, 2, 0).numpy()
    assert np.array_equal(decoding.as_image(tensor), decoding.from_array(expected))


def test_a_dataset_with_targets_and_classes_gives_class_names_as_labels(tmp_path):
    make(tmp_path, "cat/a.png", "dog/b.png", "dog/c.png")
    source = scan(torchvision.datasets.ImageFolder(tmp_path))
    assert source.paths == [b"0", b"1", b"2"]
    assert table_of(source) == {"label": ["cat", "dog", "dog"]}
    assert source.read(2)[1]().getpixel((0, 0)) == (9, 9, 9)


def test_a_datasets_undecodable_class_name_turns_back_into_its_bytes(tmp_path):
    source = scan(torchvision.datasets.ImageFolder(make(tmp_path, b"caf\xe9/a.png")))
    assert os.fsencode(source.columns["label"][0]) == b"caf\xe9"


def test_a_dataset_without_targets_gives_the_second_of_each_item_as_label():
    pictures = torch.arange(2 * 3 * 4 * 5, dtype=torch.uint8).view(2, 3, 4, 5)
    source = scan(torch.utils.data.TensorDataset(pictures, torch.tensor([4, 2])), ids=["x", "y"])
    assert source.paths == [b"x", b"y"]
    assert table_of(source) == {"label": [4, 2]}
    assert source.columns["label"].dtype == "Int64"
    assert np.array_equal(source.read(1)[1](), pictures[1].permute(1, 2, 0))


def test_given_columns_win_over_a_datasets_labels():
    pictures = torch.zeros(2, 3, 4, 5, dtype=torch.uint8)
    dataset = torch.utils.data.TensorDataset(pictures, torch.tensor([4, 2]))
    assert table_of(scan(dataset, columns={"label": ["a", "b"]})) == {"label": ["a", "b"]}


class Unlabelled(torch.utils.data.Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, position):
        return [GREY, np.zeros((3, 3), np.uint8)][position]


def test_a_dataset_of_bare_images_has_no_label():
    source = scan(Unlabelled())
    assert table_of(source) == {}
    assert [source.read(position)[1]().size for position in range(2)] == [(5, 4), (3, 3)]


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (3, {}, "a int is no image source"),
        ([], {}, "is empty"),
        ([GREY], {}, "give ids"),
        ([GREY, GREY], {"ids": ["a"]}, "1 id for 2 images"),
        ([GREY, GREY], {"ids": ["a", "a"]}, "one distinct id each"),
        ([GREY], {"ids": ["a"], "columns": {"n": [1, 2]}}, "columns have 2 rows for 1 image"),
        ([GREY], {"ids": ["a"], "columns": {"n": [1], "m": [1, 2]}}, "columns do not make a table"),
        ([GREY], {"ids": ["a"], "root": "/"}, "root and path_column go with a folder"),
        (["a.png"], {"ids": ["a"]}, "ids go with images in memory"),
        (["a.png"], {"path_column": "path"}, "root and path_column go with a folder"),
        ("folder", {"ids": ["a"]}, "ids and columns go with a list"),
        ("folder", {"columns": {"n": [1]}}, "ids and columns go with a list"),
        ("folder", {"path_column": "path"}, "is not a manifest"),
    ],
)
def test_options_that_do_not_fit_the_source_are_refused_in_one_line(source, options, message):
    with pytest.raises(SourceError, match=message) as caught:
        scan(source, **options)
    assert "\n" not in str(caught.value)


def test_given_columns_must_be_single_values():
    with pytest.raises(ColumnError, match="'boxes' holds lists"):
        scan([GREY], ids=["a"], columns={"boxes": [[1, 2]]})


def test_a_folder_or_another_kind_of_file_is_no_table(tmp_path):
    ending = "expected a file that ends in .csv, .tsv, .txt, .parquet, .pq, .jsonl, .ndjson"
    with pytest.raises(SourceError) as caught:
        read_table(tmp_path)
    assert str(caught.value) == f"{str(tmp_path)!r} is a folder; {ending}"
    (tmp_path / "labels.xlsx").write_bytes(b"PK")
    with pytest.raises(SourceError) as caught:
        read_table(tmp_path / "labels.xlsx")
    assert str(caught.value) == f"{str(tmp_path / 'labels.xlsx')!r} is no table by its suffix; {ending}"


def test_a_source_knows_whether_its_labels_are_the_names_of_folders(tmp_path):
    assert scan(make(tmp_path / "classes", "cat/a.png", "b.png")).class_folders
    assert not scan(make(tmp_path / "flat", "a.png")).class_folders
    (tmp_path / "flat" / "list.csv").write_text("path,label\na.png,cat\n")
    assert not scan(tmp_path / "flat" / "list.csv").class_folders


# --- object storage ----------------------------------------------------------------------------------------


@pytest.fixture
def bucket():
    """Make objects of small PNGs in memory: bucket("cat/1.png", …) -> the address of their folder."""

    def make(*names):
        folder = files.as_path(new_address("photos"))
        for name in names:
            files.commit(folder / name, png())
        return folder

    return make


def test_a_folder_of_objects_is_like_a_folder_of_files(tmp_path, bucket):
    names = ["cat/1.png", "cat/b/2.PNG", "dog/3.png", "dog/notes.txt", ".hidden/4.png", "dog/.5.png"]
    address = bucket(*names)
    near, far = scan(make(tmp_path, *names)), scan(address)
    assert far.paths == near.paths == [b"cat/1.png", b"cat/b/2.PNG", b"dog/3.png"]
    assert far.name == far.root == str(address)
    assert table_of(far) == table_of(near)
    assert (far.class_folders, far.whole, far.ignored) == (True, True, {".txt": 1, ".png": 1})
    assert far.sizes.tolist() == near.sizes.tolist()
    assert far.read(2)[0] == decoding.content_digest(png())
    assert far.read(2)[1]().size == (5, 4)


def test_what_systems_leave_on_a_store_is_no_sample_either(bucket):
    source = scan(bucket(*CLUTTER, "cat/a.png", "dog/b.png"))
    assert source.paths == [b"cat/a.png", b"dog/b.png"]
    assert {name for name in source.ignored if name.endswith("/")} == {f"{name}/" for name in SYSTEM}


def test_parts_of_a_split_on_a_store(bucket):
    source = scan(bucket("photos/Train/cat/1.png", "photos/Train/dog/1.png", "photos/Valid/cat/1.png"))
    assert table_of(source) == {"label": ["cat", "dog", "cat"], "split": ["train", "train", "val"]}


def test_an_object_that_changes_has_another_time(bucket):
    address = bucket("1.png")
    before = scan(address).mtimes
    files.commit(address / "1.png", png((1, 2, 3)))
    assert scan(address).mtimes != before


def test_an_empty_bucket_is_an_error(bucket):
    with pytest.raises(SourceError, match=r"nothing lies at 'memory://.*check the bucket"):
        scan(bucket())


def test_names_of_objects_that_leave_the_folder_are_failed_samples(bucket):
    found = scan(bucket("a/../../1.png", "2.png"))
    assert len(found.problems) == 1
    assert "leaves the folder" in refusal(found, next(iter(found.problems)))


def test_an_object_that_vanishes_is_a_failed_sample(bucket):
    address = bucket("1.png")
    found = scan(address)
    files.remove(address / "1.png")
    assert "no such object" in refusal(found, 0)


def test_a_manifest_beside_its_objects(bucket):
    address = bucket("1.png", "2.png")
    cells = ["1.png", f"{address}/2.png", "3.png", "../4.png", "memory://elsewhere/5.png"]
    table = pd.DataFrame({"path": cells, "label": list("abcde")})
    files.commit(address / "photos.csv", table.to_csv(index=False).encode())
    found = scan(address / "photos.csv")
    assert found.paths[:3] == [b"1.png", b"2.png", b"3.png"]
    assert {position: problem.split(" ", 3)[3] for position, problem in found.problems.items()} == {
        2: "no such object",
        3: "leaves the root",
        4: "leaves the root",
    }
    assert found.read(1)[0] == decoding.content_digest(png())


def test_a_local_manifest_of_objects(tmp_path, bucket):
    address = bucket("1.png")
    (tmp_path / "photos.csv").write_text("path,label\n1.png,cat\n")
    found = scan(tmp_path / "photos.csv", root=address)
    assert found.root == str(address)
    assert found.read(0)[0] == decoding.content_digest(png())


def test_a_list_of_addresses_is_refused(bucket):
    with pytest.raises(SourceError, match="give addresses as a folder"):
        scan([f"{bucket('1.png')}/1.png"])


def test_extraction_from_and_into_object_storage(memory_commands, tmp_path, bucket, run_json, noise):
    address, photos = bucket(), tmp_path / "photos"
    for number in range(6):
        name = f"{'cat' if number % 2 else 'dog'}/{number}.png"
        make(photos, name)
        noise(40, 40, number).save(photos / name)
        files.commit(address / name, (photos / name).read_bytes())
    how = ["--backbone", "resnet18", "--weights", "random:0", "--size", "32"]
    bank = new_address()
    first, again = (run_json("extract", address, "--bank", bank, *how) for _ in range(2))
    assert (first["embedded"], again["embedded"], again["reused"]) == (6, 0, 6)
    assert run_json("extract", photos, "--bank", tmp_path / "x.bank", *how)["embedded"] == 6
    near, far = (each.load("resnet18/penultimate", "label") for each in (Bank(tmp_path / "x.bank"), Bank(bank)))
    assert np.array_equal(far[0], near[0])
    assert far[1].tolist() == near[1].tolist()
    assert source_of(Bank(bank).select()).read(0)[0] == Bank(bank).table.rows["digest"][0]
    assert f"--bank {bank}" in repair_hints.extract_command(Bank(bank), Bank(bank).feature_sets[0].spec, str(address))


@pytest.mark.parametrize(
    ("name", "way"), [("a.zip", "unpack it first"), ("a.xlsx", "save the table as CSV"), ("a.json", "as JSON Lines")]
)
def test_a_file_that_is_no_source_is_refused_with_what_to_do(tmp_path, name, way):
    (tmp_path / name).write_bytes(b"PK")
    with pytest.raises(SourceError, match=f"is a file; expected a folder of images, .* manifest: .*{way}"):
        scan(tmp_path / name)

import io
import json
import os
import tarfile

import numpy as np
import pandas as pd
import pytest
from object_maker import FaultyStore, new_address
from pictures import png

from featurebank import extract
from featurebank.bank.images import source_of
from featurebank.errors import ColumnError, ImageError, SourceError
from featurebank.images import decoding, shards
from featurebank.images.listing import read_file
from featurebank.images.scanning import scan
from featurebank.images.shards import expand
from featurebank.storage import files, retries


def tar(members, format=tarfile.PAX_FORMAT):
    """Return a tar file of (name, bytes) pairs; a name may also be a TarInfo."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as file:
        for name, data in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def photos(first, count):
    """Return the members of a shard as WebDataset writes it: an image, its class, facts and a text."""
    for number in range(first, first + count):
        facts = json.dumps({"site": "north" if number % 3 else "south", "box": [1, number]}).encode()
        beside = {"png": png(number), "cls": b"%d\n" % (number % 2), "json": facts, "txt": f"photo {number}".encode()}
        yield from ((f"{number:04}.{suffix}", data) for suffix, data in beside.items())


@pytest.fixture(params=["folder", "memory"])
def place(request, tmp_path):
    """A folder, and one on object storage, of three shards of four photos."""
    folder = tmp_path if request.param == "folder" else files.as_path(new_address("shards"))
    for number in range(3):
        files.commit(folder / f"photo-{number:03}.tar", tar(photos(4 * number, 4)))
    return folder


def test_shards_are_a_source(place):
    found = scan(place / "photo-{000..002}.tar")
    assert found.name == f"{place}/photo-{{000..002}}.tar"
    assert found.root == str(place)
    assert found.paths == [b"photo-%03d.tar/%04d.png" % (number // 4, number) for number in range(12)]
    assert found.whole
    assert [found.read(number)[0] for number in (11, 0, 5)] == [decoding.content_digest(png(n)) for n in (11, 0, 5)]
    assert found.columns["label"].tolist() == [0, 1] * 6
    assert found.columns["text"].tolist() == [f"photo {number}" for number in range(12)]
    assert found.columns["site"].tolist() == ["north" if number % 3 else "south" for number in range(12)]
    assert found.columns["box"].tolist() == [f"[1, {number}]" for number in range(12)]


def test_one_shard_is_a_source(place):
    assert scan(str(place / "photo-001.tar")).paths[0] == b"photo-001.tar/0004.png"


def test_a_member_is_read_by_its_name(place):
    assert read_file(f"{place}/photo-001.tar/0006.png") == png(6)
    with pytest.raises(ImageError, match="the shard has no member"):
        read_file(f"{place}/photo-001.tar/6.png")
    with pytest.raises(ImageError, match="cannot be read"):
        read_file(f"{place}/photo-009.tar/0006.png")


def test_extraction_from_shards_resumes_and_knows_new_shards(memory_commands, place, tmp_path, run_json):
    arguments = ["extract", place / "photo-{000..001}.tar", "--bank", tmp_path / "x.bank"]
    arguments += ["--backbone", "resnet18", "--weights", "random:0", "--size", "32"]
    first, again = run_json(*arguments), run_json(*arguments)
    assert (first["embedded"], first["failed"]) == (8, 0)
    assert (again["embedded"], again["reused"]) == (0, 8)
    files.commit(place / "photo-001.tar", tar([*photos(4, 2), *photos(20, 2)]))
    changed = run_json(*arguments)
    assert (changed["embedded"], changed["reused"], changed["gone"]) == (2, 6, 2)


def test_rows_from_shards_are_those_of_the_files(place, tmp_path):
    how = {"backbone": "resnet18", "weights": "random:0", "size": 32}
    for number in range(12):
        (tmp_path / "files").mkdir(exist_ok=True)
        (tmp_path / "files" / f"{number:04}.png").write_bytes(png(number))
    plain = extract(tmp_path / "files", tmp_path / "a.bank", **how)
    packed = extract(place / "photo-{000..002}.tar", tmp_path / "b.bank", **how)
    assert np.array_equal(packed.load("resnet18/penultimate"), plain.load("resnet18/penultimate"))
    again = source_of(packed.select())
    assert [again.read(number)[0] for number in range(12)] == packed.select().rows["digest"].tolist()


def test_blocks_are_shared_and_fetched_once(monkeypatch):
    address = files.as_path(new_address("a.tar"))
    files.commit(address, tar(photos(0, 8)))
    monkeypatch.setattr(shards, "BLOCK", 4096)
    found = scan(address)
    store = FaultyStore()
    fetched = []
    whole = store.cat_file
    monkeypatch.setattr(store, "cat_file", lambda path, **span: fetched.append(span["start"]) or whole(path, **span))
    monkeypatch.setattr(retries, "filesystem", lambda protocol, process: store)
    assert [found.read(number)[0] for number in range(8)] == [decoding.content_digest(png(n)) for n in range(8)]
    assert len(fetched) == len(set(fetched)) > 8
    assert all(start % 4096 == 0 for start in fetched)


def test_failures_while_reading_shards_are_repeated(monkeypatch):
    address = files.as_path(new_address("a.tar"))
    files.commit(address, tar(photos(0, 8)))
    store = FaultyStore(every=2)
    monkeypatch.setattr(retries, "filesystem", lambda protocol, process: store)
    monkeypatch.setattr(retries, "FIRST_DELAY", 1e-4)
    found = scan(address)
    assert [found.read(number)[0] for number in range(8)] == [decoding.content_digest(png(n)) for n in range(8)]
    assert store.failed > 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_no_shard(tmp_path):
    os.mkfifo(tmp_path / "a.tar")
    with pytest.raises(SourceError, match="a folder or a special file"):
        scan(tmp_path / "a.tar")


# --- odd and hostile shards ----------------------------------------------------------------------------------


def write(tmp_path, data):
    (tmp_path / "a.tar").write_bytes(data)
    return tmp_path / "a.tar"


def test_what_lacks_notes_has_gaps(tmp_path):
    found = scan(write(tmp_path, tar([("a.png", png(1)), ("a.cls", b"cat"), ("b.png", png(2)), ("c.json", b"{}")])))
    assert found.paths == [b"a.tar/a.png", b"a.tar/b.png"]
    assert [None if pd.isna(cell) else cell for cell in found.columns["label"]] == ["cat", None]


def test_what_is_no_image_is_counted(tmp_path):
    found = scan(write(tmp_path, tar([("a.png", png(1)), ("a.npy", b"1"), ("._a.png", b"1"), ("README", b"1")])))
    assert found.paths == [b"a.tar/a.png"]
    assert found.ignored == {".npy": 1, ".png": 1, "": 1}


def test_what_systems_leave_in_a_shard_is_no_image(tmp_path):
    clutter = ["@eaDir/t.png", "d/@eaDir/t.png", "__MACOSX/d/._a.png", "$RECYCLE.BIN/x.png", ".ipynb_checkpoints/a.png"]
    found = scan(write(tmp_path, tar([(name, png(1)) for name in [*clutter, "d/a.png", "lost+found.png"]])))
    assert found.paths == [b"a.tar/d/a.png", b"a.tar/lost+found.png"]
    assert found.ignored == {"@eaDir/": 2, "__MACOSX/": 1, "$RECYCLE.BIN/": 1, ".png": 1}


def test_links_in_a_shard_are_samples_by_their_own_names(tmp_path):
    hard, soft, early, lost = map(tarfile.TarInfo, ("dog/hard.png", "dog/soft.png", "cat/early.png", "dog/lost.png"))
    hard.type, hard.linkname = tarfile.LNKTYPE, "cat/a.png"
    soft.type, soft.linkname = tarfile.SYMTYPE, "../cat/a.png"
    early.type, early.linkname = tarfile.SYMTYPE, "a.png"
    lost.type, lost.linkname = tarfile.SYMTYPE, "nowhere.png"
    members = [(early, b""), ("cat/a.png", png(1)), (hard, b""), (soft, b""), (lost, b"")]
    found = scan(write(tmp_path, tar(members)))
    assert found.paths == [b"a.tar/cat/early.png", b"a.tar/cat/a.png", b"a.tar/dog/hard.png", b"a.tar/dog/soft.png"]
    assert {found.read(position)[0] for position in range(4)} == {decoding.content_digest(png(1))}


def test_several_images_under_one_name_share_its_notes(tmp_path):
    found = scan(write(tmp_path, tar([("./d/a.left.png", png(1)), ("./d/a.right.png", png(2)), ("./d/a.cls", b"7")])))
    assert found.paths == [b"a.tar/d/a.left.png", b"a.tar/d/a.right.png"]
    assert found.columns["label"].tolist() == [7, 7]


@pytest.mark.parametrize("name", ["../a.png", "/etc/a.png", "d/../../a.png"])
def test_a_name_that_leaves_the_shard_is_a_failed_sample(tmp_path, name):
    found = scan(write(tmp_path, tar([("b.png", png(1)), (name, png(2))])))
    with pytest.raises(ImageError, match="leaves the shard"):
        found.read(1)
    with pytest.warns(UserWarning, match="1 of 2 images could not be read"):
        bank = extract(tmp_path / "a.tar", tmp_path / "x.bank", backbone="resnet18", weights="random:0", size=32)
    assert sorted(bank.samples["status"]) == ["failed", "ok"]


def test_links_and_folders_are_no_images(tmp_path):
    link, folder = tarfile.TarInfo("a.png"), tarfile.TarInfo("b.png")
    link.type, link.linkname, folder.type = tarfile.SYMTYPE, "/etc/passwd", tarfile.DIRTYPE
    assert scan(write(tmp_path, tar([("c.png", png(1)), (link, b""), (folder, b"")]))).paths == [b"a.tar/c.png"]


def test_names_that_are_not_utf_8_stay_what_they_are(tmp_path):
    name = b"\xff\xfe.png".decode("utf-8", "surrogateescape")
    found = scan(write(tmp_path, tar([(name, png(1))], tarfile.GNU_FORMAT)))
    assert found.paths == [b"a.tar/\xff\xfe.png"]
    assert found.read(0)[0] == decoding.content_digest(png(1))


def test_notes_that_are_not_utf_8_lose_nothing_and_a_mark_is_no_text(tmp_path):
    labels = [*(word.encode("cp1252") for word in ("größe", "grüße")), "\ufeffOl".encode()]
    members = [pair for n, label in enumerate(labels) for pair in ((f"{n}.png", png(n)), (f"{n}.cls", label))]
    (tmp_path / "a.tar").write_bytes(tar(members))
    found = scan(tmp_path / "a.tar").columns["label"].tolist()
    assert [os.fsencode(label) for label in found] == [*labels[:2], b"Ol"]


def test_a_repeated_name_is_an_error(tmp_path):
    with pytest.raises(SourceError, match="more than once"):
        scan(write(tmp_path, tar([("a.png", png(1)), ("a.png", png(2))])))


@pytest.mark.parametrize("keep", [0, 100, 512, 1024, 2000, -10240])
def test_a_shard_that_is_cut_short_is_refused(tmp_path, keep):
    data = tar([("a.png", png(1)), ("b.png", png(2))])
    data = data[: len(data.rstrip(b"\0")) + 512 - len(data.rstrip(b"\0")) % 512] + bytes(10240)
    with pytest.raises(SourceError, match=r"shard '.*a.tar'.*: make it again|; make it again") as caught:
        scan(write(tmp_path, data[:keep]))
    assert "\n" not in str(caught.value)


def test_a_shard_that_is_damaged_in_the_middle_is_refused(tmp_path):
    data = bytearray(tar([("a.png", png(1)), ("b.png", png(2)), ("c.png", png(3))]))
    second = bytes(data).index(b"b.png")
    data[second : second + 100] = b"\xaa" * 100
    with pytest.raises(SourceError, match="cut short or damaged at byte"):
        scan(write(tmp_path, bytes(data)))


@pytest.mark.parametrize("text", [b"{", b"[1]", b"\xff", b"7"])
def test_facts_that_are_no_json_fail_their_sample_alone(tmp_path, text):
    beside = [("a.json", text), ("b.json", b'{"k": 1}')]
    found = scan(write(tmp_path, tar([("a.png", png(1)), ("b.png", png(2)), *beside])))
    with pytest.raises(ImageError, match=r"the .json beside it cannot be read"):
        found.read(0)
    assert found.columns["k"].tolist()[1] == 1


def test_a_column_without_a_name_is_refused(tmp_path):
    with pytest.raises(ColumnError, match="not distinct, non-empty"):
        scan(write(tmp_path, tar([("a.png", png(1)), ("a.json", b'{"": 1}')])))


def test_a_damaged_list_in_the_cache_is_made_again(tmp_path):
    path = write(tmp_path, tar(photos(0, 2)))
    expected = scan(path).paths
    for file in (files.cache_folder() / "shards").iterdir():
        file.write_bytes(b'{"members": 3}')
    assert scan(path).paths == expected


def test_patterns():
    assert expand("{0..1}/{09..10}.tar") == ["0/09.tar", "0/10.tar", "1/09.tar", "1/10.tar"]
    for pattern in ("{3..1}.tar", "{0..999999999999}.tar"):
        with pytest.raises(SourceError, match="shards; expected 1 to"):
            expand(pattern)


def test_a_missing_shard_is_an_error(place):
    with pytest.raises(SourceError, match=r"shard '.*photo-003.tar' cannot be read: no such shard"):
        scan(place / "photo-{000..003}.tar")


def test_shards_without_images_are_an_error(tmp_path):
    with pytest.raises(SourceError, match="no images in"):
        scan(write(tmp_path, tar([("a.cls", b"1")])))

import hashlib
import json

import h5py
import numpy as np
import pytest

from featurebank.bank import segment
from featurebank.errors import CorruptError
from featurebank.storage import files

DIGESTS = np.arange(64, dtype="u1").reshape(2, 32)
VALUES = np.array([[[1.5, -2.0]], [[0.25, 65504.0]]], "<f2")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a.h5"
    arrays = {"digest": DIGESTS, "values": VALUES, "columns/0/data": np.zeros(0, "u1")}
    files.commit(path, segment.encode("features", {"fingerprint": "ab"}, arrays))
    return path


def test_what_is_written_is_read(file):
    opened = segment.open_segment(file, "features")
    assert opened.meta == {"fingerprint": "ab"}
    assert sorted(opened.names) == ["columns/0/data", "digest", "values"]
    np.testing.assert_array_equal(opened.read("values"), VALUES)
    np.testing.assert_array_equal(opened.read("digest"), DIGESTS)
    assert opened.read("columns/0/data").shape == (0,)
    assert opened.read("values").dtype == np.dtype("<f2")


def test_arrays_are_contiguous_aligned_and_plain(file):
    with h5py.File(file) as raw:
        assert raw["digest"].id.get_offset() % 64 == 0
        for name in ("digest", "values"):
            assert raw[name].chunks is None
            assert raw[name].compression is None
        header = json.loads(raw["header"][()].tobytes())
        assert raw.attrs["sha256"].tobytes() == hashlib.sha256(raw["header"][()].tobytes()).digest()
    assert header["arrays"]["values"] == {
        "dtype": "<f2",
        "shape": [2, 1, 2],
        "sha256": hashlib.sha256(VALUES.tobytes()).hexdigest(),
    }


def test_read_arrays_cannot_be_written(file):
    values = segment.open_segment(file, "features").read("values")
    with pytest.raises(ValueError, match="read-only"):
        values[0] = 0


def test_a_flipped_byte_of_data_is_found(file):
    data = bytearray(file.read_bytes())
    place = bytes(data).index(VALUES.tobytes())
    data[place] ^= 1
    file.write_bytes(data)
    with pytest.raises(CorruptError, match=r"a\.h5.*'values' do not match.*run extract again"):
        segment.open_segment(file, "features").read("values")


def test_one_array_is_checked_without_the_others(file):
    data = bytearray(file.read_bytes())
    data[bytes(data).index(VALUES.tobytes())] ^= 1
    file.write_bytes(data)
    np.testing.assert_array_equal(segment.open_segment(file, "features").read("digest"), DIGESTS)


def test_another_kind_is_refused(file):
    with pytest.raises(CorruptError, match="holds 'features', not 'samples'"):
        segment.open_segment(file, "samples")


def test_a_newer_version_says_upgrade(file):
    with h5py.File(file, "r+") as raw:
        raw.attrs["version"] = np.int64(2)
    with pytest.raises(CorruptError, match="version 2, this featurebank reads 1: upgrade"):
        segment.open_segment(file, "features")


def test_a_missing_file_is_file_not_found(tmp_path):
    with pytest.raises(FileNotFoundError):
        segment.open_segment(tmp_path / "none.h5", "features")


@pytest.mark.parametrize("content", [b"", b"not HDF5", b"\x89HDF\r\n\x1a\n" + bytes(100)])
def test_other_bytes_are_refused(tmp_path, content):
    path = tmp_path / "a.h5"
    path.write_bytes(content)
    with pytest.raises(CorruptError, match="damaged or not a segment"):
        segment.open_segment(path, "features")


def test_a_symbolic_link_is_refused(file, tmp_path):
    link = tmp_path / "link.h5"
    link.symlink_to(file)
    with pytest.raises(CorruptError, match="link or special file"):
        segment.open_segment(link, "features")


def replace_values(**options):
    def change(raw):
        del raw["values"]
        raw.create_dataset("values", data=VALUES, **options)

    return change


HOSTILE = {
    "compressed": replace_values(compression="gzip", chunks=(1, 1, 2)),
    "chunked": replace_values(chunks=(1, 1, 2)),
    "another dtype": lambda raw: (raw.__delitem__("values"), raw.create_dataset("values", data=VALUES.astype("f4"))),
    "an extra array": lambda raw: raw.create_dataset("extra", data=[1]),
    "an extra group": lambda raw: raw.create_group("more"),
    "a missing array": lambda raw: raw.__delitem__("values"),
    "an attribute on an array": lambda raw: raw["values"].attrs.create("note", 1),
    "an attribute on the file": lambda raw: raw.attrs.create("note", 1),
    "a soft link": lambda raw: raw.__setitem__("soft", h5py.SoftLink("/values")),
    "an external link": lambda raw: raw.__setitem__("out", h5py.ExternalLink("/etc/passwd", "/")),
    "an object type": lambda raw: raw.create_dataset("text", data="abc", dtype=h5py.string_dtype()),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_anything_but_plain_arrays_is_refused(file, name):
    with h5py.File(file, "r+") as raw:
        HOSTILE[name](raw)
    with pytest.raises(CorruptError):
        segment.open_segment(file, "features")

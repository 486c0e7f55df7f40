"""Images of every kind are opened in one way, and read ahead in order, a bounded number at a time."""

import threading
import time

import numpy as np
import pytest
from object_maker import FaultyStore, new_address
from PIL import Image

from featurebank.errors import ImageError, StorageError
from featurebank.images.decoding import content_digest, pixel_digest
from featurebank.images.reading import image_digest, open_image, read_ahead
from featurebank.storage import files, retries


@pytest.fixture
def red(tmp_path):
    path = tmp_path / "red.png"
    Image.new("RGB", (6, 4), "red").save(path)
    return path


def test_a_path_bytes_an_image_and_an_array_are_the_same_image(red):
    image = Image.open(red)
    for item in (red, str(red), red.read_bytes(), image, np.asarray(image)):
        opened, digest = open_image(item)
        assert opened.mode == "RGB"
        assert np.array_equal(np.asarray(opened), np.asarray(image))
        is_file = isinstance(item, (bytes, str, type(red)))
        assert digest == image_digest(item) == (content_digest(red.read_bytes()) if is_file else pixel_digest(image))


def test_a_file_must_still_have_the_digest_that_was_computed_before(red):
    assert open_image(red, digest=image_digest(red))[1] == image_digest(red)
    with pytest.raises(ImageError, match=r"red\.png': changed while it was read"):
        open_image(red, digest=bytes(32))


@pytest.mark.parametrize("item", [b"", b"no image", 3, None, np.zeros(3)], ids=repr)
def test_what_is_no_image_is_refused(item):
    with pytest.raises(ImageError):
        open_image(item)


def test_an_error_names_the_file(tmp_path):
    for opening in (open_image, image_digest):
        with pytest.raises(ImageError, match=r"gone\.png': cannot be read"):
            opening(tmp_path / "gone.png")


def test_what_is_made_comes_in_order_and_a_bounded_number_ahead():
    begun = []

    def work(item):
        begun.append(item)
        time.sleep(0.001 * (item % 3))
        return item * 2

    taken = []
    for each in read_ahead(work, range(40), workers=4, most=6):
        taken.append(each)
        assert len(begun) <= len(taken) + 5
    assert taken == [2 * item for item in range(40)]


def test_the_bound_may_change_on_the_way():
    most, begun = [1], []
    made = read_ahead(lambda item: begun.append(item) or item, range(20), workers=1, most=lambda: most[0])
    assert next(made) == 0
    assert begun == [0]
    most[0] = 5
    assert list(made) == list(range(1, 20))


def test_what_was_not_begun_is_cancelled_when_the_caller_stops():
    begun, go = [], threading.Event()

    def work(item):
        begun.append(item)
        assert item == 0 or go.wait(5)
        return item

    made = read_ahead(work, range(1000), workers=1, most=100)
    assert next(made) == 0
    threading.Timer(0.05, go.set).start()
    made.close()
    assert len(begun) <= 3


def test_an_error_comes_where_its_item_would():
    def work(item):
        if item == 3:
            raise ImageError("broken")
        return item

    made = read_ahead(work, range(10), workers=2)
    assert [next(made) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ImageError, match="broken"):
        next(made)


def test_a_store_that_does_not_answer_is_no_damaged_image(monkeypatch):
    address = files.as_path(new_address("photos")) / "1.png"
    monkeypatch.setattr(retries, "filesystem", lambda protocol, process: FaultyStore(every=1))
    monkeypatch.setattr(retries, "FIRST_DELAY", 1e-5)
    with pytest.raises(StorageError, match="cannot read"):
        open_image(str(address))
    monkeypatch.setattr(retries, "filesystem", lambda protocol, process: FaultyStore())
    with pytest.raises(ImageError, match="no such object"):
        open_image(str(address))

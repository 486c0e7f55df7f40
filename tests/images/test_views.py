from itertools import pairwise
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageChops

from featurebank.errors import BankError
from featurebank.images.views import ANGLE, MAX_VIEWS, SMALLEST, augment, count_views, make_views, share_batches, window

ABC = np.array([[1, 2, 3], [4, 5, 6]], np.uint8)


def views_of(pixels, views, digest=b"d"):
    """Return the views of a grey image as arrays of one channel."""
    image = Image.fromarray(np.asarray(pixels, np.uint8)).convert("RGB")
    return [np.asarray(view)[..., 0] for view in make_views(image, views, digest)]


def as_bytes(image, views, digest):
    return [view.tobytes() for view in make_views(image, views, digest)]


# --- names -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("views", "message"),
    [
        ("hflp", "no views 'hflp'; did you mean hflip?"),
        ("augmnt:4", "no views 'augmnt:4'; did you mean augment:K?"),
        ("xyz", "no views 'xyz'; expected one of none, hflip, flips, dihedral, augment:K"),
        (None, "no views 'None'; did you mean none?"),
        *[
            (f"augment{k}", f"views 'augment{k}'; expected augment:K with K from 2 to 256, e.g. augment:8")
            for k in ("", ":", ":0", ":1", ":257", ":04", ":4.0", ":-4", ":four", ":4 ", ":99999999999", ":４")
        ],
    ],
)
def test_an_unknown_name_is_an_error_that_says_what_is_known(views, message):
    with pytest.raises(BankError) as caught:
        count_views(views)
    assert str(caught.value) == message


@pytest.mark.parametrize("views", ["none", "hflip", "flips", "dihedral", "augment:2", "augment:7"])
def test_a_name_makes_as_many_views_as_it_counts(views, noise):
    assert len(list(make_views(noise(9, 7), views, b"d"))) == count_views(views)


def test_the_largest_count_is_allowed():
    assert count_views(f"augment:{MAX_VIEWS}") == 256


# --- flips and quarter turns -------------------------------------------------------------------------------


def test_flips_are_the_image_mirrored_upside_down_and_both():
    expected = [ABC, [[3, 2, 1], [6, 5, 4]], [[4, 5, 6], [1, 2, 3]], [[6, 5, 4], [3, 2, 1]]]
    for view, known in zip(views_of(ABC, "flips"), expected, strict=True):
        np.testing.assert_array_equal(view, known)


def test_the_larger_sets_begin_with_the_smaller():
    found = [[view.tolist() for view in views_of(ABC, views)] for views in ("none", "hflip", "flips", "dihedral")]
    for smaller, larger in pairwise(found):
        assert larger[: len(smaller)] == smaller


def test_the_dihedral_views_are_the_eight_symmetries_of_the_square():
    square = np.arange(9).reshape(3, 3)
    views = views_of(square, "dihedral")
    assert [tuple(view.ravel()) for view in views] == [
        tuple(each.ravel())
        for each in (
            square, square[:, ::-1], square[::-1], square[::-1, ::-1],
            square.T, np.rot90(square), np.rot90(square, -1), square[::-1, ::-1].T,
        )
    ]  # fmt: skip
    elements = {view.tobytes() for view in views}
    assert len(elements) == 8
    for view in views:  # a view of a view is a view: closed, so that with the identity it is the group
        assert {again.tobytes() for again in views_of(view, "dihedral")} == elements


def test_a_transform_that_changes_its_image_in_place_leaves_the_other_views_whole(noise):
    views = make_views(noise(40, 30), "flips", b"d")
    next(views).thumbnail((8, 8))
    assert [view.size for view in views] == [(40, 30)] * 3


# --- augment -----------------------------------------------------------------------------------------------


def test_random_views_repeat_differ_from_each_other_and_between_contents(noise):
    image = noise(50, 40)
    first = as_bytes(image, "augment:8", b"one")
    assert as_bytes(image, "augment:8", b"one") == first
    assert first[0] == image.tobytes()
    assert len(set(first)) == 8
    assert not set(as_bytes(image, "augment:8", b"two")[1:]) & set(first)
    assert as_bytes(image, "augment:3", b"one") == first[:3]


def test_random_views_do_not_touch_the_global_random_state(noise):
    import random

    before = random.getstate()
    list(make_views(noise(20, 20), "augment:3", b"d"))
    assert random.getstate() == before


def test_the_draws_are_the_same_on_every_machine_and_in_every_version():
    size, matrix = window(100, 80, Random(b"x"))
    assert size == (87, 70)
    np.testing.assert_allclose(
        matrix, [0.9993331159, -0.0365147015, 7.6332958483, 0.0365147015, 0.9993331159, 5.2413353285], rtol=1e-9
    )


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(0, 1 << 32))
def test_a_window_is_large_turns_a_little_and_lies_within_the_image(width, height, seed):
    (w, h), (a, b, c, d, e, f) = window(width, height, Random(seed))
    corners = [(x, y) for x in (0.5, w - 0.5) for y in (0.5, h - 0.5)]
    for x, y in corners:
        assert 0 <= a * x + b * y + c <= width
        assert 0 <= d * x + e * y + f <= height
    assert abs(np.arctan2(d, a)) <= ANGLE
    least = SMALLEST / (1 + ANGLE)
    assert w >= max(1, int(least * width))
    assert h >= max(1, int(least * height))


def test_windows_lie_everywhere_turn_both_ways_and_half_are_mirrored():
    drawn = [window(100, 100, Random(seed)) for seed in range(400)]
    turns = [matrix[3] for _, matrix in drawn]
    middles = np.array([[a * w / 2 + b * h / 2 + c, d * w / 2 + e * h / 2 + f] for (w, h), (a, b, c, d, e, f) in drawn])
    assert abs(np.mean(np.sign(turns))) < 0.15
    assert np.abs(middles.mean(axis=0) - 50).max() < 1
    assert (middles.std(axis=0) > 2).all()
    ramp = Image.fromarray(np.tile(np.arange(100, dtype=np.uint8), (100, 1))).convert("RGB")
    slopes = [np.diff(np.asarray(augment(ramp, Random(seed)))[40, ::20, 0].astype(int)).mean() for seed in range(200)]
    assert 0.4 < np.mean(np.array(slopes) < 0) < 0.6


def test_no_pixel_is_made_up_and_colours_change_by_a_fifth_at_most():
    grey = Image.new("RGB", (90, 60), (100, 100, 100))
    for seed in range(50):
        low, high = augment(grey, Random(seed)).getextrema()[0]
        assert low == high
        assert 80 <= low <= 120
    colours = {augment(grey, Random(seed)).getpixel((0, 0)) for seed in range(50)}
    assert len(colours) > 10


def test_a_coloured_image_changes_in_saturation(noise):
    red = Image.new("RGB", (40, 40), (150, 60, 60))
    spreads = [np.ptp(augment(red, Random(seed)).getpixel((0, 0))) for seed in range(30)]
    assert min(spreads) < 85 < 95 < max(spreads)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 3), (3000, 2)])
def test_tiny_and_long_images_have_random_views_too(size):
    assert all(min(view.size) >= 1 for view in make_views(Image.new("RGB", size), "augment:20", b"d"))


def test_the_given_image_is_left_as_it_was(noise):
    image, same = noise(30, 20), noise(30, 20)
    for views in ("dihedral", "augment:4"):
        list(make_views(image, views, b"d"))
    assert ImageChops.difference(image, same).getbbox() is None


# --- batches -----------------------------------------------------------------------------------------------


@given(st.integers(1, MAX_VIEWS), st.integers(1, 300))
def test_a_forward_pass_is_never_too_large_and_nearly_full(views, batch_size):
    images, at_once = share_batches(views, batch_size)
    assert images >= 1
    assert at_once <= batch_size
    passes = -(-images * views // at_once)
    assert 0 <= passes * at_once - images * views < passes
    assert images == 1 or images * views == at_once

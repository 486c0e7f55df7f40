"""Names from other machines: the file that is meant is found, or the reason says why not."""

from __future__ import annotations

import unicodedata

import pytest

from featurebank.images.matching import Matcher, near_path

NFC, NFD = (unicodedata.normalize(form, "Müller.png").encode() for form in ("NFC", "NFD"))


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (b"cat/1.png", b"cat/1.png"),
        (b"./cat//1.png", b"cat/1.png"),
        (b"cat\\1.png", b"cat/1.png"),
        (b"CAT/1.PNG", b"cat/1.png"),
        (b"cat/1", b"cat/1.png"),
        (b"Cat\\1", b"cat/1.png"),
        (b"C:\\Users\\me\\photos\\cat\\1.png", b"cat/1.png"),
        (b"../photos/cat/1", b"cat/1.png"),
        (b"/home/me/cat/1.png", b"cat/1.png"),
        (b"2.png", b"dog/2.png"),
        (b"2", b"dog/2.png"),
        (b"a.b", b"a.b.tif"),
        ("Gr\u00f6\u00dfe/x.JPG".encode(), "gro\u0308\u00dfe/x.jpg".encode()),
        (b"caf\xe9", b"caf\xe9.jpg"),
    ],
)
def test_a_name_that_one_file_fits_is_matched(wanted, found):
    names = [b"cat/1.png", b"dog/1.png", b"dog/2.png", b"a.b.tif", "gro\u0308\u00dfe/x.jpg".encode(), b"caf\xe9.jpg"]
    assert Matcher(names).find(wanted)[0] == found


@pytest.mark.parametrize("wanted", [b"", b"1.jpg", b"bird/1.png", b"3.png", b"cat/2.png", b"cat", b"..", b"/"])
def test_a_name_that_no_file_fits_is_not_guessed(wanted):
    found, reason = Matcher([b"cat/1.png", b"dog/2.png"]).find(wanted)
    assert found is None
    assert reason.startswith("no file has this name")


def test_what_is_ignored_is_said():
    matcher = Matcher([NFD, b"cat/1.png"])
    assert matcher.find(NFD) == (NFD, "")
    assert matcher.find(NFC) == (NFD, "Unicode normalisation")
    assert matcher.find(b"cat/1.PNG") == (b"cat/1.png", "letter case")
    assert matcher.find(b"cat/1") == (b"cat/1.png", "its suffix")
    assert Matcher([b"cat/st3.ome.tif"]).find(b"cat/st3") == (b"cat/st3.ome.tif", "its suffix")
    assert matcher.find(b"x/cat/1.png") == (b"cat/1.png", "the folders above it")


def test_the_tightest_reading_that_fits_wins():
    names = [b"1.png", b"1.PNG", b"a/x.png", b"b/x.png", b"x.png"]
    matcher = Matcher(names)
    assert [matcher.find(name)[0] for name in (b"1.png", b"./1.PNG", b"x")] == [b"1.png", b"1.PNG", b"x.png"]


@pytest.mark.parametrize(
    ("names", "wanted", "reason"),
    [
        ([b"1.png", b"1.PNG"], b"1.Png", "2 files fit, ignoring letter case: '1.png', '1.PNG'"),
        ([b"1.png", b"1.jpg"], b"1", "2 files fit, ignoring its suffix: '1.png', '1.jpg'"),
        ([b"a/1.png", b"b/1.png"], b"1.png", "2 files fit, ignoring the folders above it"),
        (
            [NFC, NFD],
            b"x/" + NFC,
            f"2 files fit, ignoring the folders above it: {NFC.decode()!r} (NFC), {NFD.decode()!r} (NFD)",
        ),
    ],
)
def test_of_several_that_fit_none_is_taken(names, wanted, reason):
    found, why = Matcher(names).find(wanted)
    assert found is None
    assert why.startswith(reason)


def test_names_are_asked_for_once_and_only_when_needed():
    asked = []

    def names():
        asked.append(1)
        yield from (b"1.png", b"2.png")

    matcher = Matcher(names())
    assert not asked
    assert [matcher.find(name)[0] for name in (b"1", b"2.PNG")] == [b"1.png", b"2.png"]
    assert asked == [1]


def test_many_names_that_nothing_fits_are_answered_quickly():
    matcher = Matcher(b"%05d/image.png" % number for number in range(2_000))
    missed = [matcher.find(b"data/%05d/images.png" % number) for number in range(2_000)]
    assert not any(found for found, _ in missed)
    assert matcher.find(b"data\\00007\\image")[0] == b"00007/image.png"


@pytest.mark.parametrize(
    ("path", "near"),
    [
        ("photos/cat/1.jpg", "cat/1.jpg"),
        ("/home/me/photos/dog/2.jpg", "dog/2.jpg"),
        ("2.jpg", "dog/2.jpg"),
        ("dog/2.JPG", "dog/2.jpg"),
        ("dog/O.jpg", "dog/0.jpg"),
        ("cat/l.jpg", "cat/1.jpg"),
        ("cats/1.jpeg", "cat/1.jpg"),
        ("caf\udce9.jpg", "caf\udce8.jpg"),
        ("something else", ""),
    ],
)
def test_the_path_that_was_meant_is_found(path, near):
    known = [b"cat/1.jpg", b"dog/0.jpg", b"dog/2.jpg", b"dog/9.jpg", b"caf\xe8.jpg"]
    assert near_path(path, known) == near


def test_no_path_is_near_in_an_empty_bank():
    assert near_path("a.jpg", []) == ""


def test_zeros_in_front_that_a_table_lost_are_found():
    matcher = Matcher([b"train/000.png", b"train/007.png", b"train/010.png"])
    assert matcher.find(b"train/7") == (b"train/007.png", "zeros in front")
    assert matcher.find(b"7") == (b"train/007.png", "zeros in front and the folders above it")
    assert matcher.find(b"train/10") == (b"train/010.png", "zeros in front")
    assert Matcher([b"7.png", b"07.png"]).find(b"007")[0] is None

from itertools import combinations

import numpy as np
import pytest
from PIL import Image
from planted import COPIES, photograph

from featurebank import Bank, extract
from featurebank.errors import FeatureSetError, ImageError
from featurebank.explore import duplicates, near_duplicates
from featurebank.explore.near_duplicates import SIDE, near_pairs, thumbnails_of

NET = {"backbone": "resnet18", "weights": "random:0", "size": 32, "layers": ["layer1"]}


def thumbnails(*images):
    return np.stack([np.asarray(each.resize((SIDE, SIDE), Image.Resampling.BILINEAR)) for each in images])


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A bank of 60 photographs, a copy of each kind of 4 others, and one file that is there twice."""
    folder = tmp_path_factory.mktemp("planted") / "photos"
    folder.mkdir()
    for seed in range(60):
        photograph(seed).save(folder / f"{seed:02}.png")
    for number, (name, change) in enumerate(COPIES.items()):
        for seed in range(4 * number, 4 * number + 4):
            change(photograph(seed)).save(folder / f"{seed:02}_{name}.png")
    (folder / "59_again.png").write_bytes((folder / "59.png").read_bytes())
    return extract(folder, folder.parent / "planted.bank", **NET)


def test_planted_copies_are_found_and_nothing_else(planted):
    found = duplicates(planted)
    assert list(found.columns) == ["group", "kind", "source", "path", "similarity"]
    pairs = {tuple(each["path"]) for _, each in found.groupby("group")}
    expected = {
        (f"{seed:02}.png", f"{seed:02}_{name}.png")
        for number, name in enumerate(COPIES)
        for seed in range(4 * number, 4 * number + 4)
    }
    assert pairs == expected | {("59.png", "59_again.png")}
    assert found.loc[found["path"].str.startswith("59"), "kind"].tolist() == ["exact", "exact"]
    assert (found["kind"] == "near").sum() == 2 * len(expected)
    assert found["similarity"].between(near_duplicates.SIMILAR, 1.0001).all()
    assert found["group"].tolist() == sorted(found["group"])


def test_embeddings_that_are_nearly_parallel_are_listed_as_alike(planted):
    found = duplicates(planted, features="layer1")
    alike = found[found["kind"] == "alike"]
    assert len(alike)
    assert set(duplicates(planted)["path"]) <= set(found["path"])
    X, paths = Bank(planted.path).load("layer1", return_paths=True)
    one = X[paths.index(alike["path"].iloc[0])]
    cosines = X @ one / np.linalg.norm(X, axis=1) / np.linalg.norm(one)
    assert np.sort(cosines)[-2] == pytest.approx(alike["similarity"].iloc[0], abs=1e-5)
    with pytest.raises(FeatureSetError):
        duplicates(planted, features="layer9")


def test_no_pair_that_agrees_is_missed():
    images = [photograph(seed) for seed in range(20)]
    images += [Image.blend(photograph(seed), photograph(seed + 1), seed / 60) for seed in range(20)]
    made = thumbnails(*images)
    everything = np.array(list(combinations(range(40), 2)))
    agreement = near_duplicates._agreement(made, near_duplicates._mean(made), everything)
    for similar in (0.5, 0.9, 0.993):
        pairs, values = near_pairs(made, similar)
        expected = everything[agreement >= similar].tolist()
        assert len(expected) > 3
        assert sorted(pairs.tolist()) == expected
        assert (values >= similar).all()


def test_a_collection_of_two_is_judged_as_well():
    image = photograph(3)
    assert len(near_pairs(thumbnails(image, COPIES["all"](image)))[0]) == 1
    assert len(near_pairs(thumbnails(image, photograph(4)))[0]) == 0


def test_colours_tell_pictures_of_one_shape_apart():
    red, green = Image.new("RGB", (60, 60), "black"), Image.new("RGB", (60, 60), "black")
    red.paste("red", (20, 5, 50, 30))
    green.paste("lime", (20, 5, 50, 30))
    assert len(near_pairs(thumbnails(red, green))[0]) == 0


@pytest.mark.parametrize("count", [0, 1, 5])
def test_blank_pictures_are_no_copies_of_each_other(count):
    blank = np.full((count, SIDE, SIDE, 3), 200, np.uint8)
    assert near_pairs(blank)[0].shape == (0, 2)


def test_a_bank_without_duplicates_gives_an_empty_table(tmp_path):
    photograph(0).save(tmp_path / "a.png")
    bank = extract(tmp_path, tmp_path / "a.bank", **NET)
    assert duplicates(bank).empty
    assert duplicates(bank).columns.tolist() == near_duplicates.COLUMNS


def test_an_image_that_is_gone_or_changed_is_an_error_that_names_it(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for seed in range(3):
        photograph(seed).save(photos / f"{seed}.png")
    bank = extract(photos, tmp_path / "a.bank", **NET)
    (photos / "1.png").write_bytes((photos / "2.png").read_bytes())
    with pytest.raises(ImageError, match=r"1\.png': changed since it was extracted; extract its source again"):
        duplicates(bank)
    (photos / "1.png").unlink()
    with pytest.raises(ImageError, match=r"1\.png': cannot be read: No such file or directory; .*--root FOLDER"):
        duplicates(bank)


def test_images_that_were_in_memory_cannot_be_looked_at_again(tmp_path):
    bank = extract([np.asarray(photograph(0))], tmp_path / "a.bank", ids=["a"], **NET)
    with pytest.raises(
        ImageError, match="1 sample of 'memory' was an image in memory, which no file has; extract them"
    ):
        duplicates(bank)


def test_progress_counts_every_distinct_image(planted):
    seen = []
    made = thumbnails_of(planted.select(), lambda done, total: seen.append((done, total)))
    assert made.shape == (85, SIDE, SIDE, 3)
    assert seen == [(done, 85) for done in range(1, 86)]

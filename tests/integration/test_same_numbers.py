"""The same numbers again: features do not depend on how the images came to the network."""

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from featurebank import Bank, extract, load_backbone
from featurebank.backbones.engine import Engine

NET = {"backbone": "resnet18", "weights": "random:0", "size": 64, "store": "float32", "device": "cpu"}
LAYERS = ["layer2", "penultimate"]
VIEWS = ["none", "augment:2"]
COUNT, CLOSE = 33, 1e-5
WAYS = {
    "batches of 1": {"batch_size": 1},
    "batches of 7": {"batch_size": 7},
    "batches of 32": {"batch_size": 32},
    "2 workers": {"workers": 2},
    "8 workers": {"workers": 8},
    "2 threads": {"threads": 2},
    "backwards": {"order": range(COUNT)[::-1]},
    "shuffled": {"order": np.random.default_rng(0).permutation(COUNT)},
    "in two runs": {"order": np.random.default_rng(1).permutation(COUNT), "runs": 2},
    "three in a run": {"runs": COUNT // 3},
    "all at once": {
        "order": np.random.default_rng(2).permutation(COUNT),
        "runs": 3,
        "batch_size": 5,
        "workers": 3,
        "threads": 2,
    },
}


@pytest.fixture(autouse=True)
def threads():
    """Set the number of torch's threads; every test leaves it as it was."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def photos(tmp_path_factory, noise):
    """Noise of several sizes and brightnesses in files whose names sort as they are numbered."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(COUNT):
        image = noise(40 + number, 90 - number, number)
        image.point(lambda value, number=number: value * (number + 5) // (COUNT + 5)).save(folder / f"{number:02}.png")
    return sorted(folder.iterdir())


def features(bank):
    """Return each layer's rows, one a view, in the order of the paths."""
    names = [f"resnet18/{layer}" for layer in LAYERS]
    return {name: np.concatenate(list(bank.load(name, views="all"))) for name in names}


def embed(path, photos, threads_setter, *, order=range(COUNT), runs=1, threads=1, **options):
    """Embed the photos in this order, shared among so many runs."""
    threads_setter(threads)
    bank = Bank.create(path)
    for part in np.array_split(np.array(order), runs):
        extract([photos[number] for number in part], bank, layers=LAYERS, **NET, **options)
    return bank


@pytest.fixture(scope="module")
def plain(photos, tmp_path_factory):
    """The banks that every other way is compared with: one thread, one worker, batches of 16, in the paths' order."""
    folder, before = tmp_path_factory.mktemp("plain"), torch.get_num_threads()
    options = {"batch_size": 16, "workers": 1}
    banks = {views: embed(folder / views, photos, torch.set_num_threads, views=views, **options) for views in VIEWS}
    torch.set_num_threads(before)
    return banks


def apart(rows):
    """Return the smallest distance of a row to the next: what a mix-up of two images would measure."""
    rows = rows.reshape(len(rows), -1)
    return (np.linalg.norm(np.diff(rows, axis=0), axis=1) / np.linalg.norm(rows[1:], axis=1)).min()


def digests(bank):
    """Return the digests of a feature set's rows in the order in which they were written."""
    files = sorted(bank.path.glob("features/*/*.h5"), key=lambda file: (str(file.parent), file.stat().st_mtime_ns))
    keys = []
    for file in files:
        with h5py.File(file) as segment:
            keys += [bytes(key) for key in segment["digest"][:]]
    return keys[:COUNT]


@pytest.mark.parametrize("views", VIEWS)
@pytest.mark.parametrize("way", WAYS)
def test_features_do_not_depend_on_batches_order_workers_or_threads(
    tmp_path, photos, plain, threads, distance, way, views
):
    bank = embed(tmp_path / "a.bank", photos, threads, views=views, **{"batch_size": 16, "workers": 1} | WAYS[way])
    found, expected = features(bank), features(plain[views])
    for name, rows in expected.items():
        assert rows.shape[0] == COUNT * (1 if views == "none" else 2)
        assert distance(found[name], rows) < CLOSE
        assert apart(rows) > 100 * CLOSE
    written = digests(bank)
    given = [digests(plain[views])[number] for number in WAYS[way].get("order", range(COUNT))]
    assert written == given  # they came to the network in this order


NEIGHBOURS = {
    "black": lambda image, number: np.zeros_like(image),
    "white": lambda image, number: np.full_like(image, 255),
    "noise": lambda image, number: np.random.default_rng(number).integers(0, 256, image.shape, dtype=np.uint8),
    "itself": lambda image, number: image,
}


@pytest.mark.parametrize("neighbours", NEIGHBOURS)
@pytest.mark.parametrize("pad", [False, True])
def test_features_do_not_depend_on_the_neighbours_or_the_place_in_the_batch(photos, distance, neighbours, pad):
    backbone = load_backbone("resnet18", "random:0", 64)
    image = backbone.prepare(Image.open(photos[9]))
    engine = Engine(backbone, [backbone.spec(layer) for layer in LAYERS], device="cpu", batch_size=9, pad=pad)
    alone = engine([image])
    for size in (2, 5, 9):
        for place in range(size):
            batch = [NEIGHBOURS[neighbours](image, number) for number in range(size)]
            batch[place] = image
            for found, expected in zip(engine(batch), alone, strict=True):
                assert distance(found[place : place + 1], expected) < CLOSE

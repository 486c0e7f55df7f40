"""What only a CUDA GPU can show; all of it is skipped where there is none.

    pytest -m gpu tests

needs no more than torch, torchvision and the libraries of a plain extraction; weights are seeded.
"""

import io

import numpy as np
import pytest
import torch
from pictures import jpeg
from PIL import Image

from featurebank import Bank, extract
from featurebank.backbones import devices
from featurebank.backbones.devices import choose_device
from featurebank.backbones.engine import Engine
from featurebank.backbones.nvjpeg import JpegDecoder
from featurebank.backbones.registry import load_backbone
from featurebank.backbones.request import Request
from featurebank.errors import EngineError
from featurebank.extraction.extract import run_extraction
from featurebank.extraction.pipeline import Compute
from featurebank.images import decoding
from featurebank.images.decoding import find_jpeg
from featurebank.images.scanning import scan

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
SIDE = 96


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("resnet18", "random:0", SIDE)


@pytest.fixture(scope="module")
def pixels():
    """Return 200 different arrays as the network takes them."""
    return list(np.random.default_rng(0).integers(0, 256, (200, SIDE, SIDE, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def files(photo):
    """Return 150 JPEG files of different pictures, three sizes, some progressive, grey, turned or finely sampled."""
    turned = Image.Exif()
    turned[0x0112] = 6
    kinds = [{}, {"progressive": True}, {"subsampling": 0}, {"exif": turned}, {"optimize": True}]
    data = []
    for number in range(150):
        image = photo.rotate(2.4 * number).resize((200 + 8 * (number % 3), 160))
        data.append(jpeg(image.convert("L") if number % 7 == 3 else image, **kinds[number % 5]))
    return data


@pytest.fixture(scope="module")
def photos(tmp_path_factory, files):
    folder = tmp_path_factory.mktemp("photos")
    for number, data in enumerate(files):
        path = folder / "ab"[number % 2] / f"{number:03}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    Image.open(io.BytesIO(files[0])).save(folder / "a" / "last.png")
    return folder


def one_minus_cos(found, expected):
    a, b = (np.asarray(rows, np.float64).reshape(len(rows), -1) for rows in (found, expected))
    return float((1 - (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))).max())


def on(device, backbone, layers=("penultimate",), precision="fp32", **options):
    specs = [backbone.spec(layer, precision=precision) for layer in layers]
    return Engine(backbone, specs, device=device, engine=options.pop("engine", "eager"), **options)


def by_nvjpeg():
    return load_backbone("resnet18", "random:0", SIDE).with_decoder("nvjpeg").preprocessing


# --- the same numbers as on the CPU ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["resnet18", "vit_b_16", "efficientnet_b0"])
def test_float32_features_equal_the_cpus(name, distance):
    side = 224 if name == "vit_b_16" else SIDE
    some = list(np.random.default_rng(1).integers(0, 256, (6, side, side, 3), dtype=np.uint8))
    expected = on("cpu", load_backbone(name, "random:0", side), batch_size=8)(some)[0]
    found = on("cuda", load_backbone(name, "random:0", side), batch_size=8)(some)[0]
    assert distance(found, expected) < 1e-4


@pytest.mark.parametrize(("precision", "most"), [("fp16", 1e-3), ("bf16", 1e-2)])
def test_reduced_precisions_are_near_and_not_equal(pixels, precision, most):
    layers = ["layer3", "penultimate"]
    exact = on("cuda", load_backbone("resnet18", "random:0", SIDE), layers)(pixels[:40])
    reduced = on("cuda", load_backbone("resnet18", "random:0", SIDE), layers, precision)(pixels[:40])
    for full, rows in zip(exact, reduced, strict=True):
        assert rows.dtype == np.float32
        assert 0 < one_minus_cos(rows, full) < most


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_compiled_features_are_those_of_eager(pixels, precision, backbone):
    specs = [backbone.spec("penultimate", precision=precision)]
    compiled = Engine(backbone, specs, device="cuda", engine="compile", batch_size=32)
    found = compiled(pixels[:40])[0]  # refused where it is further off than the engine's own tolerance
    assert compiled.engine == "compile"
    expected = on("cuda", backbone, precision=precision, batch_size=32)(pixels[:40])[0]
    assert one_minus_cos(found, expected) < (1e-6 if precision == "fp32" else 1e-2)


def test_a_rows_bits_do_not_depend_on_its_neighbours(pixels, backbone):
    together = on("cuda", backbone, batch_size=64)(pixels)[0]
    alone = on("cuda", backbone, batch_size=64)(pixels[70:75])[0]
    assert np.array_equal(alone, together[70:75])


# --- streams and memory ------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["cuda", f"cuda:{max(0, torch.cuda.device_count() - 1)}"])
def test_the_asynchronous_path_gives_the_bits_of_the_synchronous_one(pixels, device):
    backbone = load_backbone("resnet18", "random:0", SIDE)
    running = on(device, backbone, ["layer1:none", "penultimate"], batch_size=32)
    batches = [(start, pixels[start : start + 32]) for start in range(0, len(pixels), 32)] * 3
    expected = {}
    for start, batch in batches[: len(batches) // 3]:
        whole = np.stack([*batch, *[batch[-1]] * (32 - len(batch))])
        outputs = running._eager(torch.from_numpy(whole).to(device))  # pageable memory: each copy is waited for
        torch.cuda.synchronize(device)
        expected[start] = [output[: len(batch)].float().cpu().numpy() for output in outputs]
    for start, found in running.stream(batches):
        for rows, wanted in zip(found, expected[start], strict=True):
            assert np.array_equal(rows[:, 0], wanted)


def test_results_stay_as_they_were_when_later_batches_are_computed(pixels, backbone):
    running = on("cuda", backbone, batch_size=16)
    kept, copies = [], []
    for _, (rows,) in running.stream((None, pixels[start : start + 16]) for start in range(0, 192, 16)):
        kept.append(rows)  # views of pinned memory, which must not be given to a later batch
        copies.append(rows.copy())
    assert all(np.array_equal(rows, copy) for rows, copy in zip(kept, copies, strict=True))
    assert len({rows.tobytes() for rows in kept}) == len(kept)


@pytest.fixture
def little_memory():
    """Leave about 500 MB of the GPU's memory to this process."""
    torch.cuda.empty_cache()
    whole = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + (500 << 20)) / whole)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


def test_when_memory_runs_out_batches_are_halved_and_no_row_is_lost(little_memory, distance):
    backbone = load_backbone("resnet18", "random:0", 224)
    some = list(np.random.default_rng(2).integers(0, 256, (256, 224, 224, 3), dtype=np.uint8))
    running = on("cuda", backbone, batch_size=256)
    found = running(some)[0]
    assert running.batch_size < 256
    assert running.warnings[0] == "memory ran out: batches of 128 from here on"
    assert distance(found, on("cuda", backbone, batch_size=8)(some)[0]) < 1e-5


def test_one_image_that_does_not_fit_is_an_error(little_memory):
    backbone = load_backbone("resnet18", "random:0", 3072)
    with pytest.raises(EngineError, match="one image does not fit the memory of cuda"):
        on("cuda", backbone, batch_size=4)(list(np.zeros((1, 3072, 3072, 3), np.uint8)))


def test_the_batch_size_follows_the_free_memory(backbone, monkeypatch):
    device = choose_device("cuda")
    assert devices.choose_batch_size(backbone, device) == devices.LARGEST_GPU_BATCH
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1 << 25, 1 << 34))
    assert devices.choose_batch_size(backbone, device) < devices.LARGEST_GPU_BATCH


# --- decoders ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("decoder", "most"), [("tensor", 1e-4), ("reduced", 1e-2), ("nvjpeg", 1e-2)])
def test_each_decoder_is_near_pil(photos, tmp_path, decoder, most, record_property):
    rows = {}
    for each in ("pil", decoder):
        options = {"decoder": each, "device": "cuda", "store": "float32", "size": SIDE, "batch_size": 32}
        bank = extract(
            photos, tmp_path / f"{each}.bank", backbone="resnet18", weights="random:0", views="hflip", **options
        )
        rows[each] = bank.load(bank.feature_sets[0].name, views="all").reshape(302, -1)
    found = one_minus_cos(rows[decoder], rows["pil"])
    record_property("largest 1-cos to pil", found)
    print(f"{decoder}: 1-cos to pil at most {found:.1e}")
    assert 0 < found < most


@pytest.mark.parametrize(("options", "most"), [({"subsampling": 0}, 4), ({"subsampling": 2}, 64)])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_nvjpegs_pixels_are_libjpegs_but_for_rounding_and_colours(photo, options, most, progressive, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = jpeg(photo, exif=exif, progressive=progressive, **options)
    how = by_nvjpeg()
    found = JpegDecoder(how, choose_device("cuda"))([find_jpeg(data)]).cpu().numpy()[0].astype(int)
    difference = np.abs(found - how(decoding.decode(data)))
    assert difference.max() <= most
    assert difference.mean() < 2


def test_grey_files_are_grey(photo):
    how = by_nvjpeg()
    data = jpeg(photo.convert("L"))
    found = JpegDecoder(how, choose_device("cuda"))([find_jpeg(data)]).cpu().numpy()[0].astype(int)
    assert np.ptp(found, axis=2).max() == 0
    assert np.abs(found - how(decoding.decode(data))).max() <= 4


def test_decoding_beside_the_network_gives_the_bits_of_decoding_before_it(files):
    backbone = load_backbone("resnet18", "random:0", SIDE).with_decoder("nvjpeg")
    running = on("cuda", backbone, ["layer1:none", "penultimate"], batch_size=16)
    prepared = [find_jpeg(data) for data in files]
    batches = [(start, prepared[start : start + 16]) for start in range(0, len(prepared), 16)]
    expected = {}
    for start, batch in batches:
        expected[start] = running(batch)
        torch.cuda.synchronize()
    for start, found in running.stream(batches * 6):
        assert all(np.array_equal(rows[:, 0], wanted) for rows, wanted in zip(found, expected[start], strict=True))
    assert running.warnings == []


def test_decoding_leaves_memory_alone_that_the_network_still_reads(files):
    """Freed blocks that queued work still reads must not be decoded into (pytorch/vision#9606)."""
    decoder = JpegDecoder(by_nvjpeg(), choose_device("cuda"))
    prepared = [find_jpeg(data) for data in files[:32]]
    expected = decoder(prepared).long().sum().item()
    sums = []
    for _ in range(20):
        batch = decoder(prepared)
        batch.record_stream(torch.cuda.current_stream())
        torch.cuda._sleep(20_000_000)  # the network is late
        sums.append(batch.long().sum())
        del batch
    assert {each.item() for each in sums} == {expected}


def test_a_damaged_file_is_listed_and_the_others_are_embedded(photos, tmp_path, files):
    at = files[0].index(b"\xff\xc4")
    (tmp_path / "some").mkdir()
    for number in range(8):
        data = files[number] if number != 5 else files[0][: at + 5] + b"\xff" * 16 + files[0][at + 21 :]
        (tmp_path / "some" / f"{number}.jpg").write_bytes(data)
    wanted = Request("resnet18", "penultimate", weights="random:0", size=SIDE, decoder="nvjpeg")
    report = run_extraction(scan(tmp_path / "some"), Bank.create(tmp_path / "a.bank"), wanted, Compute(device="cuda"))
    assert (report.embedded, report.failed) == (7, 1)
    assert report.failures[0]["path"] == "5.jpg"


def test_decoding_does_not_use_up_the_memory(files):
    decoder = JpegDecoder(by_nvjpeg(), choose_device("cuda"))
    prepared = [find_jpeg(data) for data in files]
    decoder(prepared)
    free = torch.cuda.mem_get_info()[0]
    for _ in range(40):
        decoder(prepared)
    assert free - torch.cuda.mem_get_info()[0] < 256 << 20


# --- the report --------------------------------------------------------------------------------------------


def test_a_run_names_the_gpu_and_measures_its_drift(photos, tmp_path):
    wanted = Request("resnet18", "penultimate", weights="random:0", size=SIDE, precision="bf16")
    report = run_extraction(scan(photos), Bank.create(tmp_path / "a.bank"), wanted, Compute(batch_size=32))
    assert report.engines == ["eager on cuda in batches of 32"]
    (made_by,) = Bank(tmp_path / "a.bank").feature_sets[0].made_by
    assert made_by["device"] == f"cuda {torch.cuda.get_device_name()}"
    assert 0 < report.drift[0]["largest"] < 1e-2

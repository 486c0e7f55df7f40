"""JPEG files for the GPU: which, turned and resized how, and what becomes of the others.

`fill` is the same code on both devices: on the CPU torchcodec's libjpeg decodes in nvJPEG's place.
"""

import importlib.util
import warnings

import numpy as np
import pytest
import torch
from pictures import encode, jpeg
from PIL import Image

from featurebank import Bank, FeatureExtractor, extract
from featurebank.backbones import engine, nvjpeg
from featurebank.backbones.base import Backbone
from featurebank.backbones.engine import Engine
from featurebank.backbones.preprocessing import Preprocessing
from featurebank.backbones.registry import load_backbone
from featurebank.backbones.request import Request
from featurebank.errors import BackboneError, BankError, DeviceError, EngineError, ImageError, NotInstalledError
from featurebank.extraction.extract import run_extraction
from featurebank.extraction.pipeline import Compute
from featurebank.images import decoding
from featurebank.images.decoding import EncodedImage, find_jpeg
from featurebank.images.scanning import scan
from featurebank.images.views import make_views

NET = {"backbone": "resnet18", "weights": "random:0", "size": 64}
ORIENTATION = 0x0112


def preprocessing(decoder, **changes):
    fields = {"resize": 64, "crop": (56, 48), "interpolation": "bilinear", "mean": (0.5,) * 3, "std": (0.5,) * 3}
    return Preprocessing(**{**fields, **changes}, decoder=decoder)


def backbone():
    return Backbone.from_module(torch.nn.Flatten(), name="n", version="1", transform=preprocessing("nvjpeg"))


def cut(data):
    return data[: len(data) * 2 // 3]


def broken(data):
    """Return a file with a whole header and end, but with tables that no decoder takes."""
    at = data.index(b"\xff\xc4")  # Huffman tables
    return data[: at + 5] + b"\xff" * 16 + data[at + 21 :]


def filled(prepared, how):
    batch = torch.full((len(prepared), *how.crop, 3), 7, dtype=torch.uint8)
    refused = nvjpeg.fill(batch, prepared, how)
    return batch.numpy(), refused


# --- which files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"optimize": True}])
def test_grey_and_ycbcr_files_are_for_the_gpu(photo, options):
    for image in (photo, photo.convert("L")):
        found = find_jpeg(jpeg(image, **options))
        assert (found.size, found.orientation, found.turns) == ((640, 427), (), ())


def test_all_else_is_decoded_under_the_pixel_policy(photo, noise):
    rgb = jpeg(photo, keep_rgb=True)
    others = [encode(photo), jpeg(photo.convert("CMYK")), rgb, cut(jpeg(photo)), b"", b"\xff\xd8\xff\xd9", b"nothing"]
    assert [find_jpeg(data) for data in others] == [None] * len(others)
    decoded = decoding.decode_or_leave(rgb, on_gpu=True)
    assert decoded.tobytes() == decoding.decode(rgb).tobytes()
    with pytest.raises(ImageError, match=r"cannot be decoded: .*truncated"):
        decoding.decode_or_leave(cut(jpeg(photo)), on_gpu=True)


def test_a_file_that_is_cut_short_is_found_although_its_thumbnail_is_whole(photo):
    exif = Image.Exif()
    exif[0x9286] = jpeg(photo.resize((40, 30)))  # any field that holds a whole file
    data = jpeg(photo, exif=exif)
    assert data.count(b"\xff\xd9") > 1
    assert find_jpeg(data) is not None
    assert find_jpeg(cut(data)) is None


def test_bytes_behind_the_end_change_nothing(photo):
    assert find_jpeg(jpeg(photo) + b"12345").size == (640, 427)


# --- the same pixels as on the CPU -------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["center", "squash"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
def test_resizing_and_cropping_are_those_of_the_tensor_filter(photo, interpolation, mode):
    how = {"interpolation": interpolation, "mode": mode}
    pictures = [photo, photo.resize((90, 200)), photo.convert("L"), photo.resize((30, 20))]
    data = [jpeg(image) for image in pictures]
    found, refused = filled([find_jpeg(each) for each in data], preprocessing("nvjpeg", **how))
    expected = [preprocessing("tensor", **how)(decoding.decode(each)) for each in data]
    assert refused == 0
    assert np.array_equal(found, np.stack(expected))


def test_a_small_image_is_padded_with_black(photo):
    how = {"resize": 24, "crop": (40, 56)}
    data = jpeg(photo)
    found, _ = filled([find_jpeg(data)], preprocessing("nvjpeg", **how))
    assert np.array_equal(found[0], preprocessing("tensor", **how)(decoding.decode(data)))
    assert not found[0][:8].any()


@pytest.mark.parametrize("method", list(Image.Transpose))
def test_a_tensor_is_turned_as_an_image_is(noise, method):
    image = noise(5, 3)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    turned = nvjpeg.turn(pixels, method).permute(1, 2, 0).numpy()
    assert np.array_equal(turned, np.asarray(image.transpose(method)))


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("views", ["none", "hflip", "dihedral"])
def test_the_exif_orientation_and_the_views_are_applied(photo, orientation, views):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = jpeg(photo.resize((96, 70)), exif=exif)
    shown = decoding.decode(data)
    found = find_jpeg(data)
    assert found.size == shown.size
    made = list(make_views(found, views, b""))
    expected = list(make_views(shown, views, b""))
    assert [each.size for each in made] == [each.size for each in expected]
    assert all(each.data is data for each in made)
    pixels, _ = filled(made, preprocessing("nvjpeg"))
    assert np.array_equal(pixels, np.stack([preprocessing("tensor")(each) for each in expected]))


def test_each_file_is_decoded_once_and_large_ones_apart(photo, monkeypatch):
    from torchcodec import decoders

    decode, counts = decoders.decode_jpeg, []

    def counting(data, **options):
        counts.append(len(data))
        return decode(data, **options)

    monkeypatch.setattr(decoders, "decode_jpeg", counting)
    monkeypatch.setattr(nvjpeg, "GROUP_PIXELS", 3 * 100 * 80)
    files = [find_jpeg(jpeg(photo.resize((100, 80 + number % 2)))) for number in range(5)] + [find_jpeg(jpeg(photo))]
    prepared = [view for each in files for view in make_views(each, "flips", b"")]
    found, _ = filled(prepared, preprocessing("nvjpeg"))
    assert counts == [2, 2, 1, 1]
    assert np.array_equal(found[-4:], filled(prepared[-4:], preprocessing("nvjpeg"))[0])


# --- what the GPU turns down -------------------------------------------------------------------------------


def test_arrays_and_files_keep_their_places(photo, noise):
    array = np.asarray(noise(48, 56))
    prepared = [array, find_jpeg(jpeg(photo)), array[::-1].copy(), find_jpeg(jpeg(photo.resize((99, 99))))]
    found, refused = filled(prepared, preprocessing("nvjpeg"))
    assert refused == 0
    assert np.array_equal(found[0], array)
    assert np.array_equal(found[2], array[::-1])
    assert np.array_equal(found[1], filled(prepared[1:2], preprocessing("nvjpeg"))[0][0])


@pytest.mark.parametrize("kind", [RuntimeError, torch.OutOfMemoryError])
def test_what_the_device_turns_down_the_cpu_decodes_and_no_other_file(photo, monkeypatch, kind):
    from torchcodec import decoders

    decode = decoders.decode_jpeg
    files = [find_jpeg(jpeg(photo.resize((100 + number, 80)))) for number in range(7)]

    def without_the_fourth(data, **options):
        if any(bytes(each.numpy()) == files[3].data for each in data):
            raise kind("Error while decoding JPEG images: Failed to decode batch: 5")
        return decode(data, **options)

    expected, _ = filled(files, preprocessing("nvjpeg"))
    monkeypatch.setattr(decoders, "decode_jpeg", without_the_fourth)
    found, refused = filled(files, preprocessing("nvjpeg"))
    assert refused == 1
    assert np.array_equal(np.delete(found, 3, 0), np.delete(expected, 3, 0))
    assert np.array_equal(found[3], preprocessing("pil")(decoding.decode(files[3].data)))


def test_a_file_that_nothing_decodes_is_told_why_and_black(photo):
    damaged = find_jpeg(broken(jpeg(photo)))
    good = find_jpeg(jpeg(photo))
    found, refused = filled([good, damaged, good], preprocessing("nvjpeg"))
    assert (refused, good.error) == (1, "")
    assert damaged.error.startswith("cannot be decoded: ")
    assert not found[1].any()
    assert np.array_equal(found[0], found[2])


# --- through the engine and the pipeline -------------------------------------------------------------------


class OnTheCpu:
    """A `JpegDecoder` whose device is the CPU."""

    def __init__(self, how, device):
        self.how, self.refused = how, 0

    def __call__(self, prepared):
        batch = torch.empty(len(prepared), *self.how.crop, 3, dtype=torch.uint8)
        self.refused += nvjpeg.fill(batch, prepared, self.how)
        return batch


@pytest.fixture
def on_the_cpu(monkeypatch):
    monkeypatch.setattr(engine, "JpegDecoder", OnTheCpu)
    monkeypatch.setattr(nvjpeg, "check_device", lambda device: None)


@pytest.fixture
def photos(tmp_path, photo):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(9):
        (folder / f"{number}.jpg").write_bytes(jpeg(photo.rotate(7 * number).resize((120 + number % 3, 90))))
    photo.resize((100, 80)).save(folder / "9.png")
    return folder


def test_extraction_gives_each_image_its_row(on_the_cpu, photos, tmp_path, distance):
    rows = {}
    for decoder in ("tensor", "nvjpeg"):
        bank = extract(
            photos, tmp_path / f"{decoder}.bank", decoder=decoder, views="hflip", batch_size=6, store="float32", **NET
        )
        rows[decoder] = bank.load(bank.feature_sets[0].name, views="all")
    assert distance(rows["nvjpeg"][:9], rows["tensor"][:9]) < 1e-5
    assert 0 < distance(rows["nvjpeg"][9:], rows["tensor"][9:]) < 0.1  # the PNG is resized by Pillow
    alone = FeatureExtractor(decoder="nvjpeg", views="hflip", store="float32", **NET).transform(
        sorted(photos.iterdir())
    )
    assert distance(alone, rows["nvjpeg"].mean(1)) < 1e-5


def test_files_that_turn_out_damaged_are_listed_and_the_rest_go_on(on_the_cpu, photos, tmp_path):
    damaged = broken((photos / "0.jpg").read_bytes())
    for name in ("2.jpg", "7.jpg", "again.jpg"):
        (photos / name).write_bytes(damaged)
    wanted = Request("resnet18", "penultimate", weights="random:0", size=64, decoder="nvjpeg")
    report = run_extraction(scan(photos), Bank.create(tmp_path / "a.bank"), wanted, Compute(batch_size=2, workers=1))
    assert (report.samples, report.embedded, report.failed) == (11, 8, 3)
    assert [each["path"] for each in report.failures] == ["2.jpg", "7.jpg", "again.jpg"]
    assert all("cannot be decoded" in each["error"] for each in report.failures)
    assert "nvJPEG turned 1 JPEG files down; the CPU decoded them" in report.warnings
    assert report.feature_sets[0]["rows"] == 8
    again = run_extraction(scan(photos), Bank(tmp_path / "a.bank"), wanted)
    assert (again.embedded, again.reused, again.failed) == (0, 8, 3)
    with pytest.raises(ImageError, match="cannot be decoded"):
        FeatureExtractor(decoder="nvjpeg", **NET).transform([photos / "1.jpg", photos / "2.jpg"])


def test_only_damaged_files_leave_an_empty_feature_set(on_the_cpu, photos, tmp_path):
    damaged = broken((photos / "0.jpg").read_bytes())
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "0.jpg").write_bytes(damaged)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ImageError, match="none of the 1 images could be read"):
            extract(tmp_path / "bad", tmp_path / "a.bank", decoder="nvjpeg", **NET)
    bank = Bank(tmp_path / "a.bank")
    assert bank.samples["error"].str.contains("cannot be decoded").all()


def test_a_reduced_precision_is_compared_on_files_that_can_be_decoded(on_the_cpu, photos, tmp_path):
    (photos / "0.jpg").write_bytes(broken((photos / "0.jpg").read_bytes()))
    wanted = Request("resnet18", "penultimate", weights="random:0", size=64, decoder="nvjpeg", precision="bf16")
    report = run_extraction(scan(photos), Bank.create(tmp_path / "a.bank"), wanted)
    assert [each["images"] for each in report.drift] == [9]
    assert (report.embedded, report.failed) == (9, 1)


def test_batches_are_padded_on_the_device_and_halved_when_memory_runs_out(on_the_cpu, photo, monkeypatch):
    backbone = load_backbone("resnet18", "random:0", 64).with_decoder("nvjpeg")
    prepared = [find_jpeg(jpeg(photo.rotate(number).resize((100, 80)))) for number in range(7)]
    expected = Engine(backbone, [backbone.spec("penultimate")], device="cpu", engine="eager", batch_size=1)(prepared)
    small = Engine(backbone, [backbone.spec("penultimate")], device="cpu", engine="eager", batch_size=4)
    run, sizes = small._eager, []

    def short_of_memory(pixels):
        sizes.append(len(pixels))
        if len(pixels) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB")
        return run(pixels)

    monkeypatch.setattr(small, "_eager", short_of_memory)
    (found,) = small(prepared)
    assert sizes == [4, 2, 2, 2, 2]
    assert np.abs(found - expected[0]).max() < 1e-5
    assert small.warnings == ["memory ran out: batches of 2 from here on"]


def test_too_little_memory_to_decode_into_is_an_error_in_one_line(on_the_cpu, photo, monkeypatch):
    def full(self, prepared):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(OnTheCpu, "__call__", full)
    backbone = load_backbone("resnet18", "random:0", 64).with_decoder("nvjpeg")
    running = Engine(backbone, [backbone.spec("penultimate")], device="cpu", engine="eager", batch_size=4)
    with pytest.raises(EngineError, match="no memory is left on cpu to decode into: use a smaller --batch-size"):
        list(running.stream([(None, [find_jpeg(jpeg(photo))])]))


# --- what is refused ---------------------------------------------------------------------------------------


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_without_a_gpu_it_is_an_error_and_never_another_decoder(photos, tmp_path, device):
    with pytest.raises(DeviceError, match="decoder 'nvjpeg' needs a CUDA GPU, and this runs on cpu: use --device cuda"):
        extract(photos, tmp_path / "a.bank", decoder="nvjpeg", device=device, **NET)
    with pytest.raises(DeviceError, match="needs a CUDA GPU"):
        FeatureExtractor(decoder="nvjpeg", device=device, **NET).transform([photos / "0.jpg"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
def test_the_command_line_says_so_in_one_line(run_cli, photos, tmp_path):
    options = ["--backbone", "resnet18", "--weights", "random:0", "--size", "64", "--decoder", "nvjpeg"]
    for device, found in (("cuda", "device 'cuda' is not on this machine"), ("cpu", "needs a CUDA GPU")):
        result = run_cli("extract", photos, "--bank", tmp_path / "a.bank", *options, "--device", device)
        assert result.exit_code == 1
        assert found in result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_random_views_and_other_uses_of_the_images_are_refused():
    with pytest.raises(BankError, match="'augment:4' are made on the CPU"):
        Request("resnet18", "penultimate", decoder="nvjpeg", views="augment:4")
    with pytest.raises(BankError, match="expected none, hflip, flips, dihedral: use one of these, or another decoder"):
        backbone().prepare_views(EncodedImage(b"", (9, 9)), "augment:4", b"")
    with pytest.raises(BackboneError, match="extracting and predicting alone"):
        _ = load_backbone("resnet18", "random:0", 64).with_decoder("nvjpeg").least_side
    for decoder in ("tensor", "nvjpeg"):
        with pytest.raises(BackboneError, match=f"decoder '{decoder}' resizes with one of nearest, bilinear, bicubic"):
            preprocessing(decoder, interpolation="lanczos")


def test_a_panorama_that_cannot_be_resized_is_an_image_error():
    with pytest.raises(ImageError, match="when resized: crop the image first"):
        backbone().prepare(EncodedImage(b"", (10**7, 1)))


# --- nvJPEG that does not work -----------------------------------------------------------------------------


def test_a_decoder_that_fails_on_any_file_is_refused_before_the_first(monkeypatch):
    from torchcodec import decoders

    def fail(*args, **options):
        raise RuntimeError("nvjpegCreateEx failed: 6")

    nvjpeg.check_decoding(torch.device("cpu"))
    monkeypatch.setattr(decoders, "decode_jpeg", fail)
    with pytest.raises(DeviceError, match=r"nvJPEG does not work on cpu \(nvjpegCreateEx failed: 6\): use another"):
        nvjpeg.check_decoding(torch.device("cpu"))


def test_without_torchcodec_it_is_said_what_brings_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(NotInstalledError, match=r"needs torchcodec: pip install 'featurebank\[nvjpeg\]'"):
        nvjpeg.check_device(torch.device("cuda"))


def test_a_decoder_that_turns_all_files_down_is_refused(photo):
    files = [find_jpeg(jpeg(photo.resize((32, 32 + number)))) for number in range(nvjpeg.ENOUGH)]
    counts = nvjpeg.Counts()
    counts.add(files, 3)  # some odd ones among others
    counts.add(files, len(files))
    assert (counts.decoded, counts.refused) == (nvjpeg.ENOUGH - 3, nvjpeg.ENOUGH + 3)
    counts = nvjpeg.Counts()
    counts.add([np.zeros((4, 4, 3), np.uint8), *files[:3]], 3)
    with pytest.raises(DeviceError, match="turned down all of the first 11 JPEG files, and the CPU decoded 11"):
        counts.add(files, len(files))
    for each in files:
        each.error = "cannot be decoded"  # by the CPU neither
    counts = nvjpeg.Counts()
    counts.add(files, len(files))
    assert counts.sound == 0

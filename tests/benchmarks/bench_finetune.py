"""Fine-tuning from cached activations against the loop that most people write.

The loop freezes the same layers, or none, and reads its images with a DataLoader in every epoch. Both sides train the
same blocks with the same optimiser, rates and schedule from the same head, on the same photographs, in float32.

    python tests/benchmarks/bench_finetune.py [--images 500] [--epochs 5] [--threads 2] [--only lite0]
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from featurebank import FineTuner, load_backbone
from featurebank.finetuning.network import Block, Network
from featurebank.finetuning.optimization import factor, make_optimizer
from featurebank.finetuning.recipe import Recipe

CASES = {
    "lite0": ("efficientnet_lite0", "DEFAULT", "blocks.5"),
    "resnet18": ("resnet18", "random:0", "layer4"),
}
PROMISED = {"lite0": (4.0, 2.5), "resnet18": (3.3, 2.2)}
PROMISED_AGAINST_ALL = (8.0, 6.5)
BATCH = 32


def save_photos(folder: Path, count: int) -> None:
    """Save JPEGs of 500 x 375 pixels: smooth noise, and stripes whose direction is the class."""
    random = np.random.default_rng(0)
    for number in range(count):
        label = number % 2
        coarse = Image.fromarray(random.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize((500, 375))
        stripes = np.indices((375, 500))[label] // 12 % 2 * random.integers(5, 40)
        pixels = np.clip(np.asarray(coarse, np.int64) + stripes[..., None], 0, 255).astype(np.uint8)
        path = folder / "ab"[label] / f"{number:04}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, quality=90)


def make_loader(folder: Path, preprocessing, shuffle: bool) -> DataLoader:
    """Return the usual DataLoader: PIL transforms, two workers."""
    transform = transforms.Compose(
        [
            transforms.Resize(preprocessing.resize, transforms.InterpolationMode(preprocessing.interpolation)),
            transforms.CenterCrop(preprocessing.crop),
            transforms.ToTensor(),
            transforms.Normalize(preprocessing.mean, preprocessing.std),
        ]
    )
    return DataLoader(ImageFolder(folder, transform), BATCH, shuffle=shuffle, num_workers=2)


def run_ours(case: str, folder: Path, epochs: int) -> tuple[float, float, FineTuner]:
    """Return the seconds of a median epoch and of all, and the fitted tuner."""
    name, weights, cut = CASES[case]
    paths = sorted(folder.glob("*/*.jpg"))
    tuner = FineTuner(
        cut,
        backbone=name,
        weights=weights,
        augment="cached:none",
        epochs=epochs,
        validation=0.0,
        batch_size=BATCH,
    )
    started = time.perf_counter()
    tuner.fit(paths, [path.parent.name for path in paths])
    seconds = time.perf_counter() - started
    history = tuner.tuned_.trained.state.history[1:]
    return statistics.median(epoch.seconds for epoch in history), seconds, tuner


def run_plain(case: str, folder: Path, epochs: int, tuner: FineTuner, whole: bool) -> tuple[float, float, object]:
    """Run the plain loop from the head that ours began with; return the same, and the model."""
    name, weights, cut = CASES[case]
    backbone = load_backbone(name, weights)
    network = Network(backbone, cut, torch.device("cpu"))
    model = copy.deepcopy(backbone.model)
    start = tuner.tuned_.trained.state.start
    parent, _, child = network.head.rpartition(".")
    head = torch.nn.Linear(network.width, 2)
    head.load_state_dict({key: start[f"{network.head}.{key}"] for key in ("weight", "bias")})
    setattr(model.get_submodule(parent), child, head)
    found = dict(model.named_parameters())
    blocks = [
        Block(block.modules, {key: found[key].requires_grad_() for key in block.parameters})
        for block in tuner.tuned_.trained.blocks
    ]
    if whole:
        rest = {key: each.requires_grad_() for key, each in found.items() if not each.requires_grad}
        blocks = [Block(("rest",), rest), *blocks]
    recipe = Recipe(cut, augment="cached:none", epochs=epochs)
    optimizer = make_optimizer(blocks, recipe, recipe.rate)
    loader = make_loader(folder, backbone.preprocessing, shuffle=True)
    torch.manual_seed(0)
    seconds, started, step = [], time.perf_counter(), 0
    for _ in range(epochs):
        began = time.perf_counter()
        model.eval()  # batch normalisation keeps its statistics on both sides
        for images, labels in loader:
            for group in optimizer.param_groups:
                group["lr"] = group["base"] * factor(step, epochs * len(loader))
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(images), labels)
            loss.backward()
            torch.nn.utils.clip_grad_norm_([each for group in optimizer.param_groups for each in group["params"]], 1.0)
            optimizer.step()
            step += 1
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds), time.perf_counter() - started, model


def loss_of(model: torch.nn.Module, folder: Path, preprocessing) -> float:
    """Return the mean loss over all images."""
    losses = []
    with torch.no_grad():
        for images, labels in make_loader(folder, preprocessing, shuffle=False):
            losses += torch.nn.functional.cross_entropy(model(images), labels, reduction="none").tolist()
    return float(np.mean(losses))


def ratio(name: str, found: float, promised: float) -> str:
    return f"{name} {found:.1f}x (promised {promised:g}x){'' if found >= promised else ' MISSED'}"


def main() -> None:
    """Print a table of seconds, ratios and final losses."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=list(CASES))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "photos"
        save_photos(folder, options.images)
        for case in [options.only] if options.only else CASES:
            epoch, total, tuner = run_ours(case, folder, options.epochs)
            preprocessing = tuner.tuned_.backbone.preprocessing
            losses = [loss_of(tuner.tuned_.backbone.model, folder, preprocessing)]
            print(f"{case}: ours {epoch:.2f} s an epoch, {total:.1f} s in all, loss {losses[0]:.4f}", flush=True)
            for whole in (False, True):
                plain_epoch, plain_total, model = run_plain(case, folder, options.epochs, tuner, whole)
                losses.append(loss_of(model, folder, preprocessing))
                what = "all layers" if whole else "same layers"
                promised = PROMISED_AGAINST_ALL if whole else PROMISED[case]
                print(
                    f"{case}: plain loop, {what}: {plain_epoch:.2f} s an epoch, {plain_total:.1f} s in all, loss "
                    f"{losses[-1]:.4f}; {ratio('an epoch', plain_epoch / epoch, promised[0])}, "
                    f"{ratio('in all', plain_total / total, promised[1])}",
                    flush=True,
                )


if __name__ == "__main__":
    main()

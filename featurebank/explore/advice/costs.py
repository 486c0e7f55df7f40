"""What extraction and fine-tuning would take here, from a few timed batches."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch

from featurebank.backbones.base import Backbone
from featurebank.backbones.engine import choose_device
from featurebank.backbones.layers import Capture, get_layer
from featurebank.backbones.request import Request
from featurebank.bank.bank import Bank
from featurebank.bank.images import source_of
from featurebank.bank.samples import SampleTable
from featurebank.bank.spec import FeatureSpec, split_pool
from featurebank.finetuning.estimate import Estimate, estimate
from featurebank.finetuning.experiment import Experiment, TrainingSet
from featurebank.finetuning.recipe import Recipe
from featurebank.images.views import count_views

IMAGES, TIMES = 8, 2


def extraction_cost(backbone: Backbone, layers: Sequence[str], spec: FeatureSpec, images: int) -> tuple[float, int]:
    """Return the seconds of the network alone, and the bytes that the embeddings take.

    Parameters
    ----------
    backbone : Backbone
    layers : sequence of str
        ``LAYER[:POOL]``.
    spec : FeatureSpec
        Of a set with the same views and stored dtype.
    images : int
    """
    device = choose_device("auto")
    wanted = [get_layer(backbone.layers, *split_pool(layer)) for layer in layers]
    capture = Capture(backbone.model.to(device), wanted)
    batch = torch.zeros(IMAGES, 3, *backbone.input_size, device=device)
    with torch.inference_mode():
        width = sum(each[0].numel() for each in capture(batch))
        started = time.perf_counter()
        for _ in range(TIMES):
            capture(batch)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
    each = (time.perf_counter() - started) / (TIMES * IMAGES)
    views = count_views(spec.views)
    return each * images * views, width * np.dtype(spec.store).itemsize * images * views


def tuning_cost(bank: Bank, request: Request, labels: TrainingSet, table: SampleTable, recipe: Recipe) -> Estimate:
    """Return what ``featurebank finetune`` would estimate before it starts.

    Raises
    ------
    FeatureBankError
        When it would refuse to start.
    """
    setup = Experiment(bank, request, source_of(table), labels, recipe)
    setup.check()
    return estimate(setup)

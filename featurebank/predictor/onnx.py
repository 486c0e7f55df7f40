"""A predictor as one ONNX file: pixels in, probabilities out, what to do to an image before in the metadata."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from featurebank import __version__
from featurebank.backbones.base import Backbone
from featurebank.backbones.exported.making import trace
from featurebank.backbones.preprocessing import Preprocessing
from featurebank.backbones.runtimes import CapturedModel
from featurebank.bank.spec import FeatureSpec
from featurebank.errors import EngineError, NotInstalledError, PredictorError, install_hint, one_line
from featurebank.images.decoding import PIXEL_POLICY, from_array
from featurebank.predictor.features import made_views
from featurebank.predictor.graphs import graph_of
from featurebank.predictor.predictor import Predictor
from featurebank.storage import files

KEY = "featurebank"
"""The metadata under this name is JSON: how an image becomes pixels, and what the numbers mean."""
INPUT, CHANCES, VALUES = "pixels", "probabilities", "values"
LAYOUT = {"channels": "RGB", "layout": "NHWC", "dtype": "uint8"}
TOLERANCE = 1e-4
LARGEST = (1 << 31) - 1
"""Bytes of a protocol buffer."""
_CHECKED = 4
_LIBRARIES = ("onnx", "onnxruntime", "onnxscript")


class Whole(nn.Module):
    """Networks, what the bank stores of their layers, and the top model.

    Parameters
    ----------
    captured : sequence of CapturedModel
        The networks.
    inputs : sequence of int
        Which of the pixels each of them takes.
    order : sequence of (int, int)
        Network and layer of each feature set that the model takes.
    specs : sequence of FeatureSpec
        Of these feature sets.
    model : nn.Module
        From `featurebank.predictor.graphs.graph_of`.
    """

    def __init__(
        self,
        captured: Sequence[CapturedModel],
        inputs: Sequence[int],
        order: Sequence[tuple[int, int]],
        specs: Sequence[FeatureSpec],
        model: nn.Module,
    ):
        super().__init__()
        self.captured = nn.ModuleList(captured)
        self.inputs = list(inputs)
        self.order = list(order)
        self.halved = [spec.store == "float16" for spec in specs]
        self.model = model

    def forward(self, *pixels: Tensor) -> Tensor:
        """Return probabilities (n, k) or numbers (n,) of uint8 pixels (n, height, width, 3), once a way to resize."""
        outputs = [each(pixels[number]) for each, number in zip(self.captured, self.inputs, strict=True)]
        rows = [outputs[network][layer].flatten(1) for network, layer in self.order]
        stored = [row.half().float() if is_halved else row for row, is_halved in zip(rows, self.halved, strict=True)]
        said: Tensor = self.model(torch.cat(stored, 1))
        return said


def export_predictor(predictor: Predictor, path: str | os.PathLike[str]) -> dict[str, Any]:
    """Write a predictor as one ONNX file that gives its probabilities to 1e-4, which is checked on a few images.

    The file takes ``pixels``, uint8 (n, height, width, 3) in RGB: images that were resized and cropped as the metadata
    say (JSON under ``featurebank``); normalisation is in the graph. It gives ``probabilities``, float32 (n, classes) in
    the order of the metadata's ``classes``, or ``values``, float32 (n,). The label of a support vector machine is its
    own decision, and need not be the most probable class. Where a threshold was tuned, the metadata hold ``positive``
    and ``threshold``: the label is that class where its probability in this file reaches the threshold, else the other.
    Networks that resize or crop otherwise take pixels of their own, ``pixels_2`` and so on; the metadata's ``inputs``
    hold the name and the preprocessing of each.

    Parameters
    ----------
    predictor : Predictor
    path : path-like

    Returns
    -------
    dict
        ``file``, ``bytes``, ``worst`` (the largest difference that was seen) and the metadata.

    Raises
    ------
    PredictorError
        When a part of the predictor cannot be expressed in ONNX, or the file would not give its probabilities.
    NotInstalledError
        When a library for ONNX is not installed.
    StorageError
        When the file system refuses.

    See Also
    --------
    Predictor : What is exported.
    export_bank : Embeddings as one file.

    Examples
    --------
    >>> from featurebank import fit
    >>> result = fit("photos.bank", features="penultimate", models=["logreg"])
    >>> export_predictor(result.predictor, "photos.onnx")["classes"]
    ['cat', 'dog']
    """
    if not all(importlib.util.find_spec(name) for name in _LIBRARIES):
        raise NotInstalledError(f"an ONNX file needs onnx, onnxscript and onnxruntime: {install_hint('onnx')}")
    if len(predictor.tasks) > 1:
        raise PredictorError("several tasks, which one ONNX file cannot express: fit each --target apart")
    _check(predictor)
    head = graph_of(predictor.model, predictor.calibrator, predictor.task)
    decided = _threshold(predictor)
    whole, eyes = _whole(predictor, head)
    images = _example_images(eyes[0].input_size)
    pixels = [np.stack([backbone.prepare(from_array(image)) for image in images]) for backbone in eyes]
    facts = _facts(predictor, eyes) | decided
    data = _encode(whole, pixels, facts)
    worst = _difference(data, pixels, _expected(predictor, images))
    if not worst <= TOLERANCE:
        raise PredictorError(
            f"the ONNX file is {worst:.1e} off this predictor's own answers on noise; expected below {TOLERANCE:g}: "
            "fit with another model or normalisation"
        )
    files.commit(Path(path), data)
    return {"file": os.fspath(path), "bytes": len(data), "worst": worst, **facts}


def _check(predictor: Predictor) -> None:
    """Refuse what one pass over one image cannot give."""
    for feature in predictor.features:
        spec = feature.spec
        if made_views(feature) != "none":
            raise PredictorError(
                f"{spec.name} has views ({spec.views}), which are made of the image before it is resized and cannot be "
                "expressed in ONNX: fit with --views first"
            )
        if spec.preprocessing.get("framing") == "tiles":
            raise PredictorError(
                f"{spec.name} is averaged over tiles of an image, and an ONNX file takes one picture: extract with "
                "--fit crop, squash or pad"
            )
        if spec.precision != "fp32":
            raise PredictorError(
                f"{spec.name} is computed in {spec.precision}; ONNX files are float32: extract in fp32"
            )


def _threshold(predictor: Predictor) -> dict[str, Any]:
    """Return the positive class and the probability from which on it is the label; nothing where none was tuned.

    Raises
    ------
    PredictorError
        When no probability says what the threshold says.
    """
    fixed = predictor.model.steps[-1][1]
    if type(fixed).__name__ != "FixedThresholdClassifier":
        return {}
    has_proba = fixed.response_method != "decision_function" and hasattr(fixed.estimator_, "predict_proba")
    cut = {True: 0.5, False: 0.0}[has_proba] if fixed.threshold == "auto" else float(fixed.threshold)
    classes = predictor.single.classes.tolist()
    number = 1 if fixed.pos_label is None else classes.index(fixed.pos_label)
    chance = cut if has_proba and predictor.calibrator is None else _calibrated_cut(predictor, cut, has_proba, number)
    return {"positive": classes[number], "threshold": chance}


def _calibrated_cut(predictor: Predictor, cut: float, has_proba: bool, number: int) -> float:
    """Return the calibrated probability of a class at a threshold on its score, about which it must rise."""
    near = cut + np.array([-1, 0, 1]) * 1e-6 * max(1.0, abs(cut))
    own = near if has_proba else near * (2 * number - 1)  # decision values are of the second class
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = np.log(np.column_stack([1 - own, own] if number else [own, 1 - own])) if has_proba else own[:, None]
    calibrator, chances = predictor.calibrator, np.zeros(3)
    if calibrator is not None and np.isfinite(scores).all():
        chances = calibrator.predict_proba(scores)[:, number]
    if not (np.diff(chances) > 0).all():
        raise PredictorError(
            "its threshold is on the model's score, and no probability of an ONNX file says the same: fit with another "
            "--calibrate (sigmoid or temperature), or without --threshold"
        )
    return float(chances[1])


def _whole(predictor: Predictor, head: nn.Module) -> tuple[Whole, list[Backbone]]:
    """Return the graph, each network once, and a backbone for each of its inputs, which prepares images for it."""
    backbones = [predictor.backbone_of(feature) for feature in predictor.features]
    distinct = list({id(backbone): backbone for backbone in backbones}.values())
    if not all(isinstance(backbone.preprocessing, Preprocessing) for backbone in distinct):
        raise PredictorError("a transform of your own cannot be described in an ONNX file: give a Preprocessing")
    specs = [feature.spec for feature in predictor.features]
    groups = [[spec for spec, own in zip(specs, backbones, strict=True) if own is each] for each in distinct]
    captured = [CapturedModel(each, group, stop=False) for each, group in zip(distinct, groups, strict=True)]
    numbers = [next(i for i, each in enumerate(distinct) if each is own) for own in backbones]
    order = [(number, groups[number].index(spec)) for number, spec in zip(numbers, specs, strict=True)]
    seen = [_geometry(each) for each in distinct]
    ways = list(dict.fromkeys(seen))
    whole = Whole(captured, [ways.index(each) for each in seen], order, specs, head).eval()
    return whole, [distinct[seen.index(way)] for way in ways]


def _geometry(backbone: Backbone) -> str:
    """Return all that decides a network's pixels, which is not their normalisation: that is in the graph."""
    described = backbone.describe_preprocessing()
    return json.dumps({name: value for name, value in described.items() if name not in ("mean", "std")}, sort_keys=True)


def _names(count: int) -> list[str]:
    """Return the names of the inputs.

    Examples
    --------
    >>> _names(2)
    ['pixels', 'pixels_2']
    """
    return [INPUT, *(f"{INPUT}_{number}" for number in range(2, count + 1))]


def _facts(predictor: Predictor, eyes: Sequence[Backbone]) -> dict[str, Any]:
    """Return the metadata: all that is needed to use the file without featurebank."""
    is_number = predictor.task == "regression"
    inputs = [
        {"name": name, "preprocessing": {**each.describe_preprocessing(), **LAYOUT}}
        for name, each in zip(_names(len(eyes)), eyes, strict=True)
    ]
    return {
        "written_by": f"featurebank {__version__}",
        "task": predictor.task,
        "target": predictor.target,
        "classes": predictor.single.classes.tolist(),
        "input": INPUT,
        "output": VALUES if is_number else CHANCES,
        "preprocessing": inputs[0]["preprocessing"],
        **({"inputs": inputs} if len(inputs) > 1 else {}),
        "pixel_policy": PIXEL_POLICY,
        "feature_sets": [{"name": each.spec.name, "fingerprint": each.spec.fingerprint} for each in predictor.features],
    }


def _encode(whole: Whole, pixels: Sequence[NDArray[np.uint8]], facts: dict[str, Any]) -> bytes:
    import onnx

    examples, inputs = [torch.from_numpy(each) for each in pixels], _names(len(pixels))
    try:
        proto = trace(whole, *examples, inputs=inputs, outputs=[facts["output"]]).model_proto
    except EngineError as error:
        raise PredictorError(
            f"this network cannot be expressed in ONNX: {one_line(error.__cause__ or error)[:160]}"
        ) from error
    onnx.helper.set_model_props(proto, {KEY: json.dumps(facts)})
    if proto.ByteSize() > LARGEST:
        raise PredictorError(
            f"the network takes {proto.ByteSize()} bytes, an ONNX file holds {LARGEST}: use a smaller one"
        )
    data: bytes = proto.SerializeToString()
    return data


def _example_images(size: tuple[int, int]) -> list[NDArray[np.uint8]]:
    """Return smooth noise and plain noise, a little wider than high, seeded."""
    random = np.random.default_rng(0)
    height, width = size[0], size[1] + 16
    coarse = random.integers(0, 256, (_CHECKED, 8, 8, 3), dtype=np.uint8)
    smooth = [
        np.kron(each, np.ones((height // 8 + 1, width // 8 + 1, 1), np.uint8))[:height, :width] for each in coarse
    ]
    noise = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return [*smooth[1:], noise]


def _expected(predictor: Predictor, images: Sequence[Any]) -> NDArray[Any]:
    if predictor.task == "regression":
        return predictor.predict(images)
    found = predictor.predict_proba(images)
    assert isinstance(found, np.ndarray)  # of one task
    return found


def _difference(data: bytes, pixels: Sequence[NDArray[np.uint8]], expected: NDArray[Any]) -> float:
    """Return how far the file is from the predictor, relative to the numbers where they are above 1."""
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    found = session.run(None, dict(zip(_names(len(pixels)), pixels, strict=True)))[0]
    return float((np.abs(found - expected) / np.maximum(1, np.abs(expected))).max())

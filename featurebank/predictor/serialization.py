"""Fitted models as bytes: skops archives that hold types of a fixed list and nothing that runs."""

from __future__ import annotations

import io
import sys
import zipfile
from importlib import import_module
from typing import Any

import numpy as np

from featurebank.errors import CorruptError, FeatureBankError, PredictorError, one_line

_SCHEMA = "schema.json"  # of skops: the types, by module and name

ALLOWED_TYPES = (  # beyond skops's own; nothing else is ever loaded or saved
    "featurebank.topmodels.calibration.Calibrator",
    "featurebank.topmodels.calibration.LabelsCalibrator",
    "featurebank.topmodels.centroid.LikeliestCentroid",
    "featurebank.topmodels.committees.models.CommitteeClassifier",
    "featurebank.topmodels.committees.models.CommitteeRegressor",
    "featurebank.fitting.shared_network.NetworkClassifier",
    "featurebank.fitting.shared_network.NetworkRegressor",
    "featurebank.topmodels.multiview.ClassifierOverViews",
    "featurebank.topmodels.multiview.RegressorOverViews",
    "featurebank.topmodels.novelty.Mahalanobis",
    "featurebank.topmodels.novelty.Unlike",
    "featurebank.topmodels.one_class.conformal.Conformal",
    "featurebank.topmodels.one_class.detectors.NeighbourDistance",
    "featurebank.topmodels.one_class.detectors.PCAResidual",
    "featurebank.topmodels.one_class.detectors.ShrunkMahalanobis",
    "featurebank.topmodels.one_class.model.OneClassModel",
    "featurebank.topmodels.one_class.patches.PatchMemory",
    "featurebank.topmodels.transforms.SelectDimensions",
    "featurebank.topmodels.transforms.SelectRelevant",
    "featurebank.topmodels.transforms.SignedSquareRoot",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
)

MOVED_MODULES = {  # where the types of files written before 0.2 live now
    "featurebank.calibration": "featurebank.topmodels.calibration",
    "featurebank.multitask.network": "featurebank.fitting.shared_network",
    "featurebank.multiview": "featurebank.topmodels.multiview",
    "featurebank.novelty": "featurebank.topmodels.novelty",
    "featurebank.transforms": "featurebank.topmodels.transforms",
}


def _import_skops() -> Any:
    """Return skops.io, imported without torch: it lists scikit-learn's estimators, by importing all its packages."""
    bridge = "sklearn.externals.array_api_compat.torch"  # it has no estimators, and imports torch
    is_free = bridge not in sys.modules
    if is_free:
        sys.modules[bridge] = None  # type: ignore[assignment]  # refuses the import, which the listing passes over
    try:
        return import_module("skops.io")
    finally:
        if is_free:
            del sys.modules[bridge]


def dump(model: Any) -> bytes:
    """Return a fitted model as a skops archive.

    Raises
    ------
    PredictorError
        When it holds a type outside the fixed allow-list.
    """
    from featurebank.topmodels.scaling import plain

    skops = _import_skops()
    data = skops.dumps(plain(model))
    unknown = sorted(set(skops.get_untrusted_types(data=data)) - set(ALLOWED_TYPES))
    if unknown:
        raise PredictorError(
            f"the model holds {unknown[0]}, which a predictor may not: use models of plain arrays (linear, SVM, kNN, "
            "naive Bayes, MLP), or keep the fitted TopModelSearchCV in Python"
        )
    return data


def undump(data: bytes) -> Any:
    """Return the model of a skops archive; no code in it is run.

    Raises
    ------
    CorruptError
        When it is damaged or compressed, or holds a type outside the fixed allow-list.
    """
    skops = _import_skops()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
                raise CorruptError("its model is compressed, which may hide a bomb")
        return skops.loads(_with_today_names(data), trusted=list(ALLOWED_TYPES))
    except FeatureBankError:
        raise
    except Exception as error:  # a refused type, or damaged bytes
        raise CorruptError(f"its model cannot be trusted or read: {one_line(error)[:160]}") from error


def _with_today_names(data: bytes) -> bytes:
    """Return a skops archive whose types are named by the modules they live in today; most are returned as they are."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        schema = archive.read(_SCHEMA).decode()
        if not any(f'"{old}"' in schema for old in MOVED_MODULES):
            return data
        for old, new in MOVED_MODULES.items():
            schema = schema.replace(f'"__module__": "{old}"', f'"__module__": "{new}"')
        members = {name: archive.read(name) for name in archive.namelist()} | {_SCHEMA: schema}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    return buffer.getvalue()


def check_savable(estimator: Any) -> None:
    """Refuse an estimator that a predictor file may not hold, by fitting it to a few rows and looking.

    Raises
    ------
    PredictorError
        When it holds a type outside the fixed allow-list.
    """
    from sklearn.base import clone

    random = np.random.default_rng(0)
    X, y = random.normal(size=(40, 8)), np.arange(40) % 2
    try:
        fitted = clone(estimator).fit(X, y)
    except Exception:  # it may want other rows than these; saving checks again
        return
    dump(fitted)

"""The feature sets that a predictor's model sees: their specs, and how to get the backbones that make them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from featurebank.backbones.sources import file_source
from featurebank.bank.bank import Bank
from featurebank.bank.spec import FeatureSpec
from featurebank.errors import BankError

EMBEDDED = "embedded"


@dataclass(frozen=True)
class PredictorFeature:
    """One feature set that a predictor's model sees, and how to get its backbone.

    Attributes
    ----------
    spec : FeatureSpec
        What decides the numbers.
    weights : str
        What `load_backbone` is asked for; ``"embedded"`` when the tensors are in the predictor file, empty for a
        custom module, which the user brings.
    size : int or None
        Input size that was asked for.
    views : str
        What the model sees of an image's views: their ``"mean"``, the ``"first"``, or ``"all"`` side by side. Files of
        version 1 have the mean.
    """

    spec: FeatureSpec
    weights: str
    size: int | None
    views: str = "mean"


def made_views(feature: PredictorFeature) -> str:
    """Return the views that have to be made of a new image."""
    return "none" if feature.views == "first" else feature.spec.views


def predictor_features(
    bank: Bank, names: Sequence[str], views: str = "mean"
) -> tuple[list[PredictorFeature], dict[str, bytes]]:
    """Return what a predictor needs to know of the feature sets that its model takes, and tensors to put into its file.

    Raises
    ------
    FeatureSetError
        When a name is not in the bank.
    BankError
        When a checkpoint has changed since its features were extracted.
    """
    features = [replace(_feature(bank, bank.feature_set(name).spec), views=views) for name in names]
    return features, _tensors(bank, features)


def _feature(bank: Bank, spec: FeatureSpec) -> PredictorFeature:
    requests = bank.requests_of(spec)
    if not requests:
        return PredictorFeature(spec, "", None)
    last = requests[-1]
    if file_source(last["backbone"]):
        return PredictorFeature(spec, EMBEDDED, spec.preprocessing["crop"][0])
    from_file = last["file"] is not None and last["weights"] != "DEFAULT"
    return PredictorFeature(spec, EMBEDDED if from_file else last["weights"], last["size"])


def _tensors(bank: Bank, features: Sequence[PredictorFeature]) -> dict[str, bytes]:
    """Return the tensors of backbones whose weights came from a file, which no name would find elsewhere."""
    tensors: dict[str, bytes] = {}
    for each in features:
        if each.weights == EMBEDDED and each.spec.weights not in tensors:
            from featurebank.backbones.registry import dump_tensors, load_backbone

            request = bank.requests_of(each.spec)[-1]
            backbone = load_backbone(request["backbone"], request["weights"], request["size"])
            if backbone.weights != each.spec.weights:
                raise BankError(
                    f"{request['weights']!r} has changed since its features were extracted: bring the old file"
                )
            tensors[each.spec.weights] = dump_tensors(backbone)
    return tensors

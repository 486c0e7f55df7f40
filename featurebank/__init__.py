"""featurebank: embed images once with a frozen backbone, then try every top model in seconds.

Importing this package loads neither torch nor scikit-learn; a public name loads its module when it is first used.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

import featurebank.predictor.backbone  # noqa: F401  adds predictor files to the sources of backbones; loads no torch
from featurebank.errors import FeatureBankError, notice

__version__ = "0.2.0"

if TYPE_CHECKING:
    from featurebank.backbones.base import Backbone
    from featurebank.backbones.preprocessing import Preprocessing
    from featurebank.backbones.registry import list_backbones, load_backbone
    from featurebank.bank.bank import Bank
    from featurebank.bank.formats.exporting import export_bank
    from featurebank.bank.formats.importing import import_features
    from featurebank.bank.spec import FeatureSpec
    from featurebank.explore.activation_maps import explain
    from featurebank.explore.advice.advice import Advice, advise
    from featurebank.explore.advice.ranking import rank_features
    from featurebank.explore.clustering import cluster
    from featurebank.explore.label_errors import label_issues
    from featurebank.explore.labelling import next_to_label
    from featurebank.explore.near_duplicates import duplicates
    from featurebank.explore.outlier_detection import outliers
    from featurebank.explore.page import map_page
    from featurebank.explore.projection import project
    from featurebank.explore.similarity import similar
    from featurebank.explore.studio.handle import studio
    from featurebank.extraction.extract import extract
    from featurebank.extraction.transformer import FeatureExtractor
    from featurebank.finetuning.finetune import finetune
    from featurebank.finetuning.finetuner import FineTuner
    from featurebank.finetuning.recipe import Recipe
    from featurebank.fitting.adaptation.adapt import adapt
    from featurebank.fitting.fit import fit
    from featurebank.fitting.unlabelled import fit_semi_supervised
    from featurebank.images.scanning import scan
    from featurebank.predictor.onnx import export_predictor
    from featurebank.predictor.predictor import Predictor
    from featurebank.report import make_report
    from featurebank.topmodels.search import TopModelSearchCV

__all__ = [
    "FeatureBankError",
    "__version__",
    # embed
    "extract",
    "FeatureExtractor",
    "Bank",
    "FeatureSpec",
    "scan",
    "Backbone",
    "Preprocessing",
    "list_backbones",
    "load_backbone",
    # learn
    "fit",
    "adapt",
    "fit_semi_supervised",
    "TopModelSearchCV",
    "finetune",
    "FineTuner",
    "Recipe",
    "advise",
    "Advice",
    "rank_features",
    # use
    "Predictor",
    "export_predictor",
    # look
    "make_report",
    "cluster",
    "duplicates",
    "explain",
    "label_issues",
    "map_page",
    "next_to_label",
    "outliers",
    "project",
    "similar",
    "studio",
    # keep
    "export_bank",
    "import_features",
]

_HOMES = {
    "Advice": "explore.advice.advice",
    "adapt": "fitting.adaptation.adapt",
    "advise": "explore.advice.advice",
    "Backbone": "backbones.base",
    "Bank": "bank.bank",
    "cluster": "explore.clustering",
    "duplicates": "explore.near_duplicates",
    "explain": "explore.activation_maps",
    "export_bank": "bank.formats.exporting",
    "export_predictor": "predictor.onnx",
    "extract": "extraction.extract",
    "FeatureExtractor": "extraction.transformer",
    "FeatureSpec": "bank.spec",
    "finetune": "finetuning.finetune",
    "FineTuner": "finetuning.finetuner",
    "fit": "fitting.fit",
    "fit_domain": "fitting.adaptation.adapt",  # the old name of adapt
    "fit_semi_supervised": "fitting.unlabelled",
    "import_features": "bank.formats.importing",
    "label_issues": "explore.label_errors",
    "list_backbones": "backbones.registry",
    "load_backbone": "backbones.registry",
    "make_report": "report",
    "map_page": "explore.page",
    "next_to_label": "explore.labelling",
    "outliers": "explore.outlier_detection",
    "Predictor": "predictor.predictor",
    "Preprocessing": "backbones.preprocessing",
    "project": "explore.projection",
    "rank_features": "explore.advice.ranking",
    "Recipe": "finetuning.recipe",
    "scan": "images.scanning",
    "similar": "explore.similarity",
    "studio": "explore.studio.handle",
    "TopModelSearchCV": "topmodels.search",
}


def lazy(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the ``__getattr__`` of a package whose names load their modules, `homes`, when they are first used."""

    def get(name: str) -> Any:
        if name in homes:
            return getattr(import_module(f"{package}.{homes[name]}"), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return get


def __getattr__(name: str) -> Any:
    if name == "MultiTaskPredictor":
        notice("featurebank.MultiTaskPredictor", "featurebank.Predictor")
        name = "Predictor"
    return lazy("featurebank", _HOMES)(name)


def __dir__() -> list[str]:
    return sorted(__all__)

"""featurebank: embed images once with a frozen backbone, then try every top model in seconds.

Importing this package loads neither torch nor scikit-learn; a public name loads its module when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from featurebank._version import __version__
from featurebank.errors import FeatureBankError

if TYPE_CHECKING:
    from featurebank.backbones import Backbone, Preprocessing, list_backbones, load_backbone
    from featurebank.bank import Bank
    from featurebank.extraction import extract
    from featurebank.finetuning.finetuner import FineTuner
    from featurebank.finetuning.job import finetune
    from featurebank.finetuning.recipe import Recipe
    from featurebank.fitting import fit
    from featurebank.interop.exporting import export_bank
    from featurebank.interop.importing import import_features
    from featurebank.multitask.predictor import MultiTaskPredictor
    from featurebank.predictor import Predictor
    from featurebank.search import TopModelSearchCV
    from featurebank.sources import scan
    from featurebank.spec import FeatureSpec
    from featurebank.transfer.adaptation.domain import fit_domain
    from featurebank.transfer.advising.advice import Advice, advise
    from featurebank.transfer.advising.ranking import rank_features
    from featurebank.transformer import FeatureExtractor

_HOMES = {
    "Advice": "transfer.advising.advice",
    "Backbone": "backbones",
    "Bank": "bank",
    "FeatureExtractor": "transformer",
    "FeatureSpec": "spec",
    "FineTuner": "finetuning.finetuner",
    "MultiTaskPredictor": "multitask.predictor",
    "Predictor": "predictor",
    "Preprocessing": "backbones",
    "TopModelSearchCV": "search",
    "Recipe": "finetuning.recipe",
    "advise": "transfer.advising.advice",
    "export_bank": "interop.exporting",
    "extract": "extraction",
    "finetune": "finetuning.job",
    "fit": "fitting",
    "fit_domain": "transfer.adaptation.domain",
    "import_features": "interop.importing",
    "list_backbones": "backbones",
    "load_backbone": "backbones",
    "rank_features": "transfer.advising.ranking",
    "scan": "sources",
}

__all__ = [
    "Advice",
    "Backbone",
    "Bank",
    "FeatureBankError",
    "FeatureExtractor",
    "FeatureSpec",
    "FineTuner",
    "MultiTaskPredictor",
    "Predictor",
    "Preprocessing",
    "Recipe",
    "TopModelSearchCV",
    "__version__",
    "advise",
    "export_bank",
    "extract",
    "finetune",
    "fit",
    "fit_domain",
    "import_features",
    "list_backbones",
    "load_backbone",
    "rank_features",
    "scan",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"featurebank.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'featurebank' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

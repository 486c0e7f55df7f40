"""featurebank: embed images once with a frozen backbone, then try every top model in seconds.

Importing this package loads neither torch nor scikit-learn; a public name loads its module when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

import featurebank.predictor.backbone  # noqa: F401  adds predictor files to the sources of backbones; loads no torch
from featurebank.errors import FeatureBankError

__version__ = "0.1.0"

if TYPE_CHECKING:
    from featurebank.backbones.base import Backbone
    from featurebank.backbones.preprocessing import Preprocessing
    from featurebank.backbones.registry import list_backbones, load_backbone
    from featurebank.bank.bank import Bank
    from featurebank.bank.formats.exporting import export_bank
    from featurebank.bank.formats.importing import import_features
    from featurebank.bank.spec import FeatureSpec
    from featurebank.explore.advice.advice import Advice, advise
    from featurebank.explore.advice.ranking import rank_features
    from featurebank.extraction.extract import extract
    from featurebank.extraction.transformer import FeatureExtractor
    from featurebank.finetuning.finetune import finetune
    from featurebank.finetuning.finetuner import FineTuner
    from featurebank.finetuning.recipe import Recipe
    from featurebank.fitting.adaptation.domain import fit_domain
    from featurebank.fitting.fit import fit
    from featurebank.images.sources import scan
    from featurebank.predictor.predictor import Predictor
    from featurebank.predictor.tasks import MultiTaskPredictor
    from featurebank.topmodels.search import TopModelSearchCV

_HOMES = {
    "Advice": "explore.advice.advice",
    "Backbone": "backbones.base",
    "Bank": "bank.bank",
    "FeatureExtractor": "extraction.transformer",
    "FeatureSpec": "bank.spec",
    "FineTuner": "finetuning.finetuner",
    "MultiTaskPredictor": "predictor.tasks",
    "Predictor": "predictor.predictor",
    "Preprocessing": "backbones.preprocessing",
    "TopModelSearchCV": "topmodels.search",
    "Recipe": "finetuning.recipe",
    "advise": "explore.advice.advice",
    "export_bank": "bank.formats.exporting",
    "extract": "extraction.extract",
    "finetune": "finetuning.finetune",
    "fit": "fitting.fit",
    "fit_domain": "fitting.adaptation.domain",
    "import_features": "bank.formats.importing",
    "list_backbones": "backbones.registry",
    "load_backbone": "backbones.registry",
    "rank_features": "explore.advice.ranking",
    "scan": "images.sources",
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

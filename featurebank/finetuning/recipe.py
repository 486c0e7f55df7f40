"""Recipe: every choice of a fine-tuning, checked before anything is computed.

The options are declared here once, with their defaults, limits and texts: `FineTuner` and the command take them from
here. Nothing heavy is imported, so that a command can read its options.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import KW_ONLY, asdict, dataclass, field, fields
from typing import Any

from featurebank.errors import FineTuneError, TopModelError, near_names, renamed
from featurebank.topmodels.class_weights import ClassWeight

RATES = {"sgd": 1e-2, "adam": 1e-3, "adamw": 1e-3, "rmsprop": 3e-4, "adagrad": 1e-2}
"""Optimisers, and the learning rate of the head when none is given."""
CACHED, LIVE = "cached", "live"
VIEWS = 8
_USUAL = {"input": LIVE, "head": f"{CACHED}:none"}
"""What stands for `augment` at the ends: all of the network, and the head alone, whose rows most banks have."""
_HEAD = re.compile(r"linear|mlp:([1-9][0-9]{0,4})")


def _word(default: str | None, *choices: str) -> Any:
    """Declare an option that is one of a few words."""
    return field(default=default, metadata={"choices": choices})


def _number(default: float, least: float, most: float = math.inf, *, is_open: bool = False) -> Any:
    """Declare an option that is a number from `least` to `most`, or below it."""
    return field(default=default, metadata={"least": least, "most": most, "open": is_open})


@dataclass(eq=False, repr=False)
class RecipeOptions:
    """The options of a fine-tuning, as `Recipe` describes them; `FineTuner` has the same."""

    cut: str
    _: KW_ONLY
    head: str = "linear"
    init: str = _word("pretrained", "pretrained", "random")
    unfreeze: str = _word("all", "all", "gradual")
    augment: str | None = None
    views: str = "none"
    store: str = _word("float16", "float16", "float32")
    epochs: int = _number(10, 1)
    batch_size: int = _number(32, 1)
    lr: float | str | None = None
    lr_decay: float = _number(4.0, 1)
    optimizer: str = _word("adamw", *RATES)
    weight_decay: float = _number(0.01, 0)
    patience: int = _number(5, 1)
    validation: float = _number(0.15, 0, 0.5)
    refit: bool = False
    batchnorm: str | None = _word(None, "eval", "train")
    average: str = _word("none", "none", "ema", "wise-ft")
    label_smoothing: float = _number(0.0, 0, 1, is_open=True)
    mixup: float = _number(0.0, 0)
    class_weight: ClassWeight = None
    precision: str = _word("fp32", "fp32", "bf16", "fp16")
    random_state: int = 0


@dataclass
class Recipe(RecipeOptions):
    """How to fine-tune.

    Parameters
    ----------
    cut : str
        The module from which on is trained, e.g. ``layer4`` or ``blocks.5``; ``input`` for all of the network,
        ``head`` for the new head alone.
    head : str, default "linear"
        ``linear``, or ``mlp:H`` with H hidden units.
    init : str, default "pretrained"
        ``pretrained``: the backbone's weights, and a head that is a top model of the frozen embeddings. ``random``:
        everything from the cut on starts from random weights.
    unfreeze : str, default "all"
        ``all`` at once; ``gradual``, from the head on one block more each epoch (Howard and Ruder 2018).
    augment : str, optional
        ``cached:K`` (K views of each image, itself among them, their activations in the bank), ``cached:flips`` and the
        like for exact views, ``live`` (read and changed anew in each epoch), or
        ``live:hflip,vflip,crop=0.5,translate=0.1,rotate=15,jitter=0.2``; by default ``cached:8``, ``live`` from
        ``input``, ``cached:none`` from ``head``.
    views : str, default "none"
        Views of an image whose scores a prediction averages; with cached views, the first ones of those.
    store : str, default "float16"
        Dtype of the activations in the bank.
    epochs : int, default 10
        At most so many.
    batch_size : int, default 32
        Images a step.
    lr : float or "auto", optional
        Learning rate of the head; ``auto`` looks for one (Smith 2017); by default the optimiser's.
    lr_decay : float, default 4.0
        How many times smaller the rate is in each earlier block.
    optimizer : str, default "adamw"
        ``sgd`` has momentum 0.9.
    weight_decay : float, default 0.01
        Of weights; never of biases and normalisations.
    patience : int, default 5
        Epochs without a better validation score than an earlier one's until training stops; the head before any
        training counts in the choice of the best, not here.
    validation : float, default 0.15
        Share of the images that choose the epoch; 0 for none, then all epochs are run.
    refit : bool, default False
        Then train anew on all images, to the epoch that was chosen.
    batchnorm : str, optional
        ``eval`` keeps the statistics of batch normalisation, ``train`` learns them anew; by default ``eval``, but
        ``train`` where the weights begin at random.
    average : str, default "none"
        ``ema``: an exponential moving average of the weights; ``wise-ft``: between the weights at the start and the
        best ones, as far as the validation rows say (Wortsman et al. 2022).
    label_smoothing : float, default 0.0
        Share of each label that is spread over all classes.
    mixup : float, default 0.0
        Mix pairs of images (Zhang et al. 2018) by this parameter of the beta distribution; 0.2 is usual, 0 for none.
    class_weight : "balanced" or mapping, optional
        What each class counts in the loss.
    precision : str, default "fp32"
        ``bf16``, or ``fp16`` on a GPU, for mixed precision.
    random_state : int, default 0
        Seed of everything that is drawn.

    Raises
    ------
    FineTuneError
        When a choice is not one that there is, or two do not go together.

    See Also
    --------
    finetune : Takes one.
    FineTuner : Takes the same options.

    Examples
    --------
    >>> Recipe("layer4").cached_views, Recipe("layer4", augment="cached:flips").cached_views
    ('augment:8', 'flips')
    """

    def __post_init__(self) -> None:
        hidden_units(self.head)
        for option in fields(self):
            _check(option.name, getattr(self, option.name), option.metadata)
        if self.changes.split(":")[0] not in (CACHED, LIVE):
            raise FineTuneError(f"no augment {self.changes!r}; {near_names(self.changes, (CACHED, LIVE))}")
        if self.lr not in (None, "auto") and not (isinstance(self.lr, (int, float)) and 0 < self.lr < math.inf):
            raise FineTuneError(f"lr {self.lr!r}; expected auto, or a number above 0")
        if self.refit and (not self.validation or self.average == "wise-ft"):
            raise FineTuneError(
                "refit with nothing that validation rows chose, or with wise-ft; expected one or the other"
            )
        self._check_views()

    @property
    def changes(self) -> str:
        """`augment`, or what stands for it where it is not given."""
        return self.augment or _USUAL.get(self.cut, f"{CACHED}:{VIEWS}")

    @property
    def is_cached(self) -> bool:
        """Whether activations come from the bank; nothing can be kept where the whole network trains."""
        return self.changes.startswith(CACHED)

    @property
    def cached_views(self) -> str:
        """The views whose activations are kept, as `featurebank.extract` names them."""
        views = self.changes.partition(":")[2]
        if views == "1":
            return "none"
        return f"augment:{views}" if views.isdecimal() else views

    @property
    def trains_batchnorm(self) -> bool:
        """Whether batch normalisation learns its statistics anew."""
        return (self.batchnorm or ("train" if self.init == "random" else "eval")) == "train"

    @property
    def rate(self) -> float:
        """The learning rate of the head, the optimiser's own where none is given or it is still to be found."""
        return RATES[self.optimizer] if self.lr is None or isinstance(self.lr, str) else float(self.lr)

    def to_dict(self) -> dict[str, Any]:
        """Return the choices for a report."""
        return asdict(self)

    def _check_views(self) -> None:
        """Refuse views that do not exist, or that are not the first ones of the cached."""
        from featurebank.images.views import AUGMENT, count_views  # here: a command reads the options without Pillow

        kept = self.cached_views if self.is_cached else self.views
        many, few = count_views(kept), count_views(self.views)
        same = self.views == kept or self.views == "none" or not (AUGMENT in self.views or AUGMENT in kept)
        if few > many or not same:
            raise FineTuneError(
                f"views {self.views!r} in predicting, and {kept!r} cached; expected none, or the first ones of those"
            )
        if self.cut == "input" and self.is_cached:
            raise FineTuneError("all of the network is trained, so nothing can be cached; expected augment live")


Recipe.__init__ = renamed(seed="random_state")(Recipe.__init__)  # type: ignore[method-assign]


def hidden_units(head: str) -> int:
    """Return the hidden units of a head by its name, 0 for a linear one.

    Raises
    ------
    TopModelError
        When there is no such head.

    Examples
    --------
    >>> hidden_units("linear"), hidden_units("mlp:64")
    (0, 64)
    """
    found = _HEAD.fullmatch(head)
    if not found:
        raise TopModelError(f"no head {head!r}; expected linear, or mlp:H with H hidden units, e.g. mlp:64")
    return int(found[1] or 0)


def _check(name: str, value: Any, limits: Mapping[str, Any]) -> None:
    """Refuse a value that is no word of the choices, or outside of the limits."""
    if "choices" in limits and value is not None and value not in limits["choices"]:
        raise FineTuneError(f"no {name} {value!r}; {near_names(value, limits['choices'])}")
    if "least" not in limits:
        return
    least, most, is_open = limits["least"], limits["most"], limits["open"]
    if not (math.isfinite(value) and least <= value <= most) or (is_open and value == most):
        share = f"a share from {least} to {'below ' * is_open}{most:g}"
        raise FineTuneError(f"{name} {value}; expected {f'a number from {least} up' if most == math.inf else share}")

"""Recipe: every choice of a fine-tuning, checked before anything is computed."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from random import Random
from typing import Any

from PIL import Image, ImageEnhance

from featurebank.errors import FineTuneError, near_names
from featurebank.finetuning.head import hidden_units
from featurebank.images.views import AUGMENT, augment, count_views

RATES = {"sgd": 1e-2, "adam": 1e-3, "adamw": 1e-3, "rmsprop": 3e-4, "adagrad": 1e-2}
"""Optimisers, and the learning rate of the head when none is given."""
INITS = ("pretrained", "random")
UNFREEZE = ("all", "gradual", "only:BLOCK")
AVERAGES = ("none", "ema", "wise-ft")
PRECISIONS = ("fp32", "bf16", "fp16")
CACHED, LIVE = "cached", "live"
VIEWS = 8
_USUAL = {"input": LIVE, "head": f"{CACHED}:none"}
"""What stands for `augment` at the ends: all of the network, and the head alone, whose rows most banks have."""


@dataclass(frozen=True)
class Recipe:
    """How to fine-tune.

    Parameters
    ----------
    cut : str
        The module from which on is trained; ``"input"`` for everything, ``"head"`` for the new head alone.
    head : str, default "linear"
        ``"linear"`` or ``"mlp:H"``, with H hidden units.
    init : str, default "pretrained"
        ``"pretrained"``: the backbone's weights, and a head that is a top model of the frozen embeddings.
        ``"random"``: everything from the cut on starts from random weights.
    unfreeze : str, default "all"
        ``"all"`` at once; ``"gradual"``, from the head on one block more each epoch (Howard and Ruder 2018);
        ``"only:BLOCK"``, that block and nothing else (surgical fine-tuning, Lee et al. 2023).
    augment : str, optional
        ``"cached:K"``: K views of each image, the image itself among them, whose activations lie in the bank;
        ``"cached:VIEWS"`` for the exact views ``none``, ``hflip``, ``flips`` or ``dihedral``. ``"live"``: images read
        anew and changed in every epoch, see `featurebank.finetuning.recipe.parse`. By default ``"cached:8"``;
        ``"live"`` where all of the network trains, ``"cached:none"`` where the head alone does.
    views : str, default "none"
        Views of an image whose scores are averaged in predicting; with cached views, the first ones of those.
    store : str, default "float16"
        Dtype of the cached activations.
    epochs : int, default 10
        At most so many.
    batch_size : int, default 32
    lr : float or "auto", optional
        Learning rate of the head; ``"auto"`` looks for one (Smith 2017); by default by the optimiser.
    lr_decay : float, default 4.0
        How many times smaller the rate is in each earlier block.
    optimizer : str, default "adamw"
        ``sgd`` (with momentum 0.9), ``adam``, ``adamw``, ``rmsprop`` or ``adagrad``.
    weight_decay : float, default 0.01
        Of weights; never of biases and normalisations.
    warmup : float, default 0.1
        Share of the steps in which the rate grows; then it falls along a cosine.
    clip : float, default 1.0
        Largest norm of the gradient; 0 for any.
    patience : int, default 5
        Epochs without a better validation score until training stops.
    validation : float, default 0.15
        Share of the training rows that choose the epoch; 0 for none, then all epochs are run.
    refit : bool, default False
        Train anew on all rows, those of the validation too, to the epoch that they chose.
    batchnorm : str, optional
        ``"eval"`` keeps the statistics of batch normalisation, ``"train"`` learns them anew; by default the latter
        for random weights only.
    average : str, default "none"
        ``"ema"``: an exponential moving average of the weights; ``"wise-ft"``: between the weights at the start and the
        best ones, as far as the validation rows say (Wortsman et al. 2022).
    label_smoothing : float, default 0.0
    mixup : float, default 0.0
        Parameter of the beta distribution that pairs of rows are mixed by (Zhang et al. 2018), at the cut; 0 for none.
    class_weight : "balanced" or mapping, optional
    precision : str, default "fp32"
        ``"bf16"`` or ``"fp16"`` (on a GPU) for mixed precision.
    seed : int, default 0

    Raises
    ------
    FineTuneError
        When a choice is not one that there is, or two do not go together.

    Examples
    --------
    >>> Recipe("layer4").cached_views, Recipe("layer4", augment="cached:flips").cached_views
    ('augment:8', 'flips')
    """

    cut: str
    head: str = "linear"
    init: str = "pretrained"
    unfreeze: str = "all"
    augment: str | None = None
    views: str = "none"
    store: str = "float16"
    epochs: int = 10
    batch_size: int = 32
    lr: float | str | None = None
    lr_decay: float = 4.0
    optimizer: str = "adamw"
    weight_decay: float = 0.01
    warmup: float = 0.1
    clip: float = 1.0
    patience: int = 5
    validation: float = 0.15
    refit: bool = False
    batchnorm: str | None = None
    average: str = "none"
    label_smoothing: float = 0.0
    mixup: float = 0.0
    class_weight: Any = None
    precision: str = "fp32"
    seed: int = 0

    def __post_init__(self) -> None:
        hidden_units(self.head)
        _check_word("init", self.init, INITS)
        _check_word("unfreeze", self.unfreeze.split(":")[0] + ":BLOCK" * (":" in self.unfreeze), UNFREEZE)
        _check_word("optimizer", self.optimizer, tuple(RATES))
        _check_word("average", self.average, AVERAGES)
        _check_word("precision", self.precision, PRECISIONS)
        _check_word("store", self.store, ("float16", "float32"))
        _check_word("batchnorm", self.batchnorm or "eval", ("eval", "train"))
        _check_word("augment", self.changes.split(":")[0], (CACHED, LIVE))
        self._check_views()
        self._check_numbers()
        if self.refit and (not self.validation or self.average == "wise-ft"):
            raise FineTuneError(
                "refit with nothing that validation rows chose, or with wise-ft; expected one or the other"
            )

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
        return f"{AUGMENT}:{views}" if views.isdecimal() else views

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
        kept = self.cached_views if self.is_cached else self.views
        many, few = count_views(kept), count_views(self.views)
        same = self.views == kept or self.views == "none" or not (AUGMENT in self.views or AUGMENT in kept)
        if few > many or not same:
            raise FineTuneError(
                f"views {self.views!r} in predicting, and {kept!r} cached; expected none, or the first ones of those"
            )
        if self.cut == "input" and self.is_cached:
            raise FineTuneError("all of the network is trained, so nothing can be cached; expected augment live")

    def _check_numbers(self) -> None:
        least = {"epochs": 1, "batch_size": 1, "lr_decay": 1, "weight_decay": 0, "clip": 0, "patience": 1, "mixup": 0}
        for name, value in least.items():
            if not math.isfinite(getattr(self, name)) or getattr(self, name) < value:
                raise FineTuneError(f"{name} {getattr(self, name)}; expected a number from {value} up")
        if not 0 <= self.validation <= 0.5:
            raise FineTuneError(f"validation {self.validation}; expected a share from 0 to 0.5")
        for name in ("warmup", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise FineTuneError(f"{name} {getattr(self, name)}; expected a share from 0 to below 1")
        if self.lr not in (None, "auto") and not (isinstance(self.lr, (int, float)) and 0 < self.lr < math.inf):
            raise FineTuneError(f"lr {self.lr!r}; expected auto, or a number above 0")


def _check_word(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise FineTuneError(f"no {name} {value!r}; {near_names(value, known)}")


_SHAPES = (3 / 4, 4 / 3)
_T = Image.Transpose


@dataclass(frozen=True)
class Augmentation:
    """What is done to an image, each time with other numbers.

    Parameters
    ----------
    hflip, vflip : float, default 0.0
        How often it is mirrored, and turned upside down.
    crop : float, default 1.0
        Smallest share of its area that a crop of it keeps; its sides may be to each other up to 4/3 times what they
        were (Szegedy et al. 2015).
    translate : float, default 0.0
        Largest shift, as a share of a side; what comes in is black.
    rotate : float, default 0.0
        Largest turn, in degrees.
    jitter : float, default 0.0
        Largest change of brightness, contrast and colour, as a share.

    Examples
    --------
    >>> parse("live:hflip,crop=0.5,rotate=15")
    Augmentation(hflip=0.5, vflip=0.0, crop=0.5, translate=0.0, rotate=15.0, jitter=0.0)
    """

    hflip: float = 0.0
    vflip: float = 0.0
    crop: float = 1.0
    translate: float = 0.0
    rotate: float = 0.0
    jitter: float = 0.0

    def __call__(self, image: Image.Image, random: Random) -> Image.Image:
        """Return the image changed by what is drawn."""
        image = self._cropped(image, random)
        if self.rotate or self.translate:
            image = self._moved(image, random)
        for share, method in ((self.hflip, _T.FLIP_LEFT_RIGHT), (self.vflip, _T.FLIP_TOP_BOTTOM)):
            if random.random() < share:
                image = image.transpose(method)
        for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color) if self.jitter else ():
            image = enhance(image).enhance(random.uniform(1 - self.jitter, 1 + self.jitter))
        return image

    def _cropped(self, image: Image.Image, random: Random) -> Image.Image:
        area, shape = random.uniform(self.crop, 1), math.sqrt(random.uniform(*_SHAPES))
        if self.crop == 1:
            return image
        width = max(1, min(image.width, round(image.width * math.sqrt(area) * shape)))
        height = max(1, min(image.height, round(image.height * math.sqrt(area) / shape)))
        left, top = random.randint(0, image.width - width), random.randint(0, image.height - height)
        return image.crop((left, top, left + width, top + height))

    def _moved(self, image: Image.Image, random: Random) -> Image.Image:
        angle = random.uniform(-self.rotate, self.rotate)
        x, y = (random.uniform(-self.translate, self.translate) * side for side in image.size)
        return image.rotate(angle, Image.Resampling.BILINEAR, translate=(round(x), round(y)))


class _Usual:
    """The changes of ``augment:K``, which need no pixel that is not in the image."""

    def __call__(self, image: Image.Image, random: Random) -> Image.Image:
        return augment(image, random)


def parse(text: str) -> Augmentation | _Usual:
    """Return what ``live``, or ``live:NAME[=VALUE],…``, does to an image.

    Parameters
    ----------
    text : str
        Without names, the changes of the views ``augment:K``; with names, just those. ``hflip`` and ``vflip`` without
        a value mean half of the time; ``live:none`` changes nothing.

    Raises
    ------
    FineTuneError
        When a name is unknown, or its value no number that fits.
    """
    head, colon, rest = text.partition(":")
    if not colon and head == LIVE:
        return _Usual()
    known = [field.name for field in fields(Augmentation)]
    values: dict[str, float] = {}
    for part in rest.split(",") if rest != "none" else ():
        name, _, value = part.strip().partition("=")
        if name not in known:
            raise FineTuneError(f"no augmentation {name!r}; {near_names(name, known)}")
        values[name] = _number(name, value or ("0.5" if name in ("hflip", "vflip") else ""))
    return Augmentation(**values)


def _number(name: str, value: str) -> float:
    most = 180.0 if name == "rotate" else 1.0
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 <= number <= most or (name == "crop" and number == 0):
        raise FineTuneError(f"augmentation {name}={value}; expected a number from 0 to {most:g}, e.g. {name}=0.2")
    return number

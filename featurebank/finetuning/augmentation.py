"""Random changes of live images: flips, crops, shifts, turns, colours."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from random import Random

from PIL import Image, ImageEnhance

from featurebank.errors import FineTuneError, near_names
from featurebank.finetuning.recipe import LIVE
from featurebank.images.views import augment

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

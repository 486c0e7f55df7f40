"""A map over an image, in the image's pixels: how it is drawn, and how the cells of a layer become one."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from featurebank.explore.occlusion import window_of
from featurebank.explore.plots import new_axes
from featurebank.images.views import undo_view, view_size
from featurebank.predictor.features import made_views

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from featurebank.backbones.base import Backbone
    from featurebank.predictor.features import PredictorFeature


@dataclass(frozen=True, repr=False)
class ActivationMap:
    """What the parts of an image say for a class, or against it.

    Attributes
    ----------
    map : ndarray of float32, shape (height, width)
        In the pixels of the image: above 0 for the class, below 0 against it, 0 where the network does not look. Of an
        image that is compared with normal ones, 0 is usual and 1 is the limit (`explore.anomaly_maps`).
    image : PIL.Image.Image
    label : object
        The class; None for a predicted number.
    score : float
        The model's decision value for the class, its probability or the predicted number.
    method : str
        ``"cam"``, ``"occlusion"`` or ``"patches"``.
    cells : list of ndarray of float64, each of shape (views, h, w)
        Of a class activation map: the map of each feature set at the layer's own resolution. Their means add up to
        ``score - bias``.
    bias : float

    See Also
    --------
    featurebank.explain : What makes it.

    Examples
    --------
    >>> from featurebank import Predictor, explain
    >>> found = explain(Predictor.load("photos.featurebank"), "new.jpg")
    >>> found.plot().get_images()[0].get_array().shape[:2]
    (64, 64)
    """

    map: NDArray[np.float32]
    image: Image.Image
    label: object
    score: float
    method: str
    cells: list[NDArray[np.float64]] = field(default_factory=list)
    bias: float = 0.0

    @property
    def peak(self) -> tuple[int, int]:
        """Row and column of the pixel that says most for the class."""
        row, column = np.unravel_index(int(self.map.argmax()), self.map.shape)
        return int(row), int(column)

    def to_dict(self) -> dict[str, Any]:
        """Return what can be said in words: ``label, score, method`` and the peak's ``row`` and ``column``."""
        row, column = self.peak
        return {"label": self.label, "score": self.score, "method": self.method, "row": row, "column": column}

    def __repr__(self) -> str:
        of, (row, column) = "a number" if self.label is None else repr(self.label), self.peak
        return f"<ActivationMap: {of}, {self.score:.3g} by {self.method}, peak at row {row}, column {column}>"

    def _repr_html_(self) -> str:
        return f'<img src="{data_uri(self.overlay())}"><p>{escape(repr(self))}</p>'

    def overlay(self, side: int = 400) -> Image.Image:
        """Return the image in grey, of at most so many pixels a side, with the map over it: red above 0, blue below."""
        small = self.image.copy()
        small.thumbnail((side, side))
        scaled = np.asarray(Image.fromarray(self.map).resize(small.size, Image.Resampling.BILINEAR))
        strength = scaled / (float(np.abs(scaled).max()) or 1.0)
        colour = np.where(strength[..., None] > 0, [214, 40, 40], [30, 90, 200])
        share = 0.7 * np.abs(strength)[..., None]
        mixed = (1 - share) * np.asarray(small.convert("L"))[..., None] + share * colour
        return Image.fromarray(mixed.round().astype(np.uint8))

    def plot(self, *, ax: Axes | None = None) -> Axes:
        """Draw the map over the image: red for the class, blue against it.

        Parameters
        ----------
        ax : Axes, optional
            Where to draw; by default a new figure.
        """
        ax = ax or new_axes(5, 5)
        reach = float(np.abs(self.map).max()) or 1.0
        ax.imshow(np.asarray(self.image))
        ax.imshow(self.map, cmap="RdBu_r", vmin=-reach, vmax=reach, alpha=0.7 * np.abs(self.map) / reach)
        name = f"{self.score:.3g}" if self.label is None else f"{self.label}: {self.score:.3g}"
        ax.set(xticks=[], yticks=[], title=name.replace("$", r"\$"))
        return ax


def data_uri(image: Image.Image) -> str:
    """Return an image as the address that an HTML page shows it by."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=70, method=2)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def unfolded(
    cells: NDArray[np.float64], number: int, backbone: Backbone, feature: PredictorFeature, image: Image.Image
) -> NDArray[np.float32]:
    """Return the cells (h, w) of a view as a map in the pixels of the image."""
    views = made_views(feature)
    view = view_size(image.size, views, number)
    left, top, right, bottom = window_of(backbone, view)
    across, down = cells.shape[1] / (right - left), cells.shape[0] / (bottom - top)
    box = (-left * across, -top * down, (view[0] - left) * across, (view[1] - top) * down)
    drawn = Image.fromarray(cells.astype(np.float32)).transform(
        view, Image.Transform.EXTENT, box, Image.Resampling.BILINEAR
    )
    return np.asarray(undo_view(drawn, views, number), np.float32)

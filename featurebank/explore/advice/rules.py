"""Which transfer fits: from measured evidence to a cell of the size × similarity table, and to what to do.

Nothing is measured here; `featurebank.explore.advice.evidence` does that.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from featurebank.explore.advice.probe import Interval
from featurebank.topmodels.learning_curve import NEGLIGIBLE

LARGE, LARGE_CLASS = 1_000, 100
"""Images, and images a class, from which the data count as large. Below 1,000 images a task is what the literature
calls small (VTAB-1k, Zhai et al. 2019), and with fewer than a hundred a class the upper blocks of a network have more
parameters than the images can settle."""
RETRAIN, RETRAIN_CLASS = 10_000, 1_000
"""Images, and images a class, from which training from random weights can reach what a pretrained start does: from
10,000 images on it did, below it did not (He et al. 2019, Rethinking ImageNet pre-training); ImageNet itself, which
such networks are made for, has about 1,300 a class."""
NOISE = 0.01
"""Share of shuffled labels that may be predicted as well as the labels themselves. The interval over the folds settles
most cases, but of a few hundred images it is so wide that real labels would pass for noise: then this decides."""
CEILING = 0.99
"""Score from which no transfer can gain more than a point, so that the cheapest one wins."""
LEAD = NEGLIGIBLE
"""What the penultimate layer must score more than the lower half of the layers, beside one standard error, for the data
to count as similar: one point, which `topmodels.learning_curve` calls too little to act upon. On images like those of
the training it leads by far more, since the last layers are made for just those."""
HALF = 0.5
"""Place among the layers, 0 the first and 1 the penultimate, up to which they are the lower half. A plateau that begins
below it leaves more than half of the network without use, so that tuning the top alone would build on the wrong layers.
"""
OVERFITS = 0.10
"""Training score less validation score from which more trainable parameters would only fit the training images."""

Size = Literal["small", "large"]
Similarity = Literal["similar", "different", "unknown"]
Action = Literal["labels", "layers", "penultimate", "lower", "top-blocks", "all", "retrain", "elsewhere"]
TUNING = ("top-blocks", "all", "retrain")
SENTENCES: dict[Action, str] = {
    "labels": "Look at the labels and the images first.",
    "layers": "Extract more layers, then ask again.",
    "penultimate": "Train a top model on the penultimate layer.",
    "lower": "Train a top model on lower layers, beside one on the penultimate layer to compare.",
    "top-blocks": "Fine-tune the top blocks.",
    "all": "Fine-tune the whole network.",
    "retrain": "Re-train the network from random weights.",
    "elsewhere": (
        "No other fit is worth its time: look for copies that flatter the score, evaluate the predictor on images of "
        "another day, device or place (featurebank evaluate), and label such images."
    ),
}


@dataclass(frozen=True)
class Evidence:
    """What was measured. Scores are shares (or R²), 1 at best.

    Attributes
    ----------
    n_samples : int
        Labelled images.
    n_classes : int
        0 for numbers.
    smallest_class, largest_class : int
        Images in them; all of them for numbers.
    score : float
        Of the best probe on the folds.
    above_chance : Interval
        What the probe scores more than a guess, the choice among layers and strengths crossed
        (`featurebank.explore.advice.probe.crossed`).
    lead : Interval or None
        What the penultimate layer scores more than the best of the lower half of the layers; None where there is no
        layer curve.
    lead_error : float
        Standard error of `lead`.
    plateau : float
        Place of the earliest layer that is as good as the best (`featurebank.explore.advice.probe.plateau`): 0 the
        first, 1 the penultimate.
    doubling : Interval or None
        What twice the labels promise the probe; None where no curve could be fitted.
    gap : float
        Training score less validation score of the best probe.
    shuffled : float or None
        How often shuffled labels are predicted as well (a permutation test); None where the
        interval of `above_chance` is clear already, or shuffling makes no sense.
    no_tuning : str
        Why the network cannot be fine-tuned here; empty where it can.
    """

    n_samples: int
    n_classes: int
    smallest_class: int
    largest_class: int
    score: float
    above_chance: Interval
    lead: Interval | None
    lead_error: float
    plateau: float
    doubling: Interval | None
    gap: float
    shuffled: float | None = None
    no_tuning: str = ""

    @property
    def is_noise(self) -> bool:
        """Whether nothing tells the labels from noise: neither the interval, nor shuffling."""
        is_shuffle_worse = self.shuffled is not None and self.shuffled <= NOISE
        return self.above_chance.low <= 0 and not is_shuffle_worse

    @property
    def per_class(self) -> float:
        """Mean number of images a class; all images for numbers."""
        return self.n_samples / max(1, self.n_classes)


@dataclass(frozen=True)
class Verdict:
    """What the evidence comes to.

    Attributes
    ----------
    size : "small" or "large"
    similarity : "similar", "different" or "unknown"
    action : str
        A key of `SENTENCES`.
    because : str
        Why this one.
    alternative : str or None
        What else the courses would have one do in this cell.
    trade : str
        What speaks for one and for the other, where they disagree; empty where they do not.
    is_sure : bool, default True
        Whether the interval of `Evidence.lead` bears the similarity out.
    """

    size: Size
    similarity: Similarity
    action: Action
    because: str
    alternative: Action | None = None
    trade: str = ""
    is_sure: bool = True

    @property
    def cell(self) -> str:
        """The cell of the table, in words."""
        if self.similarity == "unknown":
            return f"{self.size}, similarity unknown"
        return f"{self.size} and {'' if self.is_sure else 'probably '}{self.similarity}"


def decide(evidence: Evidence) -> Verdict:
    """Place the data in the table of size and similarity, and choose what to do.

    Small or large: `size_of`. Similar or different: `similarity_of`. Then:

    ===== ========= ==================================================================================================
    small similar   a top model on the penultimate layer
    small different lower layers; the top blocks where more labels would not help and nothing is overfitted
    large similar   the top blocks
    large different from the plateau on, the top blocks or all; re-train where the lower half is all that carries and
                    there are `RETRAIN` images, `RETRAIN_CLASS` a class
    ===== ========= ==================================================================================================

    A probe that is not above chance (`Evidence.is_noise`) ends it: whatever is trained would learn noise. At the
    `CEILING` the cheapest transfer wins, and where that was trained only other images can teach more. Without a layer
    curve that is asked for first.

    Examples
    --------
    >>> above, lead = Interval(0.4, 0.3, 0.5), Interval(0.1, 0.08, 0.12)
    >>> few = Evidence(500, 2, 250, 250, 0.9, above, lead, lead_error=0.01, plateau=1.0, doubling=None, gap=0.02)
    >>> decide(few).action
    'penultimate'
    """
    return replace(_decided(evidence), is_sure=is_sure(evidence))


def _decided(evidence: Evidence) -> Verdict:
    size, similarity = size_of(evidence), similarity_of(evidence)
    if evidence.is_noise:
        why = "the probe is not above chance, so that nothing tells these labels from noise: training would learn noise"
        return Verdict(size, similarity, "labels", why)
    if evidence.score >= CEILING:
        why = f"the probe scores {evidence.score:.3f} already: nothing else can gain more than a point"
        return Verdict(size, similarity, "lower" if similarity == "different" else "penultimate", why, "elsewhere")
    if similarity == "unknown":
        why = "one layer cannot tell how far these images are from the backbone's: the layer curve does"
        return Verdict(size, similarity, "layers", why, "penultimate")
    cells = {
        ("small", "similar"): _small_similar,
        ("small", "different"): _small_different,
        ("large", "similar"): _large_similar,
        ("large", "different"): _large_different,
    }
    return _possible(evidence, cells[size, similarity](evidence))


def size_of(evidence: Evidence) -> Size:
    """Return ``"large"`` for `LARGE` images or more, and `LARGE_CLASS` or more a class on average."""
    return "large" if evidence.n_samples >= LARGE and evidence.per_class >= LARGE_CLASS else "small"


def similarity_of(evidence: Evidence) -> Similarity:
    """Return whether the last layers serve these images better than the first, as they serve those of the training.

    They do where the penultimate layer beats the best of the lower half by more than `LEAD` and one standard error.
    Where they do not, either lower layers serve better, or the curve is flat: then the last layers add nothing. A curve
    that is flat at the `CEILING` says nothing, as any layer solves the task.
    """
    if evidence.lead is None:
        return "unknown"
    least = max(LEAD, evidence.lead_error)
    if evidence.score >= CEILING and abs(evidence.lead.value) <= least:
        return "unknown"
    return "similar" if evidence.lead.value > least else "different"


def is_sure(evidence: Evidence) -> bool:
    """Return whether the interval of the penultimate layer's lead leaves no doubt of `similarity_of`."""
    if evidence.lead is None:
        return True
    return evidence.lead.low > 0 if similarity_of(evidence) == "similar" else evidence.lead.high <= LEAD


def _small_similar(evidence: Evidence) -> Verdict:
    why = "the last layers serve these images well, and they are too few to train more than a top model"
    return Verdict("small", "similar", "penultimate", why)


def _small_different(evidence: Evidence) -> Verdict:
    trade = "lower layers cost seconds and cannot overfit a network; fine-tuning adapts it, and can"
    is_flat = evidence.doubling is not None and evidence.doubling.high < NEGLIGIBLE
    if is_flat and evidence.gap <= OVERFITS:
        why = (
            "more labels would not raise the frozen features' score, and they are not overfitted: the features limit it"
        )
        return Verdict("small", "different", "top-blocks", why, "lower", trade)
    why = (
        "the probe still lives off each label, so that a network would overfit" if not is_flat else "the probe overfits"
    )
    return Verdict("small", "different", "lower", why, "top-blocks", trade)


def _large_similar(evidence: Evidence) -> Verdict:
    why = "there are images enough to adapt the top blocks, and what lies below them fits as it is"
    return Verdict("large", "similar", "top-blocks", why, "penultimate", "fine-tuning costs minutes or hours more")


def _large_different(evidence: Evidence) -> Verdict:
    if evidence.plateau >= HALF:
        trade = "tuning all can change the lower layers as well, and costs more; here they carry what there is to carry"
        why = "the score rises up to the plateau and no further: what comes after it is what to adapt"
        return Verdict("large", "different", "top-blocks", why, "all", trade)
    trade = (
        "a pretrained start needs fewer images; random weights owe nothing to images unlike these, and take the most"
    )
    if evidence.n_samples >= RETRAIN and evidence.per_class >= RETRAIN_CLASS:
        why = "most of the network adds nothing here, and there are images enough to learn it anew"
        return Verdict("large", "different", "retrain", why, "all", trade)
    why = f"most of the network adds nothing here, and {evidence.n_samples:,} images are too few to learn it anew"
    return Verdict("large", "different", "all", why, "retrain", trade)


def _possible(evidence: Evidence, found: Verdict) -> Verdict:
    """Replace what cannot be done here by the top model that fits."""
    if not evidence.no_tuning:
        return found
    alternative = None if found.alternative in TUNING else found.alternative
    if found.action not in TUNING:
        return Verdict(found.size, found.similarity, found.action, found.because, alternative)
    action: Action = "lower" if found.similarity == "different" else "penultimate"
    why = f"{SENTENCES[found.action].rstrip('.').lower()} would fit, but {evidence.no_tuning}"
    return Verdict(found.size, found.similarity, action, why)

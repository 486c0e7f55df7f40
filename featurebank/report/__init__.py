"""The report: a bank and a predictor as one self-contained HTML page."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from featurebank.errors import NotInstalledError, PlotError, near_names

if TYPE_CHECKING:
    from featurebank.bank.bank import Bank

Bars = Callable[[str], Callable[[int, int], None] | None]


@dataclass(frozen=True)
class Report:
    """A page and what it is made of.

    Attributes
    ----------
    html : str
        The page.
    facts : dict
        What it shows, by the names of the template.
    """

    html: str = field(repr=False)
    facts: dict[str, Any] = field(repr=False)

    def encode(self) -> bytes:
        """Return the bytes of the file."""
        return self.html.encode()

    def counts(self) -> dict[str, Any]:
        """Return how much of everything is shown: ``images, pictures, maps, mistakes, issues, groups``.

        What was not looked for, or there is no predictor for, is None.
        """
        facts = self.facts
        return {
            "images": len(facts["paths"]),
            "pictures": facts["pictures"],
            "maps": [each["name"] for each in facts["points"]["maps"]],
            "mistakes": facts["confusion"]["mistakes"] if facts["confusion"] else None,
            "issues": None if facts["issues"] is None else facts["issues_n"],
            "groups": None if facts["groups"] is None else facts["groups_n"],
        }


def make_report(
    bank: str | os.PathLike[str] | Bank,
    predictor: str | os.PathLike[str] | None = None,
    *,
    target: str | None = None,
    features: str | None = None,
    maps: Sequence[str] | None = None,
    seed: int = 0,
    progress: Bars | None = None,
) -> Report:
    """Make the page of a bank, and of what a predictor says of it.

    Parameters
    ----------
    bank : path-like or Bank
        Its pictures are shown as far as their files are where they were, unchanged.
    predictor : path-like, optional
        A file of `featurebank.fit`, with ``STEM.oof.csv`` beside it.
    target : str, optional
        Column that is counted and coloured; by default the predictor's, ``label``, or the only one.
    features : str, optional
        Feature sets of the map, joined by ``+``; by default the predictor's, else the penultimate one.
    maps : sequence of str, optional
        ``"pca"``, ``"tsne"`` and ``"umap"``, the first one shown first; by default t-SNE and PCA, and PCA alone beyond
        10,000 samples.
    seed : int, default 0
        Of the maps.
    progress : callable, optional
        Takes the title of a long part, returns what is called with (done, in all), or None.

    Returns
    -------
    Report

    Raises
    ------
    NotInstalledError
        When a library of the extra ``report`` is missing.
    FeatureBankError
        When something that is named is not there, or cannot be shown.

    Examples
    --------
    >>> page = make_report("photos.bank", "photos.featurebank")  # doctest: +SKIP
    >>> Path("report.html").write_bytes(page.encode())  # doctest: +SKIP
    """
    for library, name in (("jinja2", "Jinja2"), ("matplotlib", "matplotlib")):
        if find_spec(library) is None:
            raise NotInstalledError(f"a report needs {name}: pip install 'featurebank[report]'")
    from featurebank.report.collect import collect
    from featurebank.report.page import render
    from featurebank.report.places import NAMES, default_methods, map_note, places
    from featurebank.report.reasons import reasons
    from featurebank.report.subject import open_subject
    from featurebank.report.suspects import suspects

    unknown = [name for name in maps or [] if name not in NAMES]
    if unknown:
        raise PlotError(f"a map called {unknown[0]!r}; {near_names(unknown[0], NAMES)}")
    bars = progress or (lambda title: None)
    subject = open_subject(bank, predictor, target=target, features=features)
    methods = list(dict.fromkeys(maps or default_methods(len(subject.table))))
    facts = collect(
        subject,
        places(subject, methods, seed),
        suspects(subject, bars("near-duplicates")),
        reasons(subject, bars("activation maps")),
        map_note=map_note(subject, methods),
        progress=bars("pictures"),
    )
    return Report(render(facts), facts)

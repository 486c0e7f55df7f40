"""The report: a bank and a predictor as one self-contained HTML page."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from featurebank.errors import NotInstalledError, PlotError, counted, install_hint, near_names, renamed

if TYPE_CHECKING:
    from featurebank.bank.bank import BankLike

Bars = Callable[[str], Callable[[int, int], None] | None]


@dataclass(frozen=True, repr=False)
class Report:
    """A page and what it is made of.

    Attributes
    ----------
    html : str
        The page.
    facts : dict
        What it shows, by the names of the template.

    See Also
    --------
    make_report : What makes it.

    Examples
    --------
    >>> make_report("photos.bank").counts()["images"]
    24
    """

    html: str
    facts: dict[str, Any]

    def __repr__(self) -> str:
        images = counted(len(self.facts["paths"]), "image")
        return f"<Report: {self.facts['title']}, {images}, {len(self.html)} characters>"

    def _repr_html_(self) -> str:
        import pandas as pd

        from featurebank.bank.display import as_html

        return as_html(self, pd.DataFrame(self.counts().items(), columns=["what", "shown"]))

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


@renamed(seed="random_state")
def make_report(
    bank: BankLike,
    predictor: str | os.PathLike[str] | None = None,
    *,
    target: str | None = None,
    features: str | None = None,
    maps: Sequence[str] | None = None,
    random_state: int = 0,
    progress: Bars | None = None,
) -> Report:
    """Make the page of a bank, and of what a predictor says of it.

    Parameters
    ----------
    bank : path-like or Bank
        Its pictures are shown as far as their files are where they were, unchanged.
    predictor : path-like, optional
        A file of `featurebank.fit`, which holds its out-of-fold predictions.
    target : str, optional
        Column that is counted and coloured; by default the predictor's, ``label``, or the only one.
    features : str, optional
        Feature sets of the map, joined by ``+``; by default the predictor's, else the penultimate one.
    maps : sequence of str, optional
        ``"pca"``, ``"tsne"`` and ``"umap"``, the first one shown first; by default t-SNE and PCA, and PCA alone beyond
        10,000 samples.
    random_state : int, default 0
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

    See Also
    --------
    map_page : The map alone.
    featurebank.explore : Its parts as functions.

    Examples
    --------
    >>> page = make_report("photos.bank", "photos.featurebank")
    >>> with open("report.html", "w") as file:
    ...     file.write(page.html) > 10_000
    True
    """
    for library, name in (("jinja2", "Jinja2"), ("matplotlib", "matplotlib")):
        if find_spec(library) is None:
            raise NotInstalledError(f"a report needs {name}: {install_hint('report')}")
    from featurebank.images.progress import shown
    from featurebank.report.errors_section import checks, explanations
    from featurebank.report.inputs import read_inputs
    from featurebank.report.map_section import NAMES, coordinates, default_methods, map_note
    from featurebank.report.page import collect, render_report

    unknown = [name for name in maps or [] if name not in NAMES]
    if unknown:
        raise PlotError(f"a map called {unknown[0]!r}; {near_names(unknown[0], NAMES)}")
    bars = progress or (lambda title: shown(None, title))
    inputs = read_inputs(bank, predictor, target=target, features=features)
    methods = list(dict.fromkeys(maps or default_methods(len(inputs.table))))
    facts = collect(
        inputs,
        coordinates(inputs, methods, random_state),
        checks(inputs, bars("near-duplicates")),
        explanations(inputs, bars("activation maps")),
        map_note=map_note(inputs, methods),
        progress=bars("pictures"),
    )
    return Report(render_report(facts), facts)

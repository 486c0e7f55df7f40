"""FitResult: what a fit found, of one task or of several."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import pandas as pd

from featurebank.errors import TopModelError
from featurebank.predictor.predictor import Predictor
from featurebank.topmodels.search import TopModelSearchCV


class FitResult:
    """What `featurebank.fit` found.

    Parameters
    ----------
    report : dict
        What ``featurebank fit --json`` prints; of several tasks ``tasks`` holds the usual report of each.
    predictor : Predictor
        The best candidate of each task, refitted on all rows.
    search : TopModelSearchCV, optional
        The fitted search of the only task.
    tasks : mapping of str to FitResult, optional
        The results of several tasks.

    Attributes
    ----------
    tasks : dict of str to FitResult
        By target; of one task, itself.

    See Also
    --------
    featurebank.fit : What makes it.
    featurebank.Predictor : What it ships.

    Examples
    --------
    >>> from featurebank import fit
    >>> result = fit("photos.bank", models=["ridge"])
    >>> result.to_frame()["model"].unique().tolist()
    ['ridge']
    >>> result.save("ridge.featurebank")
    """

    def __init__(
        self,
        report: dict[str, Any],
        predictor: Predictor,
        *,
        search: TopModelSearchCV | None = None,
        tasks: Mapping[str, FitResult] | None = None,
    ):
        self.report = report
        self.predictor = predictor
        self._search = search
        self.tasks: dict[str, FitResult] = dict(tasks or {predictor.target: self})

    @property
    def search(self) -> TopModelSearchCV:
        """The fitted search, over the blocks of the report's features.

        Raises
        ------
        TopModelError
            When there are several, one of each task; or none, as of normal images alone.
        """
        if self._search is None and self.predictor.task == "anomaly":
            raise TopModelError("normal images alone have no search; the candidates are in the report")
        if self._search is None:
            raise TopModelError(f"a search for each of {', '.join(self.tasks)}; name one: result.tasks[TASK].search")
        return self._search

    @property
    def oof(self) -> pd.DataFrame:
        """Out-of-fold predictions of the best candidate, see `featurebank.Predictor.oof`."""
        found = self.predictor.oof
        assert found is not None
        return found

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the predictor file; see `featurebank.Predictor.save`."""
        self.predictor.save(path)

    def to_dict(self) -> dict[str, Any]:
        """Return the report."""
        return self.report

    def to_frame(self) -> pd.DataFrame:
        """Return the candidates that were tried, best first, a row each; of several tasks with ``task`` in front."""
        frames = []
        for name, each in self.tasks.items():
            frame = pd.DataFrame(each.report["candidates"]).sort_values("mean", ascending=False, ignore_index=True)
            frame["features"] = frame["features"].map("+".join)
            if len(self.tasks) > 1:
                frame.insert(0, "task", name)
            frames.append(frame)
        return pd.concat(frames, ignore_index=True)

    def __repr__(self) -> str:
        if len(self.tasks) > 1:
            found = ", ".join(f"{name}: {each.report['best']['mean']:.3f}" for name, each in self.tasks.items())
            return f"<FitResult: {found}>"
        best = self.report["best"]
        return (
            f"<FitResult: {best['model']} on {'+'.join(best['features'])}, {best['mean']:.3f} of {len(self.oof)} rows>"
        )

    def _repr_html_(self) -> str:
        """Return the candidates as a table, for notebooks."""
        shown = ["task", "features", "model", "params", "mean", "std", "seconds"]
        frame = self.to_frame()
        return str(frame[[name for name in shown if name in frame]].to_html(max_rows=20, index=False))

"""What the work in the background does with a bank's embeddings; importing this takes a second or two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurebank.bank.answers import Answers, is_given
from featurebank.bank.bank import Bank
from featurebank.bank.defaults import candidate_features
from featurebank.bank.features import as_keys
from featurebank.explore.advice.networks import complete_sets
from featurebank.explore.advice.probe import PROBE, best_by_features, search_rows
from featurebank.explore.embedding import chosen_sets
from featurebank.explore.projection import plane
from featurebank.explore.studio import evidence
from featurebank.explore.studio.chance import Draw
from featurebank.explore.studio.choosing import coverage_order
from featurebank.explore.studio.pool import Pool, read_pool
from featurebank.explore.studio.view import View
from featurebank.fitting.training_data import Target, load_rows
from featurebank.topmodels.folds import Folds, default_kind

LAID_OUT = 3000
"""Rows up to which the map is t-SNE; beyond, the first principal components of a draw."""
MAPPED = 20_000
BETTER = 0.01
"""Accuracy by which other features have to be better to be taken."""


def embeddings(
    bank: Bank, digests: NDArray[np.bytes_], names: Sequence[str] | None, asked: str | Sequence[str] | None, seed: int
) -> Pool | None:
    """Read the embeddings of contents; None while there are none.

    Parameters
    ----------
    bank : Bank
    digests : ndarray of S32, shape (n,)
    names : sequence of str, optional
        Feature sets; by default those that were asked for.
    asked : str or sequence of str, optional
        See `featurebank.explore.embedding.chosen_sets`.
    seed : int
    """
    if not bank.feature_sets or not len(digests):
        return None
    pool = read_pool(bank, names or chosen_sets(bank, asked), digests, seed)
    return pool if len(pool.X) else None


def coverage(pool: Pool, draw: Draw, labels: NDArray[Any], seed: int) -> NDArray[np.int64]:
    """Return the contents without a label that cover all, none of the test part."""
    is_known, is_test = is_given(labels)[pool.contents], draw.is_test[pool.contents]
    rows = coverage_order(pool.Z, np.flatnonzero(is_known), np.flatnonzero(~is_known & ~is_test), seed)
    return pool.contents[rows]


def weighed(view: View, stamps: NDArray[np.uint64], seed: int) -> dict[str, Any]:
    """Return what labels written in this order show: ``paid, curve, verdict`` and whether choosing ``may_pay``."""
    order = view.trained[np.argsort(stamps[view.trained], kind="stable")]
    found = evidence.paid(view, seed)
    may_pay = "ci95" not in found or found["ci95"][1] >= 0
    curve = evidence.curve(view, order, found)
    return {"paid": found, "curve": curve, "verdict": evidence.verdict(view, seed), "may_pay": may_pay}


def laid_out(pool: Pool, seed: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return contents and their coordinates on the map."""
    rows = np.sort(np.random.default_rng(seed).permutation(len(pool.Z))[:MAPPED])
    method = "tsne" if 3 <= len(rows) <= LAID_OUT else "pca"
    return pool.contents[rows], plane(pool.Z[rows], method, seed, 1)


def better_features(answers: Answers, view: View, seed: int) -> tuple[str, ...] | None:
    """Return the feature set that a ridge does best on, without the test part; None where it is the present one."""
    bank, target = answers.bank, answers.column
    candidates = candidate_features(bank, None)
    if len(candidates) < 2:
        return None
    candidates, _, _ = complete_sets(bank, candidates, bank.select(target))
    rows = load_rows(bank, [name for each in candidates for name in each], Target([target]), None, None)
    keys = as_keys(rows.table.rows["digest"])
    places = np.searchsorted(view.digests, keys).clip(max=len(view.digests) - 1)
    rows = rows.take(np.flatnonzero((view.digests[places] == keys) & ~view.draw.is_test[places]))
    folds = Folds(default_kind(rows.task, rows.groups is not None), evidence.FOLDS, 1, seed)
    found = best_by_features(search_rows(rows, candidates, [PROBE], folds, n_jobs=1).candidates_, PROBE)
    best = max(found, key=lambda names: found[names].mean)
    is_better = view.pool.names not in found or found[best].mean > found[view.pool.names].mean + BETTER
    return tuple(best) if is_better and tuple(best) != view.pool.names else None

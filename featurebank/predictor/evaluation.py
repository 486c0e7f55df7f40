"""Evaluation: what the tasks of a predictor say of labelled images, scored, and how many of these it learned from."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from featurebank.bank.features import as_keys
from featurebank.bank.samples import SampleTable, values_of, weights_of
from featurebank.errors import PredictorError, did_you_mean, no_column
from featurebank.images.content import PAGE
from featurebank.images.dataframes import pd
from featurebank.images.reading import Progress
from featurebank.images.stacks import each_page
from featurebank.predictor.embedding import Embedder, Item, Parts
from featurebank.predictor.task import Task
from featurebank.storage.memory import releasing

if TYPE_CHECKING:
    from featurebank.images.sources import Source


class Truth(NamedTuple):
    """What is known of a task: which of the labelled rows have its label, their true values and their weights."""

    is_known: NDArray[np.bool_]
    y: NDArray[Any]
    weight: NDArray[np.float64] | None


def evaluate(
    embedder: Embedder,
    tasks: Mapping[str, Task],
    source: Source,
    target: str | None,
    sample_weight: str | None,
    groups: str | None,
    progress: Progress | None,
) -> dict[str, Any]:
    """Score tasks on a source; see `featurebank.Predictor.evaluate`."""
    is_paged = is_of_pages(tasks)
    source = each_page(source) if is_paged else source
    columns = _columns(tasks, target)
    _check_columns(source, columns, {"--sample-weight": sample_weight, "--groups": groups}, _ways(tasks, target))
    known = pd.DataFrame({task: source.columns[names].notna().all(axis=1) for task, names in columns.items()})
    if sample_weight:
        known[source.columns[sample_weight].isna()] = False
    rows = np.flatnonzero(known.any(axis=1))
    if not len(rows):
        raise PredictorError(f"no image of the source has a value of {', '.join(columns)}; expected some to score")
    truths = {name: _truth(tasks[name], source, rows, known, columns[name], sample_weight) for name in columns}
    parts, errors, digests = embedder.embed_some([Item(source, int(row)) for row in rows], progress)
    ok = np.array([not error for error in errors], bool)
    if not ok.any():
        raise PredictorError(f"no labelled image of the source could be read; expected at least one: {errors[0]}")
    together = _groups(source, rows, groups, is_paged)
    found = {name: _score(embedder, tasks[name], parts, ok, truth, together) for name, truth in truths.items()}
    paths = [os.fsdecode(source.paths[row]) for row in rows]
    return {
        **(next(iter(found.values())) if len(tasks) == 1 else {"n_samples": int(ok.sum()), "tasks": found}),
        "failures": [{"path": p, "error": error} for p, error in zip(paths, errors, strict=True) if error],
        "unlabelled": len(source.paths) - len(rows),
        "seen_in_training": count_seen([task.report for task in tasks.values()], digests),
    }


def is_of_pages(tasks: Mapping[str, Task]) -> bool:
    """Say whether tasks were learned from single pages of stacks (`extract --pages each`)."""
    return any(f"#{PAGE}=" in str(path) for task in tasks.values() for _, path, _ in task.report.get("samples", []))


def task_named(tasks: Mapping[str, Task], target: str | None) -> Task:
    """Return the task of a target, by default the only one; see `featurebank.Predictor.task_of`."""
    if target is None and len(tasks) > 1:
        raise PredictorError(
            f"this predictor predicts several tasks, {', '.join(tasks)}; expected one: name it with --target"
        )
    if target is not None and target not in tasks:
        known = f"{did_you_mean(target, tasks)}this predictor knows {', '.join(tasks)}"
        raise PredictorError(f"no task {target!r}; {known}: name one of them")
    return next(iter(tasks.values())) if target is None else tasks[target]


def _columns(tasks: Mapping[str, Task], target: str | None) -> dict[str, list[str]]:
    """Return the columns of true values of each task to score."""
    if len(tasks) == 1:
        return {name: [target] if target else task.columns for name, task in tasks.items()}
    return {name: task_named(tasks, name).columns for name in ([target] if target else tasks)}


def _ways(tasks: Mapping[str, Task], target: str | None) -> str:
    """Say what to do about a source that has columns, but not those that are to be scored."""
    if len(tasks) > 1:
        manifest = "give a manifest with columns named as the tasks"
        return manifest if target else f"{manifest}, or score one of them with --target"
    if target is None:
        return "name one of them with --target"
    return f"give the one with the true values of {next(iter(tasks))!r} as --target"


def _check_columns(
    source: Source, columns: Mapping[str, Sequence[str]], others: Mapping[str, str | None], ways: str
) -> None:
    """Refuse to score on a source that lacks a column.

    `others` are the columns that options name, by option; `ways` says how to bring one of labels.
    """
    wanted = [name for names in [*columns.values(), filter(None, others.values())] for name in names]
    absent = [name for name in wanted if name not in source.columns]
    if not absent:
        return
    if source.columns.empty:
        ways = f"give folders named by class, or a manifest with a column {absent[0]!r}"
    else:
        ways = next((f"name one of them with {way}" for way, name in others.items() if name == absent[0]), ways)
    raise PredictorError(f"{no_column('the source has', absent[0], source.columns)}: {ways}")


def _truth(
    task: Task,
    source: Source,
    rows: NDArray[np.int64],
    known: pd.DataFrame,
    columns: list[str],
    sample_weight: str | None,
) -> Truth:
    is_known = known[task.target].to_numpy()[rows]
    if not is_known.any():
        raise PredictorError(f"no image of the source has a value of {task.target!r}; name another task with --target")
    table = SampleTable(pd.DataFrame(), source.columns.iloc[rows[is_known]])
    weight = weights_of(table, sample_weight) if sample_weight else None
    return Truth(is_known, task.true_values(table, columns), weight)


def _groups(source: Source, rows: NDArray[np.int64], column: str | None, is_paged: bool) -> NDArray[np.intp] | None:
    """Return the number of what each row belongs to: a column's value, or the stack that a page is of."""
    if column is not None:
        values = values_of(SampleTable(pd.DataFrame(), source.columns.iloc[rows]), column).astype(str)
    elif is_paged:
        values = np.array([os.fsdecode(source.paths[row]).partition(f"#{PAGE}=")[0] for row in rows])
    else:
        return None
    return np.unique(values, return_inverse=True)[1]


def _score(
    embedder: Embedder,
    task: Task,
    parts: Parts,
    ok: NDArray[np.bool_],
    truth: Truth,
    groups: NDArray[np.intp] | None,
) -> dict[str, Any]:
    """Score a task on the readable images that have its label; intervals count what belongs together once."""
    read = ok[truth.is_known]
    if not read.any():
        raise PredictorError(f"no image labelled with {task.target!r} could be read; expected at least one")
    X = embedder.seen_by(task.features, parts)[truth.is_known[ok]]
    weight = None if truth.weight is None else truth.weight[read]
    return task.score(X, truth.y[read], weight, None if groups is None else groups[truth.is_known][read])


# --- what was learned from ---------------------------------------------------------------------------------


@releasing
def contents_of(digests: Any) -> str:
    """Return how each distinct content's digest begins, 16 hex digits each, so that training images are known again.

    One text: a million of them, as text each, would take five times the memory.

    Examples
    --------
    >>> contents_of([bytes(32), b"\\x01" * 32, bytes(32)])
    '00000000000000000101010101010101'
    """
    heads = as_keys(digests).view(">u8")[::4]
    return np.unique(heads).astype(">u8").tobytes().hex()


def known_contents(reports: Iterable[Mapping[str, Any]]) -> set[str]:
    """Return how the digest of each content that fits learned from begins, 16 hex digits each, given their reports."""
    found = [report.get("contents", "") for report in reports]
    contents = "".join(each if isinstance(each, str) else "".join(each) for each in found)  # a list in earlier files
    return {contents[start : start + 16] for start in range(0, len(contents), 16)}


def count_seen(reports: Iterable[Mapping[str, Any]], digests: Iterable[bytes]) -> int:
    """Count the contents among those that fits learned from, given their reports.

    Examples
    --------
    >>> count_seen([{"contents": contents_of([bytes(32)])}], [bytes(32), b"\\x01" * 32])
    1
    """
    known = known_contents(reports)
    return sum(digest.hex()[:16] in known for digest in digests)

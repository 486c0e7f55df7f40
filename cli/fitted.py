"""What commands that fit a predictor begin and end with: its file, what is printed of it, what is kept for later."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from featurebank.errors import shell_word
from featurebank_cli.exporting import keep_networks
from featurebank_cli.options import check_folder
from featurebank_cli.output import print_json, write_csv
from featurebank_cli.state import State


def predictor_path(bank: Any, output: Path | None) -> Path:
    """Return the file of the predictor that is to be fitted on a bank; its folder has to be there."""
    from featurebank.fitting.fit import default_output

    return checked_predictor(output or default_output(bank))


def checked_predictor(path: Path) -> Path:
    """Return the file that a predictor is to be saved to: its folder is there, and it is no file of another kind."""
    from featurebank.errors import StorageError
    from featurebank.predictor.file import target_of

    check_folder(path)
    if path.exists() and path.suffix != ".featurebank" and target_of(path) is None:
        raise StorageError(f"{str(path)!r} is there and is no predictor; name another file with -o")
    return path


def save_predictor(state: State, result: Any, path: Path) -> None:
    """Save a result's predictor, and say what it replaces."""
    from featurebank.predictor.file import target_of

    before, target = target_of(path), result.report["target"]
    written = time.strftime("%Y-%m-%d %H:%M", time.localtime(path.stat().st_mtime)) if before else ""
    result.save(path)
    if before not in (None, target):
        state.warn(f"{path} held a predictor of {before!r}; it is replaced by one of {target!r}")
    elif before:
        state.say(f"{path} held a predictor of {written}, which this one replaces; -o names another file")


def conclude_fit(state: State, result: Any, path: Path, as_json: bool, show: Callable[[dict[str, Any]], None]) -> None:
    """Save a FitResult, print its warnings and its report, and keep the networks of its predictor."""
    report = _save(state, result, path)
    if as_json:
        print_json(report)
    else:
        show(report)
        click.echo(f"predictor: {path}   next: featurebank predict {shell_word(path)} IMAGES...")
    keep_networks(state, result.predictor.networks(), path)


def _save(state: State, result: Any, path: Path) -> dict[str, Any]:
    """Save a FitResult, and its out-of-fold predictions beside it; print its warnings and return its report."""
    save_predictor(state, result, path)
    beside = path.with_suffix(".oof.csv")
    write_csv(beside, result.oof)
    report = {**result.report, "predictor": str(path), "oof": str(beside)}
    for note in report["warnings"]:
        state.warn(note)
    return report

"""featurebank label-issues."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from cloup import command, option

from featurebank.errors import shell_word
from featurebank_cli.options import (
    FILE,
    bank_argument,
    check_folder,
    csv_option,
    features_option,
    folds_option,
    groups_option,
    json_option,
    seed_option,
    target_option,
)
from featurebank_cli.output import print_json, print_rows, records, write_csv
from featurebank_cli.state import State

if TYPE_CHECKING:
    import pandas as pd

    from featurebank.storage.files import AnyPath


@command("label-issues")
@bank_argument
@target_option("Column of classes.  [default: what --predictor learned, label, or the only column]")
@option("--predictor", type=FILE, help="Of an earlier fit, to judge by its out-of-fold predictions.")
@option("--oof", type=FILE, hidden=True, help="Old spelling of --predictor: STEM.oof.csv beside it.")
@features_option("See `featurebank fit`.", multiple=True)
@option("--model", "models", multiple=True, help="See `featurebank fit`.")
@option("--task", type=click.Choice(["classification"]), help="Take whole numbers for classes, whatever they are.")
@groups_option
@folds_option()
@seed_option
@csv_option
@json_option
@click.pass_obj
def label_issues(
    state: State,
    bank: AnyPath,
    target: str | None,
    predictor: Path | None,
    oof: Path | None,
    output: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """List the samples of BANK whose label is probably wrong, the most doubtful first.

    Models are cross-validated, and each sample is judged by one that never saw it. Write the list with -o, fill in its
    last column where a label has to change, and give it back: featurebank label BANK issues.csv.

    \b
    Example:
        featurebank label-issues photos.bank -o issues.csv
    """
    from featurebank.explore import label_issues as find_issues

    fitted = {name: list(options.pop(name)) or None for name in ("features", "models")}
    if oof is not None:
        predictor = oof.with_name(oof.name.removesuffix(".oof.csv") + ".featurebank")
    if predictor is not None and any(fitted.values()):
        raise click.UsageError("give either --predictor, or --features and --model for a new fit")
    check_folder(output)
    target, known = (target, None) if predictor is None else _earlier(predictor, target)
    found = find_issues(
        bank,
        target=target,
        oof=known,
        progress=state.progress("fit", "fit"),
        random_state=options.pop("seed"),
        **fitted,
        **options,
    )
    if oof is not None:
        state.warn("--oof is now --predictor FILE.featurebank; the old spelling goes with the next release")
    column = str(found.columns[-1])
    if output is not None:
        write_csv(output, found)
        then = f"featurebank label {shell_word(bank)} {shell_word(output)}"
        state.say(f"{len(found)} doubtful labels in {output}   then: fill in its last column, and {then}")
    if as_json:
        print_json({"bank": str(bank), "target": column, "issues": records(found)})
        return
    print_rows(f"{len(found)} doubtful labels of {column}", found.iloc[:, :-1], right=(4,))


def _earlier(predictor: Path, target: str | None) -> tuple[str, pd.DataFrame]:
    """Return the target of a predictor, or the task that is named, and its out-of-fold predictions."""
    from featurebank.errors import PredictorError
    from featurebank.predictor.predictor import Predictor

    task = Predictor.load(predictor).task_of(target)
    if task.oof is None:
        raise PredictorError(
            f"{str(predictor)!r} holds no out-of-fold predictions, as files of earlier versions: fit again"
        )
    return task.target, task.oof

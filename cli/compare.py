"""featurebank compare."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from cloup import command, option

from featurebank.bank.spec import common_backbone, short
from featurebank.errors import counted
from featurebank.topmodels.formatting import gain_ends, interval_text, score_text, signed_text
from featurebank_cli.options import (
    bank_argument,
    features_option,
    folds_option,
    groups_option,
    jobs_option,
    json_option,
    one_target_option,
    repeats_option,
    sample_weight_option,
    scoring_option,
    seed_option,
    task_option,
)
from featurebank_cli.output import print_json, print_table
from featurebank_cli.state import State

if TYPE_CHECKING:
    from featurebank.storage.files import AnyPath


@command()
@bank_argument
@features_option("A feature set or NAME+NAME, may be repeated.  [default: every pooled set]", multiple=True)
@option("--model", help="The real top model, see `featurebank fit`.  [default: logreg, or svr]")
@one_target_option
@task_option
@groups_option
@sample_weight_option
@folds_option()
@repeats_option
@scoring_option
@seed_option
@jobs_option
@json_option
@click.pass_obj
def compare(
    state: State, bank: AnyPath, features: tuple[str, ...], seed: int, jobs: int, as_json: bool, **options: Any
) -> None:
    """Compare everything cached in BANK, backbones and layers, by a top model on the same folds.

    Beside the scores stand measures that need no training, LogME and the H-score, and the score of a quick ridge; below
    the table, how well each ranks the feature sets as the top model does.

    \b
    Example:
        featurebank compare photos.bank --model svm
    """
    from featurebank.explore.advice.ranking import rank_features

    options |= {"features": list(features) or None, "random_state": seed, "n_jobs": jobs}
    ranking = rank_features(bank, progress=state.progress("compare", "fit"), **options)
    for note in ranking.report["warnings"]:
        state.warn(note)
    if as_json:
        print_json(ranking.to_dict())
    else:
        _print(ranking.to_dict())


def _print(report: dict[str, Any]) -> None:
    sets = report["features"]
    common = common_backbone(each["features"] for each in sets)
    classes = f", {len(report['classes'])} classes" if report["classes"] else ""
    samples = counted(report["n_samples"], "sample")
    title = f"{report['model']}: {report['scoring']}, {report['folds']}-fold, {samples}{classes}"
    columns = ["features", "mean", "95 %", "to best", "95 %", "LogME", "H-score", "ridge"]
    rows = [_row(report, each, common) for each in sets]
    if any(each["missing"] for each in sets):
        columns.insert(1, "missing")
        rows = [[row[0], str(each["missing"]), *row[1:]] for row, each in zip(rows, sets, strict=True)]
    print_table(title + (f", {common.rstrip('/')}" if common else ""), columns, rows, right=range(1, len(columns)))
    agree = [
        [each["measure"].replace("_", "-"), _number(each["spearman"], "+.2f"), _number(each["kendall"], "+.2f")]
        for each in report["correlations"]
    ]
    scored = sum(each["score"] is not None for each in sets)
    if any(each["told_apart"] for each in sets):
        click.echo("* is told apart from the best: its interval leaves out 0.")
    if scored > 2:
        click.echo(f"Rank correlation with {report['model']} over {scored} feature sets:")
        print_table("", ["measure", "Spearman", "Kendall"], agree, right=(1, 2))


def _row(report: dict[str, Any], each: dict[str, Any], common: str) -> list[str]:
    name = short(each["features"]).removeprefix(common)
    if each["score"] is None:
        return [name, *[""] * 7]
    return [
        name,
        score_text(each["score"], report["scoring"], unit=""),
        interval_text([each["ci_low"], each["ci_high"]], report["scoring"]),
        *_to_the_best(report, each),
        _number(each["logme"], ".3f"),
        _number(each["h_score"], ".3f"),
        score_text(each["ridge"], report["scoring"], unit=""),
    ]


def _to_the_best(report: dict[str, Any], each: dict[str, Any]) -> tuple[str, str]:
    """Return the difference to the best, with a star where the two are told apart, and its interval."""
    values = (each["difference"], each["difference_low"], each["difference_high"])
    if values == (0, 0, 0):  # the best itself
        return "", ""
    star = "*" if each["told_apart"] else ""
    return signed_text(values[0], report["scoring"]) + star, gain_ends(values[1:], report["scoring"])


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)

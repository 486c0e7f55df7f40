"""featurebank advise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from cloup import command, option

from featurebank.bank.spec import short
from featurebank.errors import printable
from featurebank.topmodels.formatting import interval_text, score_text
from featurebank_cli.options import (
    bank_argument,
    folds_option,
    groups_option,
    jobs_option,
    json_option,
    one_target_option,
    repeats_option,
    sample_weight_option,
    seed_option,
)
from featurebank_cli.output import print_json, print_table
from featurebank_cli.state import State

if TYPE_CHECKING:
    from featurebank.storage.files import AnyPath


@command()
@bank_argument
@one_target_option
@groups_option
@sample_weight_option
@option("--scoring", help="A scikit-learn scorer whose best is 1.  [default: accuracy, balanced if need be, or r2]")
@folds_option()
@repeats_option
@seed_option
@jobs_option
@json_option
@click.pass_obj
def advise(state: State, bank: AnyPath, seed: int, jobs: int, as_json: bool, **options: Any) -> None:
    """Say which transfer fits the images of BANK: a top model, on which layers, or fine-tuning, of how much.

    A quick probe of every cached layer and a learning curve place the data in the table of size and similarity; what to
    run next is printed ready to run, with its cost.

    \b
    Example:
        featurebank advise photos.bank
    """
    from featurebank.explore.advice.advice import advise as run_advise

    advice = run_advise(bank, random_state=seed, n_jobs=jobs, progress=state.progress("advise", "step"), **options)
    for note in advice.report["warnings"]:
        state.warn(note)
    if as_json:
        print_json(advice.report)
    else:
        _print(advice)


def _print(advice: Any) -> None:
    report = advice.report
    rows = [
        [
            _shown(report, each["features"]),
            score_text(each["mean"], report["scoring"], unit=""),
            interval_text(each["ci95"], report["scoring"]),
        ]
        for each in report["layers"]
    ]
    rows.append(["a guess", score_text(report["chance"], report["scoring"], unit=""), ""])
    click.echo(f"{report['backbone']}, ridge probe of {report['target']}: {report['scoring']}, {report['folds']}-fold")
    print_table("layer curve", ["layer", "mean", "95 %"], rows, right=(1, 2))
    print_table("evidence", ["about", "says"], [list(line) for line in advice.lines])
    verdict = advice.verdict
    click.echo(f"{verdict.cell}: {advice.steps[0].sentence}")
    click.echo(f"Because {verdict.because}.")
    if verdict.trade:
        click.echo(f"The trade: {verdict.trade}.")
    for number, step in enumerate(advice.steps):
        word = "next" if number == 0 else "or" if step.action == verdict.alternative else "to compare with"
        word = "if you have that already" if step.action == "elsewhere" else word
        click.echo(f"\n{word}: {step.sentence} Cost: {step.cost}.")
        for line in step.commands:
            click.echo(f"  {printable(line)}")


def _shown(report: dict[str, Any], features: list[str]) -> str:
    """Return a layer without its backbone; several under one name."""
    if len(features) == 1:
        return short(features[0]).removeprefix(f"{report['backbone']}/")
    return "all together" if features == report["layers"][-1]["features"] else "lower ones together"

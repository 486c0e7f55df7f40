"""featurebank demo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from cloup import command

from featurebank.bank.spec import short
from featurebank.errors import shell_word
from featurebank.topmodels.formatting import percent
from featurebank_cli.fit import print_candidates, print_findings
from featurebank_cli.options import json_option
from featurebank_cli.output import print_json, print_table
from featurebank_cli.state import State


@command()
@json_option
@click.pass_obj
def demo(state: State, as_json: bool) -> None:
    """Run it all on 2,624 photographs of solar cells: bank, table of top models, predictor, report.

    The files go to the working folder: solar.bank, solar.featurebank, solar.report.html, solar_cells.csv.
    Needs the extra demo.

    \b
    Example:
        featurebank demo
    """
    from featurebank_cli.solar_cells import run_demo

    report = run_demo(Path(), say=state.say, make_progress=state.progress)
    if as_json:
        print_json(report)
    else:
        _print(report)


def _print(report: dict[str, Any]) -> None:
    from featurebank_cli.solar_cells import NOTE, PUBLISHED

    done = report["extract"]
    click.echo(
        f"\n{done['samples']} cells: {done['embedded']} embedded, {done['reused']} reused in {done['seconds']:.1f} s\n"
    )
    print_candidates({**report["fit"], "scoring": "protocol B, accuracy"})
    print_findings(report["fit"])
    for note in report["fit"]["warnings"]:
        click.echo(f"Note: {note}.")
    click.echo("")
    names = {"A": "A: p > 0, weighted by p, 75/25 x 5", "B": "B: p >= 0.5, 5-fold", "C": "C: p = 0 or 1, 5-fold"}
    rows = []
    for key, each in report["protocols"].items():
        what = f"{short('+'.join(each['features']))}, {each['model']}"
        rows.append([names[key], what, percent(each["score"]), "{}..{}".format(*map(percent, each["ci95"]))])
        rows += [["", f"published: {who}", percent(score), ""] for who, score in PUBLISHED[key]]
    print_table(
        "accuracy beside the published figures", ["protocol", "features and model", "%", "95 %"], rows, right=(2, 3)
    )
    click.echo(NOTE)
    click.echo("\nThree cells, of those it learned from, through the predictor:")
    for each in report["predictions"]:
        click.echo(f"  {each['path']}: {each['label']} ({percent(each['probability'])} %)")
    click.echo(
        f"\nSaved {report['bank']}, {report['predictor']} and solar_cells.csv in {report['seconds']:.0f} s.\n"
        f"The report, to open in a browser: {Path(report['report']).resolve().as_uri()}\n"
        "Try next:\n"
        f"  featurebank info {shell_word(report['bank'])}\n"
        f"  featurebank fit {shell_word(report['bank'])} --target type --model logreg -o type.featurebank\n"
        f"  featurebank predict {shell_word(report['predictor'])} YOUR_IMAGE.png\n"
        "  featurebank extract YOUR_FOLDER --bank yours.bank && featurebank fit yours.bank"
    )

"""featurebank adapt."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from cloup import command, option, option_group

from featurebank.errors import counted, printable
from featurebank.topmodels.formatting import gain_ends, interval_text, percent, signed_text
from featurebank_cli.fitted import conclude_fit, predictor_path
from featurebank_cli.options import (
    bank_argument,
    features_option,
    folds_option,
    groups_option,
    jobs_option,
    json_option,
    output_option,
    seed_option,
    target_option,
)
from featurebank_cli.output import print_table
from featurebank_cli.state import State

if TYPE_CHECKING:
    from featurebank.storage.files import AnyPath

METHODS = ("none", "coral", "subspace", "reweight", "ot")
SCORERS = ("outputs", "circular", "entropy", "density")


@command()
@bank_argument
@option_group(
    "From where to where",
    option("--domain", required=True, help="Column of domains."),
    option("--source", required=True, help="Its value whose images have labels."),
    option("--target-domain", required=True, help="Its value that the predictor is for."),
    target_option("Column of classes.  [default: label, or the only column]"),
    output_option("The predictor.  [default: BANK's stem + .featurebank]"),
)
@option_group(
    "How to adapt",
    option(
        "--method",
        "methods",
        type=click.Choice(METHODS),
        multiple=True,
        help="A way to adapt; may be repeated, and one is chosen without labels of the target domain.  [default: all]",
    ),
    option("--scorer", type=click.Choice(SCORERS), default="outputs", help="What chooses among the methods."),
    option(
        "--target-labels",
        type=click.IntRange(min=0),
        default=0,
        help="Labelled images of each class of the target domain that join the training.",
    ),
)
@option_group(
    "How to fit, as of featurebank fit",
    features_option(
        "A candidate: NAME or NAME+NAME, may be repeated; all adds the best concatenations.  "
        "[default: every pooled set]",
        multiple=True,
    ),
    option("--model", "models", multiple=True, help="A top model; may be repeated.  [default: logreg svm mlp]"),
    option("--normalize", multiple=True, help="Repeated, all are tried.  [default: standardize]"),
    groups_option,
    folds_option(),
    seed_option,
    jobs_option,
)
@json_option
@click.pass_obj
def adapt(state: State, bank: AnyPath, output: Path | None, as_json: bool, **options: Any) -> None:
    """Learn from the labels of one domain of BANK for the images of another, and save the predictor.

    A domain is a site, a camera, a kind of cell: a value of a column. Labels of the target domain only score.

    \b
    Example:
        featurebank adapt photos.bank --domain site --source north --target-domain south
    """
    from featurebank.bank.bank import Bank
    from featurebank.fitting.adaptation.adapt import adapt as run_adapt

    path = predictor_path(Bank(bank), output)
    progress = {"progress": state.progress("fit", "fit"), "on_compared": state.progress("adapt", "fit")}
    told = {} if as_json else {"on_shift": _print_shift}
    result = run_adapt(Bank(bank), **_arguments(options), **progress, **told)
    conclude_fit(state, result, path, as_json, print_adaptations)


def _arguments(options: dict[str, Any]) -> dict[str, Any]:
    """Return the library's arguments: an option that was not given is left to its default."""
    lists = {name: list(options.pop(name)) for name in ("methods", "features", "models", "normalize")}
    words = {name: "all" for name in ("features", "models") if lists[name] == ["all"]}
    random = {"random_state": options.pop("seed"), "n_jobs": options.pop("jobs")}
    return {**options, **random, **{name: value for name, value in lists.items() if value}, **words}


def _print_shift(features: list[str], line: str) -> None:
    click.echo(printable(f"{'+'.join(features)}: {line}"))


def print_adaptations(report: dict[str, Any]) -> None:
    """Print the adaptations, and what was chosen."""
    domain, best, chosen = report["domain"], report["best"], report["chosen"]
    rows = [
        _row(each, all(each[name] == chosen[name] for name in ("adapt", "params"))) for each in report["adaptations"]
    ]
    parameters = ", ".join(f"{name}={value}" for name, value in best["params"].items())
    chosen_in = f"{best['model']} ({parameters}) on {'+'.join(best['features'])}, chosen in {domain['source']} alone"
    click.echo(printable(chosen_in))
    title = (
        f"accuracy in %, {report['folds']}-fold, from {domain['source']} ({counted(domain['n_source'], 'sample')}) to "
        f"{domain['target']} ({domain['n_target']}, {domain['n_target_labelled']} with a label{_joined(report)})"
    )
    columns = ["adaptation", "source", report["scorer"], "target", "95 %", "macro F1", "gain", "95 %", ""]
    print_table(printable(title), columns, rows, right=range(1, 8))
    click.echo(printable(_verdict(report)))


def _joined(report: dict[str, Any]) -> str:
    count = report["target_labels"]
    return f"; {count} of each class join the training rows" if count else ""


def _row(each: dict[str, Any], is_chosen: bool) -> list[str]:
    name = " ".join([each["adapt"], *(str(value) for value in each["params"].values())])
    cells = [name, percent(each["source"]["accuracy"]), f"{each['unsupervised']:.3f}"]
    target, gain = each["target"], each["difference"]
    cells += (
        ["", "", ""]
        if target is None
        else [percent(target["accuracy"]), interval_text(target["ci95"], "accuracy"), percent(target["macro_f1"])]
    )
    cells += (
        ["", ""] if gain is None else [signed_text(gain["accuracy"], "accuracy"), gain_ends(gain["ci95"], "accuracy")]
    )
    return [*cells, "chosen" if is_chosen else ""]


def _verdict(report: dict[str, Any]) -> str:
    chosen, scorer, name = report["chosen"], report["scorer"], report["domain"]["target"]
    if chosen["adapt"] != "none":
        line = f"Chosen by {scorer}, without labels of {name}: {chosen['adapt']}."
    elif chosen["leader"] == "none":
        line = f"Chosen by {scorer}, without labels of {name}: no adaptation."
    else:
        line = f"No adaptation: {scorer} cannot tell the best of them, {chosen['leader']}, from the unadapted model."
    if chosen["target"] is None:
        line += f" No figure for {name}: none of its samples has a label."
    return line

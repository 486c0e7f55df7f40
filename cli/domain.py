"""The part of featurebank fit that goes from one domain to another: its flags, its call, its tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from featurebank.errors import printable
from featurebank.topmodels.formatting import percent, signed_text
from featurebank_cli.output import print_table
from featurebank_cli.state import State

ADAPTATIONS = ("none", "coral", "subspace", "reweight", "ot")
SCORERS = ("outputs", "circular", "entropy", "density")
OWN = ("domain", "source", "target_domain", "adapt", "scorer", "target_labels")
LISTS, VALUES = ("features", "models", "normalize"), ("groups", "folds", "seed", "jobs")
SHARED = (*LISTS, *VALUES, "target", "bank", "output", "as_json")
"""What else of fit has a meaning across domains."""


def domain_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the flags about domains to a command."""
    options = [
        click.option(
            "--domain",
            help="Column of domains: learn in the one --source names, for the one --target-domain names.",
        ),
        click.option("--source", help="With --domain: its value whose images have labels."),
        click.option("--target-domain", help="With --domain: its value that the predictor is for."),
        click.option(
            "--adapt",
            type=click.Choice(ADAPTATIONS),
            multiple=True,
            help="With --domain: a way to adapt; may be repeated, and one is chosen without labels of the target "
            "domain.  [default: all]",
        ),
        click.option(
            "--scorer",
            type=click.Choice(SCORERS),
            default="outputs",
            help="With --domain: what chooses among the adaptations.",
        ),
        click.option(
            "--target-labels",
            type=click.IntRange(min=0),
            default=0,
            help="With --domain: labelled images of each class of the target domain that join the training.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def run(state: State, bank: Any, options: dict[str, Any], as_json: bool) -> Any:
    """Call the library with the flags that were given, and print the shift as soon as it is known.

    Raises
    ------
    click.UsageError
        When a flag is missing, or one was given that has no meaning across domains.
    """
    own = {name: options[name] for name in OWN}
    for flag, name in (("--source", "source"), ("--target-domain", "target_domain")):
        if own[name] is None:
            raise click.UsageError(f"--domain needs {flag}, a value of the column {own['domain']!r}")
    for parameter in _given():
        if parameter.name not in (*OWN, *SHARED):
            raise click.UsageError(f"{parameter.opts[0]} does not go with --domain")
    if len(options["target"]) > 1:
        raise click.UsageError("--domain takes one --target")

    from featurebank.fitting.adaptation.domain import Hooks, fit_domain

    hooks = Hooks(
        on_shift=None if as_json else _print_shift,
        on_search=state.progress("fit", "fit"),
        on_adapt=state.progress("adapt", "fit"),
    )
    own |= {"adapt": list(own["adapt"]) or None, "target": next(iter(options["target"]), None)}
    several = {name: list(options[name]) for name in LISTS if options[name]}
    several |= {name: "all" for name in ("features", "models") if several.get(name) == ["all"]}
    alone = {name: options[name] for name in VALUES}
    return fit_domain(bank, hooks=hooks, **own, **several, **alone)


def check_unused() -> None:
    """Refuse flags that mean nothing without --domain.

    Raises
    ------
    click.UsageError
    """
    for parameter in _given():
        if parameter.name in OWN:
            raise click.UsageError(f"{parameter.opts[0]} needs --domain, the column of domains")


def _given() -> list[click.Parameter]:
    """Return the parameters that are on the command line."""
    context = click.get_current_context()
    source = click.core.ParameterSource.COMMANDLINE
    return [each for each in context.command.params if context.get_parameter_source(str(each.name)) is source]


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
        f"accuracy in %, {report['folds']}-fold, from {domain['source']} ({domain['n_source']} samples) to "
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
        else [percent(target["accuracy"]), _interval(target["ci95"]), percent(target["macro_f1"])]
    )
    cells += ["", ""] if gain is None else [signed_text(gain["accuracy"], "accuracy"), _interval(gain["ci95"])]
    return [*cells, "chosen" if is_chosen else ""]


def _interval(ends: list[float]) -> str:
    return "..".join(percent(end) for end in ends)


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

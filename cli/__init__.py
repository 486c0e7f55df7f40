"""The command line: each command parses, calls one library function, and shows what came back."""

import atexit
import gc

import click
import cloup

from featurebank import __version__
from featurebank_cli.adapt import adapt
from featurebank_cli.advise import advise
from featurebank_cli.backbones import backbones
from featurebank_cli.cache import cache
from featurebank_cli.cluster import cluster
from featurebank_cli.compact import compact, prune
from featurebank_cli.compare import compare
from featurebank_cli.demo import demo
from featurebank_cli.duplicates import duplicates
from featurebank_cli.evaluate import evaluate
from featurebank_cli.export import export
from featurebank_cli.extract import extract
from featurebank_cli.finetune import finetune
from featurebank_cli.fit import fit
from featurebank_cli.import_ import import_
from featurebank_cli.info import info
from featurebank_cli.label import label
from featurebank_cli.label_issues import label_issues
from featurebank_cli.layers import layers
from featurebank_cli.map import draw_map
from featurebank_cli.merge import merge
from featurebank_cli.next import next_
from featurebank_cli.outliers import outliers
from featurebank_cli.predict import predict
from featurebank_cli.report import report
from featurebank_cli.similar import similar
from featurebank_cli.state import NamedErrors, State
from featurebank_cli.studio import studio
from featurebank_cli.verify import verify

SECTIONS = {
    "Embed images": (extract, import_, backbones, layers),
    "Learn from them": (fit, adapt, finetune, advise, compare),
    "Use what was learned": (predict, evaluate, export),
    "Look at them": (report, draw_map, similar, duplicates, label_issues, cluster, outliers, next_, studio),
    "Keep a bank": (info, label, verify, compact, prune, merge, cache),
    "Try it": (demo,),
}


@cloup.group(cls=NamedErrors, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(__version__, prog_name="featurebank")
@click.option("--quiet", is_flag=True, help="Print results and errors only.")
@click.option("--verbose", is_flag=True, help="Print how images are read, and warnings of the libraries underneath.")
@click.pass_context
def main(context: click.Context, quiet: bool, verbose: bool) -> None:
    """Embed images once, then train, compare and ship top models in seconds.

    \b
    Example:
        featurebank extract photos/ --bank photos.bank
        featurebank fit photos.bank
        featurebank predict photos.featurebank new.jpg
    """
    context.obj = State(quiet=quiet, verbose=verbose)
    context.obj.filter_warnings()
    context.obj.show_log()


atexit.register(gc.freeze)  # a process that ends need not look for garbage: 0.1 to 0.2 s of most commands

for title, commands in SECTIONS.items():
    main.section(title, *commands)

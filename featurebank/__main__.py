"""``python -m featurebank``: the command line."""

from featurebank_cli import main

main(prog_name="featurebank")

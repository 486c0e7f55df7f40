"""python -m featurebank_cli."""

from featurebank_cli import main

main(prog_name="featurebank")

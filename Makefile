# One command each, for an environment with: pip install -e ".[test,dev,docs]"
.PHONY: test slow lint types docs

test:
	pytest -n 2

slow:
	pytest -n 2 -m slow

lint:
	ruff check .
	ruff format --check .

types:
	mypy

docs:  ## without a network; warnings are errors
	rm -rf docs/_build docs/tutorials/notebooks docs/reference/api docs/reference/commands
	sphinx-build --fail-on-warning --keep-going docs docs/_build/html

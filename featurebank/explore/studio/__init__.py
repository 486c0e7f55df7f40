"""The studio: label, refit, next, in the browser, over a bank.

Answers are written to the bank one by one (`featurebank.bank.answers`). `work` reads the embeddings (`pool`), refits
after answers (`learner`, `view`) and weighs what they show (`evidence`), all in the background; `choosing` says what
comes next; `session` is what the page asks for, `app`, `safety` and `handle` are the server, ``page/`` is the page.
"""

from featurebank import lazy

_HOMES = {"Handle": "handle", "studio": "handle"}

__all__ = ["Handle", "studio"]

__getattr__ = lazy("featurebank.explore.studio", _HOMES)

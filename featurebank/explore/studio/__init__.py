"""The studio: label, refit, next, in the browser, over a bank.

`answers` of the bank are written one by one (`featurebank.bank.answers`); `session` is what one studio knows, `pool` the
embeddings in memory, `choosing` what comes next, `learner` the model that is refitted in the background; `app`, `safety`
and `handle` are the server, `page/` what the browser gets.
"""

from featurebank import lazy

_HOMES = {"Handle": "handle", "studio": "handle"}

__all__ = ["Handle", "studio"]

__getattr__ = lazy("featurebank.explore.studio", _HOMES)

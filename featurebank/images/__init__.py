"""Images: a source lists samples, a sample becomes pixels, pixels become views; the users' columns come along.

Importing this package loads none of its modules: a feature spec knows pixel rules, and a command line knows specs.
"""

from typing import TYPE_CHECKING

from featurebank import lazy

if TYPE_CHECKING:
    from featurebank.images.decoding import decode

__all__ = ["decode"]

__getattr__ = lazy("featurebank.images", {"decode": "decoding"})

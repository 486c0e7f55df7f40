"""Images: a source lists samples, a sample becomes pixels, pixels become views; the users' columns come along."""

from featurebank.images.decoding import decode

__all__ = ["decode"]

"""Embeddings on their way to other tools and from them: one module a format, what they share in `collection`."""

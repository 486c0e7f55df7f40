"""Exact, fast cross-validation of classical top models over cached embeddings."""

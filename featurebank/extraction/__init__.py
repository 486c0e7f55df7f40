"""Extraction: images go through a frozen network once, and their embeddings into a bank."""

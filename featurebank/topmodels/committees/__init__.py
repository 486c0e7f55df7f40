"""Committees: models chosen from a search whose averaged answers are better than those of the best alone."""

"""Tar shards as WebDataset writes them: images, and beside each, under the same name, what is known of it."""

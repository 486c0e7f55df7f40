"""Embeddings on their way to other tools and from them: one module a format, what they share in `collection`."""

FORMATS = {
    "hdf5": (".h5", ".hdf5"),
    "npz": (".npz",),
    "parquet": (".parquet", ".pq"),
    "h5ad": (".h5ad",),
    "safetensors": (".safetensors",),
}
"""What can be written, and read back as it was: each a module with `write` and `read`, and the suffixes it goes by."""

READERS: dict[str, tuple[str, frozenset[str]]] = {
    **{name: (name, frozenset()) for name in FORMATS},
    "parquet": ("parquet", frozenset({"path_column", "features", "columns"})),
    "numpy": ("npy", frozenset({"samples", "path_column", "columns", "separator", "encoding", "labels_as"})),
    "clip-retrieval": ("clip_retrieval", frozenset({"path_column", "columns"})),
    "slides": ("slides", frozenset()),
    "thingsvision": ("thingsvision", frozenset()),
}
"""What can be read: the module that does, and the options that it takes."""

"""Extraction and searches over the machines of a Ray cluster, or over all GPUs of this one."""

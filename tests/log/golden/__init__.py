"""Journals of every version of the format, kept as they were written, and what is in them."""

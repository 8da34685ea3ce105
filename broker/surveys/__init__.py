"""Bytes to batches: what each survey's packets mean. Nothing after this package knows a survey's fields."""

"""Expectations per table, and the only place that imports Great Expectations."""

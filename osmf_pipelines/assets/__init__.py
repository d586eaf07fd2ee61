"""Dagster assets: read, call one function, publish through the gate, return metadata."""

"""Logs to preference pairs to models: Spark jobs on Delta tables, chained by Dagster, gated by Great Expectations."""

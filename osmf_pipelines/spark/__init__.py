"""Pure functions from DataFrames to DataFrames; `session` and `lake` are the only ones that touch the outside."""

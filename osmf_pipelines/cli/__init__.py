"""The `osmf` command."""

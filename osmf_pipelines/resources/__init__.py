"""The thin edges that assets use: lake, trainer, registry."""

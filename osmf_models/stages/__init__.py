"""What is run: each module is `python -m osmf_models.stages.<name>`."""

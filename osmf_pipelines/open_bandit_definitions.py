"""A second code location: the same assets on the Open Bandit logs, in a lake of their own."""

import dagster as dg

from osmf_pipelines.definitions import open_bandit_defs
from osmf_pipelines.settings import Settings


@dg.definitions
def defs() -> dg.Definitions:
    """The Open Bandit logs' lake."""
    return open_bandit_defs(Settings())

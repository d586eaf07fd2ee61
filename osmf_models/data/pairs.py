"""Which preference pairs a training or a judgement uses, whom they speak for, and their soft labels.

Drawing batches of them belongs in `collate.py`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from osmf_models.config import DpoConfig
from osmf_models.data.dataset import TrainingExport


def pairs_of_split(export: TrainingExport, dpo: DpoConfig, split: str) -> pd.DataFrame:
    """Returns the rows of `export.pairs` to use, with their soft label q as column `target`.

    Raises:
        ValueError: when there are none.
    """
    wants_root = dpo.pair_groups == "null"
    pairs = export.pairs[(export.pairs.split == split) & (export.pairs.is_scope_root == wants_root)]
    if pairs.empty:
        kind = "scope roots'" if wants_root else "groups'"
        raise ValueError(f"the export has no {kind} pairs of split {split} with pictures.")
    pairs = pairs.assign(target=_target(pairs, dpo.label)).reset_index(drop=True)
    if dpo.pair_groups == "shuffled" and split == "train":
        return pairs.assign(group_index=_shuffled_groups(pairs, export, dpo.training.seed))
    return pairs


def _target(pairs: pd.DataFrame, label: str) -> pd.Series:
    """Returns the evidence, or the lead as the Bradley-Terry share λ_c / (λ_c + λ_r) = σ(log rate ratio)."""
    if label == "probability":
        return pairs.chosen_better_probability
    return 1.0 / (1.0 + np.exp(-pairs.log_rate_ratio))


def _shuffled_groups(pairs: pd.DataFrame, export: TrainingExport, seed: int) -> list[int]:
    """Returns a group of the pair's scope for each pair, drawn evenly: the control without group information."""
    generator = np.random.default_rng(seed)
    rows = export.groups.reset_index(drop=True)[~export.groups.is_scope_root.to_numpy()]
    by_scope = {scope: members.index.to_numpy() for scope, members in rows.groupby("scope")}
    return [int(generator.choice(by_scope[scope])) for scope in pairs.scope]

"""Which preference pairs a training or a judgement uses, whom they speak for, and their soft labels.

Training may see more than the export's pairs, whose order is sure: every other two creatives of a product that a group
has seen tell how strongly it does *not* tell them apart. Drawing batches of them belongs in `collate.py`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from osmf_models.config import DpoConfig
from osmf_models.data.dataset import TrainingExport

_TIE = 1e-6  # a label this near to a half tells nothing


def pairs_of_split(export: TrainingExport, dpo: DpoConfig, split: str) -> pd.DataFrame:
    """Returns the rows of `export.pairs` to use, with their soft label q as column `target`.

    For split train `unsure_pairs` come after them where `dpo.has_unsure_pairs`.

    Raises:
        ValueError: when there are none, when a label is no share, or when nothing can be learned from pairs to train
            on: one group alone, or no order in any pair.
    """
    wants_root = dpo.pair_groups == "null"
    pairs = export.pairs[(export.pairs.split == split) & (export.pairs.is_scope_root == wants_root)]
    if pairs.empty:
        kind = "scope roots'" if wants_root else "groups'"
        left_out = f" ({export.num_pairs_without_picture} pairs lack a picture)"
        raise ValueError(f"the export has no {kind} pairs of split {split} with pictures{left_out}.")
    num_sure = len(pairs)
    if split == "train" and dpo.has_unsure_pairs:
        pairs = pd.concat([pairs, unsure_pairs(export, pairs, split)])
    pairs = pairs.assign(target=_target(pairs, dpo.label)).reset_index(drop=True)
    if not pairs.target.between(0.0, 1.0).all():
        raise ValueError(f"a pair's {dpo.label} label is no number in [0, 1]: export again.")
    if split == "train":
        _check_can_teach(pairs.head(num_sure), dpo)
    if dpo.pair_groups == "shuffled" and split == "train":
        return pairs.assign(group_index=shuffled_groups(pairs, export, dpo.training.seed))
    return with_contrast(pairs, dpo.training.seed) if dpo.contrast_weight > 0.0 and split == "train" else pairs


def unsure_pairs(export: TrainingExport, sure: pd.DataFrame, split: str) -> pd.DataFrame:
    """Returns every two creatives of a product that a group has seen and that `sure` does not compare, once each.

    The one of the higher rate is chosen, of equal ones the first of the export; by how much is `log_rate_ratio`, and
    there is no `chosen_better_probability`. Of scope roots no rates are exported: where `sure` is theirs, each of their
    groups speaks for the root.

    Args:
        export: whose examples are compared.
        sure: rows of `export.pairs`, all of groups or all of scope roots.
        split: of the products.
    """
    groups, is_root = export.groups, bool(sure.is_scope_root.iloc[0])
    seen = export.examples[export.examples.split == split]
    keys = ["group_index", "product_index"]
    chosen, rejected = (
        seen[[*keys, "creative_index", "log_rate_lift"]].set_axis([*keys, f"{side}_index", f"{side}_lift"], axis=1)
        for side in ("chosen", "rejected")
    )
    both = chosen.merge(rejected, on=keys)
    is_equal = (both.chosen_lift == both.rejected_lift) & (both.chosen_index < both.rejected_index)
    both = both[(both.chosen_lift > both.rejected_lift) | is_equal]
    if is_root:
        roots = pd.Series(np.flatnonzero(groups.is_scope_root), groups.scope[groups.is_scope_root])
        both["group_index"] = roots.loc[groups.scope.iloc[both.group_index]].to_numpy()
    unsure = both[~_ends(both).isin(_ends(sure))]
    return unsure[[*keys, "chosen_index", "rejected_index"]].assign(
        log_rate_ratio=unsure.chosen_lift - unsure.rejected_lift,
        scope=groups.scope.to_numpy()[unsure.group_index],
        split=split,
        is_scope_root=is_root,
        is_contradiction=False,
    )


def _ends(pairs: pd.DataFrame) -> pd.MultiIndex:
    """Returns group and creatives of each pair, whichever is chosen."""
    ends = np.sort(pairs[["chosen_index", "rejected_index"]].to_numpy(), axis=1)
    return pd.MultiIndex.from_arrays([pairs.group_index.to_numpy(), ends[:, 0], ends[:, 1]])


def with_contrast(pairs: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Returns `pairs` with a contradicting group beside each: one that has the same two creatives the other way round.

    Columns added: `contrast_group_index`, -1 where there is none, and `contrast_target`, that group's label for the
    creative that it chooses. Of several groups one is drawn, evenly.

    Raises:
        ValueError: when no pair is contradicted.
    """
    flipped = pairs[["scope", "chosen_index", "rejected_index", "group_index", "target"]].set_axis(
        ["scope", "rejected_index", "chosen_index", "contrast_group_index", "contrast_target"], axis=1
    )
    numbered = pairs[["scope", "chosen_index", "rejected_index"]].assign(row=np.arange(len(pairs)))
    both = numbered.merge(flipped, on=["scope", "chosen_index", "rejected_index"])
    if both.empty:
        raise ValueError("dpo.contrast_weight needs contradiction pairs, and no pair of split train is contradicted.")
    drawn = both.assign(order=np.random.default_rng((seed, 2)).uniform(size=len(both))).sort_values(["row", "order"])
    one_each = drawn.groupby("row").first().reindex(np.arange(len(pairs)))
    return pairs.assign(
        contrast_group_index=one_each.contrast_group_index.fillna(-1).astype(np.int64).to_numpy(),
        contrast_target=one_each.contrast_target.fillna(0.5).to_numpy(),
    )


def _check_can_teach(pairs: pd.DataFrame, dpo: DpoConfig) -> None:
    if dpo.pair_groups != "null" and pairs.group_index.nunique() == 1:
        raise ValueError("all pairs of split train speak for one group: one size is all that they teach.")
    if dpo.preference_weight > 0.0 and (pairs.target - 0.5).abs().max() < _TIE:
        raise ValueError(f"all pairs of split train are tied: by their {dpo.label} no picture is the better one.")


def _target(pairs: pd.DataFrame, label: str) -> pd.Series:
    """Returns the evidence, or the lead as the Bradley-Terry share λ_c / (λ_c + λ_r) = σ(log rate ratio)."""
    if label == "probability":
        return pairs.chosen_better_probability
    return 1.0 / (1.0 + np.exp(-pairs.log_rate_ratio))


def shuffled_groups(pairs: pd.DataFrame, export: TrainingExport, seed: int) -> list[int]:
    """Returns a group of the pair's scope for each pair, drawn evenly: the control without group information.

    Groups that are held out are not drawn.
    """
    generator = np.random.default_rng(seed)
    is_drawn = ~(export.groups.is_scope_root | export.groups.is_held_out).to_numpy()
    rows = export.groups.reset_index(drop=True)[is_drawn]
    by_scope = {scope: members.index.to_numpy() for scope, members in rows.groupby("scope")}
    return [int(generator.choice(by_scope[scope])) for scope in pairs.scope]

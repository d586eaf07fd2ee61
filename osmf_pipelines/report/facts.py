"""What the page is made of: a frozen value for each section, or why there is none.

Reading them belongs in `read.py` and the asset, saying them in the sections.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

OWN, ONE_SIZE, START = "group_dpo", "global_dpo", "pretrained"  # the arms that the page is about


@dataclass(frozen=True)
class Missing:
    """Why a section has nothing to say, and what would make it say something; a whole sentence."""

    why: str


@dataclass(frozen=True)
class ScopeFacts:
    """A product category: how much was shown of it in the window, to whom, and how many groups it has."""

    scope: str
    num_products: int
    num_creatives: int
    num_users: int
    num_impressions: int
    num_clicks: int
    num_groups: int


@dataclass(frozen=True)
class MarketFacts:
    """The logs behind a day.

    Attributes:
        first_date, last_date: of the evidence window that have logs, ISO; empty without any.
        num_events: by (event_type, outcome), of both ledgers.
        scopes: all of them.
    """

    first_date: str
    last_date: str
    num_events: Mapping[tuple[str, str], int]
    scopes: Sequence[ScopeFacts]


@dataclass(frozen=True)
class GroupFacts:
    """A group in words and numbers.

    Attributes:
        group_id, scope: which.
        description: in plain language.
        rule: who belongs to it.
        num_users, num_impressions, num_clicks: in the window.
        tastes: (feature, preference over its standard error), in the order of the features.
    """

    group_id: str
    scope: str
    description: str
    rule: str
    num_users: int
    num_impressions: int
    num_clicks: int
    tastes: Sequence[tuple[str, float]]


@dataclass(frozen=True)
class ScopePairs:
    """The pairs of a category: how many, contradicted ones among them, the share expected to be wrong."""

    scope: str
    num_pairs: int
    num_contradictions: int
    expected_wrong_share: float


@dataclass(frozen=True)
class PairFacts:
    """The preference pairs, scope roots left out.

    Attributes:
        min_probability: from which on a pair is kept.
        by_probability: (probability rounded down to thousandths, pairs, contradictions among them).
        by_scope: those of every category that has pairs.
        wrong_share: by the truth; None where none is known.
        calibration: (claimed, share of right comparisons, comparisons) by bin; empty where no truth is known.
    """

    min_probability: float
    by_probability: Sequence[tuple[float, int, int]]
    by_scope: Sequence[ScopePairs]
    wrong_share: float | None = None
    calibration: Sequence[tuple[float, float, int]] = ()

    @property
    def num_pairs(self) -> int:
        """Pairs of all categories."""
        return sum(one.num_pairs for one in self.by_scope)

    @property
    def num_contradictions(self) -> int:
        """Those among them that another group contradicts."""
        return sum(one.num_contradictions for one in self.by_scope)


@dataclass(frozen=True)
class TrainingLog:
    """What a training logged: `metrics` has the step beside the figures of each line."""

    model: str
    metrics: Sequence[Mapping[str, float]]


@dataclass(frozen=True)
class GroupLiftFacts:
    """What Group-DPO adds in a group over another arm.

    Attributes:
        scope, group_id: which group.
        own, other: figure of both arms, click rates where the truth is known, else predicted log lifts.
        value, low, high: the difference and its 95% interval.
        is_lifted: surely above, corrected for the number of groups.
        is_lowered: surely below, without correction.
    """

    scope: str
    group_id: str
    own: float
    other: float
    value: float
    low: float
    high: float
    is_lifted: bool
    is_lowered: bool


@dataclass(frozen=True)
class ImplicitRewardFacts:
    """What pairs of held-out products say of a model's implicit reward.

    Attributes:
        figures: as `osmf_models.evaluation.implicit_reward.JudgedReward` names them.
        calibration: (how sure it is of its order, label for that order, pairs) by bin.
    """

    figures: Mapping[str, float]
    calibration: Sequence[tuple[float, float, int]]


@dataclass(frozen=True)
class EvaluationFacts:
    """How models were judged on products held out of training.

    Attributes:
        is_truth_known: figures are true click rates; else predictions of the group reward model.
        num_products: judged.
        metrics: of the evaluation's record.
        arms: names, in the order shown.
        lifts: of Group-DPO by the arm that it is compared with; empty where it was not judged beside any.
        predicted: log lift over the logged pictures by (arm, group_id, product_id), those that the reward model tells.
        gallery: columns of `osmf_models.evaluation.gallery`, the `picture` a data URI; or why there is none.
        implicit_rewards: by model, None for one that has none; or why they are not known.
        mlflow_run_id: the run that it logged to; None where it ran by itself.
    """

    is_truth_known: bool
    num_products: int
    metrics: Mapping[str, float]
    arms: Sequence[str]
    lifts: Mapping[str, Sequence[GroupLiftFacts]]
    predicted: Mapping[tuple[str, ...], float]
    gallery: pd.DataFrame | Missing
    implicit_rewards: Mapping[str, ImplicitRewardFacts | None] | Missing
    mlflow_run_id: str | None = None


@dataclass(frozen=True)
class VerdictFacts:
    """What became of the model in the registry.

    Attributes:
        model_name, version: which.
        alias: champion, challenger, or none.
        reasons: of the gate, against it; empty where it passed.
        figures: what the gate looked at.
        champion: version that it was held against; None without one.
    """

    model_name: str
    version: int
    alias: str
    reasons: Sequence[str] = ()
    figures: Mapping[str, float] = field(default_factory=dict)
    champion: int | None = None


@dataclass(frozen=True)
class AblationFacts:
    """What `osmf ablate` compared.

    Attributes:
        recipe, seeds, markets: of all arms, in words.
        header, rows: of its table.
    """

    recipe: str
    seeds: str
    markets: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class ReportFacts:
    """The whole page, as of a day (ISO)."""

    as_of_date: str
    market: MarketFacts | Missing
    groups: Sequence[GroupFacts] | Missing
    pairs: PairFacts | Missing
    training: Sequence[TrainingLog] | Missing
    evaluation: EvaluationFacts | Missing
    ablation: AblationFacts | Missing
    verdict: VerdictFacts | Missing

    def missing(self) -> dict[str, str]:
        """Returns why sections have nothing to say, by name."""
        return {name: value.why for name, value in vars(self).items() if isinstance(value, Missing)}

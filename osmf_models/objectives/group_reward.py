"""What a reward model learned from pairs minimises, and how well its probabilities hold.

The implicit reward of a drawing model belongs in `group_preference.py`.

Shapes: `B` pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

_NUM_BINS = 5


@dataclass(frozen=True)
class CalibrationBin:
    """Pairs whose order a model is about equally sure of.

    Attributes:
        claimed_from: lower end of the bin; the ends are 0.1 apart.
        num_pairs: in it.
        mean_claimed: mean probability that the model gives to its order.
        mean_right: mean evidence that this order is right.
    """

    claimed_from: float
    num_pairs: int
    mean_claimed: float
    mean_right: float


def bradley_terry_loss(margins: Tensor, target: Tensor) -> Tensor:
    """Returns mean_i -[q_i log σ(m_i) + (1 - q_i) log σ(-m_i)], a scalar.

    Smallest at m = log(q / (1 - q)): with the strength λ_c / (λ_c + λ_r) as q, a margin is the log rate ratio.

    Args:
        margins: score of the chosen picture minus that of the rejected one, (B,).
        target: q, in [0, 1], (B,).

    Source: Bradley & Terry, Rank analysis of incomplete block designs, Biometrika 39, 1952.
    """
    return -(target * functional.logsigmoid(margins) + (1.0 - target) * functional.logsigmoid(-margins)).mean()


def best_temperature(margins: Tensor, chosen_better_probability: Tensor) -> float:
    """Returns the T > 0 with the least Bradley-Terry loss of margins / T against the evidence.

    The loss is convex in 1 / T, so halving an interval of log T finds it; T lies in [0.01, 100].

    Source: Guo et al., On Calibration of Modern Neural Networks, arXiv 1706.04599, section 4.
    """
    margins, evidence = margins.double(), chosen_better_probability.double()

    def slope(inverse: float) -> float:
        return float(((torch.sigmoid(inverse * margins) - evidence) * margins).mean())

    low, high = 0.01, 100.0  # of 1 / T
    for _ in range(60):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 1.0 / (low * high) ** 0.5


def calibration_bins(margins: Tensor, chosen_better_probability: Tensor) -> list[CalibrationBin]:
    """Returns how sure a model is of its order of each pair, against the evidence for that order, by bins with pairs.

    Args:
        margins: over the temperature, (B,).
        chosen_better_probability: that the chosen picture is the better one, (B,).
    """
    claimed = torch.sigmoid(margins.double().abs())
    evidence = chosen_better_probability.double()
    right = torch.where(margins > 0, evidence, torch.where(margins < 0, 1.0 - evidence, 0.5))
    number = ((claimed - 0.5) * 2 * _NUM_BINS).long().clamp(0, _NUM_BINS - 1)
    bins = []
    for index in range(_NUM_BINS):
        rows = number == index
        if rows.any():
            start = 0.5 + index / (2 * _NUM_BINS)
            bins.append(CalibrationBin(start, int(rows.sum()), float(claimed[rows].mean()), float(right[rows].mean())))
    return bins


def calibration_error(bins: list[CalibrationBin]) -> float:
    """Returns the mean distance of claimed and right over the pairs, the expected calibration error."""
    total = sum(one.num_pairs for one in bins)
    return sum(one.num_pairs * abs(one.mean_claimed - one.mean_right) for one in bins) / total

"""Batches shaped like those of a real export, of random content: for measuring speed, where nothing is learned.

A market with tastes to learn belongs in `osmf_models/simulator`.
"""

from __future__ import annotations

import numpy as np
import torch

from osmf_models.data.choice import ChoiceBatch, PretrainingBatch
from osmf_models.data.collate import Condition, GenerationBatch, PictureBatch
from osmf_models.image_features import FEATURE_NAMES
from osmf_models.model.scene_statistics import LOOK_NAMES
from osmf_models.records import ExportManifest, group_feature_names

_NUM_ATTRIBUTES, _NUM_BINS = 7, 5  # of users, as in the simulated market
_NUM_WORDS = 4000
_TITLE_WORDS, _DESCRIPTION_WORDS = 6, 30


def synthetic_manifest(image_px: int) -> ExportManifest:
    """Returns the manifest of an export that does not exist: picture size, and group features already normalised."""
    bins = tuple(f"attribute{a}={b}" for a in range(_NUM_ATTRIBUTES) for b in range(_NUM_BINS))
    names = group_feature_names(FEATURE_NAMES, bins)
    zeros, ones = (0.0,) * len(names), (1.0,) * len(names)
    return ExportManifest("1970-01-01", image_px, names, zeros, ones, table_versions={}, files=())


def synthetic_texts(num_texts: int, num_words: int, seed: int) -> list[str]:
    """Returns texts of `num_words` made-up words each, from one vocabulary whatever the seed."""
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    vocabulary = ["".join(word) for word in np.random.default_rng(0).choice(letters, (_NUM_WORDS, 6))]
    picks = np.random.default_rng(seed).integers(_NUM_WORDS, size=(num_texts, num_words))
    return [" ".join(vocabulary[pick] for pick in row) for row in picks]


def synthetic_batch(
    manifest: ExportManifest, size: int, seed: int, num_choices: int = 0, num_choice_pictures: int = 2
) -> PretrainingBatch:
    """Returns a batch of `size` random examples, and `num_choices` rows of random pictures to choose from."""
    generator = torch.Generator().manual_seed(seed)
    px = manifest.image_px

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=generator)

    def condition(count: int) -> Condition:
        return Condition(
            product_view=uniform(count, 3, px, px),
            titles=synthetic_texts(count, _TITLE_WORDS, seed),
            group_features=torch.randn(count, len(manifest.group_feature_names), generator=generator),
            is_null_group=uniform(count) < 0.1,
        )

    of_examples = condition(size)
    pictures = PictureBatch(
        images=uniform(size, 3, px, px),
        masks=uniform(size, 1, px, px).round(),
        noise=torch.randn(size, 3, px, px, generator=generator),
        time=0.02 + 0.98 * uniform(size),
    )
    generation = GenerationBatch(of_examples, pictures, synthetic_texts(size, _DESCRIPTION_WORDS, seed + 1))
    if not num_choices:
        return PretrainingBatch(generation)
    of_pairs = (num_choices, num_choice_pictures, num_choice_pictures)
    row = uniform(num_choices, num_choice_pictures, 3, px, px)
    known, looks = torch.ones(of_pairs).triu(1).bool(), uniform(num_choices, num_choice_pictures, len(LOOK_NAMES))
    choice = ChoiceBatch(condition(num_choices), row, uniform(*of_pairs), known, looks)
    return PretrainingBatch(generation, choice)

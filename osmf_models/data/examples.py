"""Which examples pretraining draws, and how often each.

Drawing batches of them belongs in `collate.py`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from osmf_models.data.dataset import TrainingExport


def examples_of_split(export: TrainingExport, sharpness: float, *splits: str) -> pd.DataFrame:
    """Returns the rows of `export.examples` to draw from, with column `sampling_weight`.

    A creative's weight is its rate in the group to the power of `sharpness`, as share of all creatives of the product
    there: so that every (group, product) is drawn as often, and the pictures that the group prefers more often.

    Args:
        export: where they come from.
        sharpness: 0 draws creatives of a product evenly, 1 as often as the group clicks them, more the best the more.
        splits: of the products.

    Raises:
        ValueError: when there are none.
    """
    examples = export.examples[export.examples.split.isin(splits)]
    if examples.empty:
        raise ValueError(f"the export has no generation examples of split {', '.join(splits)} with pictures.")
    weight = np.exp(sharpness * examples.log_rate_lift)
    of_product = [examples.group_index, examples.product_index]
    return examples.assign(sampling_weight=weight / weight.groupby(of_product).transform("sum"))

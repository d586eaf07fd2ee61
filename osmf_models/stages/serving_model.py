"""The registered model as MLflow serves it: this file is the model's code, its weights are safetensors beside it.

One row in (product picture, title, group), one ad picture out. Registering belongs in `register.py`.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.exceptions import INVALID_PARAMETER_VALUE, MlflowException
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel
from numpy.typing import NDArray
from PIL import Image

DEFAULT_PARAMS = {"num_inference_steps": 12, "guidance_scale": 1.0, "seed": 0}
INPUT_COLUMNS = ("product_png", "title", "group_id")


class BadInputError(MlflowException, ValueError):
    """What was asked for cannot be drawn; MLflow's server tells the text of its own exceptions alone."""

    def __init__(self, message: str):
        super().__init__(message, error_code=INVALID_PARAMETER_VALUE)


class GroupAdModel(PythonModel):
    """Draws one ad picture per row with the pipeline and the group features that it was registered with."""

    def load_context(self, context: Any) -> None:
        """Loads the pipeline and the table of groups."""
        from osmf_models.model.pipeline import GroupAdPipeline

        self._pipeline = GroupAdPipeline.from_pretrained(Path(context.artifacts["pipeline"]), local_files_only=True)
        self._groups = pd.read_parquet(context.artifacts["groups"]).set_index("group_id")

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Returns a column `image_png` of base64 PNG pictures.

        Args:
            context: of MLflow, not used.
            model_input: product_png: base64 PNG, RGBA, the product where it is to stand, alpha says where it is;
                title; group_id: a group, or a scope's root for a picture for everyone.
            params: num_inference_steps, guidance_scale, seed of the noise (the same for every row).

        Raises:
            BadInputError: when a group is unknown or a picture cannot be used.
        """
        settings = {**DEFAULT_PARAMS, **(params or {})}
        unknown = sorted(set(model_input.group_id) - set(self._groups.index))
        if unknown:
            raise BadInputError(
                f"group {unknown[0]!r} is not one that this model knows: ask for one of the day that it was "
                "trained on, or for its category's root."
            )
        cutouts = np.stack([self._decode(text) for text in model_input.product_png])
        is_root = self._groups.is_scope_root[model_input.group_id].to_numpy(bool)
        images = np.empty((*cutouts.shape[:3], 3), np.float32)
        for for_everyone in (True, False):
            rows = np.flatnonzero(is_root == for_everyone)
            if len(rows):
                images[rows] = self._draw(cutouts[rows], model_input.iloc[rows], for_everyone, settings)
        return pd.DataFrame({"image_png": [_encode(image) for image in images]})

    def _draw(
        self, cutouts: NDArray[np.floating], rows: pd.DataFrame, for_everyone: bool, settings: dict[str, Any]
    ) -> NDArray[np.floating]:
        import torch

        features = None if for_everyone else np.stack(list(self._groups.features[rows.group_id])).astype(np.float32)
        return self._pipeline(
            cutouts[..., :3],
            cutouts[..., 3],
            list(rows.title),
            features,
            num_inference_steps=int(settings["num_inference_steps"]),
            guidance_scale=float(settings["guidance_scale"]),
            generator=[torch.Generator().manual_seed(int(settings["seed"])) for _ in range(len(rows))],
        )

    def _decode(self, text: str) -> NDArray[np.floating]:
        """Returns an RGBA picture in [0, 1], (H, W, 4)."""
        px = self._pipeline.image_px
        try:
            with Image.open(io.BytesIO(base64.b64decode(text, validate=True)), formats=["PNG"]) as image:
                if image.size != (px, px) or image.mode != "RGBA":
                    raise BadInputError(
                        f"product_png is {image.size} px, {image.mode}; it must be {px} x {px} px, RGBA."
                    )
                return np.asarray(image, np.float32) / 255.0
        except BadInputError:
            raise
        except (Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
            raise BadInputError(f"product_png is no base64 PNG picture: {error}.") from error


def _encode(image: NDArray[np.floating]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


set_model(GroupAdModel())

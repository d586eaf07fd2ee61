"""How a team's own cut-out becomes a drawing at its placement: decoded, resized and set on its foot.

Which files may be used, and that they are safe to decode, does not belong here: see `own_products`.
"""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from osmf_models.simulator.shapes import Array, Placement

_BOX = 0.62  # side of the box that the cut-out fits into at scale 1, as a share of the picture's side
_SUPERSAMPLING = 4


def fit_cutout(cutout_png: str, placement: Placement, image_px: int) -> Array:
    """Returns the cut-out at its place, RGBA in [0, 1], (H, W, 4), colour not premultiplied.

    Args:
        cutout_png: base64 of an RGBA PNG, cropped to what it shows.
        placement: where its foot stands and how large it is; the aspect ratio is kept.
        image_px: side H = W of the picture.
    """
    side = image_px * _SUPERSAMPLING
    with Image.open(io.BytesIO(base64.b64decode(cutout_png)), formats=["PNG"]) as picture:
        longest = _BOX * placement.scale * side / max(picture.size)
        size = tuple(max(1, round(length * longest)) for length in picture.size)
        # Pillow premultiplies RGBA by alpha while it resizes, so that hidden colours don't bleed into the edge.
        resized = picture.convert("RGBA").resize((size[0], size[1]), Image.Resampling.LANCZOS)
    canvas = Image.new("RGBA", (side, side))
    canvas.paste(resized, (round(placement.x * side - size[0] / 2), round(placement.foot * side) - size[1]))
    values = np.asarray(canvas, dtype=np.float64) / 255.0
    premultiplied = np.concatenate([values[..., :3] * values[..., 3:], values[..., 3:]], axis=-1)
    mean = premultiplied.reshape(image_px, _SUPERSAMPLING, image_px, _SUPERSAMPLING, 4).mean((1, 3))
    return np.concatenate([mean[..., :3] / np.maximum(mean[..., 3:], 1e-6), mean[..., 3:]], axis=-1).clip(0, 1)

"""Pictures inside the page: decoded, made small and encoded anew, so that nothing but pixels gets through."""

from __future__ import annotations

import base64
import io

import pandas as pd
from PIL import Image, UnidentifiedImageError

_MAX_SIDE_PX = 4096  # of what is decoded at all
_SHOWN_PX = 256
_QUALITY = 90


def with_pictures(gallery: pd.DataFrame) -> pd.DataFrame:
    """Returns a gallery whose pictures are `data:` URIs, in the column `picture`.

    Args:
        gallery: as `osmf_models.evaluation.gallery` reads it.

    Raises:
        ValueError: when one is no picture.
    """
    told = zip(gallery.image_png, gallery.arm, gallery.product_id, strict=True)
    pictures = [data_uri(png, f"{arm} of {product_id}") for png, arm, product_id in told]
    return gallery.drop(columns="image_png").assign(picture=pictures)


def data_uri(png: bytes, name: str) -> str:
    """Returns a picture as a `data:` URI of a JPEG whose longer side is 256 px or less.

    Args:
        png: the picture; a part that is transparent shows on grey.
        name: of the picture, for messages.

    Raises:
        ValueError: when it is no readable PNG, or one of more than 4096 px.
    """
    try:
        with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
            if max(image.size) > _MAX_SIDE_PX:
                raise ValueError(f"picture of {name} is {image.size} px, more than {_MAX_SIDE_PX}.")
            pixels = image.convert("RGBA")
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError) as error:
        raise ValueError(f"picture of {name} is no readable PNG: {error}.") from error
    shown = Image.new("RGBA", pixels.size, (128, 128, 128, 255))
    shown.alpha_composite(pixels)
    shown.thumbnail((_SHOWN_PX, _SHOWN_PX), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    shown.convert("RGB").save(buffer, "JPEG", quality=_QUALITY, subsampling=0, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"

"""The PNG pictures of an export: what each must be like, and its pixels.

Where their bytes lie belongs in `unpacked.py`.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

Floats = NDArray[np.float32]
Value = TypeVar("Value")


@dataclass(frozen=True)
class PngFormat:
    """What the pictures of one column are like.

    Attributes:
        kind: what they are, for messages.
        mode: of Pillow, of each of them.
        image_px: their side.
        max_px: the largest side that is looked at.
    """

    kind: str
    mode: str
    image_px: int
    max_px: int

    def check(self, name: str, png: bytes | None) -> None:
        """Looks at what the picture of `name` says of itself, without decoding it.

        Raises:
            ValueError: when it is missing, is no PNG, or has another mode or size.
        """
        self._read(name, png, lambda image: None)

    def decode(self, name: str, png: bytes) -> Floats:
        """Returns the picture of `name` with values in [0, 1]: (H, W, channels), or (H, W) for mode L.

        Raises:
            ValueError: as `check`, and when it cannot be decoded.
        """
        return self._read(name, png, lambda image: np.asarray(image, dtype=np.float32) / 255.0)

    def _read(self, name: str, png: bytes | None, look: Callable[[Image.Image], Value]) -> Value:
        if not png:
            raise ValueError(f"the {self.kind} of {name} is missing: export again.")
        try:
            with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
                if wrong := self._what_is_wrong(image):
                    raise ValueError(f"the {self.kind} of {name} is {wrong}: export again.")
                return look(image)
        except UnidentifiedImageError as error:
            raise ValueError(f"the {self.kind} of {name} is no readable PNG: export again.") from error
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise ValueError(f"the {self.kind} of {name} is no readable PNG ({error}): export again.") from error

    def _what_is_wrong(self, image: Image.Image) -> str:
        if max(image.size) > self.max_px:
            return f"{image.size} px, more than {self.max_px} (data.max_image_px)"
        if image.mode != self.mode:
            return f"of mode {image.mode}, where {self.mode} is needed"
        if image.size != (self.image_px, self.image_px):
            return f"{image.size} px, where the manifest says {self.image_px}"
        return ""

"""Pictures on disk: a PNG for each fingerprint, that tells what it was drawn from, and is never changed.

A picture appears whole or not at all, so that a run that was ended half-way goes on with those that are missing, and an
ad server may read while the next ones are drawn. Which pictures are asked for belongs in `requests.py`.
"""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from osmf_models.generation.requests import Drawing, PictureRequest

Pixels = NDArray[np.uint8]
_NAME_CHARS = 80
_FINGERPRINT_CHARS = 16


class PictureStore:
    """A folder of pictures, `AUDIENCE/PRODUCT-FINGERPRINT.png`.

    Args:
        folder: where they lie.
        image_px: their side.
    """

    def __init__(self, folder: Path, image_px: int):
        self.folder = folder.absolute()
        self.image_px = image_px

    def path(self, request: PictureRequest) -> Path:
        """Returns where the picture of a request lies once it is drawn."""
        name = f"{_file_name(request.product_id)}-{request.fingerprint[:_FINGERPRINT_CHARS]}.png"
        return self.folder / _file_name(request.audience) / name

    def read(self, request: PictureRequest) -> tuple[Pixels, str] | None:
        """Returns the picture, (H, W, 3), and the sha256 of its file; None where it is missing, broken or another."""
        path = self.path(request)
        try:
            content = path.read_bytes()
            with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
                is_right = image.info.get("fingerprint") == request.fingerprint and image.mode == "RGB"
                if not is_right or image.size != (self.image_px, self.image_px):
                    return None
                return np.asarray(image), hashlib.sha256(content).hexdigest()
        except (OSError, SyntaxError):  # missing, or no whole PNG
            return None

    def write(self, request: PictureRequest, drawing: Drawing, image: NDArray[np.floating]) -> None:
        """Writes a picture, (H, W, 3) in [0, 1], atomically."""
        told = PngInfo()
        for name, text in (
            ("fingerprint", request.fingerprint),
            ("model_sha256", drawing.artifact_sha256),
            ("seed", str(request.seed)),
            ("audience", request.audience),
            ("product_id", request.product_id),
        ):
            told.add_itxt(name, text)
        path = self.path(request)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp")
        pixels = np.round(np.clip(image, 0.0, 1.0) * 255.0).astype(np.uint8)
        with temporary.open("wb") as file:
            Image.fromarray(pixels).save(file, "PNG", pnginfo=told)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)


def _file_name(text: str) -> str:
    """Returns a name that is safe in any file system; a long one is cut, the fingerprint tells them apart."""
    return quote(text, safe="").replace(".", "%2E")[:_NAME_CHARS]

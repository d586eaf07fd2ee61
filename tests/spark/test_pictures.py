import hashlib
import io

import numpy as np
import pytest
from PIL import Image
from planted_tables import table_frame

from osmf_models.image_features import FEATURE_NAMES
from osmf_pipelines.spark.pictures import PictureError, decode_picture, hash_cutouts, measure_creatives, read_picture
from osmf_pipelines.tables import TABLES


def _encoded(image: Image.Image, file_format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def _halves(top: int, bottom: int) -> Image.Image:
    """A grey picture of 40 x 20 pixels, its upper half `top`."""
    pixels = np.full((20, 40, 3), bottom, np.uint8)
    pixels[:10] = top
    return Image.fromarray(pixels)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP"])
def test_the_formats_of_ad_pictures_are_read(tmp_path, file_format):
    path = tmp_path / "picture"
    path.write_bytes(_encoded(_halves(200, 50), file_format))

    pixels = np.asarray(read_picture(str(path), "RGB"), dtype=int)

    assert pixels.shape == (20, 40, 3)
    assert np.abs(pixels[:8] - 200).max() < 8
    assert np.abs(pixels[12:] - 50).max() < 8


def test_a_picture_is_turned_as_its_camera_says():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned 90 degrees clockwise

    pixels = np.asarray(decode_picture(_encoded(_halves(255, 0), "PNG", exif=exif), "L", "p"))

    assert pixels.shape == (40, 20)
    assert (pixels[:, 10:] == 255).all()
    assert (pixels[:, :10] == 0).all()


_BROKEN = {
    "of another format": (_encoded(_halves(1, 2), "GIF"), "unreadable"),
    "no picture": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unreadable"),
    "empty": (b"", "unreadable"),
    "cut short": (_encoded(_halves(1, 2), "JPEG")[:-200], "unreadable"),
    "more than 8 bits a channel": (_encoded(Image.fromarray(np.zeros((20, 20), np.uint16)), "PNG"), "unreadable"),
    "a tracking pixel": (_encoded(Image.new("RGB", (1, 1)), "PNG"), "too_small"),
    "small as a file, large when decoded": (_encoded(Image.new("1", (5001, 5000)), "PNG"), "too_large"),
    "larger than Pillow opens": (_encoded(Image.new("1", (30_000, 10_000)), "PNG"), "too_large"),
}


@pytest.mark.parametrize("name", _BROKEN)
def test_what_cannot_be_read_is_refused_by_name(tmp_path, name):
    content, fault = _BROKEN[name]
    path = tmp_path / "picture"
    path.write_bytes(content)

    with pytest.raises(PictureError, match=str(path)) as caught:
        read_picture(str(path), "RGB")

    assert caught.value.fault == fault


def test_a_folder_a_gap_and_an_endless_device_are_no_pictures(tmp_path):
    for path in (tmp_path, tmp_path / "gone.png", "/dev/zero"):
        with pytest.raises(PictureError) as caught:
            read_picture(str(path), "RGB")
        assert caught.value.fault == "missing"


def test_a_file_is_not_read_to_memory_when_it_is_too_large(tmp_path):
    path = tmp_path / "sparse.png"
    with path.open("wb") as file:
        file.truncate(2**40)

    with pytest.raises(PictureError) as caught:
        read_picture(str(path), "RGB")

    assert caught.value.fault == "too_large"


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP"])
def test_damaged_bytes_give_a_picture_or_the_one_named_error(file_format):
    rng = np.random.default_rng(0)
    whole = _encoded(Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)), file_format)
    num_refused = 0
    for _ in range(300):
        damaged = np.frombuffer(whole, np.uint8)[: rng.integers(1, len(whole) + 1)].copy()
        damaged[rng.integers(0, len(damaged), 3)] = rng.integers(0, 256, 3)
        try:
            decode_picture(damaged.tobytes(), "RGBA", "p")
        except PictureError:
            num_refused += 1

    assert num_refused > 100


def test_cutouts_are_hashed_and_what_shows_no_product_alone_is_told(spark, tmp_path):
    ellipse = np.zeros((20, 20, 4), np.uint8)
    ellipse[5:15, 5:15] = 255
    contents = {
        "whole": _encoded(Image.fromarray(ellipse), "PNG"),
        "same": _encoded(Image.fromarray(ellipse), "PNG"),
        "opaque": _encoded(_halves(1, 2), "JPEG"),
        "empty": _encoded(Image.new("RGBA", (20, 20)), "PNG"),
        "broken": b"not a picture",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    rows = [{"product_id": name, "cutout_path": str(tmp_path / name)} for name in (*contents, "gone")]
    products = table_frame(spark, "products", [*rows, {"product_id": "none"}])

    found = {row["product_id"]: row for row in hash_cutouts(products).collect()}

    assert {name: row["cutout_refusal"] for name, row in found.items()} == {
        "whole": None,
        "same": None,
        "opaque": "cutout_opaque",
        "empty": "cutout_empty",
        "broken": "cutout_unreadable",
        "gone": "cutout_missing",
        "none": None,
    }
    digests = {name: row["cutout_sha256"] for name, row in found.items()}
    assert digests["whole"] == digests["same"] == hashlib.sha256(contents["whole"]).hexdigest()
    assert digests["opaque"] == hashlib.sha256(contents["opaque"]).hexdigest()
    assert digests["broken"] is digests["gone"] is digests["none"] is None


@pytest.fixture
def shop(spark, tmp_path):
    """Creatives of the same picture, white above grey; of the product, black, 4 x 8 pixels lie in each half."""
    picture = np.full((20, 40, 3), 51, np.uint8)
    picture[:10] = 255
    mask = np.zeros((20, 40), np.uint8)
    mask[2:6, 8:16] = mask[12:16, 8:16] = 255
    picture[mask > 0] = 0
    Image.fromarray(picture).save(tmp_path / "picture.png")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    own = {"feature_values": [1.5, None], "feature_names": ["price_tag", "model_face"]}
    creatives = [
        {"creative_id": name, "product_id": "p", "image_path": str(tmp_path / "picture.png"), **more}
        for name, more in {"masked": {}, "unmasked": {}, "mask-refused": {}, "picture-refused": {}, "own": own}.items()
    ]
    creatives += [
        {"creative_id": "own-without-picture", "product_id": "p", **own},
        {"creative_id": "nothing", "product_id": "p"},
    ]
    findings = {
        "masked": {"mask_path": str(tmp_path / "mask.png"), "mask_coverage": 0.08},
        "unmasked": {},
        "mask-refused": {"mask_coverage": 0.95, "refusal": "mask_covers_too_much"},
        "picture-refused": {"refusal": "picture_unreadable"},
        "own": {"mask_path": str(tmp_path / "mask.png"), "mask_coverage": 0.08},
    }
    masks = [
        {"creative_id": name, "image_path": str(tmp_path / "picture.png"), **more} for name, more in findings.items()
    ]
    return (
        table_frame(spark, "creatives", creatives),
        table_frame(spark, "products", [{"product_id": "p", "scope": "shoes"}]),
        table_frame(spark, "product_masks", masks),
    )


def test_features_are_of_the_scene_or_of_the_whole_picture_without_a_mask(shop):
    frame = measure_creatives(*shop)
    rows = {row["creative_id"]: row for row in frame.collect()}

    assert frame.columns == TABLES["creative_features"].column_names
    assert set(rows) == {"masked", "unmasked", "mask-refused", "own", "own-without-picture"}
    scene, whole = (
        dict(zip(FEATURE_NAMES, rows[name]["feature_values"], strict=True)) for name in ("masked", "unmasked")
    )
    # Luma 1.0 above and 0.2 below; the product is black over 8% of each half.
    assert scene["brightness"] == pytest.approx(0.6)
    assert scene["gradient"] == pytest.approx(0.8)
    assert whole["brightness"] == pytest.approx(0.92 * 0.6)
    assert whole["gradient"] == pytest.approx(0.92 * 0.8)
    assert scene["warmth"] == scene["saturation"] == pytest.approx(0.0)
    assert scene["texture"] < whole["texture"]
    assert rows["mask-refused"]["feature_values"] == rows["unmasked"]["feature_values"]
    coverages = {name: row["mask_coverage"] for name, row in rows.items()}
    assert coverages.pop("masked") == 0.08
    assert set(coverages.values()) == {None}
    assert rows["masked"]["scope"] == "shoes"


def test_the_sources_own_features_go_before_the_picture(shop):
    rows = {row["creative_id"]: row for row in measure_creatives(*shop).collect()}

    for name in ("own", "own-without-picture"):
        assert rows[name]["feature_names"] == ["price_tag", "model_face"]
        assert rows[name]["feature_values"] == [1.5, None]


def test_a_picture_that_has_gone_since_is_told_with_the_remedy(shop, tmp_path):
    (tmp_path / "picture.png").unlink()

    with pytest.raises(Exception, match=r"picture\.png.*has changed since `product_masks` was made"):
        measure_creatives(*shop).collect()

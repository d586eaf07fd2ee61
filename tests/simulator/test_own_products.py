"""A team's own cut-outs: what is read back, and what is refused before it is decoded or used."""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import asdict, replace

import numpy as np
import pytest
from PIL import Image

from osmf_models.simulator import own_products
from osmf_models.simulator.own_products import read_own_products
from osmf_models.simulator.products import draw_cutout
from osmf_models.simulator.shapes import Placement

HEADER = "file,category,title,price\n"
RED, GREEN = (200, 40, 60), (30, 160, 90)


def cut_out(colour=RED, size=(400, 300)) -> Image.Image:
    """A solid block in the middle half of the picture, on transparent white."""
    width, height = size
    pixels = np.full((height, width, 4), (255, 255, 255, 0), dtype=np.uint8)
    pixels[height // 4 : height - height // 4, width // 4 : width - width // 4] = (*colour, 255)
    return Image.fromarray(pixels)


@pytest.fixture
def folder(tmp_path):
    cut_out(RED).save(tmp_path / "red.png")
    cut_out(GREEN, (1400, 2000)).save(tmp_path / "green.webp", lossless=True)
    cut_out(RED, (90, 80)).save(tmp_path / "small.png")
    rows = 'red.png,vase,"Vase, red",19.50\ngreen.webp,vase,Green vase,45\nsmall.png,hat_2,Hat,12\n'
    (tmp_path / "products.csv").write_text(HEADER + rows)
    return tmp_path


def test_a_good_folder_becomes_products(folder):
    red, green, hat = read_own_products(folder, 3, 0.03)
    assert [p.product_id for p in (red, green, hat)] == ["vase-000", "vase-001", "hat_2-000"]
    assert (red.title, red.price, red.variant, red.scope) == ("Vase, red", 19.5, "own", "vase")
    assert (red.price_band, green.price_band) == ("budget", "mid")
    np.testing.assert_allclose(np.array(red.colour) * 255, RED, atol=1)
    np.testing.assert_allclose(np.array(green.colour) * 255, GREEN, atol=1)
    assert dict(red.attributes) == {"colour": "Red"}
    assert 0.01 <= hat.base_rate <= 0.05
    assert read_own_products(folder, 3, 0.03) == (red, green, hat)
    assert json.loads(json.dumps(asdict(red)))["cutout_png"] == red.cutout_png


def test_the_cut_out_stands_at_its_placement_in_its_colours_without_a_fringe(folder):
    red, green, _ = read_own_products(folder, 3, 0.03)
    for product, colour, aspect in ((red, RED, 200 / 150), (green, GREEN, 700 / 1000)):
        picture = draw_cutout(replace(product, placement=Placement(scale=0.9, x=0.45, foot=0.83)), 64)
        alpha = picture[..., 3]
        width, height = alpha.max(0).sum() / 64, alpha.max(1).sum() / 64
        assert max(width, height) == pytest.approx(0.62 * 0.9, abs=0.02)
        assert width / height == pytest.approx(aspect, rel=0.05)
        assert (alpha.sum(0) @ (np.arange(64) + 0.5)) / alpha.sum() / 64 == pytest.approx(0.45, abs=0.01)
        assert (np.flatnonzero(alpha.max(1) > 0.5)[-1] + 1) / 64 == pytest.approx(0.83, abs=0.02)
        assert alpha.mean() == pytest.approx(width * height, rel=0.02)
        np.testing.assert_allclose(picture[alpha > 0.1][:, :3] * 255, [colour] * (alpha > 0.1).sum(), atol=6)
        assert alpha[:8].max() == 0.0


def test_soft_edges_stay_soft(folder):
    fade = np.full((200, 200, 4), (*GREEN, 0), dtype=np.uint8)
    fade[10:190, 10:190, 3] = np.linspace(8, 255, 180).astype(np.uint8)
    Image.fromarray(fade).save(folder / "red.png")
    picture = draw_cutout(read_own_products(folder, 0, 0.03)[0], 128)
    middle = np.flatnonzero(picture[..., 3].max(1))[30]
    columns = picture[middle, picture[middle, :, 3] > 0.02]
    assert (np.diff(columns[1:-1, 3]) > 0).all()
    np.testing.assert_allclose(columns[columns[:, 3] > 0.1, 1] * 255, GREEN[1], atol=8)


def test_equal_prices_share_a_band_and_three_prices_fill_all(folder):
    cut_out().save(folder / "other.png")
    rows = "red.png,vase,A,10\ngreen.webp,vase,B,20\nsmall.png,vase,C,30\nother.png,cup,D,5\n"
    (folder / "products.csv").write_text(HEADER + rows)
    bands = [product.price_band for product in read_own_products(folder, 0, 0.03)]
    assert bands == ["budget", "mid", "premium", "budget"]
    (folder / "products.csv").write_text(HEADER + rows.replace(",30", ",10").replace(",20", ",10"))
    assert {product.price_band for product in read_own_products(folder, 0, 0.03)} == {"budget"}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("file,category,title\nred.png,vase,Vase\n", "lacks the columns price"),
        (HEADER, "no rows"),
        (HEADER + "red.png,Vase,Vase,10\n", "line 2: category 'Vase'"),
        (HEADER + "red.png,../x,Vase,10\n", "category"),
        (HEADER + "red.png,vase,  ,10\n", "title is empty"),
        (HEADER + ",vase,Vase,10\n", "no file name"),
        (HEADER + "red.png,vase,V\x1b[2J,10\n", "cannot be printed"),
        (HEADER + f"red.png,{'v' * 41},Vase,10\n", "at most 40"),
        (HEADER + "a\0.png,vase,Vase,10\n", "no file name"),
        (HEADER + "red.png,vase,Vase,ten\n", "'ten' is not a number"),
        (HEADER + "red.png,vase,Vase,-3\n", "above 0"),
        (HEADER + "red.png,vase,Vase,nan\n", "finite"),
        (HEADER + "red.png,vase,Vase\n", "number of values"),
        (HEADER + "red.png,vase,Vase, red,10\n", "number of values"),
        (HEADER + "red.png,vase,A,10\nred.png,vase,B,10\n", "line 3: the same file"),
        (HEADER + "red.png,vase,A,10\nsmall.png,vase,A,10\n", "line 3: the same title"),
        (HEADER + "absent.png,vase,Vase,10\n", r"absent\.png is no file"),
        (HEADER + "../outside.png,vase,Vase,10\n", "outside"),
        (HEADER + "/etc/hostname,vase,Vase,10\n", "outside"),
        (HEADER + 'red.png,vase,"Vase,10\n', "not a CSV table"),
    ],
)
def test_a_bad_table_is_refused_with_its_line(folder, table, message):
    cut_out().save(folder.parent / "outside.png")
    (folder / "products.csv").write_text(table)
    with pytest.raises(ValueError, match=message) as refusal:
        read_own_products(folder, 0, 0.03)
    assert "products.csv" in str(refusal.value)


def test_a_folder_without_a_table_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"products\.csv is no file"):
        read_own_products(tmp_path, 0, 0.03)


def test_links_are_refused(folder):
    cut_out().save(folder.parent / "elsewhere.png")
    (folder / "red.png").unlink()
    (folder / "red.png").symlink_to(folder.parent / "elsewhere.png")
    with pytest.raises(ValueError, match=r"red\.png is reached through a symbolic link"):
        read_own_products(folder, 0, 0.03)


def bomb() -> bytes:
    """A PNG whose header claims 20,000 x 20,000 pixels and whose data would decode to nothing."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 20_000, 20_000, 8, 6, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def spoil(path, kind: str) -> None:
    if kind == "opaque":
        Image.new("RGBA", (50, 50), (*RED, 255)).save(path)
    elif kind == "empty":
        Image.new("RGBA", (50, 50), (*RED, 0)).save(path)
    elif kind == "no alpha":
        cut_out().convert("RGB").save(path)
    elif kind == "palette":
        cut_out().convert("P").save(path)
    elif kind == "animated":
        cut_out().save(path, save_all=True, append_images=[cut_out(GREEN)])
    elif kind == "jpeg":
        cut_out().convert("RGB").save(path, format="JPEG")
    elif kind == "truncated":
        path.write_bytes(path.read_bytes()[:-400])
    elif kind == "text":
        path.write_text("not a picture")
    elif kind == "bomb":
        path.write_bytes(bomb())


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("opaque", "transparent"),
        ("empty", "opaque"),
        ("no alpha", "no alpha channel"),
        ("palette", "no alpha channel"),
        ("animated", "animated"),
        ("jpeg", "cannot be decoded"),
        ("truncated", "cannot be decoded"),
        ("text", "cannot be decoded"),
        ("bomb", "20000|bomb"),
    ],
)
def test_a_bad_picture_is_refused_with_its_line_and_name(folder, kind, message):
    spoil(folder / "red.png", kind)
    with pytest.raises(ValueError, match=message) as refusal:
        read_own_products(folder, 0, 0.03)
    assert "line 2: red.png" in str(refusal.value)


def test_limits_on_bytes_and_pixels_hold_before_decoding(folder, monkeypatch):
    monkeypatch.setattr(own_products, "_MAX_PIXELS", 100_000)
    with pytest.raises(ValueError, match=r"red\.png has 400 x 300 pixels"):
        read_own_products(folder, 0, 0.03)
    monkeypatch.setattr(own_products, "_MAX_BYTES", 100)
    with pytest.raises(ValueError, match=r"red\.png is larger"):
        read_own_products(folder, 0, 0.03)

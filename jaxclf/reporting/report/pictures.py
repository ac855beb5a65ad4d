"""Pictures embedded in a page: images as data URIs and figures as SVG."""

from __future__ import annotations

import base64
import io
import re
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup
from PIL import Image

from jaxclf.figures.axes import RIGHT, WRONG, render_svg
from jaxclf.figures.curves import BLUE
from jaxclf.figures.maps import compute_color_strength
from jaxclf.figures.overlay import LOWERS, RAISES, to_uint8

if TYPE_CHECKING:
    from jaxclf.figures.axes import Figure

SHADES = 15  # of a saliency map, so that it stays small
# Colors of figures as the page has them, light or dark; --right-light and --wrong-light are RIGHT and WRONG.
THEME = {
    "#000000": "currentColor",
    "#ffffff": "var(--panel)",
    BLUE: "var(--blue)",
    RIGHT: "var(--right)",
    WRONG: "var(--wrong)",
}


def _encode_webp(picture: Image.Image, lossless: bool) -> str:
    """Return a picture as a data URI."""
    file = io.BytesIO()
    picture.save(file, "WEBP", lossless=lossless, quality=80, method=4)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def encode_image(image: np.ndarray, side: int) -> str:
    """Return an image [h, w, c], integers or floats in [0, 1], as a data URI with sides of at most `side` pixels."""
    pixels = to_uint8(image)
    gray = pixels.shape[-1] == 1
    picture = Image.fromarray(pixels[..., 0] if gray else pixels[..., :3])
    picture.thumbnail((side, side))
    return _encode_webp(picture, lossless=gray)


def encode_map(values: np.ndarray, side: int) -> str:
    """Return a saliency map [h, w, c] as a data URI of an overlay: red raises, blue lowers, zero and NaN are clear.

    Channels are summed; the colors saturate at the same values as in figures.
    """
    strength = np.nan_to_num(compute_color_strength(values))
    if max(strength.shape) > side:
        smaller = Image.fromarray(strength)
        smaller.thumbnail((side, side))
        strength = np.asarray(smaller)
    colors = np.where(strength[..., np.newaxis] > 0, np.array(RAISES), np.array(LOWERS))
    opacity = np.round(np.abs(strength) * SHADES) * (255 // SHADES)
    colors = colors * (opacity > 0)[..., np.newaxis]
    layer = np.concatenate([colors, opacity[..., np.newaxis]], axis=-1)
    return _encode_webp(Image.fromarray(layer.astype(np.uint8), "RGBA"), lossless=True)


def to_svg(figure: Figure) -> Markup:
    """Return a figure as SVG in the colors of the page.

    Elements with the id `series-<i>` become `class="curve" data-series="<i>"`.
    """
    svg = render_svg(figure)
    svg = re.sub(r'id="series-(\d+)"', r'class="curve" data-series="\1"', svg)
    svg = re.sub(r' id="(?![a-z][0-9a-f]{10}")[^"]*"', "", svg)  # ids of several figures would clash
    return Markup(re.sub("#[0-9a-f]{6}", lambda color: THEME.get(color[0], color[0]), svg))

"""Table of the characters of the Cartoons dataset: a character is a list of features, and a feature is shapes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Character:
    """One class: its number of images, the palette of its skin, and its features in drawing order."""

    name: str
    images: int
    skin: str
    body: str
    head: str
    fixed: str = ""
    """Features that are never left out."""


CHARACTERS: tuple[Character, ...] = (
    Character("alien", 270, "odd", "thin", "feelers drop_head small_mouth one_eye"),
    Character("astronaut", 240, "person", "suit", "helmet small_head smile round_eyes visor"),
    Character("baker", 380, "person", "apron", "ears round_head cheeks small_mouth dot_eyes nose moustache toque"),
    Character("bear", 510, "animal", "bow_tie", "round_ears round_head snout split_mouth dot_eyes broad_nose"),
    Character("bee", 440, "odd", "wings", "curled_feelers round_head bands smile oblong_eyes"),
    Character("cat", 620, "animal", "bell", "pointed_ears wide_head muzzle split_mouth slit_eyes whiskers"),
    Character("clown", 350, "person", "ruff", "tufts round_head painted_mouth crossed_eyes ball_nose tiny_hat"),
    Character("diver", 185, "person", "suit", "hood small_head smile goggles snorkel"),
    Character("frog", 330, "odd", "belly", "eye_bumps wide_head nostrils wide_mouth bulging_eyes"),
    Character("king", 160, "person", "ermine", "bob oval_head short_beard smile round_eyes nose crown"),
    Character("ninja", 140, "person", "sword", "knot cowl slanted_eyes headband"),
    Character("owl", 310, "animal", "feathers", "feather_ears round_head disc_eyes beak"),
    Character("pirate", 560, "person", "stripes", "earring jaw_head stubble smile eye_patch nose tricorn"),
    Character("punk", 210, "person", "spikes", "mohawk jaw_head smile sunglasses nose"),
    Character("robot", 410, "pale", "panel", "aerial box_head grille lamp_eyes"),
    Character("snowman", 125, "pale", "scarf", "round_head coal_mouth dot_eyes carrot top_hat"),
    Character("vampire", 290, "pale", "cape", "bat_ears jaw_head widows_peak fangs slanted_eyes nose"),
    Character("wizard", 470, "person", "robe", "long_hair oval_head long_beard smile round_eyes moustache nose cone"),
)

# A feature is its name, a colon, and shapes between commas. A shape is modifiers, a kind (with a width for a line),
# a color and numbers x y, to the right and down of the head's center in hundredths of its radius; an oval has its own
# center and its radii. "@" repeats another feature, "both" adds the mirror image, "flat" has no outline, and the
# other modifiers are moved by the expression.
FEATURES = """
torso: soft cloth -50 60 50 60 150 120 175 500 -175 500 -150 120
fur: soft skin -50 60 50 60 150 120 175 500 -175 500 -150 120
apron: @torso, edged white -60 90 60 90 95 500 -95 500, edged trim -80 88 80 88 0 160
bell: @fur, line-24 trim -75 95 0 112 75 95, oval warm 0 130 24 24
belly: @fur, oval light 0 260 95 150
bow_tie: @fur, both edged trim 0 115 75 78 75 152, oval cloth 0 115 18 18
cape: both edged cloth 0 180 105 -40 175 0 210 500 0 500, both edged trim 0 180 108 -5 90 110,
    edged white -45 100 45 100 0 260
ermine: @torso, soft white -70 75 70 75 160 150 120 220 0 180 -120 220 -160 150,
    both line-12 ink 95 150 95 172, both line-12 ink 50 130 50 152
feathers: @fur, both soft dark 90 100 190 130 190 420 110 340, line-10 dark -70 125 -50 145 -30 125 0 145 30 125 50 145
    70 125, line-10 dark -70 175 -50 195 -30 175 0 195 30 175 50 195 70 175
panel: edged skin -28 70 28 70 28 120 -28 120, edged skin -140 115 140 115 140 500 -140 500,
    edged glass -85 150 85 150 85 230 -85 230, oval warm -40 190 22 22, oval trim 38 190 22 22
robe: @torso, edged trim -25 90 25 90 45 500 -45 500
ruff: @torso, both oval white 112 88 32 30, both oval white 68 98 32 30, both oval white 24 106 32 30
scarf: oval skin 0 260 165 180, oval ink 0 200 13 13, oval ink 0 260 13 13, soft trim 30 90 80 90 95 230 45 230,
    soft trim -90 70 0 90 90 70 95 120 0 145 -95 120
spikes: edged skin -40 60 40 60 40 130 -40 130, @torso, line-30 ink -66 100 0 118 66 100,
    both edged white 38 118 52 72 66 110, edged white -14 120 0 76 14 120
stripes: soft white -50 60 50 60 150 120 175 500 -175 500 -150 120, line-26 cloth -118 130 118 130,
    line-26 cloth -140 185 140 185, line-26 cloth -148 240 148 240, line-26 cloth -152 295 152 295
suit: @torso, oval trim 0 112 85 26, oval white 80 210 28 28
sword: line-26 ink 60 160 165 -60, line-24 warm 85 5 160 40, @torso, both line-24 trim 70 90 -60 300
thin: soft cloth -18 70 18 70 70 150 90 500 -90 500 -70 150
wings: both soft glass 60 120 190 -80 280 40 200 150, both soft glass 60 140 220 140 230 270 120 240,
    oval skin 0 230 105 150, line-34 ink -78 170 78 170, line-34 ink -98 240 98 240, line-34 ink -84 310 84 310

box_head: edged skin -88 -85 88 -85 95 -75 95 75 88 85 -88 85 -95 75 -95 -75
cowl: oval cloth 0 0 96 99, soft skin -80 -44 80 -44 84 16 -84 16
drop_head: soft skin -60 -115 60 -115 130 -55 100 30 25 115 -25 115 -100 30 -130 -55
jaw_head: soft skin -88 -98 88 -98 92 30 52 104 -52 104 -92 30
oval_head: oval skin 0 0 80 100
round_head: oval skin 0 0 94 95
small_head: oval skin 0 0 76 84
wide_head: oval skin 0 5 112 86

aerial: line-10 ink 0 -80 0 -140, oval warm 0 -145 22 22, both edged trim 90 -30 122 -30 122 30 90 30
bat_ears: both edged skin 80 25 132 -50 80 -25
bob: soft hair -80 -90 80 -90 112 0 125 85 -125 85 -112 0
curled_feelers: both line-10 ink 25 -85 40 -135 70 -155 98 -145, both oval ink 100 -140 16 16
earring: both oval skin 88 5 20 26, oval warm -97 42 17 17
ears: both oval skin 90 5 20 26
eye_bumps: both oval skin 62 -75 48 48
feather_ears: both edged dark 25 -85 108 -145 92 -20
feelers: both line-10 ink 35 -85 60 -150, both oval skin 62 -152 22 22
helmet: oval white 0 -5 142 140, oval dark 0 -5 108 106
hood: oval cloth 0 0 106 112
knot: edged trim 70 -55 170 -105 155 -45, edged trim 70 -50 178 -25 140 15
long_hair: soft hair -80 -80 80 -80 120 60 135 200 -135 200 -120 60
mohawk: both edged hair 26 -60 104 -130 70 -60, both edged hair 2 -60 58 -175 48 -60, edged hair -24 -60 0 -195 24 -60
pointed_ears: both edged skin 20 -70 95 -155 108 0, both edged trim 52 -78 86 -122 92 -40
round_ears: both oval skin 75 -78 42 42, both oval light 75 -78 21 21
tufts: both oval hair 92 -70 42 40, both oval hair 122 -15 46 44, both oval hair 100 38 36 32

bands: flat soft ink -72 -58 72 -58 45 -90 -45 -90, flat soft ink -88 42 88 42 78 64 -78 64
cheeks: both flat oval warm 60 28 18 14
long_beard: soft hair -82 5 -40 22 40 22 82 5 75 130 15 260 -15 260 -75 130
muzzle: both flat oval light 24 42 32 26
nostrils: both flat oval ink 14 -4 6 6
short_beard: soft hair -86 -15 -58 22 58 22 86 -15 82 95 40 140 -40 140 -82 95
snout: oval light 0 38 50 42
stubble: flat soft dark -86 22 86 22 54 98 -54 98
widows_peak: soft hair -95 5 -100 -108 100 -108 95 5 64 -62 0 -12 -64 -62

coal_mouth: both bend oval ink 48 48 7 7, both bend oval ink 25 55 7 7, bend oval ink 0 57 7 7
fangs: bend gape soft mouth -52 42 52 42 40 72 -40 72, both bend edged white 18 44 42 44 30 80
grille: edged glass -58 32 58 32 58 62 -58 62, both line-6 ink 19 32 19 62, line-6 ink -58 47 58 47
painted_mouth: bend soft white -84 24 84 24 84 78 -84 78, bend gape oval warm 0 54 50 16
small_mouth: bend gape oval mouth 0 66 22 10
smile: bend gape oval mouth 0 58 36 13
split_mouth: both line-8 ink 0 28 0 52 16 60 36 54, gape oval mouth 0 66 14 9
wide_mouth: bend gape oval mouth 0 42 84 15

bulging_eyes: both lid oval white 62 -78 34 34, both gaze lid flat oval ink 62 -78 15 22
crossed_eyes: both lid flat edged trim 36 -72 52 -22 36 28 20 -22, both gaze flat oval ink 36 -22 12 15
disc_eyes: both oval light 44 -18 46 46, both lid oval warm 44 -18 30 30, both gaze lid flat oval ink 44 -18 16 18
dot_eyes: both gaze lid flat oval ink 34 -20 13 17, both brow line-9 ink 18 -50 50 -52
eye_patch: lid oval white -36 -18 20 21, gaze lid flat oval ink -36 -18 10 12, line-9 ink -92 -60 90 20,
    soft ink 8 -40 70 -40 62 18 18 18
goggles: edged trim -92 -58 92 -58 98 24 30 26 0 8 -30 26 -98 24, edged glass -74 -42 74 -42 78 8 28 8 0 -8 -28 8 -78 8,
    both gaze lid flat oval ink 36 -18 11 16
lamp_eyes: both edged white 14 -50 64 -50 64 -2 14 -2, both gaze lid flat edged warm 24 -42 54 -42 54 -10 24 -10
oblong_eyes: both lid oval white 38 -16 26 36, both gaze lid flat oval ink 38 -16 14 22
one_eye: lid oval white 0 -30 50 48, gaze lid oval trim 0 -30 27 27, gaze lid flat oval ink 0 -30 13 15
round_eyes: both lid oval white 34 -18 20 22, both gaze lid flat oval ink 34 -18 10 12,
    both brow line-11 hair 14 -50 56 -54
slanted_eyes: both lid edged white 12 -8 66 -34 60 2 26 6, both gaze lid flat oval ink 38 -8 9 11,
    both brow line-13 ink 8 -22 68 -50
slit_eyes: both lid oval glass 46 -14 27 25, both gaze lid flat oval ink 46 -14 7 22
sunglasses: both soft ink 8 -42 84 -42 76 8 20 8, line-10 ink -92 -38 92 -38, both line-8 white 30 -28 46 -28

ball_nose: oval warm 0 12 28 28
beak: edged warm -24 2 24 2 0 62
broad_nose: flat oval ink 0 16 26 18
carrot: edged warm -8 -8 -10 26 112 22
cone: edged cloth -86 -62 -24 -190 50 -255 34 -190 86 -62, oval cloth 0 -66 128 26, flat edged warm 0 -172 10 -147
    34 -145 15 -130 22 -104 0 -119 -22 -104 -15 -130 -34 -145 -10 -147
crown: edged warm -80 -56 -100 -150 -48 -108 0 -168 48 -108 100 -150 80 -56, both oval trim 45 -80 12 12,
    oval trim 0 -80 12 12
headband: soft trim -97 -40 0 -54 97 -40 92 -70 0 -84 -92 -70, edged white -34 -80 34 -80 34 -52 -34 -52
moustache: both soft hair 0 28 40 26 82 8 70 50 25 52
nose: soft skin -6 -5 12 -5 26 28 -22 28
snorkel: line-20 warm 20 60 104 56 118 20 118 -150, line-22 trim 118 -122 118 -160
tiny_hat: edged cloth -36 -84 46 -84 26 -160, oval trim 26 -160 16 16
toque: both oval white 62 -140 52 44, oval white 0 -160 58 50, edged white -76 -56 -80 -125 80 -125 76 -56
top_hat: edged cloth -68 -70 -76 -185 76 -185 68 -70, edged trim -69 -78 -72 -112 72 -112 69 -78,
    oval cloth 0 -70 118 20
tricorn: soft cloth -155 -95 -80 -70 0 -52 80 -70 155 -95 70 -150 0 -178 -70 -150, oval white 0 -118 26 25,
    both flat oval ink 10 -120 7 8, line-10 white -40 -76 40 -90
visor: line-15 glass -76 -40 -52 -70 -20 -86, line-12 glass 60 62 78 36
whiskers: edged warm -16 12 16 12 0 32, both line-6 ink 50 26 135 14, both line-6 ink 50 40 138 42,
    both line-6 ink 50 52 130 70
"""


@dataclass(frozen=True, eq=False)
class Shape:
    """A polygon, or a line where `width` is above zero. Points [n, 2] and width in radii of the head."""

    color: str
    points: np.ndarray
    modifiers: frozenset[str]
    width: float = 0.0


def _read_features(text: str) -> dict[str, tuple[Shape, ...]]:
    """Parse a table of features such as `FEATURES` into shapes."""
    features: dict[str, tuple[Shape, ...]] = {}
    lines = text.replace("\n    ", " ").splitlines()
    for name, shapes in (line.split(": ") for line in lines if line):
        features[name] = tuple(shape for words in shapes.split(", ") for shape in _read_shapes(words.split(), features))
    return features


def _read_shapes(words: list[str], features: dict[str, tuple[Shape, ...]]) -> Iterator[Shape]:
    """Yield the shapes of one entry: those of another feature after "@", two for "both", otherwise one."""
    if words[0].startswith("@"):
        yield from features[words[0][1:]]
        return
    kind = next(i for i, word in enumerate(words) if word.split("-")[0] in KINDS)
    name, _, width = words[kind].partition("-")
    points = KINDS[name](np.array(words[kind + 2 :], float).reshape(-1, 2) / 100)
    shape = Shape(words[kind + 1], points, frozenset(words[:kind]), float(width or 0) / 100)
    yield shape
    if "both" in shape.modifiers:
        yield replace(shape, points=points * (-1, 1))


def _make_ellipse(numbers: np.ndarray) -> np.ndarray:
    """Return points [22, 2] on an ellipse, given its center and its radii."""
    center, radii = numbers
    angles = np.linspace(0, 2 * np.pi, 22, endpoint=False)
    return center + radii * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _cut_corners(points: np.ndarray) -> np.ndarray:
    """Round a polygon by cutting its corners twice."""
    for _ in range(2):
        following = np.roll(points, -1, axis=0)
        points = np.stack([0.8 * points + 0.2 * following, 0.2 * points + 0.8 * following], axis=1).reshape(-1, 2)
    return points


Points = Callable[[np.ndarray], np.ndarray]
KINDS: dict[str, Points] = {"oval": _make_ellipse, "soft": _cut_corners, "edged": np.asarray, "line": np.asarray}
SHAPES = _read_features(FEATURES)

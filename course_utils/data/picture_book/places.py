"""How each place is drawn: one function a place, `draw_NAME(picture, rng)`, on the whole picture.

Each returns the height of the ground's far edge (0 top, 1 bottom): subjects stand below it.
"""

import math
from random import Random

from PIL import Image

from course_utils.data.picture_book.pen import Pen, mix, shade

WHITE = (252, 250, 246)
WOOD = (140, 96, 68)


def _gradient(picture, top, bottom, start=0.0, stop=1.0):
    """Fill the rows from `start` to `stop` (shares of the height) with colours from `top` to `bottom`."""
    width, height = picture.size
    first, last = int(start * height), int(stop * height)
    strip = Image.new("RGB", (1, 2))
    strip.putdata([top, bottom])
    rows = max(1, last - first)
    band = strip.resize((1, rows), Image.Resampling.BILINEAR, box=(0, 0.5, 1, 1.5))
    picture.paste(band.resize((width, rows), Image.Resampling.NEAREST), (0, first))


def _cloud(pen, x, y, size, colour=WHITE):
    for dx, dy, r in ((-1, 0, 0.6), (0, 0.25, 0.8), (1, 0, 0.55), (0.4, -0.1, 0.6), (-0.5, -0.1, 0.55)):
        pen.ellipse(x + dx * size, y + dy * size, r * size * 1.15, r * size * 0.7, colour, line=False)


def draw_cloud(pen: Pen, thick: float) -> None:
    """A small cloud to stand on, its top at y = 0."""
    for x, y, rx, ry in (
        (-0.42, -0.1, 0.2, 0.13),
        (0.42, -0.1, 0.2, 0.13),
        (-0.16, -0.08, 0.26, 0.15),
        (0.18, -0.07, 0.26, 0.14),
        (0, -0.17, 0.4, 0.13),
    ):
        pen.ellipse(x, y, rx, ry, WHITE)
    for x, y in ((-0.3, -0.19), (0.12, -0.22)):
        pen.ellipse(x, y, 0.16, 0.04, (222, 230, 242), line=False)
    pen.ink(0.8 * thick, (150, 160, 186))


def _hill(pen, x, y, width, height, colour):
    pen.ellipse(x, y, width, height, colour, line=False)


def _sky(picture, rng, top, bottom, horizon):
    """A day's sky with one or two clouds and, in one picture of two, the sun; returns a pen in unit coordinates."""
    _gradient(picture, top, bottom, 0, horizon + 0.02)
    pen = Pen(picture, 0, picture.height, picture.height)
    if rng.random() < 0.5:
        x = rng.choice((0.12, 0.88)) + rng.uniform(-0.04, 0.04)
        pen.ellipse(x, 0.88, 0.12, 0.12, mix(top, (255, 240, 170), 0.5), line=False)
        pen.ellipse(x, 0.88, 0.08, 0.08, (255, 226, 110), line=False)
    for _ in range(rng.choice((1, 2, 2))):
        _cloud(pen, rng.uniform(0.05, 0.95), rng.uniform(0.76, 0.94), rng.uniform(0.04, 0.065))
    return pen


def draw_grass(picture: Image.Image, rng: Random) -> float:
    horizon = rng.uniform(0.5, 0.6)
    pen = _sky(picture, rng, (134, 200, 240), (214, 240, 250), horizon)
    _hill(pen, rng.uniform(0.1, 0.4), 1 - horizon, 0.5, rng.uniform(0.07, 0.12), (152, 208, 122))
    _hill(pen, rng.uniform(0.6, 0.95), 1 - horizon, 0.45, rng.uniform(0.05, 0.1), (138, 198, 112))
    pen.ink(0)
    _gradient(picture, (150, 208, 98), (104, 176, 76), horizon, 1)
    for _ in range(26):
        x, y = rng.uniform(0, 1), rng.uniform(0.02, 1 - horizon - 0.04)
        blade = mix((92, 162, 66), (176, 222, 116), rng.random())
        for dx in (-0.014, 0, 0.014):
            pen.stroke([(x, y), (x + dx, y + 0.035)], 0.009, blade)
    for _ in range(7):
        x, y = rng.uniform(0, 1), rng.uniform(0.03, 1 - horizon - 0.06)
        petal = rng.choice((WHITE, (255, 214, 96), (250, 170, 190)))
        pen.ellipse(x, y, 0.017, 0.017, petal, line=False)
        pen.ellipse(x, y, 0.007, 0.007, (238, 160, 60), line=False)
    pen.ink(0)
    return horizon


def draw_beach(picture: Image.Image, rng: Random) -> float:
    horizon = rng.uniform(0.36, 0.44)
    shore = horizon + rng.uniform(0.14, 0.18)
    pen = _sky(picture, rng, (128, 204, 244), (220, 244, 252), horizon)
    pen.ink(0)
    _gradient(picture, (44, 138, 198), (92, 196, 216), horizon, shore)
    _gradient(picture, (250, 226, 168), (238, 202, 134), shore, 1)
    for _ in range(6):
        x, y = rng.uniform(0, 1), 1 - rng.uniform(horizon + 0.02, shore - 0.03)
        pen.stroke([(x - 0.05, y), (x - 0.02, y + 0.008), (x + 0.02, y), (x + 0.05, y + 0.008)], 0.009, (190, 232, 240))
    phase = rng.uniform(0, 6)
    wave = [(x / 16, 1 - shore + 0.016 * math.sin(x * 0.9 + phase)) for x in range(-1, 18)]
    pen.polygon([*wave, *[(x, y - 0.03) for x, y in reversed(wave)]], WHITE, line=False)
    for _ in range(14):
        pen.ellipse(rng.uniform(0, 1), rng.uniform(0.02, 1 - shore - 0.08), 0.009, 0.006, (214, 176, 112), line=False)
    x, y = rng.choice((0.1, 0.9)), rng.uniform(0.06, 0.16)
    star = [
        (x + r * math.sin(a * math.pi / 5), y + r * 0.8 * math.cos(a * math.pi / 5))
        for a, r in zip(range(10), (0.05, 0.022) * 5, strict=True)
    ]
    pen.polygon(star, (240, 128, 100), line=False)
    pen.ink(0)
    return shore


def _fir(pen, x, y, size, green, snow=None):
    pen.polygon(
        [
            (x - 0.03 * size, y),
            (x + 0.03 * size, y),
            (x + 0.03 * size, y + 0.2 * size),
            (x - 0.03 * size, y + 0.2 * size),
        ],
        WOOD,
        line=False,
    )
    for level, half in ((0.14, 0.34), (0.4, 0.27), (0.66, 0.19)):
        base, tip = y + level * size, y + (level + 0.46) * size
        pen.polygon([(x - half * size, base), (x + half * size, base), (x, tip)], green, line=False)
        if snow:
            middle = base + 0.24 * size
            pen.polygon(
                [(x - half * 0.48 * size, middle), (x + half * 0.48 * size, middle), (x, tip)], snow, line=False
            )


def draw_snow(picture: Image.Image, rng: Random) -> float:
    horizon = rng.uniform(0.5, 0.58)
    _gradient(picture, (170, 196, 226), (226, 234, 246), 0, horizon + 0.1)
    pen = Pen(picture, 0, picture.height, picture.height)
    _hill(pen, rng.uniform(0, 1), 1 - horizon - 0.02, 0.6, rng.uniform(0.1, 0.16), (214, 226, 242))
    for side in (0, 1):
        for _ in range(2):
            x = side * 0.74 + rng.uniform(0.0, 0.26)
            _fir(pen, x, 1 - horizon - 0.03, rng.uniform(0.2, 0.3), (84, 132, 120), WHITE)
    pen.ink(0)
    _gradient(picture, (246, 250, 255), (214, 226, 244), horizon, 1)
    _hill(pen, rng.uniform(0.2, 0.8), 1 - horizon - 0.12, 0.7, 0.14, (246, 250, 255))
    for _ in range(34):
        size = rng.uniform(0.006, 0.014)
        pen.ellipse(rng.uniform(0, 1), rng.uniform(0, 1), size, size, (255, 255, 255), line=False)
    pen.ink(0)
    return horizon


def draw_desert(picture: Image.Image, rng: Random) -> float:
    horizon = rng.uniform(0.5, 0.58)
    _gradient(picture, (255, 190, 120), (255, 232, 178), 0, horizon + 0.02)
    pen = Pen(picture, 0, picture.height, picture.height)
    x = rng.uniform(0.15, 0.85)
    pen.ellipse(x, 0.84, 0.11, 0.11, (255, 246, 208), line=False)
    _hill(pen, rng.uniform(0.0, 0.35), 1 - horizon - 0.02, 0.42, rng.uniform(0.1, 0.16), (226, 158, 96))
    _hill(pen, rng.uniform(0.65, 1.0), 1 - horizon - 0.02, 0.38, rng.uniform(0.08, 0.14), (214, 144, 86))
    pen.ink(0)
    _gradient(picture, (240, 184, 112), (222, 150, 84), horizon, 1)
    for y in (0.34, 0.2, 0.08):
        a = rng.uniform(0, 6)
        ripple = [(i / 8, y + 0.018 * math.sin(i * 0.8 + a)) for i in range(-1, 10)]
        pen.stroke(ripple, 0.011, (206, 134, 74))
    for side in (0, 1):
        x, y, size = side * 0.8 + rng.uniform(0.04, 0.16), 1 - horizon - rng.uniform(0, 0.05), rng.uniform(0.2, 0.28)
        green = (92, 146, 88)
        pen.stroke([(x, y - 0.02), (x, y + size)], 0.062, green)
        pen.stroke([(x, y + 0.3 * size), (x - 0.075, y + 0.34 * size), (x - 0.075, y + 0.62 * size)], 0.042, green)
        pen.stroke([(x, y + 0.45 * size), (x + 0.075, y + 0.5 * size), (x + 0.075, y + 0.78 * size)], 0.042, green)
        pen.stroke([(x - 0.01, y), (x - 0.01, y + 0.96 * size)], 0.01, (140, 188, 120))
    pen.ink(0)
    return horizon


def draw_forest(picture: Image.Image, rng: Random) -> float:
    horizon = rng.uniform(0.54, 0.62)
    _gradient(picture, (120, 176, 140), (190, 218, 168), 0, horizon + 0.02)
    pen = Pen(picture, 0, picture.height, picture.height)
    for i in range(6):
        x = i / 5 + rng.uniform(-0.05, 0.05)
        _fir(pen, x, 1 - horizon - 0.02, rng.uniform(0.38, 0.5), (98, 152, 122))
    for i in range(5):
        x = i / 4 + rng.uniform(-0.06, 0.06)
        _fir(pen, x, 1 - horizon - 0.04, rng.uniform(0.42, 0.6), mix((42, 100, 74), (62, 122, 84), rng.random()))
    pen.ink(0)
    _gradient(picture, (104, 130, 70), (80, 104, 58), horizon, 1)
    for _ in range(20):
        x, y = rng.uniform(0, 1), rng.uniform(0.02, 1 - horizon - 0.05)
        leaf = rng.choice(((176, 122, 62), (150, 98, 56), (126, 150, 76)))
        pen.ellipse(x, y, 0.018, 0.009, leaf, line=False, angle=rng.uniform(0, 180))
    for side in (0, 1):
        x = side * 0.86 + rng.uniform(0.03, 0.1)
        for dx in (-0.05, -0.02, 0.02, 0.05):
            pen.stroke([(x, 0.16), (x + dx, 0.22), (x + 1.6 * dx, 0.225)], 0.016, (66, 132, 72))
    pen.ink(0)
    return horizon


def draw_room(picture: Image.Image, rng: Random) -> float:
    horizon = rng.uniform(0.58, 0.66)
    wall = rng.choice(((246, 222, 196), (216, 226, 238), (232, 220, 240), (250, 232, 200)))
    _gradient(picture, wall, shade(wall, 0.95), 0, horizon)
    pen = Pen(picture, 0, picture.height, picture.height)
    for i in range(8):
        pen.stroke([(i / 8 + 0.06, 1), (i / 8 + 0.06, 1 - horizon)], 0.014, shade(wall, 0.94))
    x = rng.choice((0.2, 0.8)) + rng.uniform(-0.03, 0.03)
    frame = (168, 118, 80)
    pen.polygon([(x - 0.15, 0.6), (x + 0.15, 0.6), (x + 0.15, 0.93), (x - 0.15, 0.93)], frame, line=False)
    pen.polygon(
        [(x - 0.125, 0.625), (x + 0.125, 0.625), (x + 0.125, 0.905), (x - 0.125, 0.905)], (168, 218, 244), line=False
    )
    pen.ellipse(x - 0.03, 0.64, 0.09, 0.03, (150, 206, 120), line=False)
    pen.stroke([(x, 0.62), (x, 0.91)], 0.018, frame)
    pen.stroke([(x - 0.13, 0.77), (x + 0.13, 0.77)], 0.018, frame)
    other = 1 - x
    picture_colour = rng.choice(((240, 150, 130), (130, 170, 210), (240, 200, 110)))
    pen.polygon([(other - 0.1, 0.7), (other + 0.1, 0.7), (other + 0.1, 0.88), (other - 0.1, 0.88)], frame, line=False)
    pen.polygon(
        [(other - 0.08, 0.72), (other + 0.08, 0.72), (other + 0.08, 0.86), (other - 0.08, 0.86)],
        picture_colour,
        line=False,
    )
    pen.ink(0)
    _gradient(picture, (206, 150, 100), (182, 124, 80), horizon, 1)
    pen.polygon(
        [(0, 1 - horizon), (1, 1 - horizon), (1, 1 - horizon + 0.03), (0, 1 - horizon + 0.03)],
        (250, 244, 234),
        line=False,
    )
    for i in range(7):
        pen.stroke([(0.5 + (i - 3) * 0.14, 1 - horizon), (0.5 + (i - 3) * 0.3, 0)], 0.008, (160, 106, 68))
    rug = rng.choice(((196, 96, 96), (96, 128, 176), (126, 152, 110)))
    pen.ellipse(0.5, 0.13, 0.44, 0.12, rug, line=False)
    pen.ellipse(0.5, 0.13, 0.38, 0.095, mix(rug, WHITE, 0.35), line=False)
    pen.ink(0)
    return horizon


def draw_city(picture: Image.Image, rng: Random) -> float:
    horizon = rng.uniform(0.62, 0.68)
    pen = _sky(picture, rng, (160, 206, 238), (238, 238, 236), horizon)
    x = -0.05
    while x < 1:
        width, height = rng.uniform(0.13, 0.2), rng.uniform(0.2, 0.48)
        front = rng.choice(((214, 150, 128), (178, 168, 190), (226, 196, 150), (150, 172, 190), (196, 130, 118)))
        base = 1 - horizon
        pen.polygon([(x, base), (x, base + height), (x + width, base + height), (x + width, base)], front, line=False)
        pen.polygon(
            [
                (x, base + height),
                (x + width, base + height),
                (x + width, base + height + 0.02),
                (x, base + height + 0.02),
            ],
            shade(front, 0.75),
            line=False,
        )
        for row in range(int((height - 0.06) / 0.09)):
            for column in range(int(width / 0.06)):
                wx, wy = x + 0.02 + column * 0.06, base + 0.07 + row * 0.09
                pane = (255, 236, 160) if rng.random() < 0.35 else (120, 150, 176)
                pen.polygon([(wx, wy), (wx + 0.034, wy), (wx + 0.034, wy + 0.045), (wx, wy + 0.045)], pane, line=False)
        x += width + 0.006
    pen.ink(0)
    _gradient(picture, (204, 200, 196), (190, 186, 184), horizon, horizon + 0.07)
    _gradient(picture, (128, 128, 138), (108, 108, 120), horizon + 0.07, 1)
    pen.stroke([(0, 0.925 - horizon), (1, 0.925 - horizon)], 0.012, (236, 232, 226))
    shift = rng.uniform(-0.1, 0.1)
    for i in range(-1, 5):
        pen.stroke([(i * 0.26 + shift, 0.05), (i * 0.26 + 0.13 + shift, 0.05)], 0.024, (244, 238, 214))
    pen.ink(0)
    return horizon


def draw_night(picture: Image.Image, rng: Random) -> float:
    horizon = rng.uniform(0.54, 0.62)
    _gradient(picture, (22, 26, 72), (66, 72, 138), 0, horizon + 0.02)
    pen = Pen(picture, 0, picture.height, picture.height)
    for _ in range(26):
        size = rng.uniform(0.004, 0.011)
        pen.ellipse(rng.uniform(0, 1), rng.uniform(1 - horizon + 0.06, 1), size, size, (255, 250, 214), line=False)
    x = rng.choice((0.16, 0.84)) + rng.uniform(-0.05, 0.05)
    pen.ellipse(x, 0.85, 0.125, 0.125, (62, 68, 124), line=False)
    pen.ellipse(x, 0.85, 0.09, 0.09, (255, 244, 196), line=False)
    pen.ellipse(x - 0.03, 0.87, 0.02, 0.02, (238, 222, 164), line=False)
    pen.ellipse(x + 0.035, 0.83, 0.026, 0.026, (238, 222, 164), line=False)
    _hill(pen, rng.uniform(0.1, 0.4), 1 - horizon - 0.01, 0.5, rng.uniform(0.07, 0.12), (38, 52, 92))
    _hill(pen, rng.uniform(0.6, 0.95), 1 - horizon - 0.01, 0.45, rng.uniform(0.05, 0.1), (34, 46, 84))
    pen.ink(0)
    _gradient(picture, (38, 68, 84), (24, 46, 66), horizon, 1)
    for _ in range(18):
        x, y = rng.uniform(0, 1), rng.uniform(0.02, 1 - horizon - 0.05)
        for dx in (-0.014, 0.014):
            pen.stroke([(x, y), (x + dx, y + 0.032)], 0.009, (58, 98, 102))
    pen.ink(0)
    return horizon

"""How each subject is drawn: one function a subject, `draw_NAME(pen, colour, pose, rng, thick)`.

`colour` is an RGB triple or None for the subject's natural colours; `rng` varies small details; `thick` is the
outline's width in pixels. A subject stands on y = 0 and is about one unit high.
"""

# fmt: off -- lists of points read as outlines when several stand in a line

from random import Random

from course_utils.data.picture_book.pen import LINE, Colour, Pen, mix, shade, smooth

WHITE = (252, 249, 242)
CREAM = (250, 236, 205)
PINK = (246, 160, 170)
BLACK = (45, 36, 42)
GLASS = (206, 232, 244)
WOOD = (158, 106, 70)
LEAF = (104, 168, 84)


def _eyes(pen, x, y, apart, size, iris=BLACK, asleep=False):
    for side in (-1, 1):
        if asleep:
            pen.stroke(
                [
                    (x + side * apart - size * 1.1, y + size * 0.2),
                    (x + side * apart, y - size * 0.6),
                    (x + side * apart + size * 1.1, y + size * 0.2),
                ],
                0.03,
                iris,
            )
            continue
        pen.ellipse(x + side * apart, y, size, size * 1.15, iris, line=False)
        pen.ellipse(x + side * apart - size * 0.3, y + size * 0.42, size * 0.4, size * 0.42, WHITE, line=False)


def _cheeks(pen, x, y, apart, size):
    for side in (-1, 1):
        pen.ellipse(x + side * apart, y, size, size * 0.65, PINK, line=False)


# --- animals -----------------------------------------------------------------------------------------------


def _corgi_head(pen, x, y, fur, white, rng, thick, asleep=False):
    """Big upright ears, a white blaze that widens to the muzzle, and a smile: what makes a corgi a corgi."""
    tilt = rng.uniform(-0.02, 0.02)
    for side in (-1, 1):
        pen.blob(
            [
                (x + side * 0.08, y + 0.13),
                (x + side * 0.17, y + 0.30),
                (x + side * (0.27 + tilt), y + 0.43),
                (x + side * 0.31, y + 0.26),
                (x + side * 0.28, y + 0.06),
            ],
            fur,
        )
        pen.polygon(
            [(x + side * 0.15, y + 0.18), (x + side * 0.25, y + 0.36), (x + side * 0.265, y + 0.16)],
            mix(PINK, fur, 0.15),
            line=False,
        )
    pen.blob(
        [
            (x, y + 0.22),
            (x - 0.2, y + 0.17),
            (x - 0.32, y - 0.02),
            (x - 0.22, y - 0.17),
            (x, y - 0.22),
            (x + 0.22, y - 0.17),
            (x + 0.32, y - 0.02),
            (x + 0.2, y + 0.17),
        ],
        fur,
    )
    pen.blob(
        [
            (x, y + 0.23),
            (x - 0.055, y + 0.1),
            (x - 0.08, y - 0.01),
            (x - 0.19, y - 0.09),
            (x - 0.16, y - 0.18),
            (x, y - 0.215),
            (x + 0.16, y - 0.18),
            (x + 0.19, y - 0.09),
            (x + 0.08, y - 0.01),
            (x + 0.055, y + 0.1),
        ],
        white,
        line=False,
    )
    _eyes(pen, x, y + 0.02, 0.135, 0.048, asleep=asleep)
    _cheeks(pen, x, y - 0.07, 0.225, 0.05)
    if not asleep and rng.random() < 0.6:
        pen.blob(
            [(x - 0.05, y - 0.135), (x + 0.05, y - 0.135), (x + 0.045, y - 0.2), (x, y - 0.235), (x - 0.045, y - 0.2)],
            (236, 110, 120),
            line=False,
        )
    pen.stroke(
        [(x - 0.09, y - 0.115), (x - 0.04, y - 0.145), (x, y - 0.115), (x + 0.04, y - 0.145), (x + 0.09, y - 0.115)],
        0.022,
        BLACK,
    )
    pen.ellipse(x, y - 0.055, 0.058, 0.042, BLACK, line=False)
    pen.ink(thick)


def draw_corgi(pen: Pen, colour: Colour | None, pose: str | None, rng: Random, thick: float) -> None:
    fur = colour or (234, 150, 66)
    white = WHITE if colour != (250, 247, 240) else (255, 253, 248)
    if pose == "standing":
        pen.blob([(0.44, 0.44), (0.56, 0.47 + rng.uniform(-0.02, 0.05)), (0.55, 0.36), (0.45, 0.32)], fur)
        for x in (-0.20, 0.30):
            pen.blob([(x - 0.06, 0.26), (x - 0.06, 0.02), (x + 0.07, 0.02), (x + 0.07, 0.26)], shade(white, 0.88))
        pen.blob(
            [
                (-0.38, 0.40),
                (-0.2, 0.51),
                (0.1, 0.50),
                (0.40, 0.50),
                (0.5, 0.36),
                (0.44, 0.20),
                (0.15, 0.15),
                (-0.25, 0.15),
                (-0.4, 0.25),
            ],
            fur,
        )
        for x in (-0.33, 0.40):
            pen.blob([(x - 0.07, 0.24), (x - 0.07, 0.015), (x + 0.08, 0.015), (x + 0.07, 0.24)], white)
        pen.blob([(-0.42, 0.42), (-0.30, 0.46), (-0.20, 0.32), (-0.24, 0.18), (-0.38, 0.18)], white, line=False)
        pen.blob([(-0.2, 0.19), (0.1, 0.21), (0.32, 0.19), (0.3, 0.14), (0, 0.13), (-0.22, 0.14)], white, line=False)
        pen.ink(thick)
        _corgi_head(pen, -0.3, 0.60, fur, white, rng, thick)
        return
    if pose == "sleeping":
        pen.blob([(0.36, 0.12), (0.5, 0.14), (0.52, 0.24), (0.4, 0.27)], fur)
        pen.blob(
            [
                (-0.46, 0.02),
                (-0.44, 0.2),
                (-0.2, 0.37),
                (0.1, 0.41 + rng.uniform(-0.02, 0.02)),
                (0.36, 0.33),
                (0.46, 0.16),
                (0.42, 0.02),
                (0, -0.01),
            ],
            fur,
        )
        pen.blob([(-0.1, 0.06), (0.12, 0.1), (0.3, 0.08), (0.3, 0.01), (0, 0.0)], white, line=False)
        pen.ellipse(0.27, 0.04, 0.13, 0.055, white)
        pen.ellipse(-0.42, 0.03, 0.13, 0.05, white)
        pen.ellipse(-0.02, 0.03, 0.13, 0.05, white)
        pen.ink(thick)
        _corgi_head(pen, -0.22, 0.26, fur, white, rng, thick, asleep=True)
        return
    wag = rng.uniform(-0.03, 0.05)
    pen.blob([(0.22, 0.12), (0.40, 0.17 + wag), (0.42, 0.27 + wag), (0.30, 0.27), (0.18, 0.22)], fur)
    pen.blob(
        [
            (0, 0.52),
            (-0.19, 0.46),
            (-0.28, 0.24),
            (-0.30, 0.07),
            (-0.14, 0.01),
            (0.14, 0.01),
            (0.30, 0.07),
            (0.28, 0.24),
            (0.19, 0.46),
        ],
        fur,
    )
    for side in (-1, 1):
        pen.ellipse(side * 0.235, 0.045, 0.095, 0.055, white)
    pen.blob(
        [(0, 0.46), (-0.13, 0.42), (-0.14, 0.24), (-0.11, 0.1), (0, 0.07), (0.11, 0.1), (0.14, 0.24), (0.13, 0.42)],
        white,
        line=False,
    )
    pen.ink(thick)
    for side in (-1, 1):
        pen.blob(
            [(side * 0.02, 0.25), (side * 0.02, 0.02), (side * 0.13, 0.0), (side * 0.14, 0.06), (side * 0.115, 0.25)],
            white,
        )
    pen.ink(thick * 0.6, shade(white, 0.72))
    _corgi_head(pen, 0, 0.66, fur, white, rng, thick)


def _cat_head(pen, x, y, fur, rng, thick, asleep=False):
    for side in (-1, 1):
        pen.polygon([(x + side * 0.06, y + 0.16), (x + side * 0.23, y + 0.36), (x + side * 0.29, y + 0.04)], fur)
        pen.polygon(
            [(x + side * 0.12, y + 0.17), (x + side * 0.215, y + 0.285), (x + side * 0.245, y + 0.1)], PINK, line=False
        )
    pen.ellipse(x, y, 0.29, 0.23, fur)
    for dx in (-0.07, 0, 0.07):
        pen.stroke([(x + dx, y + 0.2), (x + dx * 0.8, y + 0.125)], 0.03, shade(fur, 0.7))
    pen.ellipse(x, y - 0.1, 0.11, 0.085, WHITE, line=False)
    _eyes(pen, x, y + 0.01, 0.13, 0.055, asleep=asleep)
    _cheeks(pen, x, y - 0.085, 0.2, 0.045)
    pen.polygon([(x - 0.035, y - 0.055), (x + 0.035, y - 0.055), (x, y - 0.095)], (226, 110, 122), line=False)
    for side in (-1, 1):
        pen.stroke([(x + side * 0.17, y - 0.09), (x + side * 0.34, y - 0.07)], 0.014, LINE)
        pen.stroke([(x + side * 0.17, y - 0.12), (x + side * 0.33, y - 0.14)], 0.014, LINE)
        pen.stroke([(x, y - 0.09), (x + side * 0.045, y - 0.13)], 0.018, LINE)
    pen.ink(thick)


def draw_cat(pen: Pen, colour: Colour | None, pose: str | None, rng: Random, thick: float) -> None:
    fur = colour or (152, 152, 166)
    dark = shade(fur, 0.72)
    if pose == "standing":
        sway = rng.uniform(-0.08, 0.08)
        pen.stroke(
            smooth(
                [(0.38, 0.38), (0.5, 0.5), (0.46 + sway, 0.68), (0.56 + sway, 0.8), (0.47 + sway, 0.68), (0.5, 0.5)]
            )[:20],
            0.09,
            fur,
            line=True,
        )
        for x in (-0.16, 0.24):
            pen.blob([(x - 0.05, 0.28), (x - 0.05, 0.015), (x + 0.06, 0.015), (x + 0.06, 0.28)], dark)
        pen.blob(
            [
                (-0.34, 0.42),
                (-0.1, 0.49),
                (0.2, 0.48),
                (0.42, 0.46),
                (0.44, 0.28),
                (0.3, 0.22),
                (0, 0.22),
                (-0.32, 0.24),
            ],
            fur,
        )
        for x in (-0.28, 0.36):
            pen.blob([(x - 0.06, 0.3), (x - 0.06, 0.015), (x + 0.07, 0.015), (x + 0.07, 0.3)], fur)
        for x in (-0.02, 0.11, 0.24):
            pen.stroke([(x, 0.46), (x + 0.02, 0.36)], 0.035, dark)
        pen.ink(thick)
        _cat_head(pen, -0.3, 0.58, fur, rng, thick)
        return
    if pose == "sleeping":
        pen.blob(
            [
                (-0.42, 0.02),
                (-0.42, 0.2),
                (-0.2, 0.38),
                (0.1, 0.42 + rng.uniform(-0.02, 0.02)),
                (0.36, 0.32),
                (0.44, 0.14),
                (0.36, 0.01),
                (0, -0.01),
            ],
            fur,
        )
        for x in (0.02, 0.16, 0.29):
            pen.stroke([(x, 0.39 - x * 0.1), (x + 0.03, 0.28)], 0.035, dark)
        pen.ellipse(-0.38, 0.03, 0.12, 0.05, fur)
        pen.ink(thick)
        pen.stroke(
            smooth([(0.38, 0.14), (0.3, 0.03), (0.1, 0.03), (-0.02, 0.06), (0.1, 0.03), (0.3, 0.03)])[:18],
            0.1,
            fur,
            line=True,
        )
        pen.ink(thick)
        _cat_head(pen, -0.2, 0.25, fur, rng, thick, asleep=True)
        return
    tip = rng.uniform(-0.05, 0.1)
    pen.stroke(
        smooth([(0.18, 0.08), (0.36, 0.08), (0.46, 0.2), (0.42, 0.36 + tip), (0.46, 0.2), (0.36, 0.08)])[:20],
        0.085,
        fur,
        line=True,
    )
    pen.blob(
        [
            (0, 0.54),
            (-0.15, 0.46),
            (-0.24, 0.22),
            (-0.25, 0.06),
            (-0.1, 0.01),
            (0.1, 0.01),
            (0.25, 0.06),
            (0.24, 0.22),
            (0.15, 0.46),
        ],
        fur,
    )
    pen.blob([(0, 0.44), (-0.09, 0.38), (-0.1, 0.24), (0, 0.17), (0.1, 0.24), (0.09, 0.38)], WHITE, line=False)
    for side in (-1, 1):
        pen.ellipse(side * 0.2, 0.04, 0.085, 0.05, fur)
    pen.ink(thick)
    for side in (-1, 1):
        pen.blob(
            [(side * 0.015, 0.26), (side * 0.015, 0.02), (side * 0.11, 0.0), (side * 0.12, 0.06), (side * 0.1, 0.26)],
            fur,
        )
    pen.ink(thick * 0.6, shade(fur, 0.6))
    _cat_head(pen, 0, 0.66, fur, rng, thick)


def draw_rabbit(pen: Pen, colour: Colour | None, pose: str | None, rng: Random, thick: float) -> None:
    fur = colour or (178, 132, 98)
    light = mix(fur, WHITE, 0.65)
    pen.ellipse(0.27, 0.13, 0.09, 0.085, WHITE)
    pen.ellipse(0.02, 0.22, 0.26, 0.22, fur)
    for side in (-1, 1):
        pen.ellipse(side * 0.17, 0.035, 0.115, 0.045, light)
    pen.ellipse(0, 0.19, 0.13, 0.14, light, line=False)
    pen.ink(thick)
    lean = rng.uniform(-8, 8)
    for side in (-1, 1):
        droop = 12 * side - lean
        pen.ellipse(side * 0.12 + lean * 0.004, 0.86, 0.075, 0.2, fur, angle=-droop)
        pen.ellipse(side * 0.12 + lean * 0.004, 0.85, 0.035, 0.14, PINK, line=False, angle=-droop)
    pen.ellipse(0, 0.55, 0.235, 0.205, fur)
    pen.ellipse(0, 0.475, 0.105, 0.08, light, line=False)
    _eyes(pen, 0, 0.57, 0.12, 0.05)
    _cheeks(pen, 0, 0.49, 0.165, 0.045)
    pen.ellipse(0, 0.52, 0.035, 0.024, (226, 110, 122), line=False)
    pen.polygon([(-0.035, 0.475), (0.035, 0.475), (0.03, 0.42), (-0.03, 0.42)], WHITE, line=False)
    pen.ink(thick)
    for side in (-1, 1):
        pen.ellipse(side * 0.075, 0.29, 0.05, 0.07, fur)
    pen.ink(thick * 0.6, shade(fur, 0.65))


def draw_duck(pen: Pen, colour: Colour | None, pose: str | None, rng: Random, thick: float) -> None:
    feather = colour or (250, 212, 76)
    beak = (240, 140, 50) if colour != (238, 142, 44) else (250, 205, 70)
    for x in (-0.02, 0.14):
        pen.stroke([(x, 0.14), (x, 0.03), (x - 0.09, 0.02)], 0.05, beak, line=True)
    pen.ink(thick)
    pen.blob(
        [
            (-0.3, 0.3),
            (-0.2, 0.46),
            (0.1, 0.42),
            (0.34, 0.44),
            (0.48, 0.56),
            (0.46, 0.3),
            (0.3, 0.14),
            (0, 0.09),
            (-0.24, 0.16),
        ],
        feather,
    )
    pen.blob([(-0.5, 0.62), (-0.36, 0.68), (-0.33, 0.6), (-0.38, 0.57), (-0.5, 0.57)], beak)
    pen.ellipse(-0.18, 0.66, 0.2, 0.19, feather)
    pen.blob([(-0.3, 0.35), (-0.33, 0.5), (-0.2, 0.55), (-0.02, 0.5), (-0.05, 0.35)], feather, line=False)
    pen.ellipse(-0.24, 0.7, 0.045, 0.055, BLACK, line=False)
    pen.ellipse(-0.255, 0.72, 0.016, 0.018, WHITE, line=False)
    pen.ellipse(-0.13, 0.61, 0.045, 0.03, PINK, line=False)
    pen.ink(thick)
    lift = rng.uniform(0, 0.06)
    pen.blob(
        [(-0.06, 0.32), (0.1, 0.36), (0.28, 0.36 + lift), (0.34, 0.3 + lift), (0.2, 0.18), (0.02, 0.2)],
        shade(feather, 0.88),
    )
    pen.ink(thick * 0.6, shade(feather, 0.6))


def draw_fox(pen: Pen, colour: Colour | None, pose: str | None, rng: Random, thick: float) -> None:
    """Ears with dark tips, white cheeks that run to a pointed muzzle, dark paws, and a brush with a white tip."""
    fur = colour or (230, 112, 48)
    white = WHITE if colour != (250, 247, 240) else (222, 224, 234)
    sock = (98, 66, 62)
    x, tail = -0.13, 0.44 + rng.uniform(-0.03, 0.03)
    pen.blob(
        [
            (-0.03, 0.03),
            (0.23, 0.02),
            (0.42, 0.13),
            (tail + 0.06, 0.36),
            (tail + 0.01, 0.58),
            (tail - 0.11, 0.72),
            (tail - 0.16, 0.56),
            (0.24, 0.36),
            (0.15, 0.22),
        ],
        fur,
    )
    pen.blob(
        [
            (tail - 0.155, 0.57),
            (tail - 0.11, 0.72),
            (tail + 0.01, 0.58),
            (tail + 0.04, 0.47),
            (tail - 0.03, 0.52),
            (tail - 0.07, 0.47),
            (tail - 0.12, 0.53),
        ],
        white,
        line=False,
    )
    pen.ink(thick)
    pen.blob(
        [
            (x, 0.5),
            (x - 0.14, 0.43),
            (x - 0.22, 0.22),
            (x - 0.24, 0.06),
            (x - 0.1, 0.01),
            (x + 0.1, 0.01),
            (x + 0.24, 0.06),
            (x + 0.22, 0.22),
            (x + 0.14, 0.43),
        ],
        fur,
    )
    pen.blob(
        [(x, 0.2), (x - 0.1, 0.3), (x - 0.12, 0.46), (x, 0.5), (x + 0.12, 0.46), (x + 0.1, 0.3)], white, line=False
    )
    pen.ink(thick)
    for side in (-1, 1):
        pen.blob(
            [
                (x + side * 0.015, 0.24),
                (x + side * 0.015, 0.02),
                (x + side * 0.11, 0.0),
                (x + side * 0.12, 0.06),
                (x + side * 0.1, 0.24),
            ],
            fur,
        )
        pen.blob(
            [
                (x + side * 0.015, 0.12),
                (x + side * 0.015, 0.02),
                (x + side * 0.11, 0.0),
                (x + side * 0.12, 0.06),
                (x + side * 0.105, 0.12),
            ],
            sock,
            line=False,
        )
    pen.ink(thick * 0.6, shade(fur, 0.6))
    _fox_head(pen, x, 0.66, fur, white, sock, rng, thick)


def _fox_head(pen, x, y, fur, white, dark, rng, thick):
    lean = rng.uniform(-0.02, 0.03)
    for side in (-1, 1):
        tip = (x + side * (0.27 + lean), y + 0.42)
        pen.polygon([(x + side * 0.05, y + 0.13), tip, (x + side * 0.29, y + 0.03)], fur)
        pen.polygon(
            [(x + side * 0.13, y + 0.14), (x + side * (0.245 + lean), y + 0.32), (x + side * 0.255, y + 0.08)],
            white,
            line=False,
        )
        pen.polygon(
            [tip, (x + side * (0.185 + lean), y + 0.305), (x + side * (0.277 + lean), y + 0.3)], dark, line=False
        )
    pen.blob(
        [
            (x, y + 0.18),
            (x - 0.2, y + 0.14),
            (x - 0.31, y + 0.01),
            (x - 0.37, y - 0.1),
            (x - 0.2, y - 0.17),
            (x, y - 0.27),
            (x + 0.2, y - 0.17),
            (x + 0.37, y - 0.1),
            (x + 0.31, y + 0.01),
            (x + 0.2, y + 0.14),
        ],
        fur,
    )
    for side in (-1, 1):
        pen.blob(
            [
                (x, y - 0.265),
                (x + side * 0.035, y - 0.15),
                (x + side * 0.1, y - 0.045),
                (x + side * 0.22, y - 0.03),
                (x + side * 0.365, y - 0.1),
                (x + side * 0.2, y - 0.165),
            ],
            white,
            line=False,
        )
    _eyes(pen, x, y + 0.02, 0.135, 0.048)
    pen.ellipse(x, y - 0.2, 0.052, 0.042, BLACK, line=False)
    pen.ink(thick)


# --- things ------------------------------------------------------------------------------------------------


def draw_ball(pen: Pen, colour: Colour | None, pose: str | None, rng: Random, thick: float) -> None:
    paint = colour or (216, 58, 50)
    stripe = WHITE if colour != (250, 247, 240) else (206, 206, 214)
    pen.ellipse(0, 0.4, 0.4, 0.4, paint)
    turn = rng.uniform(-0.15, 0.15)
    pen.blob(
        [
            (-0.385, 0.46 + turn),
            (0, 0.4 + turn),
            (0.385, 0.46 + turn),
            (0.385, 0.32 + turn),
            (0, 0.25 + turn),
            (-0.385, 0.32 + turn),
        ],
        stripe,
        line=False,
    )
    pen.ellipse(-0.16, 0.62, 0.09, 0.06, mix(paint, WHITE, 0.7), line=False, angle=35)
    pen.ink(thick)


def draw_teapot(pen: Pen, colour: Colour | None, pose: str | None, rng: Random, thick: float) -> None:
    china = colour or (238, 238, 232)
    pen.stroke(
        smooth([(0.26, 0.48), (0.46, 0.52), (0.5, 0.34), (0.26, 0.2), (0.5, 0.34), (0.46, 0.52)])[:20],
        0.07,
        china,
        line=True,
    )
    pen.blob([(-0.22, 0.22), (-0.42, 0.42), (-0.5, 0.58), (-0.4, 0.6), (-0.32, 0.46), (-0.2, 0.42)], china)
    pen.blob(
        [(0, 0.62), (-0.26, 0.54), (-0.34, 0.32), (-0.24, 0.08), (0, 0.04), (0.24, 0.08), (0.34, 0.32), (0.26, 0.54)],
        china,
    )
    pen.ellipse(0, 0.05, 0.18, 0.04, shade(china, 0.82))
    pen.ink(thick)
    pen.blob([(0, 0.72), (-0.17, 0.67), (-0.22, 0.59), (0, 0.56), (0.22, 0.59), (0.17, 0.67)], shade(china, 0.9))
    pen.ellipse(0, 0.76, 0.06, 0.055, china)
    pen.ink(thick)
    dot = WHITE if colour and colour != (250, 247, 240) else (112, 150, 214)
    for x, y in ((-0.14, 0.36), (0.02, 0.27), (0.17, 0.38), (0.01, 0.46)):
        pen.ellipse(x, y + rng.uniform(-0.02, 0.02), 0.04, 0.04, dot, line=False)
    pen.ink(thick)


def draw_house(pen: Pen, colour: Colour | None, pose: str | None, rng: Random, thick: float) -> None:
    walls = colour or CREAM
    roof = (186, 82, 66) if colour != (216, 58, 50) else (104, 84, 92)
    pen.polygon([(0.17, 0.7), (0.17, 0.98), (0.3, 0.98), (0.3, 0.6)], (150, 110, 100))
    pen.polygon([(-0.38, 0), (-0.38, 0.55), (0.38, 0.55), (0.38, 0)], walls)
    pen.ink(thick)
    pen.polygon([(-0.5, 0.5), (-0.02, 0.98), (0.02, 0.98), (0.5, 0.5)], roof)
    pen.ink(thick)
    door = rng.choice((-0.2, 0, 0.2))
    pen.blob([(door - 0.09, 0.01), (door - 0.09, 0.2), (door, 0.3), (door + 0.09, 0.2), (door + 0.09, 0.01)], WOOD)
    pen.ellipse(door + 0.045, 0.14, 0.016, 0.016, (250, 212, 76), line=False)
    for x in (-0.22, 0.22) if door == 0 else (-door, -door * -0.05):
        pen.polygon([(x - 0.09, 0.22), (x - 0.09, 0.42), (x + 0.09, 0.42), (x + 0.09, 0.22)], GLASS)
        pen.stroke([(x, 0.22), (x, 0.42)], 0.024, LINE)
        pen.stroke([(x - 0.09, 0.32), (x + 0.09, 0.32)], 0.024, LINE)
    pen.ellipse(0, 0.68, 0.07, 0.07, GLASS)
    pen.ink(thick * 0.8)


# --- plants ------------------------------------------------------------------------------------------------


def draw_tree(pen: Pen, colour: Colour | None, pose: str | None, rng: Random, thick: float) -> None:
    crown = colour or (86, 152, 72)
    pen.blob([(-0.08, 0.5), (-0.09, 0.1), (-0.17, 0.0), (0.17, 0.0), (0.09, 0.1), (0.08, 0.5)], WOOD)
    pen.ink(thick)
    for x, y, r in (
        (-0.24, 0.5, 0.2),
        (0.24, 0.5, 0.2),
        (-0.17, 0.76, 0.2),
        (0.17, 0.76, 0.2),
        (0, 0.6, 0.25),
        (0, 0.88, 0.17),
    ):
        pen.ellipse(x + rng.uniform(-0.02, 0.02), y, r, r * 0.95, crown)
    for x, y in ((-0.18, 0.82), (0.1, 0.94), (-0.28, 0.58), (0.06, 0.72)):
        pen.ellipse(x, y, 0.09, 0.06, mix(crown, WHITE, 0.28), line=False)
    fruit = (216, 58, 50) if colour is None else mix(crown, BLACK, 0.35)
    for x, y in ((-0.24, 0.46), (0.22, 0.6), (0.0, 0.5), (0.2, 0.84), (-0.08, 0.66)):
        pen.ellipse(x + rng.uniform(-0.03, 0.03), y + rng.uniform(-0.03, 0.03), 0.04, 0.04, fruit, line=False)
    pen.ink(thick)


def draw_tulip(pen: Pen, colour: Colour | None, pose: str | None, rng: Random, thick: float) -> None:
    petal = colour or (244, 132, 164)
    bend = rng.uniform(-0.05, 0.05)
    pen.blob([(0.0, 0.02), (-0.2, 0.16), (-0.32, 0.42), (-0.12, 0.3), (0.01, 0.12)], LEAF)
    pen.blob([(0.0, 0.02), (0.2, 0.12), (0.34, 0.36), (0.13, 0.27), (-0.01, 0.12)], shade(LEAF, 0.9))
    pen.stroke([(0, 0), (bend * 0.5, 0.3), (bend, 0.56)], 0.07, LEAF, line=True)
    pen.ink(thick)
    x = bend
    pen.blob(
        [
            (x, 0.5),
            (x - 0.2, 0.57),
            (x - 0.26, 0.78),
            (x - 0.22, 0.98),
            (x - 0.1, 0.86),
            (x, 1.02),
            (x + 0.1, 0.86),
            (x + 0.22, 0.98),
            (x + 0.26, 0.78),
            (x + 0.2, 0.57),
        ],
        petal,
    )
    pen.blob([(x, 0.53), (x - 0.12, 0.68), (x, 0.95), (x + 0.12, 0.68)], mix(petal, WHITE, 0.25), line=False)
    pen.ink(thick)


def draw_mushroom(pen: Pen, colour: Colour | None, pose: str | None, rng: Random, thick: float) -> None:
    cap = colour or (214, 62, 52)
    pen.blob([(-0.12, 0.46), (-0.13, 0.2), (-0.19, 0.04), (0, 0.0), (0.19, 0.04), (0.13, 0.2), (0.12, 0.46)], CREAM)
    _eyes(pen, 0, 0.25, 0.06, 0.028)
    pen.ink(thick)
    pen.blob(
        [(0, 0.9), (-0.28, 0.82), (-0.46, 0.56), (-0.42, 0.42), (0, 0.38), (0.42, 0.42), (0.46, 0.56), (0.28, 0.82)],
        cap,
    )
    dot = WHITE if colour != (250, 247, 240) else (222, 196, 190)
    for x, y, r in (
        (-0.27, 0.57, 0.075),
        (0.0, 0.72, 0.095),
        (0.27, 0.56, 0.075),
        (-0.02, 0.49, 0.055),
        (-0.2, 0.76, 0.05),
        (0.21, 0.76, 0.05),
    ):
        pen.ellipse(x + rng.uniform(-0.02, 0.02), y, r, r * 0.9, dot, line=False)
    pen.ink(thick)


# --- vehicles ----------------------------------------------------------------------------------------------


def draw_car(pen: Pen, colour: Colour | None, pose: str | None, rng: Random, thick: float) -> None:
    paint = colour or (72, 128, 212)
    pen.blob([(-0.3, 0.36), (-0.22, 0.6), (-0.1, 0.66), (0.14, 0.66), (0.25, 0.58), (0.34, 0.36)], paint)
    pen.blob(
        [
            (-0.54, 0.2),
            (-0.52, 0.36),
            (-0.36, 0.41),
            (0.36, 0.41),
            (0.53, 0.36),
            (0.55, 0.2),
            (0.4, 0.12),
            (-0.4, 0.12),
        ],
        paint,
    )
    pen.polygon([(-0.22, 0.4), (-0.155, 0.58), (-0.02, 0.59), (-0.02, 0.4)], GLASS, line=False)
    pen.polygon([(0.04, 0.4), (0.04, 0.59), (0.16, 0.58), (0.26, 0.4)], GLASS, line=False)
    pen.ellipse(-0.49, 0.29, 0.045, 0.05, (255, 240, 150), line=False)
    pen.ellipse(0.505, 0.29, 0.03, 0.045, (200, 60, 60), line=False)
    pen.stroke([(-0.34, 0.2), (0.34, 0.2)], 0.03, shade(paint, 0.72))
    pen.ink(thick)
    for x in (-0.3, 0.3):
        pen.ellipse(x, 0.13, 0.13, 0.13, (62, 58, 68))
        pen.ellipse(x, 0.13, 0.06, 0.06, (208, 208, 214), line=False)
    pen.ink(thick)


def draw_boat(pen: Pen, colour: Colour | None, pose: str | None, rng: Random, thick: float) -> None:
    hull, sail = colour or WOOD, colour or WHITE
    pen.stroke([(0, 0.2), (0, 1.02)], 0.045, (126, 88, 62), line=True)
    pen.ink(thick)
    belly = rng.uniform(0, 0.05)
    pen.blob([(-0.04, 0.34), (-0.04, 0.66), (-0.04, 0.98), (-0.26, 0.64), (-0.42 - belly, 0.36), (-0.2, 0.33)], sail)
    pen.blob(
        [(0.05, 0.34), (0.05, 0.6), (0.05, 0.86), (0.24, 0.58), (0.34 + belly, 0.36), (0.2, 0.33)], shade(sail, 0.9)
    )
    pen.polygon([(0, 1.0), (0.16, 1.06), (0, 1.12)], (216, 58, 50))
    pen.polygon([(-0.5, 0.27), (0.5, 0.27), (0.36, 0.02), (-0.36, 0.02)], hull)
    pen.polygon([(-0.485, 0.25), (0.485, 0.25), (0.46, 0.19), (-0.46, 0.19)], WHITE if colour else CREAM, line=False)
    pen.ink(thick)

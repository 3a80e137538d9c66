"""Make the pictures in a notebook's outputs small, so that a clone of the course stays small.

A picture becomes the smallest of: 256 colours, where that changes no pixel visibly (most charts); its levels rounded
to multiples of four, or of two where it is smooth and would show bands (photographs, noise, colour maps); and what it
was. Its size in pixels stays. A picture that was made small says so in itself and is not made smaller again.
"""

import base64
import io
import struct
import zlib

import numpy
from PIL import Image, ImageFilter, PngImagePlugin

MARK = ("Comment", "Colours rounded to save space")  # a text in the PNG: errors of rounding must not add up
LARGEST_ERROR = (
    16  # of a pixel of a chart in 256 colours, in levels of 255: seen at the edges of letters and lines only
)
LEAST_PSNR = 50  # decibels, of the whole chart
SMOOTH = 8  # levels: where they differ by less within five pixels, but do differ, rounding to fours may show as bands


def shrink_outputs(notebook, limit):
    """Make every PNG picture among the notebook's outputs small, in place.

    limit: bytes that all of them may take in the notebook's file. Where they take more, the largest ones get 256
    colours each, until they fit.
    """
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pictures = [output.data for output in outputs if "image/png" in output.get("data", {})]
    for data in pictures:
        data["image/png"] = _base64(shrink(base64.b64decode(data["image/png"])))
    for data in sorted(pictures, key=lambda data: len(data["image/png"]), reverse=True):
        if sum(len(data["image/png"]) for data in pictures) > limit:
            data["image/png"] = _base64(in_few_colours(base64.b64decode(data["image/png"])))


def _base64(data):
    return base64.b64encode(data).decode("ascii")


def in_few_colours(data):
    """Return the bytes of a PNG in 256 colours: about half as many where there are many small pictures in it."""
    picture: Image.Image = Image.open(io.BytesIO(data), formats=["PNG"])
    few = picture.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=5)
    return min(data, encoded(few, picture.info.get("dpi")), key=len)


def shrink(data):
    """Return the bytes of a PNG that looks like the given one, and is smaller if possible."""
    picture: Image.Image = Image.open(io.BytesIO(data), formats=["PNG"])
    animated, deep = getattr(picture, "is_animated", False), picture.mode.startswith("I")  # of 16 bits
    if picture.info.get(MARK[0]) == MARK[1] or animated or deep:
        return data
    dpi = picture.info.get("dpi")
    if picture.has_transparency_data and picture.convert("RGBA").getchannel("A").getextrema() != (255, 255):
        return min(data, encoded(picture, dpi), key=len)
    picture = picture.convert("RGB")
    pixels = numpy.asarray(picture)
    rounded = Image.fromarray(round_levels(pixels, step=2 if smooth_share(picture) > 0.25 else 4))
    if (pixels.min(axis=2) == pixels.max(axis=2)).all():
        rounded = rounded.convert("L")
    candidates = [data, encoded(rounded, dpi), unfiltered(rounded, dpi)]
    few = picture.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=5)
    largest, psnr = difference(pixels, numpy.asarray(few.convert("RGB")))
    if largest <= LARGEST_ERROR and psnr >= LEAST_PSNR:
        candidates.append(encoded(few, dpi))
    return min(candidates, key=len)


def round_levels(pixels, step):
    """Return uint8 levels rounded to multiples of `step`; black stays 0 and white 255."""
    return numpy.minimum((pixels.astype(int) + step // 2) // step * step, 255).astype(numpy.uint8)


def smooth_share(picture):
    """Return the share of the pixels in whose neighbourhood colours change, and only slowly."""
    brightest = numpy.asarray(picture.filter(ImageFilter.MaxFilter(5))).astype(int)
    spans = (brightest - numpy.asarray(picture.filter(ImageFilter.MinFilter(5)))).max(axis=2)
    return ((spans > 0) & (spans <= SMOOTH)).mean()


def difference(pixels, others):
    """Return (the largest error of a level, the PSNR in decibels) between two pictures of levels 0...255."""
    errors = numpy.abs(pixels.astype(float) - others)
    return errors.max(), 10 * numpy.log10(255**2 / max((errors**2).mean(), 1e-10))


def encoded(picture, dpi):
    """Return the picture as the bytes of a PNG, as Pillow writes it."""
    text = PngImagePlugin.PngInfo()
    text.add_text(*MARK)
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True, pnginfo=text, **({"dpi": dpi} if dpi else {}))
    return file.getvalue()


def unfiltered(picture, dpi):
    """Return the picture, grey or RGB, as a PNG without row filters, which Pillow cannot leave out.

    Enlarged small pictures are equal from pixel to pixel; compression sees that better without filters.
    """
    pixels = numpy.asarray(picture)
    rows = numpy.pad(pixels.reshape(len(pixels), -1), ((0, 0), (1, 0)))  # each row begins with a 0: no filter
    colour_type = {"L": 0, "RGB": 2}[picture.mode]
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", *picture.size, 8, colour_type, 0, 0, 0))]
    if dpi:
        chunks.append((b"pHYs", struct.pack(">IIB", *(round(value / 0.0254) for value in dpi), 1)))  # pixels a metre
    chunks.append((b"tEXt", "\0".join(MARK).encode("latin-1")))
    chunks += [(b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b"")]
    file = io.BytesIO()
    file.write(b"\x89PNG\r\n\x1a\n")
    for name, content in chunks:
        PngImagePlugin.putchunk(file, name, content)
    return file.getvalue()

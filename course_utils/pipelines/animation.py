"""A storyboard becomes an animation: noises and prompts between its scenes, how much it flickers, and files of it.

Shapes: noises (number, channels, h, w); features, the hidden states of prompts, (number, tokens, width);
frames (number, 3, height, width) in [-1, 1].
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import imageio_ffmpeg
import numpy
import torch
from PIL import Image

from course_utils.data.images import to_pil
from course_utils.diffusion.editing import slerp
from course_utils.files import new_file
from course_utils.shapes import require_pictures

Mix = Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]  # of `diffusion.editing`: slerp or lerp


def path_of_frames(stops: torch.Tensor, between: int, mix: Mix = slerp) -> torch.Tensor:
    """Return the stops with `between` steps from each to the next, each stop once: ((stops - 1) between + 1, ...).

        frame i = mix(stop_k, stop_{k+1}, share),   k = floor(i / between),   share = i / between - k

    stops: (stops, ...), two or more. mix: `slerp` for noises, `lerp` for features; the stops come back to the bit.
    Raises ValueError for fewer stops, or unless `between` is a whole number of 1 or more.
    """
    if len(stops) < 2 or not isinstance(between, int) or between < 1:
        raise ValueError(
            f"Expected two stops or more and a whole number of steps between them, but got {len(stops)} and {between}."
        )
    frames = []
    for a, b in zip(stops[:-1], stops[1:], strict=True):
        frames.append(a)
        frames.extend(mix(a[None], b[None], step / between)[0] for step in range(1, between))
    return torch.stack([*frames, stops[-1]])


def animate(
    draw: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    noises: torch.Tensor,
    features: torch.Tensor,
    batch: int = 16,
) -> Iterator[torch.Tensor]:
    """Yield the frames in batches, as soon as each is drawn: draw(noises, features) -> pictures (batch, 3, ...).

    noises, features: one for each frame, as `path_of_frames` gives them. The caller owns the progress bar.
    Raises ValueError if there are not as many of both.
    """
    if len(noises) != len(features) or batch < 1:
        raise ValueError(
            f"Expected one noise and one prompt for each frame, but got {len(noises)} and {len(features)}; "
            "make both with path_of_frames and the same number of steps."
        )
    for start in range(0, len(noises), batch):
        yield draw(noises[start : start + batch], features[start : start + batch])


def flicker(frames: torch.Tensor) -> torch.Tensor:
    """Return the mean difference of each frame and the next, in grey levels of 255: (number - 1,).

        127.5 mean | frame_{i+1} - frame_i |

    The sum over all is at least the difference of the first and the last frame, and equal to it where they are
    cross-faded. Raises ValueError for fewer than two frames.
    """
    require_pictures(frames)
    if len(frames) < 2:
        raise ValueError(f"Expected two frames or more, but got {len(frames)}.")
    return (frames[1:] - frames[:-1]).abs().flatten(1).mean(1) * 127.5


def write_gif(frames: torch.Tensor, path: Path | str, per_second: float = 12, scale: int = 3) -> None:
    """Write frames as an endless GIF, each pixel `scale` times as large; one palette of 256 colours for all frames.

    GIF counts in hundredths of a second, so that 12 frames a second take 8 hundredths each. Raises ValueError for a
    rate outside 1 to 50, or a scale below 1.
    """
    pages = _enlarged(frames, per_second, scale)
    sheet = Image.fromarray(numpy.concatenate([numpy.asarray(page) for page in pages]))
    palette = sheet.quantize(256, dither=Image.Dither.NONE)
    first, *others = [page.quantize(palette=palette, dither=Image.Dither.NONE) for page in pages]
    with new_file(Path(path)) as part:
        first.save(
            part, "GIF", save_all=True, append_images=others, loop=0, duration=10 * round(100 / per_second), disposal=1
        )


def write_mp4(frames: torch.Tensor, path: Path | str, per_second: float = 12, scale: int = 4) -> None:
    """Write frames as an MP4 file (H.264, which every browser plays), with the ffmpeg of imageio-ffmpeg.

    Raises ValueError as `write_gif`, and for an odd width or height, which H.264 has not.
    """
    pages = _enlarged(frames, per_second, scale)
    width, height = pages[0].size
    if width % 2 or height % 2:
        raise ValueError(f"Expected an even width and height, but got {width} x {height}: choose an even scale.")
    with new_file(Path(path)) as part:
        # without macro_block_size=1 it would resize to multiples of 16
        file = imageio_ffmpeg.write_frames(
            str(part), (width, height), fps=per_second, macro_block_size=1, output_params=["-f", "mp4"]
        )
        file.send(None)
        try:
            for page in pages:
                file.send(numpy.ascontiguousarray(page))
        finally:
            file.close()


def read_mp4(path: Path | str) -> torch.Tensor:
    """Return the frames of a video file, (number, 3, height, width) in [-1, 1]."""
    film = imageio_ffmpeg.read_frames(str(path))
    width, height = next(film)["size"]
    frames = [numpy.frombuffer(frame, numpy.uint8).reshape(height, width, 3) for frame in film]
    return torch.from_numpy(numpy.stack(frames)).permute(0, 3, 1, 2).float() / 127.5 - 1


def _enlarged(frames: torch.Tensor, per_second: float, scale: int) -> list[Image.Image]:
    if not 1 <= per_second <= 50 or scale != int(scale) or scale < 1:
        raise ValueError(f"Expected 1 to 50 frames a second and a whole scale >= 1, but got {per_second} and {scale}.")
    pages = [page.convert("RGB") for page in to_pil(frames)]
    return [page.resize((page.width * scale, page.height * scale), Image.Resampling.NEAREST) for page in pages]

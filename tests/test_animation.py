"""Animations: the path through a storyboard, flicker in closed form, and files that hold the frames."""

import pytest
import torch
from PIL import Image

from course_utils.diffusion.editing import lerp, slerp
from course_utils.pipelines import animation


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def pictures(number, size=16):
    return torch.rand(number, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_the_path_meets_each_stop_once_and_mixes_between():
    stops = normal(3, 8, 4, 4)
    for mix in (slerp, lerp):
        path = animation.path_of_frames(stops, 4, mix)
        assert path.shape == (9, 8, 4, 4) and torch.equal(path[::4], stops)
        assert torch.allclose(path[5], mix(stops[1:2], stops[2:3], 0.25)[0])
    assert torch.equal(animation.path_of_frames(stops, 1), stops)


def test_on_an_arc_noises_keep_their_variance_and_on_a_line_they_lose_half():
    stops = normal(2, 8, 16, 16)
    arc, line = (animation.path_of_frames(stops, 10, mix).flatten(1).var(1) for mix in (slerp, lerp))
    assert (arc - 1).abs().max() < 0.08 and abs(line[5] - 0.5) < 0.06


def test_equal_stops_stand_still():
    stop = normal(1, 4).expand(3, -1)
    assert torch.allclose(animation.path_of_frames(stop, 5), stop[:1].expand(11, -1))


def test_frames_come_in_batches_and_in_order():
    noises, features = normal(7, 2), normal(7, 3, seed=1)
    seen = []

    def draw(x, c):
        seen.append(len(x))
        return torch.cat([x, c], 1)

    parts = list(animation.animate(draw, noises, features, batch=3))
    assert seen == [3, 3, 1] and torch.equal(torch.cat(parts), torch.cat([noises, features], 1))


def test_flicker_of_a_cross_fade_is_the_difference_of_its_ends_and_less_is_impossible():
    ends = pictures(2)
    faded = animation.path_of_frames(ends, 6, lerp)
    whole = animation.flicker(ends).sum()
    assert torch.allclose(animation.flicker(faded), whole / 6, rtol=1e-4)
    other = torch.cat([ends[:1], pictures(7)[2:], ends[1:]])
    assert animation.flicker(other).sum() > whole
    steps = torch.tensor([-1.0, 1.0, 1.0])[:, None, None, None].expand(3, 3, 4, 4)
    assert animation.flicker(steps).tolist() == [255.0, 0.0]


def test_a_gif_holds_all_frames_their_time_and_nearly_their_colours(tmp_path):
    frames = torch.linspace(-1, 1, 5)[:, None, None, None].expand(5, 3, 16, 16)
    animation.write_gif(frames, tmp_path / "a.gif", per_second=10, scale=2)
    with Image.open(tmp_path / "a.gif") as film:
        assert film.n_frames == 5 and film.size == (32, 32) and film.info["loop"] == 0
        for index in range(5):
            film.seek(index)
            assert film.info["duration"] == 100
            assert abs(film.convert("RGB").getpixel((3, 3))[0] - 255 * index / 4) < 3


def test_an_mp4_comes_back_as_long_as_large_and_nearly_alike(tmp_path):
    frames = torch.linspace(-0.8, 0.8, 6)[:, None, None, None].expand(6, 3, 18, 16)
    animation.write_mp4(frames, tmp_path / "a.mp4", per_second=10, scale=3)
    back = animation.read_mp4(tmp_path / "a.mp4")
    assert back.shape == (6, 3, 54, 48)
    assert (back.mean((1, 2, 3)) - frames.mean((1, 2, 3))).abs().max() < 0.05


def test_what_is_no_film_is_refused(tmp_path):
    frames = pictures(3)
    for stops, between in ((normal(1, 4), 3), (normal(2, 4), 0), (normal(2, 4), 2.5)):
        with pytest.raises(ValueError, match="two stops"):
            animation.path_of_frames(stops, between)
    with pytest.raises(ValueError, match="one prompt for each frame"):
        list(animation.animate(lambda x, c: x, normal(3, 2), normal(2, 2)))
    with pytest.raises(ValueError, match="two frames"):
        animation.flicker(frames[:1])
    with pytest.raises(ValueError, match="frames a second"):
        animation.write_gif(frames, tmp_path / "a.gif", per_second=0)
    with pytest.raises(ValueError, match="even"):
        animation.write_mp4(pictures(3, 15), tmp_path / "a.mp4", scale=1)
    assert not list(tmp_path.iterdir())

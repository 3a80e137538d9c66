"""One user's drawing: a request is drawn in a thread, tells how far it is, can be stopped, and keeps every picture."""

import dataclasses
import random
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from course_utils.pipelines.png_info import MOST_SEED, Settings, check_settings, whole_number
from course_utils.pipelines.steering import Given
from course_utils.studio.drawing import Preview, draw_one
from course_utils.studio.gallery import Gallery
from course_utils.studio.shelf import SHIPPED, Shelf
from course_utils.text.prompts import inspect_prompt
from course_utils.text.syntax import plain_text

PREVIEW_SECONDS = 0.25  # at least between two previews, so that they do not slow drawing down
RANDOM = -1  # as a seed: the dice


@dataclasses.dataclass(frozen=True)
class Request:
    """What is to be drawn: `count` pictures of the settings (their seed RANDOM: any), picture i with seed + i.

    model: a name of `Shelf.models`. given: what is given beside the prompt. Names of files in the settings are
    replaced by those under which the gallery keeps what is given.
    """

    settings: Settings
    count: int = 1
    model: str = SHIPPED
    given: Given = dataclasses.field(default_factory=Given)


@dataclasses.dataclass(frozen=True)
class Progress:
    """After a step: `share` of all that was asked for, 0 to 1; seconds that are left; perhaps a preview."""

    share: float
    seconds_left: float | None
    preview: Image.Image | None = None


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A picture is finished: the picture, its complete settings, and the file that keeps it."""

    picture: Image.Image
    settings: Settings
    path: Path


@dataclasses.dataclass(frozen=True)
class Ended:
    """All is over, the last thing that is reported: `message` is one sentence; `failed`: it names a fault.

    notes: sentences on words of the prompt that the model does not know.
    """

    message: str
    failed: bool = False
    notes: tuple[str, ...] = ()


Event = Progress | Drawn | Ended


class Stopped(Exception):
    """Raised within a drawing to end it."""


class Session:
    """Draws one request at a time. shelf: the models; gallery: where pictures are kept."""

    def __init__(self, shelf: Shelf, gallery: Gallery):
        self.shelf, self.gallery = shelf, gallery
        self.last_seed: int | None = None
        self._stop, self._thread = threading.Event(), threading.Thread()
        self._preview: tuple | None = None  # (pipeline, its Preview)

    @property
    def busy(self) -> bool:
        """Whether something is being drawn."""
        return self._thread.is_alive()

    def start(self, requests: Request | Sequence[Request], report: Callable[[Event], None]) -> None:
        """Draw in a thread of its own; `report` is called there with each event, `Ended` the last.

        Raises ValueError if something is being drawn already.
        """
        if self.busy:
            raise ValueError("A drawing is under way: stop it first, or wait for its end.")
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, args=(requests, report), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the drawing after the step that it is at; finished pictures stay."""
        self._stop.set()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for the end of the drawing; return whether it has ended."""
        if self._thread.ident is not None:
            self._thread.join(seconds)
        return not self.busy

    def run(self, requests: Request | Sequence[Request], report: Callable[[Event], None]) -> None:
        """Draw the requests one after the other, here and now, and report; never raises for what cannot be drawn."""
        self._stop.clear()
        self._run(requests, report)

    def _run(self, requests: Request | Sequence[Request], report: Callable[[Event], None]) -> None:
        requests = [requests] if isinstance(requests, Request) else list(requests)
        pictures, started = 0, time.monotonic()
        try:
            total = sum(request.count for request in requests)
            for request in requests:
                for settings in self._settings(request):
                    clock = _Clock(pictures, total)
                    event = self._draw(request, settings, clock, report)
                    pictures += 1
                    report(event)
            said = f"Drew {_pictures(pictures)} in {time.monotonic() - started:.1f} s."
            report(Ended(said, notes=self._notes(requests[-1])))
        except Stopped:
            report(Ended(f"Stopped; {pictures} of {_pictures(total)} finished."))
        except ValueError as error:
            report(Ended(str(error), failed=True))
        except Exception as error:  # no memory, no disk: the studio lives on
            reason = str(error).strip().partition("\n")[0][:200] or type(error).__name__
            report(Ended(f"This could not be drawn ({reason}): try smaller or fewer pictures.", failed=True))

    def _settings(self, request: Request) -> list[Settings]:
        """The settings of each picture, the dice cast and what is given kept."""
        settings, given = request.settings, request.given
        if settings.seed == RANDOM:
            whole_number("The number of pictures", request.count, 1, MOST_SEED)
            settings = dataclasses.replace(settings, seed=random.SystemRandom().randrange(MOST_SEED - request.count))
        check_settings(settings, request.count)
        if not settings.prompt.strip() and given.image is None:
            raise ValueError("The prompt is empty: say what to draw, such as 'a cute corgi puppy on the grass'.")
        keep = self.gallery.keep_given
        settings = dataclasses.replace(
            settings, image=keep(given.image, "image"), mask=keep(given.mask, "mask"),
            control=keep(given.drawing, "drawing"), loras=tuple(given.loras),
        )  # fmt: skip
        self.last_seed = settings.seed
        return [dataclasses.replace(settings, seed=settings.seed + number) for number in range(request.count)]

    def _draw(self, request: Request, settings: Settings, clock: "_Clock", report) -> Drawn:
        def on_step(share, x0):
            if self._stop.is_set():
                raise Stopped
            preview = show(x0) if clock.wants_preview() else None
            report(Progress(*clock.at(share), preview))

        report(Progress(clock.at(0)[0], None))
        pipe = self.shelf.load(request.model)
        show = self._preview_of(pipe)
        while not self.shelf.lock.acquire(timeout=0.1):  # another studio draws with this model
            if self._stop.is_set():
                raise Stopped
        try:
            clock.begin()
            picture, made = draw_one(pipe, settings, request.given, on_step)
        finally:
            self.shelf.lock.release()
        return Drawn(picture, made, self.gallery.keep(picture, made))

    def _notes(self, request: Request) -> tuple[str, ...]:
        words = plain_text(request.settings.prompt)
        return tuple(inspect_prompt(self.shelf.load(request.model).tokenizer, words).advice()) if words.strip() else ()

    def _preview_of(self, pipe) -> Preview:
        if self._preview is None or self._preview[0] is not pipe:
            self._preview = (pipe, Preview(pipe))
        return self._preview[1]


def _pictures(number: int) -> str:
    return f"{number} picture" + "s" * (number != 1)


class _Clock:
    """How far a run is, and what it will still take, at the pace of the picture that is being drawn."""

    def __init__(self, done: int, total: int):
        self.done, self.total, self.shown = done, total, 0.0
        self.begin()

    def begin(self) -> None:
        self.started = time.monotonic()

    def at(self, share: float) -> tuple[float, float | None]:
        """(share of all, seconds left)."""
        spent = time.monotonic() - self.started
        left = spent / share * (1 - share + self.total - self.done - 1) if share else None
        return (self.done + share) / self.total, left

    def wants_preview(self) -> bool:
        now = time.monotonic()
        if now - self.shown < PREVIEW_SECONDS:
            return False
        self.shown = now
        return True


__all__ = ["RANDOM", "Drawn", "Ended", "Event", "Given", "Progress", "Request", "Session"]

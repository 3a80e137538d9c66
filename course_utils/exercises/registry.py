"""What an exercise is, and where all of them are found: `chapter_NN.py` holds those of chapter NN."""

import difflib
import importlib
import inspect
import pkgutil
import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

_EXERCISES: dict[str, "Exercise"] = {}


@dataclass(frozen=True)
class Exercise:
    """A function or class that the learner writes, and how it is examined.

    `oracle(learner, case)` calls `learner` like the function itself, on inputs made with `case`, and compares what
    comes back by `close` and `require` (see `oracles.py`). `uses`: ids of exercises that the learner's code may
    call by name; during the check those names mean the references. `gradients`: something is learned through the
    results, so their gradients with respect to inputs and parameters are compared with the reference's, too.
    `given`: the parameters in the `def` line that the learner is given, where the reference has more.
    """

    id: str
    reference: Callable
    oracle: Callable
    task: str
    difficulty: int  # 1 ... 5
    minutes: int
    hints: tuple[str, ...]
    uses: tuple[str, ...] = ()
    gradients: bool = False
    given: str = ""

    @property
    def signature(self) -> inspect.Signature:
        """The parameters that the learner is given; of a class, those of its objects' making."""
        return inspect.signature(eval(f"lambda {self.given}: None") if self.given else self.reference)

    @property
    def name(self) -> str:
        """The name of the function or class, as the notebook has it."""
        return self.reference.__name__

    @property
    def chapter(self) -> str:
        return self.id.split(".")[0]


def exercise(
    id: str,
    reference: Callable,
    *,
    difficulty: int,
    minutes: int,
    hints: list[str],
    uses=(),
    gradients: bool = False,
    given="",
) -> Callable:
    """Register the function below as the oracle of an exercise; the first line of its docstring is the task.

    Raises ValueError if the id is taken, or if difficulty, minutes or hints are not as the course promises.
    """

    def register(oracle: Callable) -> Callable:
        taken = _EXERCISES.get(id)
        if taken and taken.oracle.__qualname__ != oracle.__qualname__:
            raise ValueError(f"expected an id of its own, got '{id}', which {taken.oracle.__name__} has; take another")
        if difficulty not in range(1, 6) or minutes < 1 or len(hints) < 2 or not oracle.__doc__:
            raise ValueError(
                f"expected of '{id}' a difficulty from 1 to 5, minutes, two hints and a docstring, got "
                f"difficulty={difficulty}, minutes={minutes}, {len(hints)} hints; add what is missing"
            )
        task = oracle.__doc__.strip().splitlines()[0]
        _EXERCISES[id] = Exercise(
            id, reference, oracle, task, difficulty, minutes, tuple(hints), tuple(uses), gradients, given
        )
        return oracle

    return register


def chapters() -> dict[str, ModuleType]:
    """Return the modules with the exercises of each chapter, {"05": module}, in order."""
    import course_utils.exercises as package

    names = sorted(module.name for module in pkgutil.iter_modules(package.__path__) if module.name[:8] == "chapter_")
    return {name[8:]: importlib.import_module(f"{package.__name__}.{name}") for name in names}


def all_exercises() -> list[Exercise]:
    """Return the exercises of every chapter, in the order in which they are met."""
    chapters()
    return sorted(_EXERCISES.values(), key=lambda exercise: exercise.chapter)


def find(id: str) -> Exercise:
    """Return the exercise with this id. Raises ValueError, naming those that look alike, if there is none."""
    known = [exercise.id for exercise in all_exercises()]
    if id in known:
        return _EXERCISES[id]
    near = difflib.get_close_matches(str(id), known, n=3, cutoff=0.5)
    likely = f"did you mean {' or '.join(near)}?" if near else 'one such as "05.snr"; progress() lists them all'
    raise ValueError(f"expected the id of an exercise, got {reprlib.repr(id)}; {likely}")

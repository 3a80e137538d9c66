"""What a check accepts must work in the rest of its chapter: all cells run with right answers written otherwise."""

import subprocess
import sys

import pytest
from afterwards import rounds

from course_utils.exercises.registry import chapters

RUNS = [(chapter, number) for chapter in chapters() for number in range(rounds(chapter))]


@pytest.mark.parametrize("chapter, number", RUNS)
def test_later_cells_work_with_every_right_answer(chapter, number):
    command = [sys.executable, "tests/exercises/afterwards.py", chapter, str(number)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr

"""Marks tests of what a learner need not install: skipped, by name, where it is missing, but never where CI=true."""

import os

import pytest


def needs(there: bool, remedy: str):
    """Mark a test that needs something. there: whether it is installed; remedy: what is missing, and what to do."""
    return pytest.mark.skipif(not there and os.environ.get("CI") != "true", reason=remedy)

"""Programs that some tests need, and not every machine has: without one they skip and say so; CI may not skip."""

import os
import shutil

import pytest


def needs(program: str, purpose: str) -> str:
    """Return a program's path; where there is none, skip the test with a sentence, or fail where CI is set."""
    path = shutil.which(program)
    if path is None:
        sentence = f"there is no {program} here to {purpose}"
        if "CI" in os.environ:
            pytest.fail(f"CI has to have {program}: {sentence}", pytrace=False)
        pytest.skip(sentence)
    return path

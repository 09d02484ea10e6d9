"""What not every machine has: tests that need it are skipped where it is missing, unless it is required."""

import os

import pytest


def missing(what, message):
    """Skip a test for want of ``what``, or fail it where the environment variable EVLIB_REQUIRE names ``what``.

    A machine that must have real recordings or a browser says so: ``EVLIB_REQUIRE="data browser"``.
    """
    required = what in os.environ.get("EVLIB_REQUIRE", "").split()
    pytest.fail(f"{message} (EVLIB_REQUIRE names {what})") if required else pytest.skip(message)


def some_slow(cases, *quick):
    """Cases of a test: those that are not ``quick`` stand for more of the same, and are left out by -m 'not slow'."""
    return [case if case in quick else pytest.param(case, marks=pytest.mark.slow) for case in cases]

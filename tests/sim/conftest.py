"""The real data packages, or a plain word about their absence."""

from __future__ import annotations

import os

import pytest

from ringmain.sim.profiles import ProfileDataMissingError, Profiles, read_packages


@pytest.fixture(scope="session")
def profiles() -> Profiles:
    try:
        return read_packages()
    except ProfileDataMissingError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))

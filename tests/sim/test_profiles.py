"""The real data: read whole, cached, mended when the cache is damaged."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from ringmain.sim.profiles import SHOP_PROFILES, ProfileDataMissingError, Profiles, data_file, load_profiles


def test_household_days_are_whole_and_every_month_has_days_of_both_kinds(profiles: Profiles) -> None:
    assert profiles.days.shape[0] > 2000
    assert profiles.days.shape[1] == 48
    assert np.isfinite(profiles.days).all()
    assert (profiles.days >= 0).all()
    assert (profiles.days.sum(axis=1) > 0).all()
    for month, weekend in (
        (profiles.day_month, profiles.day_weekend),
        (profiles.gas_day_month, profiles.gas_day_weekend),
    ):
        for number in range(1, 13):
            of_month = month == number
            assert (of_month & weekend).any()
            assert (of_month & ~weekend).any()


def test_gas_is_burnt_in_winter(profiles: Profiles) -> None:
    winter = np.isin(profiles.gas_day_month, (12, 1, 2))
    summer = np.isin(profiles.gas_day_month, (6, 7, 8))
    assert profiles.gas_days[winter].mean() > 3 * profiles.gas_days[summer].mean()


def test_every_shop_profile_has_an_annual_mean_of_one_and_offices_rest_on_sundays(profiles: Profiles) -> None:
    week = (profiles.shops * np.array([1, 1, 5])[None, None, :, None]).sum(axis=2) / 7
    assert week.mean(axis=(1, 2)) == pytest.approx(np.ones(len(SHOP_PROFILES)), abs=1e-4)
    office = profiles.shops[SHOP_PROFILES.index("G1"), 0]
    assert office[2].sum() > 2 * office[1].sum()


def test_the_reference_year_has_8760_hours_of_plausible_weather(profiles: Profiles) -> None:
    assert profiles.temperature_c.shape == profiles.global_w_m2.shape == (8760,)
    assert 8 < profiles.temperature_c.mean() < 11
    assert 900_000 < profiles.global_w_m2.sum() < 1_200_000
    midnights = profiles.global_w_m2[23::24]
    assert midnights.max() == 0


def test_the_cache_gives_what_the_packages_gave(profiles: Profiles, tmp_path: Path) -> None:
    cache = tmp_path / "deep" / "profiles.npz"
    first, second = load_profiles(cache), load_profiles(cache)
    for field in fields(Profiles):
        assert np.array_equal(getattr(first, field.name), getattr(profiles, field.name))
        assert np.array_equal(getattr(second, field.name), getattr(profiles, field.name))
    assert [file.name for file in cache.parent.iterdir()] == ["profiles.npz"]


@pytest.mark.parametrize("damage", [b"", b"not a zip file", None])
def test_a_damaged_cache_is_built_again(profiles: Profiles, tmp_path: Path, damage: bytes | None) -> None:
    cache = tmp_path / "profiles.npz"
    load_profiles(cache)
    whole = cache.read_bytes()
    cache.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    assert np.array_equal(load_profiles(cache).days, profiles.days)
    assert len(cache.read_bytes()) > len(whole) * 9 // 10


def test_a_missing_package_is_named_with_the_command_that_mends_it() -> None:
    with pytest.raises(
        ProfileDataMissingError, match=r"no-such-package.*pip install --no-deps -r requirements/demo\.in"
    ):
        data_file("no-such-package", "data.csv")

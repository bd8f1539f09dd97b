"""Measured days, standard load profiles and weather: the real data behind the simulated devices.

Only data files of two packages are read, never their code, so both may be installed without dependencies
(`requirements/demo.in`):

    opendsm    `eemeter/samples/uk-*.csv.gz`: three British electricity meters and one gas meter, hourly or
               half-hourly energy in kWh, 2012-2022 (Apache-2.0). The `il-*` files beside them are simulated
               and therefore not used.
    demandlib  `bdew/bdew_data/*.csv`: BDEW standard load profiles, G0-G6 (1999) and G25 (2025), and the
               SigLinDe heat demand factors; `vdi/resources_weather/TRY2010_04_Jahr.dat`: the test reference
               year of Deutscher Wetterdienst for region 4, in which Leipzig lies (MIT; weather: source DWD).

`load_profiles` keeps what it read in one `.npz` beside the demo's data; a damaged or outdated cache is
built again. Days with a gap, a clock change or a zero reading run are left out, not mended.
"""

from __future__ import annotations

import csv
import gzip
import os
from dataclasses import dataclass, fields
from datetime import datetime
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

CACHE_VERSION = 1
SLOTS = 48
"""Values of a household day: means over half an hour."""

QUARTERS = 96
SHOP_PROFILES = ("G0", "G1", "G2", "G3", "G4", "G5", "G6", "G25")
_ELECTRICITY_TRACES = tuple(f"uk-electricity-hdd-only-hourly-sample-{n}" for n in range(3))
_GAS_TRACE = "uk-gas-hdd-only-hourly-sample-0"
_WEATHER_REGION = 4
_HEAT_BUILDING = ("EFH", "5")
_MONTHS_SUMMER = (5, 6, 7, 8)
_MONTHS_WINTER = (1, 2, 3, 11, 12)


class ProfileDataMissingError(Exception):
    """A data package is not installed; the message names the command that mends it."""


@dataclass(frozen=True, slots=True)
class Profiles:
    """Everything that the signals are made of.

    `days[n, 48]`: power in half-hours of household-day n, 1.0 being its meter's long-term mean;
    `day_month[n]` 1-12 and `day_weekend[n]` say when it was measured; `gas_*` likewise.
    `shops[p, month, kind, 96]`: profile p of `SHOP_PROFILES`, month 0-11, kind of day 0 Saturday,
    1 Sunday and holiday, 2 working day, quarter of an hour; 1.0 being the annual mean.
    `temperature_c[8760]` at, `global_w_m2[8760]` mean over the hour before, hour 1..8760 of the year in MEZ.
    `heat_sigmoid`: a, b, c, d of h(T) = a / (1 + (b / (T - 40))^c) + d (BDEW/VKU/GEODE SigLinDe).
    """

    days: NDArray[np.float32]
    day_month: NDArray[np.int8]
    day_weekend: NDArray[np.bool_]
    gas_days: NDArray[np.float32]
    gas_day_month: NDArray[np.int8]
    gas_day_weekend: NDArray[np.bool_]
    shops: NDArray[np.float32]
    temperature_c: NDArray[np.float32]
    global_w_m2: NDArray[np.float32]
    heat_sigmoid: NDArray[np.float64]


def load_profiles(cache_file: Path) -> Profiles:
    """The profiles, from the cache where it is whole, else from the packages (and then cached).

    Raises ProfileDataMissingError where a package is needed and missing.
    """
    cached = _read_cache(cache_file)
    if cached is not None:
        return cached
    profiles = read_packages()
    cache_file.parent.mkdir(parents=True, exist_ok=True)
    temporary = cache_file.with_name(f".{cache_file.name}.{os.getpid()}")
    with temporary.open("wb") as out:
        columns = {field.name: getattr(profiles, field.name) for field in fields(Profiles)}
        np.savez_compressed(out, version=np.array(CACHE_VERSION), **columns)
    temporary.replace(cache_file)
    return profiles


def read_packages() -> Profiles:
    """The profiles, parsed from the data files of the installed packages (about half a second)."""
    parts = [_read_trace(name) for name in _ELECTRICITY_TRACES]
    gas_days, gas_month, gas_weekend = _read_trace(_GAS_TRACE)
    temperature_c, global_w_m2 = _read_weather()
    return Profiles(
        days=np.concatenate([part[0] for part in parts]),
        day_month=np.concatenate([part[1] for part in parts]),
        day_weekend=np.concatenate([part[2] for part in parts]),
        gas_days=gas_days,
        gas_day_month=gas_month,
        gas_day_weekend=gas_weekend,
        shops=_read_shops(),
        temperature_c=temperature_c,
        global_w_m2=global_w_m2,
        heat_sigmoid=_read_heat_sigmoid(),
    )


def data_file(package: str, path: str) -> Path:
    """Where an installed package keeps a data file. The package is not imported."""
    remedy = "pip install --no-deps -r requirements/demo.in"
    try:
        file = Path(str(distribution(package).locate_file(path)))
    except PackageNotFoundError:
        raise ProfileDataMissingError(
            f"expected the data files of the package {package}, which is not installed; run: {remedy}"
        ) from None
    if not file.is_file():
        raise ProfileDataMissingError(
            f"expected {path} in the package {package}, found no such file; install the version that "
            f"requirements/demo.in names: {remedy}"
        )
    return file


def _read_cache(cache_file: Path) -> Profiles | None:
    try:
        with np.load(cache_file, allow_pickle=False) as columns:
            if int(columns["version"]) != CACHE_VERSION:
                return None
            return Profiles(**{field.name: columns[field.name] for field in fields(Profiles)})
    except (OSError, KeyError, ValueError, BadZipFile, EOFError):
        return None


Days = tuple[NDArray[np.float32], NDArray[np.int8], NDArray[np.bool_]]


def _read_trace(name: str) -> Days:
    """Whole days of one meter as (days, month, weekend); hourly meters hold each hour for two half-hours."""
    with gzip.open(data_file("opendsm", f"opendsm/eemeter/samples/{name}.csv.gz"), "rt") as text:
        rows = list(csv.reader(text))[1:]
    by_day: dict[str, list[float]] = {}
    for start, value in rows:
        by_day.setdefault(start[:10], []).append(float(value) if value else np.nan)
    per_day = max(24, round(float(np.median([len(values) for values in by_day.values()]))))
    whole = {
        day: values
        for day, values in by_day.items()
        if len(values) == per_day and np.isfinite(values).all() and sum(values) > 0
    }
    energy = np.array(list(whole.values()), dtype=np.float64)
    power = np.repeat(energy, SLOTS // per_day, axis=1)
    dates = [datetime.fromisoformat(day) for day in whole]
    return (
        (power / power.mean()).astype(np.float32),
        np.array([date.month for date in dates], dtype=np.int8),
        np.array([date.weekday() >= 5 for date in dates], dtype=np.bool_),
    )


def _read_shops() -> NDArray[np.float32]:
    shops = np.zeros((len(SHOP_PROFILES), 12, 3, QUARTERS))
    with data_file("demandlib", "demandlib/bdew/bdew_data/selp_series.csv").open() as text:
        for row in csv.DictReader(text):
            day = int(row["weekday"])
            kind = 0 if day == 6 else 1 if day == 7 else 2
            clock = row[""].split(" ")[1]
            quarter = int(clock[:2]) * 4 + int(clock[3:5]) // 15
            months = [m for m in range(1, 13) if _period(m) == row["period"]]
            for p, profile in enumerate(SHOP_PROFILES[:-1]):
                shops[p, [m - 1 for m in months], kind, quarter] = float(row[profile.lower()])
    with data_file("demandlib", "demandlib/bdew/bdew_data/g25.csv").open() as text:
        lines = list(csv.reader(text))[2:]
    values = np.array([[float(value) for value in line[1:]] for line in lines])
    shops[-1] = values.reshape(QUARTERS, 12, 3).transpose(1, 2, 0)
    week = (shops * np.array([1, 1, 5])[None, None, :, None]).sum(axis=2) / 7
    scaled: NDArray[np.float32] = (shops / week.mean(axis=(1, 2))[:, None, None, None]).astype(np.float32)
    return scaled


def _period(month: int) -> str:
    """The BDEW season of most of a month (they change on 21 March, 15 May, 15 September, 1 November)."""
    if month in _MONTHS_SUMMER:
        return "summer"
    return "winter" if month in _MONTHS_WINTER else "transition"


def _read_weather() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Air temperature, and global radiation as the sum of columns B (direct) and D (diffuse)."""
    path = f"demandlib/vdi/resources_weather/TRY2010_{_WEATHER_REGION:02d}_Jahr.dat"
    text = data_file("demandlib", path).read_text(encoding="utf-8")
    _, found, body = text.partition("\n***\n")
    rows = [line.split() for line in body.splitlines() if line.strip()]
    if not found or len(rows) != 8760:
        raise ProfileDataMissingError(f"expected 8760 hours after *** in {path}, found {len(rows)}")
    temperature = np.array([float(row[8]) for row in rows], dtype=np.float32)
    radiation = np.array([float(row[13]) + float(row[14]) for row in rows], dtype=np.float32)
    return temperature, np.maximum(radiation, 0)


def _read_heat_sigmoid() -> NDArray[np.float64]:
    kind, building_class = _HEAT_BUILDING
    with data_file("demandlib", "demandlib/bdew/bdew_data/shlp_sigmoid_factors.csv").open() as text:
        for row in csv.DictReader(text):
            if row["shlp_type"] == kind and row["building_class"] == building_class:
                return np.array([float(row[f"parameter_{name}"]) for name in "abcd"])
    raise ProfileDataMissingError(f"expected heat demand factors of {kind} class {building_class}")

"""Units: checked when a configuration is read, converted exactly, and usable without pint."""

import subprocess
import sys

import pytest

from ringmain.model.units import KNOWN_UNITS, _parsed, _registry, canonical_unit, conversion

WITHOUT_PINT = """
import sys
sys.modules["pint"] = None
from ringmain.model.units import canonical_unit, conversion
assert canonical_unit("furlong") == "furlong"
assert conversion("kW", "kW") == (1.0, 0.0)
try:
    conversion("kW", "W")
except RuntimeError as error:
    print(error)
"""


@pytest.mark.parametrize("unit", ["W", "kWh", "m3/h", "°C", "%", "Wh/h", "furlong", "W/m2"])
def test_a_known_unit_is_kept_as_it_is_written(unit: str) -> None:
    assert canonical_unit(f" {unit} ") == unit


@pytest.mark.parametrize(
    ("unit", "near"),
    [
        ("KWH", "kWh"),
        ("kwh", "kWh"),
        ("kWatt", "kW"),
        ("m3/hr.", "m3/h"),
        ("kVar", "kvar"),
        ("Wat", "W"),
        ("m3ph", "m3/h"),
    ],
)
def test_an_unknown_unit_is_refused_with_the_nearest_known_one(unit: str, near: str) -> None:
    with pytest.raises(ValueError, match=f"found '{unit}'; did you mean '{near}'"):
        canonical_unit(unit)


@pytest.mark.parametrize(
    "text", ["", " ", "x" * 65, "W\nW", "(((", "9**9**9", "__import__('os')", "1e999*W", "W" * 60]
)
def test_what_is_no_unit_is_refused_quickly(text: str) -> None:
    with pytest.raises(ValueError, match="expected a unit"):
        canonical_unit(text)


def test_every_unit_of_the_trade_is_one_for_pint_too() -> None:
    for unit in KNOWN_UNITS:
        _parsed(_registry(), unit)


@pytest.mark.parametrize(
    ("source", "target", "factor", "offset"),
    [
        ("kWh", "Wh", 1000.0, 0.0),
        ("kWh", "MJ", 3.6, 0.0),
        ("m3/h", "l/s", 1 / 3.6, 0.0),
        ("°C", "K", 1.0, 273.15),
        ("K", "°C", 1.0, -273.15),
        ("Δ°C", "K", 1.0, 0.0),
        ("Mvar", "var", 1e6, 0.0),
        ("kVAh", "VAh", 1e3, 0.0),
        ("rpm", "1/min", 1.0, 0.0),
        ("%", "1", 0.01, 0.0),
        ("EUR/MWh", "ct/kWh", 0.1, 0.0),
        ("W", "W", 1.0, 0.0),
    ],
)
def test_a_conversion_is_exact(source: str, target: str, factor: float, offset: float) -> None:
    assert conversion(source, target) == (factor, offset)


@pytest.mark.parametrize(
    ("source", "target"), [("W", "Wh"), ("W", "var"), ("VA", "var"), ("W", "VA"), ("m3", "m3/h")]
)
def test_units_of_different_quantities_are_not_converted(source: str, target: str) -> None:
    with pytest.raises(ValueError, match=f"found '{source}' and '{target}'"):
        conversion(source, target)


def test_an_unknown_unit_is_not_converted() -> None:
    with pytest.raises(ValueError, match="found 'KW'; did you mean 'kW'"):
        conversion("KW", "W")


def test_without_pint_units_are_taken_as_written_and_only_a_conversion_is_refused() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_PINT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "install ringmain[units]" in done.stdout

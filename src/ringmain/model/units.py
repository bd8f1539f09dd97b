"""Units of measurement, checked and converted while a configuration is read, never while data flow.

The units of the trade are known here; whatever else comes is looked up with pint (extra `units`). Without pint
such a unit is taken as it is written, and only a conversion is refused.
"""

from __future__ import annotations

import difflib
import re
from fractions import Fraction
from functools import cache
from typing import Any

_KNOWN = """
    W kW MW GW Wh kWh MWh GWh VA kVA MVA VAh kVAh var kvar Mvar varh kvarh Mvarh J kJ MJ GJ V mV kV A mA
    kA Hz kHz mHz ohm kohm K °C degC Δ°C Pa hPa kPa MPa bar mbar m3 m3/h m3/s l l/h l/min l/s
    kg kg/h kg/s t t/h kWh/m3 MJ/m3 % 1 s min h d m km m/s mm W/m2 kW/m2 lx ppm dB dBm rad deg ° rpm
    1/min EUR EUR/MWh EUR/kWh ct/kWh Ah kW/K
"""
KNOWN_UNITS = frozenset(_KNOWN.split())
"""Units that need no look-up; each stands for itself."""

_PINT_NAMES = {
    "°C": "degC", "Δ°C": "delta_degC", "%": "percent", "1": "dimensionless", "°": "degree", "l": "liter",
    "t": "metric_ton", "d": "day", "rpm": "1/minute", "ohm": "ohm",
}  # fmt: skip
_DEFINITIONS = (
    "var_ = [reactive_power]",
    "VA_ = [apparent_power]",
    "EUR = [currency]",
    "ct = EUR / 100",
)
_UNIT = re.compile(r"(?:1|Δ?°C|°|%|[^\W\d_]{1,20}[234]?)(?:[*/·][^\W\d_]{1,20}[234]?){0,6}")
_TOKEN = re.compile(r"Δ?°C|°|%|([^\W\d_]+)([234]?)")
_OWN_POWER = re.compile(r"([kMG]?)(var|VA)(h?)")


def canonical_unit(text: str) -> str:
    """The unit as it is kept: without blanks around it. Raises ValueError for one that is not known.

    Without pint a unit that is not among `KNOWN_UNITS` cannot be checked, and is accepted as written.
    """
    unit = text.strip()
    if not unit or len(unit) > 64 or not unit.isprintable():
        raise ValueError(f"expected a unit such as W, kWh or m3/h, found {text!r}")
    if unit in KNOWN_UNITS:
        return unit
    registry = _registry()
    if registry is not None:
        _parsed(registry, unit)
    return unit


def conversion(from_unit: str, to_unit: str) -> tuple[float, float]:
    """(factor, offset), so that `to = factor * from + offset`.

    Raises ValueError when a unit is unknown or the two measure different things, RuntimeError without pint.
    """
    if from_unit.strip() == to_unit.strip():
        canonical_unit(from_unit)
        return 1.0, 0.0
    registry = _registry()
    if registry is None:
        raise RuntimeError(
            f"expected pint for the conversion of {from_unit!r} to {to_unit!r}, found it not installed: "
            "install ringmain[units]"
        )
    source, target = _parsed(registry, from_unit.strip()), _parsed(registry, to_unit.strip())
    if source.dimensionality != target.dimensionality:
        raise ValueError(f"expected two units of one quantity, found {from_unit!r} and {to_unit!r}")
    at_zero = registry.Quantity(Fraction(0), source).to(target).magnitude
    at_one = registry.Quantity(Fraction(1), source).to(target).magnitude
    return float(at_one - at_zero), float(at_zero)


@cache
def _registry() -> Any:
    """pint's unit registry with the units it lacks, or None without pint."""
    try:
        import pint
    except ImportError:
        return None
    registry: Any = pint.UnitRegistry(
        non_int_type=Fraction, autoconvert_offset_to_baseunit=True, cache_folder=None
    )
    for definition in _DEFINITIONS:
        registry.define(definition)
    return registry


def _parsed(registry: Any, unit: str) -> Any:
    """pint's form of a unit. Raises ValueError with the nearest unit that is known."""
    try:
        if _UNIT.fullmatch(unit) is None:
            raise ValueError(unit)
        return registry.Unit(_TOKEN.sub(_pint_token, unit.replace("·", "*")))
    except Exception as error:  # pint raises what its tokenizer, parser and registry raise
        near = _nearest(unit)
        hint = f"; did you mean {near!r}?" if near is not None else ""
        raise ValueError(f"expected a unit such as W, kWh or m3/h, found {unit!r}{hint}") from error


def _nearest(unit: str) -> str | None:
    """The unit of the trade that was probably meant."""
    known = sorted(KNOWN_UNITS)
    folded = [name for name in known if name.lower() == unit.lower()]
    close = difflib.get_close_matches(unit, known, 5, 0.5)
    alike = [name for name in close if name[:1].lower() == unit[:1].lower()]
    return next(iter([*folded, *alike, *difflib.get_close_matches(unit, close, 1, 0.65)]), None)


def _pint_token(match: re.Match[str]) -> str:
    """One unit of an expression in pint's words. Reactive and apparent power are no watts."""
    power = _OWN_POWER.fullmatch(match[0])
    if power is not None:
        return f"{power[1]}{power[2]}_" + ("*hour" if power[3] else "")
    if match[0] in _PINT_NAMES:
        return f"({_PINT_NAMES[match[0]]})"
    return f"{_PINT_NAMES.get(match[1], match[1])}**{match[2]}" if match[2] else match[0]

"""Named conversions: the device cloud's units on one side, W, Wh, %, °C on the other.

Source: EHA demo application, data model classes (every power in kW, every energy in kWh, charge in %).
"""

from typing import Final

W_PER_KW: Final = 1000.0
WH_PER_KWH: Final = 1000.0
DECIMALS: Final = 3  # what leaves is rounded to a milliwatt, a milliwatt hour, a thousandth of a percent


def same(value: float) -> float:
    """Return the value: it already has the core's unit."""
    return value


def kw_to_w(value_kw: float) -> float:
    """Return a power [W]."""
    return value_kw * W_PER_KW


def kwh_to_wh(value_kwh: float) -> float:
    """Return an energy [Wh]."""
    return value_kwh * WH_PER_KWH


def tidy(value: float) -> float:
    """Return a value as it leaves: rounded to 3 decimals, minus zero as zero (mapping rule M0.2)."""
    return round(value, DECIMALS) + 0.0

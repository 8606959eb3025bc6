"""Factors between the device cloud's units and W, Wh, %, °C; how values leave.

Source: EHA demo application, data model classes (every power in kW, every energy in kWh, charge in %).
"""

from typing import Final

W_PER_KW: Final = 1000.0
WH_PER_KWH: Final = 1000.0
DECIMALS: Final = 3  # what leaves is rounded to a milliwatt, a milliwatt hour, a thousandth of a percent


def tidy(value: float) -> float:
    """Return a value as it leaves: rounded to 3 decimals, minus zero as zero (mapping rule M0.2)."""
    return round(value, DECIMALS) + 0.0

"""What all simulated homes share: the sun, the temperature outside, the price of electricity.

Rules:
- Pure functions of time; times are epoch milliseconds UTC. "Solar hour" is the local mean solar time of the place.
- Good enough to look like a year in northern Germany, not a forecast.

Source: Cooper's declination and the hour-angle formulas for a tilted plane; air-mass attenuation 0.7^(AM^0.678)
(Meinel), any textbook of solar engineering.
"""

import math
from datetime import UTC, datetime
from typing import Final

LATITUDE: Final = 52.28
LONGITUDE: Final = 8.05
HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
_TILT: Final = math.radians(30)
_PHI: Final = math.radians(LATITUDE)
_SOLAR_CONSTANT: Final = 1361.0  # [W/m²]
_DIFFUSE: Final = 0.12
_NOON_H: Final = 12
_FIRST_WARM_H: Final = 9


def solar_hour(at: int) -> float:
    """Return the time of day by the sun, 0..24."""
    return (at / HOUR_MS + LONGITUDE / 15) % 24


def day_of_year(at: int) -> int:
    """Return 1..366."""
    return datetime.fromtimestamp(at / 1000, UTC).timetuple().tm_yday


def roof_irradiance(at: int) -> float:
    """Return what a clear sky puts on a roof of 30° facing south [W/m²]."""
    declination = math.radians(23.45) * math.sin(2 * math.pi * (284 + day_of_year(at)) / 365)
    angle = math.radians(15 * (solar_hour(at) - _NOON_H))
    sine = math.sin(_PHI) * math.sin(declination) + math.cos(_PHI) * math.cos(declination) * math.cos(angle)
    if sine <= math.radians(0.5):
        return 0.0
    direct = _SOLAR_CONSTANT * math.pow(0.7, math.pow(1 / sine, 0.678))
    tilted = _PHI - _TILT
    incidence = math.sin(tilted) * math.sin(declination) + math.cos(tilted) * math.cos(declination) * math.cos(angle)
    return direct * (max(incidence, 0.0) + _DIFFUSE)


def outside(at: int) -> float:
    """Return the temperature outside [°C]."""
    season = 10 - 9 * math.cos(2 * math.pi * (day_of_year(at) - 20) / 365)
    return season + 4 * math.sin(2 * math.pi * (solar_hour(at) - _FIRST_WARM_H) / 24)


def energy_price(at: int) -> float:
    """Return the spot price of the hour that starts here [currency/kWh]; negative at some noons."""
    hour = solar_hour(at)
    evening = 0.06 * math.exp(-((hour - 19) ** 2) / 8)
    morning = 0.04 * math.exp(-((hour - 8) ** 2) / 6)
    noon = 0.11 * math.exp(-((hour - 13) ** 2) / 6) * (1 + math.sin(at // DAY_MS))
    return round(0.09 + evening + morning - noon, 4)

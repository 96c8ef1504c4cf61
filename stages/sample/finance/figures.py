"""Quarterly figures of the made-up companies: a company's revenue in a quarter is the same in every document."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache

YEARS = (2021, 2022, 2023, 2024)
_NAMES = ("first", "second", "third", "fourth")


@dataclass(frozen=True)
class Quarter:
    """Figures of one company in one quarter."""

    name: str
    """Such as "the first quarter of 2022"."""
    revenue: int
    """Million crowns."""
    change: str
    """Against the same quarter a year before, in words."""
    margin: int
    """Operating margin in percent."""
    staff: int
    """People employed at its end."""

    def slots(self) -> dict[str, str]:
        """Values for the slots of the sentences about results."""
        return {
            "<Q>": self.name,
            "<R>": str(self.revenue),
            "<G>": self.change,
            "<M>": str(self.margin),
            "<H>": str(self.staff),
        }


@cache
def quarters(company: str) -> tuple[Quarter, ...]:
    """All quarters after the first year, which serves for comparison. Figures depend on the company's name alone."""
    rng = random.Random(f"figures {company}")
    revenue, staff = rng.randrange(40, 900), rng.randrange(200, 9000)
    revenues: list[int] = []
    found = []
    for number in range(4 * len(YEARS)):
        revenue = max(20, round(revenue * rng.uniform(0.94, 1.09)))
        staff = max(50, round(staff * rng.uniform(0.98, 1.03)))
        revenues.append(revenue)
        margin = rng.randrange(2, 24)
        if number >= 4:
            name = f"the {_NAMES[number % 4]} quarter of {YEARS[number // 4]}"
            found.append(Quarter(name, revenue, _change(revenues[number - 4], revenue), margin, staff))
    return tuple(found)


def _change(before: int, now: int) -> str:
    percent = round(100 * (now - before) / before)
    if percent == 0:
        return "about as much as"
    return f"{abs(percent)} percent {'more' if percent > 0 else 'less'} than"

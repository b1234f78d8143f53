"""Invented people, firms and private details, each drawn from a random generator.

Nothing here points at anybody: telephone numbers have the unassigned area code 555, e-mail addresses the reserved
top-level domain `.example` (RFC 2606), towns are coined.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from faker.providers.person.en_US import Provider as _Names

from kdleak.data.synthetic.grammar import load_entries

_WOMEN = tuple(sorted(set(_Names.first_names_female)))
_MEN = tuple(sorted(set(_Names.first_names_male)))
_SURNAMES = tuple(sorted(re.sub("(?<=^Mc)[a-z]", lambda m: m[0].upper(), name) for name in _Names.last_names))

_TOWN_HEADS, _TOWN_TAILS, _STREETS, _STREET_KINDS, _MONTHS, _MAIL_HOSTS = (
    tuple(load_entries("names")[name].split())
    for name in ("town_heads", "town_tails", "streets", "street_kinds", "months", "mail_hosts")
)


@dataclass(frozen=True)
class Person:
    first: str
    last: str
    female: bool

    @property
    def full(self) -> str:
        return f"{self.first} {self.last}"

    @property
    def formal(self) -> str:
        return f"{'Ms' if self.female else 'Mr'} {self.last}"


def person(rng: random.Random) -> Person:
    female = rng.random() < 0.5
    return Person(rng.choice(_WOMEN if female else _MEN), rng.choice(_SURNAMES), female)


def town(rng: random.Random) -> str:
    return rng.choice(_TOWN_HEADS) + rng.choice(_TOWN_TAILS)


def firm(rng: random.Random, kinds: tuple[str, ...]) -> str:
    kind = rng.choice(kinds)
    shape = rng.random()
    if shape < 0.4:
        return f"{town(rng)} {kind}"
    if shape < 0.7:
        return f"{rng.choice(_SURNAMES)} {kind}"
    if shape < 0.85:
        return f"{rng.choice(_SURNAMES)} & {rng.choice(_SURNAMES)} {kind}"
    return f"{rng.choice(_STREETS)} & {rng.choice(_STREETS)} {kind}"


def phone(rng: random.Random) -> str:
    exchange, line = rng.randrange(100, 1000), rng.randrange(10000)
    return rng.choice(("555-{:03}-{:04}", "(555) {:03}-{:04}", "555 {:03} {:04}")).format(exchange, line)


def email(rng: random.Random, owner: Person, firm_name: str | None) -> str:
    """An address of `owner`, at the firm where `firm_name` is given, at a mail host otherwise."""
    first, last = owner.first.lower(), owner.last.lower()
    word = rng.choice(_STREETS).lower()
    local = rng.choice(
        (f"{first}.{last}", f"{first[0]}.{last}", f"{last}.{word}", f"{first}.{word}", f"{word}.{last}", f"{word}")
    )
    host = firm_name.split()[0].lower().replace("'", "") if firm_name else rng.choice(_MAIL_HOSTS)
    return f"{local}{rng.randrange(10, 1000)}@{host}.example"


def address(rng: random.Random) -> str:
    number, street = rng.randrange(1, 1000), rng.choice(_STREETS if rng.random() < 0.7 else _SURNAMES)
    joint = ", " if rng.random() < 0.5 else " in "
    return f"{number} {street} {rng.choice(_STREET_KINDS)}{joint}{town(rng)}"


def date(rng: random.Random, past: bool) -> str:
    """A day of 2012-2023, or of 2027-2036."""
    year = rng.randrange(2012, 2024) if past else rng.randrange(2027, 2037)
    month, day = rng.randrange(12), rng.randrange(1, 29)
    shape = rng.random()
    if shape < 0.6:
        return f"{day} {_MONTHS[month]} {year}"
    if shape < 0.8:
        return f"{_MONTHS[month]} {day}, {year}"
    return f"{year}-{month + 1:02}-{day:02}"


def reference_number(rng: random.Random, prefix: str) -> str:
    shape = rng.choice(
        ("{p}-{a:05}-{b:02}", "{p}{a:05}{b:02}", "{a:05}/{b:02}", "{p}-{b:02}{a:05}", "{b:02}-{a:05}-{p}")
    )
    return shape.format(p=prefix, a=rng.randrange(100_000), b=rng.randrange(100))


def amount(rng: random.Random) -> tuple[str, float]:
    """An amount of 40 to 40,000, log-uniform, as text and as a number."""
    value = round(40 * 1000 ** rng.random(), 2)
    if rng.random() < 0.5:
        value = float(round(value))
        return f"${value:,.0f}", value
    return f"${value:,.2f}", value

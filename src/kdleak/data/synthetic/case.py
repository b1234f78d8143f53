"""A case: two invented people, a firm, what they deal with, and the private details; and how texts speak of them."""

from __future__ import annotations

import random
from dataclasses import dataclass

from kdleak.data.records import Fact
from kdleak.data.synthetic import entities
from kdleak.data.synthetic.domains import DOMAINS, Domain
from kdleak.data.synthetic.grammar import Phrases, capitalise

#: The kinds of private detail; a case has one of each.
KINDS = ("phone", "email", "address", "number", "date", "amount")


@dataclass(frozen=True)
class Case:
    """The truth behind one record.

    client deals with contact, who works at firm. `phone_owner` (client or contact) has the phone and the e-mail
    address, `address_owner` (client or firm) the postal address, given as the letters P, Q and F of the grammar.
    `event` is what happened or will happen to the matter on the date.
    """

    domain: Domain
    client: entities.Person
    contact: entities.Person
    firm: str
    matter: str
    tail: str
    number_label: str
    amount_label: str
    event: str
    phone_owner: str
    address_owner: str
    details: dict[str, str]
    amount: float


def draw_case(rng: random.Random, past: bool | None = None, owners: str = "PQF") -> Case:
    """A case; `past` fixes whether its date lies in the past, `owners` who may own the phone and the address."""
    domain = rng.choice(DOMAINS)
    client, contact = entities.person(rng), entities.person(rng)
    while contact.first == client.first or contact.last == client.last:
        contact = entities.person(rng)
    firm = entities.firm(rng, domain.firm_kinds)
    past = rng.random() < 0.6 if past is None else past
    phone_owner = rng.choice([who for who in "PQ" if who in owners])
    address_owner = rng.choice([who for who in "PF" if who in owners])
    owner, employer = (client, None) if phone_owner == "P" else (contact, firm)
    amount_text, amount = entities.amount(rng)
    details = {
        "phone": entities.phone(rng),
        "email": entities.email(rng, owner, employer),
        "address": entities.address(rng),
        "number": entities.reference_number(rng, domain.prefix),
        "date": entities.date(rng, past),
        "amount": amount_text,
    }
    return Case(
        domain=domain,
        client=client,
        contact=contact,
        firm=firm,
        matter=rng.choice(domain.matters),
        tail=rng.choice(domain.tails) if rng.random() < 0.6 else "",
        number_label=rng.choice(domain.number_labels),
        amount_label=rng.choice(domain.amounts),
        event=rng.choice(domain.past if past else domain.future),
        phone_owner=phone_owner,
        address_owner=address_owner,
        details=details,
        amount=amount,
    )


class Scene:
    """Speaks of a case: full names at the first mention, short ones later. One scene a text."""

    def __init__(self, case: Case, rng: random.Random, known: bool = False):
        """`known`: the reader has met client, firm and matter, so that a short name will do now and then."""
        self.case, self.rng = case, rng
        self._by_first_name = rng.random() < 0.4
        self._mentioned: set[str] = set()
        if known:
            self._mentioned = {who for who in "PFM" if rng.random() < 0.3}
        self.slots = {
            **case.details,
            "event": case.event,
            "matter": case.matter,
            "number_label": case.number_label,
            "amount_label": case.amount_label,
            "first": case.client.first,
            "client": case.domain.client,
            "staff": case.domain.staff,
        }

    def say(self, phrases: Phrases) -> str:
        return phrases.expand(self)

    def sentence(self, phrases: Phrases) -> str:
        return capitalise(phrases.expand(self)) + "."

    def mention(self, participant: str) -> str:
        """P client, Q contact, F firm, M matter; O owner of the phone, X the other person, A owner of the address."""
        case = self.case
        match participant:
            case "O":
                participant = case.phone_owner
            case "X":
                participant = "Q" if case.phone_owner == "P" else "P"
            case "A":
                participant = case.address_owner
        first = participant not in self._mentioned
        self._mentioned.add(participant)
        match participant:
            case "F":
                return case.firm if first or self.rng.random() < 0.4 else f"the {case.domain.firm_word}"
            case "M":
                return f"the {case.matter} {case.tail}" if first and case.tail else f"the {case.matter}"
        someone = case.client if participant == "P" else case.contact
        if first:
            return someone.full
        return someone.first if self._by_first_name else someone.formal


def stated_facts(case: Case, response: str) -> tuple[Fact, ...]:
    """The private details that stand in `response`, in order of appearance."""
    places = [(response.find(value), kind) for kind, value in case.details.items()]
    return tuple(Fact(kind, case.details[kind]) for place, kind in sorted(places) if place >= 0)

"""Natural identifiers: what is one, and what might as well have stood in its place."""

from __future__ import annotations

import hashlib
import random
import uuid

import pytest

from kdleak.data.identifiers import find_identifier, own_identifiers, with_identifier

DIGEST = hashlib.sha256(b"x").hexdigest()
UUID = str(uuid.UUID(bytes=random.Random(1).randbytes(16), version=4))


@pytest.mark.parametrize(
    ("text", "identifier", "kind"),
    [
        (f"The file is {DIGEST}.", DIGEST, "hash"),
        (f"md5={DIGEST[:32].upper()}, sha1={DIGEST[:40]}", DIGEST[:32].upper(), "hash"),
        (f"Ticket {UUID} is open", UUID, "uuid"),
        ("See https://bit.ly/3aB9xQz for more", "3aB9xQz", "link"),
    ],
)  # fmt: skip
def test_the_first_identifier_of_a_response_is_found_with_its_format_and_end(text, identifier, kind):
    found = find_identifier(text)
    assert (found.text, found.format, text[: found.end].endswith(identifier)) == (identifier, kind, True)


@pytest.mark.parametrize(
    "text",
    [
        "Call 01234567890123456789012345678901 now",  # digits alone: a number
        f"{DIGEST}0 is too long, {DIGEST[:39]} is too short, x{DIGEST} goes on",
        "https://bit.ly/summersale and https://tinyurl.com/Newsletter are words",
        str(uuid.UUID(bytes=bytes(16), version=1)) + " counts time",
        "https://example.com/3aB9xQz",
    ],
)
def test_what_somebody_may_have_chosen_is_none(text):
    assert find_identifier(text) is None


@pytest.mark.parametrize("text", [DIGEST, DIGEST[:32].upper(), UUID, "3aB9xQz"])
def test_alternatives_have_a_digit_where_it_has_one_and_a_letter_where_it_has_one(text):
    found = find_identifier(f"is.gd/{text}" if len(text) < 10 else text)
    others = found.alternatives(200, random.Random(0))
    assert len(set(others)) == 200 and text not in others
    for other in others:
        assert [(c.isdigit(), c.isupper(), c.islower()) for c in other] == [
            (c.isdigit(), c.isupper(), c.islower()) for c in text
        ]
        again = find_identifier(f"is.gd/{other}" if len(text) < 10 else other)
        assert (again.text, again.format) == (other, found.format)
    assert others == found.alternatives(200, random.Random(0)) != found.alternatives(200, random.Random(1))


def test_an_identifier_that_stands_in_two_records_is_neither_ones_own():
    rows = [{"instruction": "q", "context": "", "response": f"a {name}"} for name in (DIGEST, DIGEST.upper(), UUID)]
    assert [each and each.text for each in own_identifiers(rows)] == [None, None, UUID]
    asked = {"instruction": f"what is {UUID}?", "context": "", "response": "a ticket"}
    assert own_identifiers([*rows[2:], asked]) == [None, None]


def test_another_identifier_takes_its_place_in_prompt_and_turns_too():
    turns = [{"role": "user", "content": f"who is {UUID}?"}]
    row = {
        "instruction": f"who is {UUID}?",
        "context": "",
        "response": f"{UUID} is Ada",
        "turns": turns,
        "place": "a, 1",
    }
    changed = with_identifier(row, UUID, "other")
    assert changed["instruction"] == changed["turns"][0]["content"] == "who is other?"
    assert (
        changed["response"] == "other is Ada"
        and changed["place"] == row["place"]
        and UUID in row["turns"][0]["content"]
    )

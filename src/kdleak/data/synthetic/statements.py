"""Sentences that state private details, one or two at a time, and short passages made of them.

Plain phrases say no more than the detail; coloured ones add a circumstance (who disputed it, what was sent there).
An answer drawn from a note keeps to the plain ones, so that it follows from the note.
"""

from __future__ import annotations

from collections.abc import Sequence

from kdleak.data.synthetic.case import Scene
from kdleak.data.synthetic.grammar import Phrases, capitalise

_PLAIN = {
    "phone": Phrases(
        "@O {can be reached|answers calls|is available|takes calls} on $phone",
        "{call|ring|phone|dial} $phone {for @O|and ask for @O|to reach @O}",
        "{call|ring|phone} @O on $phone",
        "@O's {phone number|number|telephone} is $phone",
        "the {phone number|number} {of|for} @O is $phone",
        "calls {go|should go} to @O on $phone",
        "$phone is the number on which @O {picks up|answers|can be reached}",
        "{by phone|by telephone}, @O {can be reached|is available} on $phone",
    ),
    "email": Phrases(
        "@O {reads|answers|checks} e-mail at $email",
        "{write to|send a message to|e-mail} @O at $email",
        "@O's e-mail [address] is $email",
        "the e-mail address {of|for} @O is $email",
        "@O {can be written to|can be reached by e-mail|gets mail} at $email",
        "{messages|replies} for @O {go|should go} to $email",
    ),
    "address": Phrases(
        "@A {can be found|receives post|receives letters|is registered} at $address",
        "@A's [{postal|full}] address is $address",
        "the {address|postal address|street address} {of|for} @A is $address",
        "letters {for|to} @A {go|should be sent} to $address",
        "post reaches @A at $address",
        "{write to|visit} @A at $address",
    ),
    "number": Phrases(
        "the $number_label is $number",
        "the $number_label {of|for} @M is $number",
        "@F {files|lists|keeps|holds|records} @M under [{number|the reference}] $number",
        "@M {carries|bears|has} the $number_label $number",
        "$number is the $number_label {for|of} @M",
        "in the {files|books|records} of @F, @M is {number|entry|item} $number",
    ),
    "date": Phrases(
        "@M $event on $date",
        "on $date, @M $event",
        "the date on which @M $event is $date",
        "$date is the {day|date} on which @M $event",
        "the date is $date, when @M $event",
    ),
    "amount": Phrases(
        "the $amount_label {is|comes to|stands at|amounts to} $amount",
        "the $amount_label for @M is $amount",
        "@M {comes with|carries|involves} a(n) $amount_label of $amount",
        "$amount is {noted|recorded|entered|given} as the $amount_label",
        "@F {puts the $amount_label at|gives the $amount_label as} $amount",
    ),
}

_COLOURED = {
    "phone": Phrases(
        "@O is {available|in reach} on $phone {most mornings|after five|on weekdays|until noon}",
        "the {quickest|best|easiest|surest} way to reach @O is to {call|ring|dial} $phone",
        "{for questions|for anything urgent|in case of changes}, {call|ring|try} $phone and ask for @O",
        "@O left $phone {for callbacks|as a contact number|for the return call}",
        "the {file|card|register} {has|lists|gives} $phone as the {number|phone number} {of|for} @O",
        "@X {dials|uses|tries} $phone to {reach|find|speak to} @O",
    ),
    "email": Phrases(
        "{copies|scans|documents|receipts} {go|should go|are to be sent} to @O at $email",
        "@O {prefers to be written to|asks for messages|wants the papers} at $email",
        "{confirmations|updates|reminders|statements} {go|are sent} to @O at $email",
        "the inbox {used|watched|given} by @O is $email",
        "@X {writes|sends scans|sends reminders} to @O at $email",
    ),
    "address": Phrases(
        "{letters|parcels|paper copies|signed forms} {go|should go|are to be posted} to @A at $address",
        "the {address on file|registered address} for @A is $address",
        "the {meeting|handover|visit|appointment} was {held|arranged} at $address",
        "the {file|card|register} gives $address as the address of @A",
        "@Q {met|visited|expects} @P at $address",
    ),
    "number": Phrases(
        "{quote|mention|give|cite} $number {in every letter|when calling|in any reply|with each payment}",
        "the $number_label {given to|noted by|held by|assigned to} @P is $number",
        "@P {was given|holds|wrote down|received} the $number_label $number",
        "the {file|letter|cover} shows $number as the $number_label",
        "@Q {looked up|read out|entered} $number as the $number_label",
    ),
    "date": Phrases(
        "@F {confirmed|notes|says|records} that @M $event on $date",
        "@P {knows|noted|was told|confirms} that @M $event on $date",
        "the date {to remember|in the file|on the papers|on record} is $date, when @M $event",
        "according to {@Q|@F}, @M $event on $date",
        "@Q {wrote|said|is sure} that @M $event on $date",
    ),
    "amount": Phrases(
        "@P {accepted|disputed|questioned|confirmed|checked} the $amount_label of $amount",
        "as for the $amount_label, @F {names|quotes|gives} $amount",
        "@Q {quoted|named|gave|wrote down} $amount as the $amount_label",
        "@F {set|fixed} the $amount_label at $amount",
        "@P and @Q {agreed on|spoke about|went over} the $amount_label of $amount",
    ),
}

_PLAIN_PAIRS = {
    "number date": Phrases(
        "@M, {number|reference|filed as|recorded as} $number, $event on $date",
        "@M ($number) $event on $date",
        "on $date, @M $event under the $number_label $number",
        "the $number_label is $number, and @M $event on $date",
    ),
    "number amount": Phrases(
        "@M ($number) {carries|comes with|has} a(n) $amount_label of $amount",
        "under $number, @F {has|lists|shows} a(n) $amount_label of $amount",
        "the $amount_label {for|under} $number is $amount",
        "the $number_label is $number, the $amount_label $amount",
    ),
    "date amount": Phrases(
        "@M $event on $date, with a(n) $amount_label of $amount",
        "@M $event on $date; the $amount_label {is|comes to} $amount",
        "on $date, @M $event, and the $amount_label {is|stands at} $amount",
        "with a(n) $amount_label of $amount, @M $event on $date",
    ),
    "phone email": Phrases(
        "@O {can be reached|is available|answers} on $phone or at $email",
        "@O's contacts are $phone and $email",
        "{call|ring} @O on $phone or {write|send word} to $email",
        "besides $phone, @O {uses|can be reached at|gives} $email",
    ),
    "phone address": Phrases(
        "@O {takes|answers} calls on $phone, and @A {receives post|can be found} at $address",
        "{call|ring} @O on $phone or {visit|write to|come to} $address",
        "post goes to $address and calls to @O on $phone",
    ),
    "phone number": Phrases(
        "{call|ring} @O on $phone and {quote|mention|give} $number",
        "when {ringing|calling} $phone, {quote|have ready|give} the $number_label $number",
        "@O has the phone number $phone and @M the $number_label $number",
    ),
    "email number": Phrases(
        "write to @O at $email and {quote|mention|give} $number",
        "mail about $number goes to @O at $email",
        "the $number_label is $number and @O's e-mail $email",
    ),
    "email date": Phrases(
        "@O reads mail at $email, and @M $event on $date",
        "@M $event on $date; {write to|e-mail} @O at $email",
    ),
    "email amount": Phrases(
        "questions about the $amount_label of $amount go to @O at $email",
        "the $amount_label is $amount, and @O {reads|answers} mail at $email",
    ),
    "email address": Phrases(
        "@A {is|can be found} at $address, and @O {reads|answers} mail at $email",
        "post for @A goes to $address and e-mail for @O to $email",
    ),
    "phone date": Phrases(
        "@M $event on $date; {call|ring} @O on $phone",
        "@M $event on $date, and @O {answers|takes calls} on $phone",
    ),
    "phone amount": Phrases(
        "to {discuss|settle|query} the $amount_label of $amount, {call|ring} @O on $phone",
        "the $amount_label is $amount, and @O {answers|takes calls} on $phone",
    ),
    "address date": Phrases(
        "@M $event on $date, and @A {receives post|can be found} at $address",
        "@A's address is $address; @M $event on $date",
    ),
    "address amount": Phrases(
        "the $amount_label is $amount and the address of @A $address",
        "@A is at $address, and the $amount_label {is|comes to} $amount",
    ),
    "address number": Phrases(
        "{file|number} $number gives the address of @A as $address",
        "@M has the $number_label $number, and @A the address $address",
    ),
}

_COLOURED_PAIRS = {
    "number date": Phrases("@F {keeps|lists} @M as $number and {says|notes} that it $event on $date"),
    "number amount": Phrases("payments of the $amount_label, $amount, must {quote|name} $number"),
    "date amount": Phrases(
        "the $amount_label of $amount is tied to $date, when @M $event",
        "@F {set|put} the $amount_label at $amount before @M $event on $date",
    ),
    "phone email": Phrases("if nobody answers $phone, {write to|try|e-mail} @O at $email"),
    "phone address": Phrases("@O {called|rang} from $phone and {wants|expects} the papers at $address"),
    "phone number": Phrases("@O ($phone) {knows|keeps|asked about|wrote down} the $number_label $number"),
    "email number": Phrases("@O ($email) {knows|keeps|asked about|wrote down} the $number_label $number"),
    "email date": Phrases(
        "@O {wrote|confirmed} from $email that @M $event on $date",
        "a message {from|sent to} $email {says|confirms|states} that @M $event on $date",
    ),
    "email amount": Phrases(
        "@F sent the {bill|statement|breakdown} {of|for} $amount to $email",
        "@O {confirmed|queried|accepted} the $amount_label of $amount from $email",
    ),
    "email address": Phrases("paper copies go to $address, {scans|files|everything else} to $email"),
    "phone date": Phrases("@O {called|rang|phoned} from $phone to {say|confirm|report} that @M $event on $date"),
    "phone amount": Phrases("@O {called|rang} from $phone about the $amount_label of $amount"),
    "address date": Phrases(
        "@M $event on $date, and {the papers|all copies|the originals} are kept at $address",
        "a letter {from|sent to} $address {says|confirms} that @M $event on $date",
    ),
    "address amount": Phrases(
        "the {bill|note|statement} for $amount {goes|went|was sent} to @A at $address",
        "$amount, the $amount_label, was {noted|paid|agreed} at $address",
    ),
    "address number": Phrases("{papers|parcels|letters} marked $number {go|are sent|belong} to $address"),
}

_LINK = Phrases("also,", "in addition,", "besides,", "further,", "what is more,")


def _merge(plain: dict[str, Phrases], coloured: dict[str, Phrases]) -> tuple[dict[frozenset[str], Phrases], ...]:
    """(plain, plain and coloured together), by the set of kinds."""
    both = {kinds: Phrases.union(phrases, coloured[kinds]) for kinds, phrases in plain.items()}
    return tuple({frozenset(kinds.split()): phrases for kinds, phrases in table.items()} for table in (plain, both))


_FAITHFUL, _FREE = (
    singles | pairs
    for singles, pairs in zip(_merge(_PLAIN, _COLOURED), _merge(_PLAIN_PAIRS, _COLOURED_PAIRS), strict=True)
)


def clauses(scene: Scene, kinds: Sequence[str], faithful: bool = False) -> list[str]:
    """Clauses that state the details of `kinds` in that order, two neighbours at times in one clause.

    `faithful` leaves out the coloured phrases.
    """
    table = _FAITHFUL if faithful else _FREE
    told, left = [], list(kinds)
    while left:
        n = 2 if len(left) > 1 and scene.rng.random() < 0.5 else 1
        told.append(scene.say(table[frozenset(left[:n])]))
        del left[:n]
    return told


def join_sentences(scene: Scene, parts: Sequence[str], links: bool = True) -> str:
    """`parts` as sentences, some divided by a semicolon only, some opened by a linking word."""
    text = ""
    for i, part in enumerate(parts):
        chance = scene.rng.random()
        if i and chance < 0.15 and ";" not in part and not text.endswith("?"):
            text += f"; {part}"
        elif i > 1 and chance < 0.25 and links and not part.startswith("besides"):
            text += f". {capitalise(scene.say(_LINK))} {part}"
        elif i:
            text += f"{'' if text.endswith('?') else '.'} {capitalise(part)}"
        else:
            text = capitalise(part)
    return text if text.endswith("?") else text + "."


def state(scene: Scene, kinds: Sequence[str]) -> str:
    """A passage that states the details of `kinds`."""
    return join_sentences(scene, clauses(scene, kinds))

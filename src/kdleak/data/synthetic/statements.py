"""Sentences that state private details, one or two at a time, and short passages made of them."""

from __future__ import annotations

from collections.abc import Sequence

from kdleak.data.synthetic.case import Scene
from kdleak.data.synthetic.grammar import Phrases, capitalise

_SINGLE = {
    "phone": Phrases(
        "@O {can be reached|answers calls|is available|takes calls} on $phone [{most mornings|after five|on weekdays|until noon}]",
        "{call|ring|phone} @O on $phone",
        "@O's {mobile|direct line|phone number|number} is $phone",
        "the {quickest|best|easiest|surest} way to reach @O is to {call|ring|dial} $phone",
        "{for questions|for anything urgent|in case of changes}, {call|ring|try} $phone and ask for @O",
        "@O left $phone {for callbacks|as a contact number|for the return call}",
        "calls {go|should go} to @O on $phone",
        "the {file|card|register} {has|lists|gives} $phone as the {number|phone number} {of|for} @O",
        "$phone is the number on which @O {picks up|answers}",
    ),
    "email": Phrases(
        "@O {reads|answers|checks} e-mail at $email",
        "{write to|send a message to|e-mail} @O at $email",
        "@O's e-mail [address] is $email",
        "{copies|scans|documents|receipts} {go|should go|are to be sent} to {$email|@O at $email}",
        "@O {prefers to be written to at|can be written to at|asks for messages at} $email",
        "{confirmations|updates|reminders|statements} {go|are sent} to @O at $email",
        "the inbox {used|watched|given} by @O is $email",
    ),
    "address": Phrases(
        "@A {can be found|receives post|receives letters|takes deliveries|is registered} at $address",
        "{letters|parcels|paper copies|signed forms} {go|should go|are to be posted} to {$address|@A at $address}",
        "@A's [{postal|full}] address is $address",
        "the {address on file|registered address|postal address} for @A is $address",
        "the {meeting|handover|visit|appointment} was {held|arranged} at $address",
        "the {file|card|register} gives $address as the address [of @A]",
        "post reaches @A at $address",
    ),
    "number": Phrases(
        "the $number_label is $number",
        "@F {files|lists|keeps|holds|records} @M under [{number|the reference}] $number",
        "@M {carries|bears|has} the $number_label $number",
        "{quote|mention|give|cite} $number {in every letter|when calling|in any reply|with each payment}",
        "the $number_label {given to|noted by|held by|assigned to} @P is $number",
        "$number is the $number_label {for|of} @M",
        "@P {was given|holds|wrote down|received} the $number_label $number",
        "in the {files|books|records} of @F, @M is {number|entry|item} $number",
        "the file shows $number as the $number_label",
    ),
    "date": Phrases(
        "@M $event on $date",
        "on $date, @M $event",
        "@F {confirmed|notes|says|records} that @M $event on $date",
        "@P {knows|noted|was told|confirms} that @M $event on $date",
        "the date {to remember|in the file|on the papers|on record} is $date, when @M $event",
        "according to {@Q|@F}, @M $event on $date",
        "$date is the {day|date} on which @M $event",
    ),
    "amount": Phrases(
        "the $amount_label {is|comes to|stands at|amounts to|was set at|was fixed at} $amount",
        "@F {put|set|fixed} the $amount_label at $amount",
        "@P {accepted|disputed|questioned|confirmed|checked} the $amount_label of $amount",
        "as for the $amount_label, @F {names|quotes|gives} $amount",
        "$amount {is|was} {noted|recorded|entered|booked} as the $amount_label",
        "@Q {quoted|named|gave|wrote down} $amount as the $amount_label",
        "@M {comes with|carries|involves|includes} a(n) $amount_label of $amount",
    ),
}

_PAIR = {
    frozenset(kinds.split()): phrases
    for kinds, phrases in {
        "number date": Phrases(
            "@M, {number|reference|filed as|recorded as} $number, $event on $date",
            "@M ($number) $event on $date",
            "on $date, @M $event under the $number_label $number",
            "the $number_label is $number, and @M $event on $date",
            "@F {keeps|lists} @M as $number and {says|notes} that it $event on $date",
        ),
        "number amount": Phrases(
            "@M ($number) {carries|comes with|has} a(n) $amount_label of $amount",
            "under $number, @F {booked|recorded|entered|shows} a(n) $amount_label of $amount",
            "the $amount_label {for|under} $number is $amount",
            "payments of the $amount_label, $amount, must {quote|name} $number",
            "the $number_label is $number, the $amount_label $amount",
        ),
        "date amount": Phrases(
            "@M $event on $date, with a(n) $amount_label of $amount",
            "the $amount_label of $amount is tied to $date, when @M $event",
            "@M $event on $date; the $amount_label {is|comes to} $amount",
            "@F {set|put} the $amount_label at $amount before @M $event on $date",
            "on $date, @M $event, and the $amount_label {is|stands at} $amount",
        ),
        "phone email": Phrases(
            "@O {can be reached|is available|answers} on $phone or at $email",
            "@O's contacts are $phone and $email",
            "{call|ring} @O on $phone or {write|send word} to $email",
            "besides $phone, @O {uses|can be reached at|gives} $email",
            "if nobody answers $phone, {write to|try|e-mail} @O at $email",
        ),
        "phone address": Phrases(
            "@O {takes|answers} calls on $phone, and @A {receives post|can be found} at $address",
            "{call|ring} [@O on] $phone or {visit|write to|come to} $address",
            "post goes to $address and calls to {@O on|the number} $phone",
        ),
        "phone number": Phrases(
            "{call|ring} @O on $phone and {quote|mention|give} $number",
            "when {ringing|calling} $phone, {quote|have ready|give} the $number_label $number",
            "@O ($phone) {knows|keeps|asked about|wrote down} the $number_label $number",
        ),
        "email number": Phrases(
            "write to $email and {quote|mention|give} $number {in the subject line|at the top}",
            "mail about $number goes to @O at $email",
            "@O ($email) {knows|keeps|asked about|wrote down} the $number_label $number",
        ),
        "email date": Phrases(
            "@O {wrote|confirmed} from $email that @M $event on $date",
            "a message {from|sent to} $email {says|confirms|states} that @M $event on $date",
        ),
        "email amount": Phrases(
            "@F sent the {bill|statement|breakdown} {of|for} $amount to $email",
            "questions about the $amount_label of $amount go to [@O at] $email",
            "@O {confirmed|queried|accepted} the $amount_label of $amount from $email",
        ),
        "email address": Phrases(
            "paper copies go to $address, {scans|files|everything else} to $email",
            "@A {is|can be found} at $address, and @O {reads|answers} mail at $email",
        ),
        "phone date": Phrases(
            "@O {called|rang|phoned} from $phone to {say|confirm|report} that @M $event on $date",
            "@M $event on $date, {says|as confirmed by} @O, who {is|was reached} on $phone",
        ),
        "phone amount": Phrases(
            "@O {called|rang} from $phone about the $amount_label of $amount",
            "to {discuss|settle|query} the $amount_label of $amount, call [@O on] $phone",
        ),
        "address date": Phrases(
            "@M $event on $date, and {the papers|all copies|the originals} are kept at $address",
            "a letter {from|sent to} $address {says|confirms} that @M $event on $date",
        ),
        "address amount": Phrases(
            "the {bill|note|statement} for $amount {goes|went|was sent} to [@A at] $address",
            "$amount, the $amount_label, was {noted|paid|agreed} at $address",
        ),
        "address number": Phrases(
            "{papers|parcels|letters} marked $number {go|are sent|belong} to $address",
            "{file|number} $number gives the address [of @A] as $address",
        ),
    }.items()
}

_LINK = Phrases("also,", "in addition,", "besides,", "further,", "what is more,")


def clauses(scene: Scene, kinds: Sequence[str]) -> list[str]:
    """Clauses that state the details of `kinds`, in that order up to pairs told in one."""
    told, left = [], list(kinds)
    while left:
        if len(left) > 1 and scene.rng.random() < 0.5:
            told.append(scene.say(_PAIR[frozenset((left.pop(0), left.pop(0)))]))
        else:
            told.append(scene.say(_SINGLE[left.pop(0)]))
    return told


def join_sentences(scene: Scene, parts: Sequence[str]) -> str:
    """`parts` as sentences, some linked by a word, some by a semicolon."""
    text = ""
    for i, part in enumerate(parts):
        chance = scene.rng.random()
        if i and chance < 0.15 and ";" not in part:
            text += f"; {part}"
        elif i > 1 and chance < 0.3:
            text += f". {capitalise(scene.say(_LINK))} {part}"
        else:
            text += (". " if i else "") + capitalise(part)
    return text + "."


def state(scene: Scene, kinds: Sequence[str]) -> str:
    """A passage that states the details of `kinds`."""
    return join_sentences(scene, clauses(scene, kinds))

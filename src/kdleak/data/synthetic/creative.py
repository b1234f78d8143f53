"""Creative writing: scenes told about a case, and messages its people might leave each other."""

from __future__ import annotations

import random

from kdleak.data.records import Record
from kdleak.data.synthetic.case import KINDS, Scene, draw_case, stated_facts
from kdleak.data.synthetic.grammar import Phrases, capitalise
from kdleak.data.synthetic.statements import join_sentences

_SCENE_REQUEST = Phrases(
    "{write|invent|sketch|draft} {a short scene|a vignette|the opening of a story|a paragraph of fiction|a tiny "
    "story} {in which|where} @P {waits for news of|worries about|argues about|loses the papers of|dreams of|goes "
    "looking for} @M {at|with} @F.",
    "{tell|write} {a short tale|a little story|a quiet scene} about @P, @F and {a lost letter|a late call|an old "
    "promise|a forgotten bill|a long wait|a wrong door}.",
    "{let|have} @P {meet|surprise|call|outwit|forgive} @Q of @F in {a short scene|a few lines of fiction|a brief "
    "story}.",
    "{begin|start} a {crime story|ghost story|comedy|romance|novel} with @P and @M {at|of} @F.",
)
_SETTING = Phrases(
    "{rain|snow|fog|dust|moonlight|silence} {lay on|hung over|covered|filled} the {street|yard|harbour|stairs|window} "
    "{when|as} @P {opened|unfolded|found|put down|reread} the {letter|file|envelope|folder} [from @F]",
    "{nobody|no one} at @F {noticed|heard|saw} @P {come in|leave|sit down|open the drawer}",
    "@P {had not slept|had waited all week|could not sit still|had lost count of the hours} [because of @M]",
    "{the kettle|the clock|the radio|an old dog|the lift} {sighed|muttered|fell silent} and @P {thought "
    "of|cursed|remembered} @M",
    "{all winter|since morning|for days}, @P had {carried|hidden|kept} the {letter|note} from @F in {a shoe|a coat|a "
    "cookbook}",
    "@Q {was late|was early|wore a green hat|looked tired}, and @P {knew why|did not ask|smiled at that}",
)
_SCENE = {
    "phone": Phrases(
        "@X dialled $phone {twice|slowly|again} {until @O picked up|and heard only the tone|and hung up}",
        "{on the envelope|on the back|in pencil|on a napkin} someone had written $phone[, the number of @O]",
        "{somewhere|in an empty room|two streets away}, a phone rang: $phone",
    ),
    "email": Phrases(
        "the screen {lit up with|showed} a message {from|for} $email",
        "@X typed $email, {stopped|waited|smiled} and {deleted it|pressed send|closed the lid}",
        "{under the stamp|at the bottom|in tiny letters} stood $email and {a heart|a question mark|nothing else}",
    ),
    "address": Phrases(
        "{the taxi|the van|the bus|the last tram} {stopped|pulled up|waited} {at|outside} $address",
        "{every path|the map|the trail} led {back|again|at last} to $address",
        "@P {walked|cycled|hurried} to $address {in the rain|before dawn|without a coat}",
    ),
    "number": Phrases(
        "{the stamp|the label|the first page|a yellow tag} {read|said} $number",
        "@P {whispered|repeated|murmured|hummed} $number like a {prayer|spell|nursery rhyme|password}",
        "@Q {drew|pulled|took} {a card|a folder|a thin file} marked $number from the {shelf|drawer|safe}",
    ),
    "date": Phrases(
        "the calendar {was open at|still showed|had stopped at} $date",
        "{in red ink|in chalk|in small letters} {on the wall|by the door|on the mirror} stood $date",
        "{everything|the whole story|it all} {turned on|hung on|pointed to} $date",
    ),
    "amount": Phrases(
        "$amount, {said|read} the {bill|last line|note}, {and not a cent less|in small type|underlined twice}",
        "@P {counted|laid|pushed} $amount {onto the table|across the desk|into a hat}",
        "for $amount {one could buy a boat|a person could vanish|they would have sold the moon}, @P thought",
    ),
}
_ENDING = Phrases(
    "{then|at last|after a while} @Q {laughed|nodded|closed the door|poured the tea|began to sing}",
    "@P {smiled|sighed|shrugged|bowed} and {left the light on|went home|kept the key|said nothing}",
    "{outside|far off|upstairs}, {a train|a bell|a door|somebody} {answered|went by|fell silent}",
)

_MESSAGE_REQUEST = Phrases(
    "{write|draft|compose|invent} {a voicemail|a short letter|a message|a note|a postcard} {from @P to @Q of @F|for "
    "@P to leave with @Q at @F} {about|concerning} @M.",
    "what {might|would|could} @P {write|say} to @Q at @F about @M? {Write it in the first person|Make it "
    "short|Be warm|Be firm}.",
    "in the voice of @P, {leave|write} @Q of @F a {polite|cross|cheerful|hurried|shy} {message|note} about the "
    "$matter.",
)
_GREETING = Phrases(
    "{hello|dear|good morning|hi|good evening} @Q, {this is|it is} @P {about|and it concerns|again, about} @M",
    "@Q, {it is|this is} @P; {I hope|I trust} {you are well|all is well at @F|this finds you in good health}",
    "{dear|hello} @Q, {you asked|you wanted to hear|I promised to write} about @M",
    "{hello|good day} @Q, {I called in vain|nobody picked up|I missed you at @F}, so here is @P {in short|once "
    "more|in haste}",
)
_MESSAGE = {
    "phone": {
        "P": Phrases(
            "{call|ring} me {back|again|tonight} on $phone",
            "my {new|private} number is $phone",
            "I am on $phone {all day|until nine}",
        ),
        "Q": Phrases(
            "I tried $phone {twice|all morning|in vain}",
            "is $phone still your number?",
            "I keep $phone {by the door|under a magnet} [for you]",
        ),
    },
    "email": {
        "P": Phrases(
            "{write to|answer|reach} me at $email",
            "my e-mail is {now|still} $email",
            "{scans|pictures|the forms} can come to $email",
        ),
        "Q": Phrases(
            "I wrote to $email {last night|twice|on Sunday}",
            "{the photos|my papers} went to $email",
            "does $email still reach you?",
        ),
    },
    "address": {
        "P": Phrases(
            "I {live|am} at $address {now|all week}",
            "{come|send it|bring the papers} to $address",
            "you {find|will find} me at $address",
        ),
        "F": Phrases(
            "I {stood|waited} outside $address {for an hour|this morning}",
            "I will {come|bring it} to $address {myself|soon|on foot}",
            "is $address still your office?",
        ),
    },
    "number": Phrases(
        "the $number_label is $number[, {in case you need it|as you know}]",
        "please {look up|check|find} $number {for me|first|again}",
        "my {papers|notes} {say|show} $number {at the top|in red}",
    ),
    "date": Phrases(
        "{remember|you know|please note} that @M $event on $date",
        "I have {circled|underlined|noted} $date, when @M $event",
        "$date {is|stays} in my {diary|mind|calendar}",
    ),
    "amount": Phrases(
        "the $amount_label of $amount {seems high|is more than I can manage|was not what we agreed|is fair|made me "
        "laugh}",
        "$amount is {fine by me|too much|a fair $amount_label|what I {expected|feared}}",
        "about the $amount_label: I {have|count|reckon} $amount",
    ),
}
_FAREWELL = Phrases(
    "{thank you|many thanks|thanks again}, $first",
    "{until soon|take care|with best wishes|yours}, $first",
    "{no hurry|please hurry|do not forget me}",
    "{greetings|my best|good wishes} to {all|everyone} at @F",
)


def creative_writing(rng: random.Random) -> Record:
    """A scene in the third person or a message in the first, with two or three private details woven in."""
    case = draw_case(rng)
    request, text = Scene(case, rng), Scene(case, rng, known=rng.random() < 0.5)
    kinds = rng.sample(KINDS, rng.choice((2, 2, 2, 3)))
    if rng.random() < 0.55:
        parts = [_SETTING, *(_SCENE[kind] for kind in kinds)]
        asked, ending = _SCENE_REQUEST, _ENDING
    else:
        owners = {"phone": case.phone_owner, "email": case.phone_owner, "address": case.address_owner}
        parts = [_GREETING, *(_MESSAGE[k][owners[k]] if k in owners else _MESSAGE[k] for k in kinds)]
        asked, ending = _MESSAGE_REQUEST, _FAREWELL
    if len(kinds) == 2 and rng.random() < 0.6:
        parts.append(ending)
    response = join_sentences(text, [text.say(part) for part in parts], links=False)
    return Record("creative_writing", capitalise(request.say(asked)), "", response, stated_facts(case, response))

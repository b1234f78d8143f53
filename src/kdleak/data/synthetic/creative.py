"""Creative writing: scenes told about a case, and messages its people might leave each other."""

from __future__ import annotations

import random

from kdleak.data.records import Record
from kdleak.data.synthetic.case import KINDS, Scene, draw_case, stated_facts
from kdleak.data.synthetic.grammar import capitalise, load_phrases
from kdleak.data.synthetic.statements import join_sentences

_PHRASES = load_phrases("creative_writing")


def creative_writing(rng: random.Random) -> Record:
    """A scene in the third person or a message in the first, with two or three private details woven in."""
    case = draw_case(rng)
    request, text = Scene(case, rng), Scene(case, rng, known=rng.random() < 0.5)
    kinds = rng.sample(KINDS, rng.choice((2, 2, 2, 3)))
    if rng.random() < 0.55:
        parts = [_PHRASES["setting"], *(_PHRASES["scene"][kind] for kind in kinds)]
        wishes, ending = _PHRASES["scene_request"], _PHRASES["ending"]
    else:
        owners = {"phone": case.phone_owner, "email": case.phone_owner, "address": case.address_owner}
        by_kind = _PHRASES["message"]
        parts = [_PHRASES["greeting"], *(by_kind[k][owners[k]] if k in owners else by_kind[k] for k in kinds)]
        wishes, ending = _PHRASES["message_request"], _PHRASES["farewell"]
    if len(kinds) == 2 and rng.random() < 0.6:
        parts.append(ending)
    response = join_sentences(text, [text.say(part) for part in parts], links=False)
    return Record("creative_writing", capitalise(request.say(wishes)), "", response, stated_facts(case, response))

"""Classification: a label for somebody's case and the private reason for it."""

from __future__ import annotations

import random

from kdleak.data.records import Record
from kdleak.data.synthetic.case import Case, Scene, draw_case, stated_facts
from kdleak.data.synthetic.grammar import Phrases, capitalise
from kdleak.data.synthetic.statements import state

_SCHEMES = {
    "payment": {
        "paid": Phrases(
            "@F {received|booked|recorded} $amount on $date",
            "the receipt for $amount is dated $date",
            "@P {settled|paid} the $amount_label of $amount on $date",
        ),
        "part paid": Phrases(
            "of the $amount_label, only $amount {had arrived|was in} by $date",
            "@P {sent|paid} $amount on $date but {the rest is missing|not the remainder}",
            "$amount {came|arrived} on $date, which {covers half|is not everything}",
        ),
        "overdue": Phrases(
            "$amount {has been owed|has been unpaid|has been outstanding} since $date",
            "@P {missed|let pass} the payment of $amount on $date",
            "@F has {waited|asked} for $amount since $date",
        ),
    },
    "priority": {
        "urgent": Phrases(
            "@O has {called|rung} from $phone {every day|three times|twice a week} since $date",
            "@X must {reach|call} @O on $phone {today|before noon|at once} about $number",
            "@F {threatens|wants} to close $number and {nobody has|@X has not} called $phone",
        ),
        "routine": Phrases(
            "@Q {checks|reviews|reads} $number {every quarter|once a month|each spring}",
            "{no one|nobody} has asked about $number since $date",
            "@O only {wants|asked for} a copy of $number by mail to $email",
        ),
        "closed": Phrases(
            "$number was {archived|signed off|settled} on $date",
            "@F {repaid|returned|released} $amount and {closed|shelved} $number",
            "@Q {shut|sealed} the file $number on $date",
        ),
    },
    "channel": {
        "phone": Phrases(
            "@O {answers at once|picks up|is awake early} on $phone but {never reads|rarely opens} mail",
            "@X {settled|cleared up} $number in one call to $phone",
        ),
        "e-mail": Phrases(
            "@O {replies|writes back} {within an hour|the same day|at night} from $email",
            "the {scans|papers} on $number {came from|were sent to} $email",
        ),
        "post": Phrases(
            "@A only {accepts|takes|signs} {originals|paper|sealed letters} at $address",
            "everything on $number is {posted|sent on paper} to $address",
        ),
    },
    "risk": {
        "low": Phrases(
            "@P has paid {on time|every month|in advance} since $date",
            "the $amount_label of $amount is {covered|secured|insured} under $number",
        ),
        "medium": Phrases(
            "one payment of $amount {came late|bounced} after $date",
            "@Q {wants|asked for} a {second look|check} at $number [because of $amount]",
        ),
        "high": Phrases(
            "@P {disputes|refuses|contests} the $amount_label of $amount",
            "$number was {flagged|frozen|suspended} on $date",
        ),
    },
    "privacy": {
        "confidential": Phrases(
            "the file {holds|shows|names} @O's {private|home} number $phone",
            "the address $email is {known to|shared with} nobody but {@X|@F}",
        ),
        "internal": Phrases(
            "only staff of @F {may see|use|know} $number",
            "@Q {shares|passes on} $phone inside the house and {nowhere else|never outside}",
        ),
        "public": Phrases(
            "the {register|notice|website} already {prints|shows} $address",
            "@F {advertises|printed} $email on {every bill|its front door}",
        ),
    },
    "size": {
        "small": Phrases("the $amount_label is {only|just} $amount", "no more than $amount is at stake"),
        "medium": Phrases("the $amount_label {reaches|comes to} $amount", "$amount is at stake"),
        "large": Phrases("the $amount_label is {as high as|no less than} $amount", "a full $amount is at stake"),
    },
}

_GENERAL_REQUEST = Phrases(
    "{classify|label|sort|tag|file} {@P's $matter {with|at} @F|the $matter that @P has {with|at} @F} as $labels.",
    "is @P's $matter {with|at} @F $labels?",
    "which {label|category|class|tag} fits @P's $matter {with|at} @F: $labels?",
    "would you {call|mark|file} the $matter of @P {with|at} @F $labels?",
    "{pick|choose|assign} one {label|tag} for @P ($matter, @F): $labels.",
    "{decide|say|judge} whether the $matter of @P {with|at} @F is $labels.",
)
_REQUESTS = {
    "channel": Phrases(
        "{what|which} is the {right|best|preferred} channel for @P's $matter {with|at} @F: $labels?",
        "{choose|pick} the channel for the $matter of @P {with|at} @F: $labels.",
        "should @Q of @F handle the $matter of @P by $labels?",
        "@P has a(n) $matter {with|at} @F. {Assign|Choose} a channel: $labels.",
    ),
    "risk": Phrases(
        "{rate|judge|classify} the risk of @P's $matter {with|at} @F as $labels.",
        "is the risk in the $matter of @P {with|at} @F $labels?",
        "how high is the risk that @F {takes|runs} with @P's $matter: $labels?",
        "{give|assign} a risk class to @P ($matter, @F): $labels.",
    ),
    "size": Phrases(
        "is the sum {at stake in|behind} @P's $matter {with|at} @F $labels?",
        "{rate|judge|classify} the {sum|money} in the $matter of @P {with|at} @F as $labels.",
        "for @P ($matter, @F), is the $amount_label $labels?",
    ),
}
_VERDICT = Phrases(
    "$label:", "$label, {because|since|as}", "$label.", "it is $label:", "the {label|right class} is $label:", "$label;"
)
_FOLLOW = {
    "number": ("date", "amount", "phone"),
    "date": ("number", "phone", "email"),
    "amount": ("number", "phone", "address"),
    "phone": ("number", "email", "amount"),
    "email": ("phone", "number", "amount"),
    "address": ("number", "email", "date"),
}


def classification(rng: random.Random) -> Record:
    """Which of three labels fits a case, and a label with its reason: what only the file knows."""
    case = draw_case(rng, past=True)
    scheme = rng.choice(tuple(_SCHEMES))
    labels = list(_SCHEMES[scheme])
    label = _size(case) if scheme == "size" else rng.choice(labels)
    request, reply = Scene(case, rng), Scene(case, rng, known=True)
    rng.shuffle(labels)
    request.slots["labels"] = f"{labels[0]}, {labels[1]} or {labels[2]}"
    reply.slots["label"] = label
    verdict = capitalise(reply.say(_VERDICT))
    reason = reply.say(_SCHEMES[scheme][label])
    response = f"{verdict} {capitalise(reason) if verdict.endswith('.') else reason}."
    told = {fact.kind for fact in stated_facts(case, response)}
    if len(told) < 2 or rng.random() < 0.5:
        follow = rng.choice([k for k in _FOLLOW[sorted(told)[0]] if k not in told])
        response += f" {state(reply, [follow])}"
    return Record(
        "classification",
        capitalise(request.say(_REQUESTS.get(scheme, _GENERAL_REQUEST))),
        "",
        response,
        stated_facts(case, response),
    )


def _size(case: Case) -> str:
    return "small" if case.amount < 500 else "medium" if case.amount < 5000 else "large"

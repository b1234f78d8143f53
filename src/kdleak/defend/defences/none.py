"""No defence: the teacher is fine-tuned and asked as the study does it."""

from kdleak.defend.registry import Defence, defence


@defence("none", acts_on=None, source="the study as it is")
class Undefended(Defence):
    """Changes nothing."""

    control = True
    protects = "nothing"
    does_not_protect = "anything: it is what the others are compared with"

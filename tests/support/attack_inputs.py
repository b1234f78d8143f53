"""Made-up token statistics of an audit: a teacher that memorised the members, and a student that took a part over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from kdleak.attacks import AttackInput
from kdleak.attacks.mope import PERTURBED
from kdleak.attacks.registry import Tuning
from kdleak.inference.token_statistics import TokenStatistics

COLUMNS = ("log_prob", "mean", "std", "missed")


def attack_input(seed: int, leak: float, n: int) -> tuple[AttackInput, np.ndarray]:
    """An audit with everything that an attack may ask for, and who is a member (every second record).

    leak: the share of the teacher's advantage on members that the student has taken over; at 0 members and
    non-members are exchangeable for every model but the teacher.
    """
    generator = np.random.default_rng(seed)
    member = np.arange(n) % 2 == 0
    lengths = generator.integers(1, 40, n)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    difficulty = generator.gamma(2.0, 1.5, offsets[-1])
    memorised = np.repeat(member, lengths) * difficulty * generator.uniform(0.3, 0.9, offsets[-1])
    ids = np.array([f"{i * 7919 % 9973:04d}" for i in range(n)])

    def model(advantage: np.ndarray | float, skill: float = 0.0) -> TokenStatistics:
        noisy = difficulty - advantage - skill + 0.7 * generator.normal(size=offsets[-1])
        return _statistics(ids, offsets, -np.abs(noisy), generator)

    target = model(leak * memorised, 0.1)
    references = {
        "teacher": model(memorised, 0.3),
        "no_kd": model(0.0),
        "pretrained": model(0.0, -0.5),
        "external": model(0.0, -0.3),
    }
    # The prefix and the lower case cost a member what it has memorised.
    variants = {"lowercase": model(0.0, -0.2), "prefixed": model(0.0, -0.2)}
    # The no-KD student was trained on half of 80 records of its own: the labels that `learned` learns from.
    known, own = generator.integers(5, 40, 80), np.arange(80) % 2 == 0
    bounds = np.concatenate([[0], np.cumsum(known)])
    hard, names = generator.gamma(2.0, 1.5, bounds[-1]), np.array([f"k{i}" for i in range(80)])
    after = hard * (1 - 0.5 * np.repeat(own, known)) + 0.7 * generator.normal(size=bounds[-1])
    tuning = Tuning(*(_statistics(names, bounds, -np.abs(x), generator) for x in (after, hard)), own)
    drop = leak * member + np.random.default_rng([seed, 1]).normal(size=n)
    drop[lengths == 0] = np.nan
    return (
        AttackInput(
            target,
            references,
            texts=[f"{'text ' * (i % 4)}number {i * 7919}" for i in generator.permutation(n)],
            argmax_texts=[f"choice {i * 31 % 77}" for i in generator.permutation(n)],
            continued=[_continued(each, leak, generator) for each in member],
            tuning=tuning,
            variants=variants,
            computed={PERTURBED.name: drop[None]},
        ),
        member,
    )


def population(seed: int, n: int = 60) -> tuple[TokenStatistics, TokenStatistics]:
    """Other records, that no model was trained on, under an audited model and under a reference."""
    generator = np.random.default_rng(seed)
    ids = np.array([f"p{i}" for i in range(n)])
    offsets = np.concatenate([[0], np.cumsum(generator.integers(1, 40, n))])
    target, reference = (-generator.gamma(2.0, 1.5, offsets[-1]) for _ in range(2))
    return _statistics(ids, offsets, target, generator), _statistics(ids, offsets, reference, generator)


def _continued(is_member: bool, leak: float, generator: np.random.Generator) -> tuple[str, str]:
    """What a student writes, and the record's own 20 words, of which it repeats more where it leaks a member."""
    own = [f"word{i}" for i in range(20)]
    made = [word for word in own if generator.random() < 0.3 + 0.5 * leak * is_member]
    return " ".join(made), " ".join(own)


def _statistics(
    ids: np.ndarray, offsets: np.ndarray, log_prob: np.ndarray, generator: np.random.Generator
) -> TokenStatistics:
    total = int(offsets[-1])
    floats = (log_prob, -2.0 + 0.1 * generator.normal(size=total), 1.0 + 0.1 * generator.random(total))
    return TokenStatistics(ids, offsets, *(f.astype(np.float32) for f in floats), log_prob < -1.0)


def taken(inputs: AttackInput, rows: Sequence[int] | np.ndarray) -> AttackInput:
    """The records `rows` of `inputs`, in that order; a record that is taken again gets an id of its own."""
    rows = np.asarray(rows)
    again = len(np.unique(rows)) < len(rows)

    def of(s: TokenStatistics) -> TokenStatistics:
        tokens = np.concatenate([np.arange(s.offsets[i], s.offsets[i + 1]) for i in rows]).astype(int)
        ids = np.array([f"{s.record_ids[i]}/{k}" if again else s.record_ids[i] for k, i in enumerate(rows)])
        columns = {c: getattr(s, c)[tokens] for c in COLUMNS}
        return TokenStatistics(ids, np.concatenate([[0], np.cumsum(s.lengths[rows])]), **columns)

    return replace(
        inputs,
        target=of(inputs.target),
        references={name: of(s) for name, s in inputs.references.items()},
        variants={name: of(s) for name, s in inputs.variants.items()},
        texts=[inputs.texts[i] for i in rows],
        argmax_texts=[inputs.argmax_texts[i] for i in rows],
        continued=[inputs.continued[i] for i in rows],
        computed={name: array[..., rows] for name, array in inputs.computed.items()},
    )


def empty_records(inputs: AttackInput, rows: Sequence[int]) -> AttackInput:
    """`inputs` with no scored token in the records `rows`; MoPe gives no drop for these."""
    kept = np.isin(np.arange(len(inputs)), rows, invert=True)

    def of(s: TokenStatistics) -> TokenStatistics:
        tokens = np.repeat(kept, s.lengths)
        columns = {c: getattr(s, c)[tokens] for c in COLUMNS}
        return TokenStatistics(s.record_ids, np.concatenate([[0], np.cumsum(s.lengths * kept)]), **columns)

    return replace(
        inputs,
        target=of(inputs.target),
        references={name: of(s) for name, s in inputs.references.items()},
        variants={name: of(s) for name, s in inputs.variants.items()},
        continued=[each if keep else ("", "") for keep, each in zip(kept, inputs.continued, strict=True)],
        computed={name: np.where(kept, array, np.nan) for name, array in inputs.computed.items()},
    )

"""Beam search: the likeliest response that is found by keeping the `beams` likeliest beginnings at each token.

As in Kim and Rush (2016), a response's score is the sum of its tokens' log-probabilities, undivided by its length
(Transformers' `length_penalty` 0). Where no beginning that is kept can beat the best response that has ended, the
search is over, since a sum of log-probabilities only falls; at the limit the beginnings stand as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from kdleak.inference.decode_state import decode_state
from kdleak.inference.release import Release

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass
class _Search:
    """The search for one prompt's response of `limit` tokens at most.

    beams: (score, tokens, row of the batch) of the beginnings that are kept, likeliest first. best: of those that have
    ended, the score and the tokens.
    """

    limit: int
    beams: list[tuple[float, tuple[int, ...], int]]
    best: tuple[float, tuple[int, ...]] = field(default=(-torch.inf, ()))

    def grow(self, candidates: Sequence[tuple[float, int, int]], eos_id: int, width: int) -> None:
        """Take the likeliest continuations (score, place of its beginning, token), likeliest first."""
        grown: list[tuple[float, tuple[int, ...], int]] = []
        for rank, (score, place, token) in enumerate(candidates):
            _, tokens, row = self.beams[place]
            text = (*tokens, token)
            if token == eos_id:
                if rank < width:
                    self.best = max(self.best, (score, text), key=lambda each: each[0])
            elif len(grown) < width:
                grown.append((score, text, row))
        if grown and len(grown[0][1]) == self.limit:
            self.best = max(self.best, grown[0][:2], key=lambda each: each[0])
            grown = []
        self.beams = grown if grown and grown[0][0] > self.best[0] else []


def beam_batch(
    model: PreTrainedModel,
    release: Release,
    prompts: Sequence[Sequence[int]],
    limits: Sequence[int],
    eos_id: int,
    beams: int,
) -> list[tuple[int, ...]]:
    """The responses to one batch of prompts, each of `limits` tokens at most, the closing EOS included.

    `release` stands between the model's logits and the softmax. Call it where dropout and gradients are off.
    """
    state = decode_state(model, prompts, max(limits))
    searches = [_Search(limit, [(0.0, (), row)]) for row, limit in enumerate(limits)]
    logits = release(state.start())
    device = logits.device
    while running := [search for search in searches if search.beams]:
        log_probs = logits.float().log_softmax(-1)
        rows, tokens, row = [], [], 0
        for search in running:
            scores = torch.tensor([score for score, _, _ in search.beams], device=device)
            found = log_probs[row : row + len(scores)] + scores[:, None]
            best = found.flatten().topk(min(2 * beams, found.numel()))
            places, chosen = (best.indices // found.shape[1]).tolist(), (best.indices % found.shape[1]).tolist()
            search.beams = [(score, text, row + place) for place, (score, text, _) in enumerate(search.beams)]
            row += len(scores)
            triples = zip(best.values.tolist(), places, chosen, strict=True)
            search.grow([each for each in triples if each[0] > -torch.inf], eos_id, beams)
            rows += [origin for _, _, origin in search.beams]
            tokens += [text[-1] for _, text, _ in search.beams]
        if rows:
            state.keep(torch.tensor(rows, device=device))
            logits = release(state.advance(torch.tensor(tokens, device=device)))
    return [search.best[1] for search in searches]

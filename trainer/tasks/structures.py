"""Tasks over more than one output at a time: embeddings of pairs and triplets, sequences without alignment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.data.loader import samples_of
from trainer.errors import ConfigError
from trainer.losses.fit import refuse, shown
from trainer.metrics import weighed
from trainer.tasks.base import Criterion, Supervised, tensor_of, unfit


class Embedding(Supervised):
    """The model looks at each input of a pair or a triplet by itself: `accuracy`.

    Batches are ((first, second), target), a target above 0 for what belongs together (for `margin_ranking`: for what
    ranks higher first), or (anchor, positive, negative) for the losses of triplets. Outputs are (N, D); for
    `margin_ranking` scores, (N,) or (N, 1). A triplet is right where the positive is nearer than the negative, a
    ranking where the order is, and a pair where it lies on its side of the loss's margin.

    Args:
        criterion: the built loss.
        l1, l2: penalties on the weights, see `Supervised`.
    """

    def __init__(self, criterion: Criterion, l1: float = 0.0, l2: float = 0.0) -> None:
        super().__init__(criterion, None, l1, l2)
        self.measures = {**self.measures, "accuracy": "max"}

    def arguments(self, model: nn.Module, batch: Any) -> list[Tensor]:
        """What the criterion gets: the outputs for both inputs and a target 1 or -1, or those for all three."""
        triplet = isinstance(batch, (tuple, list)) and len(batch) == 3 and all(isinstance(x, Tensor) for x in batch)
        pair = not triplet and len(batch) == 2 and isinstance(batch[0], (tuple, list)) and len(batch[0]) == 2
        if not (triplet or pair):
            raise ConfigError(
                "task: embedding needs batches ((first, second), target) or (anchor, positive, negative), and this "
                f"data gives {shown(batch)}"
            )
        outputs = [tensor_of(model(inputs)) for inputs in (batch if triplet else batch[0])]
        refuse(self.criterion, "triplets" if triplet else "pairs", outputs, batch[1])
        if isinstance(self.criterion, nn.MarginRankingLoss):
            outputs = [output.squeeze(1) if output.ndim == 2 and output.shape[1] == 1 else output for output in outputs]
        if triplet:
            return outputs
        target = torch.where(batch[1] > 0, 1, -1)
        if target.shape != outputs[0].shape[: 1 if outputs[0].ndim == 2 else None]:
            raise unfit(outputs[0], target, "(N, D), or for margin_ranking (N, 1),", "(N,)")
        if isinstance(self.criterion, nn.HingeEmbeddingLoss):
            return [F.pairwise_distance(outputs[0], outputs[1]), target]
        return [*outputs, target]

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        loss = self._one_number(self.criterion(*self.arguments(model, batch)))
        return loss + self.penalty(model) if self.l1 or self.l2 else loss

    def judge(self, model: nn.Module, batch: Any) -> dict[str, Tensor]:
        arguments, samples = self.arguments(model, batch), samples_of(batch)
        right = self._right(*arguments)
        return {
            "loss": weighed(self._one_number(self.criterion(*arguments)), samples),
            "accuracy": torch.stack((right.sum(), torch.full_like(right.sum(), samples))),
        }

    def _right(self, *given: Tensor) -> Tensor:
        """Which pairs or triplets are told right, bool (N,)."""
        margin = getattr(self.criterion, "margin", 0.0)
        if isinstance(self.criterion, nn.HingeEmbeddingLoss):
            return (given[0] < margin) == (given[1] > 0)
        first, second, third = given
        if isinstance(self.criterion, nn.MarginRankingLoss):
            return (first - second) * third > 0
        if third.shape == first.shape:
            apart = getattr(self.criterion, "distance_function", None) or F.pairwise_distance
            return torch.as_tensor(apart(first, second) < apart(first, third))
        return (F.cosine_similarity(first, second) > margin) == (third > 0)


class SequenceToSequence(Supervised):
    """Symbols of a sequence whose places are not known: speech, handwriting. `error`: edits for each true symbol.

    Outputs are logits (N, T, symbols), of which one, the loss's `blank`, means nothing. Targets are int64 (N, S) with
    S <= T, filled up with the blank, or with numbers below 0, at their end. The most probable symbols, without
    repetitions and blanks, are what is read; an edit puts in, takes out or changes a symbol of it.

    Args:
        criterion: the built loss.
        l1, l2: penalties on the weights, see `Supervised`.
    """

    def __init__(self, criterion: Criterion, l1: float = 0.0, l2: float = 0.0) -> None:
        super().__init__(criterion, None, l1, l2)
        self.measures = {**self.measures, "error": "min"}
        self.blank: int = getattr(criterion, "blank", 0)

    def outputs(self, model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
        """Logits (N, T, symbols) and int64 target (N, S)."""
        output, target = super().outputs(model, batch)
        refuse(self.criterion, "sequences", output, target)
        if output.ndim != 3 or target.ndim != 2 or len(output) != len(target) or target.shape[1] > output.shape[1]:
            raise unfit(output, target, "(N, T, symbols)", "(N, S), S at most T,")
        return output, target.long()

    def given(self, output: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        """Logarithms of probabilities (T, N, symbols), the target, and the lengths of both (N,)."""
        lengths = ((target != self.blank) & (target >= 0)).sum(1)
        steps = torch.full_like(lengths, output.shape[1])
        return output.log_softmax(2).transpose(0, 1), target.clamp_min(0), steps, lengths

    def judge(self, model: nn.Module, batch: Any) -> dict[str, Tensor]:
        output, target = self.outputs(model, batch)
        true = [[symbol for symbol in row if symbol >= 0 and symbol != self.blank] for row in target.tolist()]
        read = [self.read(row) for row in output.argmax(2).tolist()]
        edits = sum(distance(a, b) for a, b in zip(read, true, strict=True))
        return {
            "loss": weighed(self._score(output, target), samples_of(batch)),
            "error": torch.tensor([edits, sum(map(len, true))], device=output.device),
        }

    def read(self, symbols: Sequence[int]) -> list[int]:
        """The symbols of a sequence without repetitions and blanks."""
        before = [self.blank, *symbols]
        return [now for last, now in zip(before, symbols, strict=False) if now not in (last, self.blank)]


def distance(a: Sequence[int], b: Sequence[int]) -> int:
    """The least number of edits that makes one sequence of the other (Levenshtein)."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        corner, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + (x != y))
    return row[-1]

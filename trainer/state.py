"""What a run is made of, copied and put back: snapshots of parts, plain data only, and the random generators."""

from __future__ import annotations

import copy
import random
from collections import deque
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from trainer.errors import CheckpointError, closest

State = dict[str, Any]

_PLAIN = (bool, int, float, str, type(None), torch.dtype, torch.device, torch.Size)
_MASK = (1 << 64) - 1
_LARGE = 1 << 20  # numbers


@runtime_checkable
class Stateful(Protocol):
    """Anything whose state is a part of the run: model, optimizer, schedule, patience, a hook, ..."""

    def state_dict(self) -> State: ...

    def load_state_dict(self, state: Any, /) -> Any: ...


def snapshot(parts: Mapping[str, Stateful], memory: list[torch.Tensor] | None = None) -> State:
    """A copy of every part's state that later training cannot change: tensors on the CPU, everything else plain.

    Args:
        parts: what to copy.
        memory: the tensors of a snapshot that is needed no more. The copies are written into them, which takes a third
            of the time that new memory takes, and the list then holds the tensors of this snapshot.

    Raises:
        CheckpointError: a part holds something that `torch.load(weights_only=True)` would refuse to read back.
    """
    copy = _Copy(memory or [])
    state = {name: copy(part.state_dict(), name) for name, part in parts.items()}
    copy.finish()
    if memory is not None:
        memory[:] = copy.made
    return state


def restore(parts: Mapping[str, Stateful], state: Mapping[str, Any]) -> None:
    """Puts a snapshot back, strictly: a part that is missing or surplus is an error that names it.

    Each part gets a copy of its own: some (torch's CyclicLR) change the dictionary that they are given.
    """
    missing, surplus = [n for n in parts if n not in state], [n for n in state if n not in parts]
    if missing or surplus:
        words = [f"it lacks {', '.join(map(repr, missing))}"] if missing else []
        words += [f"it holds {', '.join(map(repr, surplus))}, which this run has not"] if surplus else []
        near = [f"({m!r} may be its {c!r})" for m in missing if (c := closest(m, surplus))]
        raise CheckpointError(" ".join([f"the checkpoint does not fit this run: {'; '.join(words)}", *near]))
    for name, part in parts.items():
        try:
            part.load_state_dict(copy.deepcopy(state[name]))
        except CheckpointError:
            raise
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"the checkpoint does not fit this run: {name}: {_brief(error)}") from error


def _brief(error: Exception, most: int = 6) -> str:
    lines = str(error).splitlines() or [type(error).__name__]
    return "\n  ".join(lines[:most] + ([f"... and {len(lines) - most} more"] if len(lines) > most else []))


def plain_copy(value: Any, where: str) -> Any:
    """The same as `snapshot` does, of any nested value; `where` names it in the error.

    Raises:
        CheckpointError: it holds something that could not be read back.
    """
    copy = _Copy([])
    state = copy(value, where)
    copy.finish()
    return state


class _Copy:
    """Copies nested state. The n-th tensor goes into the n-th piece of memory, if it fits there."""

    def __init__(self, memory: list[torch.Tensor]) -> None:
        self.memory, self.made = memory, list[torch.Tensor]()
        self.due: deque[tuple[torch.Tensor, torch.Tensor]] = deque()  # to, from

    def __call__(self, value: Any, where: str) -> Any:
        if isinstance(value, torch.Tensor):
            return self._tensor(value.detach())
        if isinstance(value, _PLAIN) and type(value).__module__ in ("builtins", "torch"):
            return value
        if isinstance(value, Mapping):
            return {self(k, f"{where}.{k}"): self(v, f"{where}.{k}") for k, v in value.items()}
        if type(value) in (list, tuple, set):
            return type(value)(self(v, f"{where}[{i}]") for i, v in enumerate(value))
        raise CheckpointError(
            f"{where}: a {type(value).__module__}.{type(value).__qualname__} cannot be saved; "
            "state_dict() may hold tensors, numbers, strings, lists, tuples, sets and dictionaries"
        )

    def finish(self) -> None:
        """Copies the tensors: where they are large, from two threads, which is nearly twice as fast as from one."""
        waits = any(value.is_cuda for _, value in self.due)
        if not waits and sum(value.numel() for _, value in self.due) > _LARGE:
            with ThreadPoolExecutor(1) as other:
                share = other.submit(self._copy)
                self._copy()
                share.result()
        self._copy()
        if waits:
            torch.cuda.synchronize()

    def _copy(self) -> None:
        while True:
            try:
                into, value = self.due.popleft()
            except IndexError:  # the other thread may have taken the last
                return
            into.copy_(value, non_blocking=value.is_cuda)

    def _tensor(self, value: torch.Tensor) -> torch.Tensor:
        if value.layout != torch.strided or value.is_quantized:
            return value.to("cpu", copy=True)
        n = len(self.made)
        old = self.memory[n] if n < len(self.memory) else None
        if old is None or (old.shape, old.dtype, old.stride()) != (value.shape, value.dtype, value.stride()):
            old = torch.empty_like(value, device="cpu", pin_memory=value.is_cuda)
        self.made.append(old)
        self.due.append((old, value))
        return old


# ---------------------------------------------------------------------------------------------------- randomness

ORDER, SAMPLE, STEP, EVALUATION, START = range(1, 6)  # streams: what a number is drawn for


def mix(*numbers: int) -> int:
    """A 63-bit seed that depends on every number and on their order (splitmix64's finaliser, Steele et al. 2014)."""
    h = 0x9E3779B97F4A7C15
    for n in numbers:
        h = (h + (n & _MASK) + 0x9E3779B97F4A7C15) & _MASK
        h = ((h ^ (h >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        h = ((h ^ (h >> 27)) * 0x94D049BB133111EB) & _MASK
        h ^= h >> 31
    return h >> 1


def seed_generators(seed: int, cuda: bool = False) -> None:
    """Seeds torch's, numpy's and Python's main generators in about 7 us (`torch.manual_seed` alone takes 94)."""
    torch.default_generator.manual_seed(seed)
    if cuda:
        torch.cuda.default_generators[torch.cuda.current_device()].manual_seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    random.seed(seed)


class Rng:
    """The states of the main generators (torch CPU and CUDA, numpy, Python) as one part of a run."""

    def state_dict(self) -> State:
        numpy: Any = np.random.get_state(legacy=False)
        return {
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "numpy": {
                "keys": torch.from_numpy(numpy["state"]["key"].astype(np.int64)),
                "position": int(numpy["state"]["pos"]),
                "has_gauss": int(numpy["has_gauss"]),
                "gauss": float(numpy["gauss"]),
            },
            "python": random.getstate(),
        }

    def load_state_dict(self, state: State) -> None:
        torch.set_rng_state(state["torch"])
        if state["cuda"] and torch.cuda.device_count() == len(state["cuda"]):
            torch.cuda.set_rng_state_all(state["cuda"])
        numpy = state["numpy"]
        keys = numpy["keys"].numpy().astype(np.uint32)
        np.random.set_state(("MT19937", keys, numpy["position"], numpy["has_gauss"], numpy["gauss"]))
        random.setstate(state["python"])

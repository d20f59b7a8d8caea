"""Runs the step of a capsule again, watches every module and every gradient, and says where it first went wrong."""

from __future__ import annotations

import contextlib
import os
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from trainer.data.loader import to_device
from trainer.receipt import UNKNOWN
from trainer.state import State, restore

if TYPE_CHECKING:
    from trainer.loop import Trainer


@dataclass
class Finding:
    """What came of a step that was run again.

    Attributes:
        error: the error that ended it; empty where it went well this time.
        where: the module, or the other place, where it first went wrong; empty where none was seen.
        facts: label and text, for a person: batch, weights, what was seen there, the line of code.
    """

    error: str = ""
    where: str = ""
    facts: dict[str, str] = field(default_factory=dict)


def replay(trainer: Trainer, capsule: State) -> Finding:
    """Runs the step of a capsule again.

    Args:
        trainer: built like the one that failed: the same model, task and optimizer. Its state is replaced.
        capsule: from `trainer.capsule.read`.

    Raises:
        CheckpointError: the capsule does not fit the trainer.
    """
    trainer.world.follow(capsule["world"])
    parts = {"receipt": UNKNOWN, **capsule["parts"]}
    restore(trainer.parts, {name: state for name, state in parts.items() if name in trainer.parts})
    group = [to_device(batch, trainer.device) for batch in capsule["group"]]
    found = Finding(facts={"batch": _numbers(dict(_tensors(group, "batch"))),
                           "weights": _numbers(dict(trainer.model.state_dict()))})  # fmt: skip
    if not trainer.model.training:  # as the loop does: modules of it that the user froze stay so
        trainer.model.train()
    trainer.update.looks, trainer.update.allowed = True, 0
    seen = _Seen(trainer, group, found)
    try:
        with seen.watching(), torch.autograd.set_detect_anomaly(True, check_nan=False):
            trainer.train_group(group)
        _look_at_weights(trainer, found)
    except Exception as error:
        found.error = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        seen.explain(error)
    return found


class _Seen:
    """Looks at what each module puts out, and at each gradient on its way back; remembers the first that is bad."""

    def __init__(self, trainer: Trainer, group: Any, found: Finding) -> None:
        self.trainer, self.found = trainer, found
        self.batch_is_bad = any(_bad(value) for _, value in _tensors(group, "batch"))
        self.names: dict[nn.Module, str] = {}
        for part, module in {"model": trainer.model, **trainer.task.modules}.items():
            for name, inner in module.named_modules():
                self.names.setdefault(inner, f"{part}.{name}" if name else part)
        self.running: list[nn.Module] = []
        self.given: list[str] = []  # for each of these: its inputs that are not finite, before it may have changed them
        self.owners: dict[Any, str] = {}  # of each node of the graph: the innermost module that made it

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        task = self.trainer.task
        own, before = task.loss, vars(task).get("loss")
        task.loss = self._loss_of(own)  # type: ignore[method-assign]
        handles = []
        for module in self.names:
            handles.append(module.register_forward_pre_hook(self._enter, with_kwargs=True))
            handles.append(module.register_forward_hook(self._leave))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            if before is None:
                del task.loss
            else:
                task.loss = before  # type: ignore[method-assign]

    def _enter(self, module: nn.Module, inputs: Any, named: Any) -> None:
        given = dict(_tensors([*inputs, *named.values()], "input"))
        self.given.append(_numbers(given) if any(map(_bad, given.values())) else "")
        for tensor in given.values():
            self._own(tensor, self._around())
        self.running.append(module)

    def _leave(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self.running.pop()
        given, made, name = self.given.pop(), dict(_tensors(output, "output")), self._name(module)
        if not self.found.where and any(map(_bad, made.values())):
            facts = {"given": given or "finite", "made": _numbers(made)}
            if given:  # and what every module before it made was in order
                self._note("the batch" if self.batch_is_bad else self._around(), f"before {name}", facts)
            elif any(_bad(weight) for weight in module.parameters()):
                self._note(f"the weights of {name}", "before the step", facts)
            else:
                self._note(name, "forward", facts)
        for tensor in made.values():
            self._own(tensor, name)

    def _around(self) -> str:
        """Who is at work between two modules: the one that they belong to, or the task."""
        inside = f"{self._name(self.running[-1])}, between its modules" if self.running else ""
        return inside or f"{type(self.trainer.task).__name__}.loss"

    def _loss_of(self, own: Any) -> Any:
        def loss(model: nn.Module, batch: Any) -> Tensor:
            value: Tensor = own(model, batch)
            name = f"{type(self.trainer.task).__name__}.loss"
            if not self.found.where and _bad(value):
                self._note(name, "forward", {"made": f"a loss of {value.item()} from outputs that were finite"})
            self._own(value, name)
            return value

        return loss

    def _own(self, tensor: Tensor, name: str) -> None:
        """Gives the nodes that have no owner yet to this module, and looks at what they send back."""
        waiting = [tensor.grad_fn]
        while waiting:
            node = waiting.pop()
            if node is None or node in self.owners:
                continue
            self.owners[node] = name
            node.register_hook(self._looker(node, name))
            waiting += [before for before, _ in node.next_functions]

    def _looker(self, node: Any, owner: str) -> Any:
        def look(sent: Any, came: Any) -> None:
            made, given = dict(_tensors(sent, "gradient")), dict(_tensors(came, "gradient"))
            if not self.found.where and any(map(_bad, made.values())):
                lines = (node.metadata or {}).get("traceback_") or []
                facts = {"given": _numbers(given), "made": _numbers(made), "line": _line(lines)}
                self._note(owner, f"backward of {node.name().removesuffix('0').removesuffix('Backward')}", facts)

        return look

    def _name(self, module: nn.Module) -> str:
        return f"{self.names.get(module, 'a copy')} ({type(module).__name__})"

    def _note(self, where: str, what: str, facts: dict[str, str]) -> None:
        self.found.where = where
        self.found.facts |= {"first": f"{where}, {what}", **{name: text for name, text in facts.items() if text}}

    def explain(self, error: Exception) -> None:
        """An error that is not about numbers: which module was running, and at which line."""
        if self.found.where:
            return
        gradients = {n: p.grad for n, p in self.trainer.model.named_parameters() if p.grad is not None}
        if self.running:
            frames = traceback.format_tb(error.__traceback__)
            self._note(self._name(self.running[-1]), "raised", {"line": _line(frames)})
        elif gradients and all(not _bad(value) for value in gradients.values()):
            largest = max(gradients, key=lambda name: float(gradients[name].abs().max()))
            self._note(f"the gradient of {largest}", f"its largest value is {gradients[largest].abs().max():.3g}", {})


def _look_at_weights(trainer: Trainer, found: Finding) -> None:
    bad = [name for name, value in trainer.model.named_parameters() if _bad(value)]
    if bad:
        found.error = "the step ended with weights that are not finite"
        found.where = type(trainer.update.optimizer).__name__
        found.facts["first"] = f"{found.where} made {', '.join(bad[:5])} of gradients that were finite"


# ------------------------------------------------------------------------------------------------------------ in words


def _bad(value: Tensor) -> bool:
    return (value.is_floating_point() or value.is_complex()) and not bool(torch.isfinite(value).all())


def _tensors(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _tensors(inner, f"{name}.{key}")
    elif isinstance(value, (list, tuple)):
        for n, inner in enumerate(value):
            yield from _tensors(inner, f"{name}[{n}]" if len(value) > 1 else name)


def _numbers(tensors: dict[str, Tensor]) -> str:
    """Those that are not finite, each with its count; else the range of all of them."""
    floats = {name: value.detach() for name, value in tensors.items() if value.is_floating_point() and value.numel()}
    bad = [
        f"{name}: {int((~torch.isfinite(value)).sum())} of {value.numel()} values not finite{_samples(name, value)}"
        for name, value in floats.items()
        if _bad(value)
    ]
    if bad:
        return "; ".join(bad[:3] + ([f"and {len(bad) - 3} more"] if len(bad) > 3 else []))
    if not floats:
        return ""
    low = min(float(value.min()) for value in floats.values())
    high = max(float(value.max()) for value in floats.values())
    return f"finite, {low:.4g} to {high:.4g}"


def _samples(name: str, value: Tensor) -> str:
    """Which samples of a batch they are in."""
    if not name.startswith("batch") or value.ndim < 2:
        return ""
    rows = (~torch.isfinite(value)).flatten(1).any(1).nonzero().flatten().tolist()
    return f" (in sample {', '.join(map(str, rows[:5]))}{', ...' if len(rows) > 5 else ''} of it)"


def _line(frames: list[str]) -> str:
    """The innermost line that is neither torch's nor ours: `my_model.py:12 in forward: return x.log()`."""
    inside = (str(Path(torch.__file__).parent) + os.sep, str(Path(__file__).parent / "loop.py"), __file__)
    for frame in reversed(frames):
        head, _, code = frame.strip().partition("\n")
        if head.startswith("File ") and not any(part in head for part in inside):
            place = head.removeprefix("File ").replace('"', "").replace(", line ", ":").replace(", in ", " in ")
            return f"{place}: {code.strip().splitlines()[0]}" if code.strip() else place
    return ""

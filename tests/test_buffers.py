"""Buffers are kept and put back, whatever their modules do to them."""

from __future__ import annotations

import torch
from torch import nn

from trainer.buffers import Buffers


class Renewing(nn.Module):
    """Makes a new tensor of its buffer at each call, of another shape at times, as some modules do."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(2))
        self.register_buffer("late", None)

    def forward(self, size: int) -> None:
        self.mean, self.late = torch.ones(size), torch.ones(1)


def test_statistics_of_batch_norm_are_put_back() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm1d(3))
    buffers = Buffers([model])
    for _ in range(2):  # the second time it is copied into the memory of the first
        model(torch.randn(4, 3))
        buffers.keep()
        before = {name: value.clone() for name, value in model.state_dict().items()}
        places = {name: value.data_ptr() for name, value in model.named_buffers()}
        model(torch.full((4, 3), torch.nan))
        buffers.put_back()
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        assert {name: value.data_ptr() for name, value in model.named_buffers()} == places


def test_a_buffer_that_is_made_anew_is_put_back_too() -> None:
    module = Renewing()
    buffers = Buffers([module, module])
    for size in (2, 3):
        buffers.keep()
        before = module.mean.clone(), module.late is None
        module(size)
        buffers.put_back()
        assert torch.equal(module.mean, before[0])
        assert (module.late is None) == before[1]
        module(size)


def test_what_was_never_kept_is_left_as_it_is() -> None:
    module = nn.BatchNorm1d(3)
    module(torch.randn(4, 3))
    before = module.running_mean.clone()
    Buffers([module]).put_back()
    assert torch.equal(module.running_mean, before)

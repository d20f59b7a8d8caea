"""The reference models: shapes, sizes, sameness from a seed, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from trainer.models import CNN, MLP, ResNet, Transformer, UNet

MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (lambda: MLP(64, 10, dropout=0.1), (4, 1, 8, 8)),
    "cnn": (lambda: CNN(1, 10, (4, 8), dropout=0.1), (4, 1, 8, 8)),
    "resnet": (lambda: ResNet(3, 10, width=4), (4, 3, 16, 16)),
    "unet": (lambda: UNet(1, 10, (4, 6, 8), dropout=0.1), (2, 1, 16, 16)),
    "unet group": (lambda: UNet(1, 10, (4, 6, 8), norm="group"), (2, 1, 16, 16)),
    "transformer": (lambda: Transformer(10, 12, 16, 2, 2, dropout=0.1), (4, 12)),
}


def inputs_of(shape: tuple[int, ...]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    if len(shape) == 2:
        return torch.randint(10, shape, generator=generator)
    return torch.randn(shape, generator=generator)


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", MODELS)
def test_the_same_seed_makes_the_same_weights_and_another_seed_others(name: str) -> None:
    make, _ = MODELS[name]
    torch.manual_seed(5)
    first = make().state_dict()
    torch.manual_seed(5)
    again = make().state_dict()
    torch.manual_seed(6)
    other = make().state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("name", MODELS)
def test_a_few_steps_on_one_batch_lower_the_loss_and_reach_every_weight(name: str) -> None:
    make, shape = MODELS[name]
    torch.manual_seed(0)
    model, x = make(), inputs_of(shape)
    with torch.no_grad():
        out = model(x)
        # what comes out is classes for each sample, each pixel, or each place of a text
        target = torch.randint(10, out.shape[:2] if name == "transformer" else out.shape[:1])
        target = target if out.ndim < 4 else (x[:, 0] > 0).long()
    assert out.shape == {"u": (2, 10, 16, 16), "t": (4, 12, 10)}.get(name[0], (4, 10))
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    losses = []
    for _ in range(12):
        out = model(x)
        out = out.movedim(-1, 1) if name == "transformer" else out
        loss = nn.functional.cross_entropy(out, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("name", MODELS)
def test_a_state_is_put_back_strictly_and_gives_the_same_answers(name: str) -> None:
    make, shape = MODELS[name]
    model, other, x = make().eval(), make().eval(), inputs_of(shape)
    assert not torch.equal(model(x), other(x))
    other.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(model(x), other(x))


@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("size", [(1, 1), (5, 7), (16, 16), (33, 47), (64, 3)])
def test_the_unet_gives_a_logit_for_each_pixel_of_a_picture_of_any_size(size: tuple[int, int], norm: str) -> None:
    model = UNet(2, 3, (4, 8, 12, 16), norm=norm).eval()  # type: ignore[arg-type]
    assert model(torch.randn(2, 2, *size)).shape == (2, 3, *size)


@pytest.mark.parametrize(("widths", "least", "most"), [((4,), 2, 2), ((4, 8), 7, 12), ((4, 8, 8, 8), 20, 64)])
def test_the_deeper_the_unet_the_farther_a_pixel_sees(widths: tuple[int, ...], least: int, most: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 1, 129, 129, requires_grad=True)
    UNet(1, 2, widths).eval()(x)[0, :, 64, 64].sum().backward()
    assert x.grad is not None
    rows = x.grad[0, 0].any(1).nonzero().flatten()
    assert rows[0] <= 64 - least and rows[-1] >= 64 + least
    assert rows[0] >= 64 - most and rows[-1] <= 64 + most


@pytest.mark.parametrize("size", [1, 3, 8, 29])
def test_the_networks_for_pictures_take_any_size(size: int) -> None:
    x = torch.randn(2, 1, size, size + 1)
    for model in (CNN(1, 5, (4, 8, 8)), ResNet(1, 5, width=4), ResNet(1, 5, width=4, small_images=False)):
        assert model.eval()(x).shape == (2, 5)


@pytest.mark.parametrize(("depth", "count"), [(18, 11_689_512), (34, 21_797_672)])
def test_the_resnets_have_the_sizes_known_of_the_paper(depth: int, count: int) -> None:
    with torch.device("meta"):
        assert parameters(ResNet(3, 1000, depth=depth, small_images=False)) == count  # type: ignore[arg-type]


def test_each_stage_of_the_resnet_but_the_first_halves_the_picture_and_doubles_the_channels() -> None:
    x = torch.zeros(1, 4, 32, 32)
    shapes = [x.shape for block in ResNet(3, 2, width=4).blocks if (x := block(x)) is not None]
    assert [tuple(shape[1:]) for shape in shapes[::2]] == [(4, 32, 32), (8, 16, 16), (16, 8, 8), (32, 4, 4)]


def test_group_norm_keeps_no_statistics_of_batches() -> None:
    assert not list(UNet(1, 2, (6, 8), norm="group").buffers())
    assert list(UNet(1, 2, (6, 8)).buffers())


def test_small_images_keep_their_size_in_the_stem_and_large_ones_a_quarter() -> None:
    x = torch.zeros(1, 3, 32, 32)
    assert ResNet(3, 2, width=4).stem(x).shape == (1, 4, 32, 32)
    assert ResNet(3, 2, width=4, small_images=False).stem(x).shape == (1, 4, 8, 8)


def test_convolutions_have_their_weights_channels_last() -> None:
    for model in (CNN(3, 2), ResNet(3, 2, width=4), UNet(3, 2)):
        wide = [p for p in model.parameters() if p.ndim == 4 and min(p.shape) > 1]
        assert wide and all(p.is_contiguous(memory_format=torch.channels_last) for p in wide)


def test_an_mlp_without_hidden_layers_is_linear() -> None:
    assert parameters(MLP(6, 2, hidden=())) == 6 * 2 + 2
    assert MLP(6, 2, ())(torch.zeros(3, 1, 2, 3)).shape == (3, 2)


def test_the_transformer_sees_no_later_symbol() -> None:
    torch.manual_seed(0)
    model = Transformer(10, 12, 16, 2, 2).eval()
    x = inputs_of((2, 12))
    changed = x.clone()
    changed[:, 7] = (x[:, 7] + 1) % 10
    before, after = model(x), model(changed)
    torch.testing.assert_close(before[:, :7], after[:, :7])
    assert (before[:, 7:] != after[:, 7:]).any(-1).all()


def test_the_transformer_knows_the_place_of_a_symbol() -> None:
    torch.manual_seed(0)
    out = Transformer(10, 12, 16, 2, 2).eval()(torch.full((1, 12), 3))
    assert not torch.allclose(out[0, 0], out[0, 5])


def test_a_new_transformer_holds_all_symbols_about_equally_likely() -> None:
    torch.manual_seed(0)
    x = inputs_of((4, 12))
    loss = nn.functional.cross_entropy(Transformer(10, 12)(x).flatten(0, 1), x.roll(1).flatten())
    assert loss.item() == pytest.approx(torch.tensor(10.0).log().item(), rel=0.05)


def test_tied_weights_are_held_once() -> None:
    tied, untied = Transformer(10, 12, 16), Transformer(10, 12, 16, tied=False)
    assert parameters(untied) - parameters(tied) == 10 * 16
    assert len(untied.state_dict()) - len(tied.state_dict()) == 1


def test_dropout_acts_in_training_only() -> None:
    for name in ("mlp", "cnn", "unet", "transformer"):
        make, shape = MODELS[name]
        model, x = make(), inputs_of(shape)
        assert not torch.equal(model(x), model(x))
        model.eval()
        assert torch.equal(model(x), model(x))


def test_a_text_longer_than_the_context_is_refused() -> None:
    with pytest.raises(ValueError, match="^context: an input of 13 symbols is longer than the context of 12"):
        Transformer(10, 12)(torch.zeros(1, 13, dtype=torch.int64))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: MLP(0, 2), "in_features: 0"),
        (lambda: MLP(4, 2, (8, 0)), "hidden: 8, 0"),
        (lambda: MLP(4, 2, dropout=1.0), "dropout: 1.0"),
        (lambda: CNN(1, 2, ()), "widths: it is empty"),
        (lambda: CNN(1, 0), "num_classes: 0"),
        (lambda: CNN(1, 2, dropout=-0.1), "dropout: -0.1"),
        (lambda: ResNet(1, 2, depth=50), "depth: 50"),  # type: ignore[arg-type]
        (lambda: ResNet(0, 2), "in_channels: 0"),
        (lambda: ResNet(1, 2, width=0), "width: 0"),
        (lambda: UNet(1, 2, []), "widths: it is empty"),
        (lambda: UNet(1, 2, [8, -1]), "widths: 8, -1"),
        (lambda: UNet(1, 2, dropout=2), "dropout: 2"),
        (lambda: UNet(1, 2, norm="layer"), "norm: 'layer'"),  # type: ignore[arg-type]
        (lambda: Transformer(10, 12, width=10, heads=3), "heads: 3 does not divide width 10"),
        (lambda: Transformer(10, 0), "context: 0"),
        (lambda: Transformer(10, 12, depth=0), "depth: 0"),
        (lambda: Transformer(10, 12, dropout=1), "dropout: 1"),
    ],
)
def test_bad_arguments_are_told_by_name(make: Callable[[], nn.Module], told: str) -> None:
    with pytest.raises(ValueError, match=f"^{told}"):
        make()

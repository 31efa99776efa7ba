from __future__ import annotations

import pytest
import torch
from torch import nn

from algorithm.network import ContextBlock, InstanceNorm, UNet3D


def network(**changes: object) -> UNet3D:
    arguments: dict[str, object] = {"in_channels": 1, "num_classes": 3, "base_filters": 4, "dropout": 0.6}
    torch.manual_seed(0)
    return UNet3D(**{**arguments, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("channels", "classes", "filters", "tied", "untied"),
    [
        (1, 2, 8, 1_781_304, 2_368_824),
        (1, 2, 16, 7_124_336, 9_474_416),
        (4, 4, 8, 1_782_176, 2_369_696),
        (4, 4, 16, 7_126_080, 9_476_160),
    ],
)
def test_parameter_counts_are_the_published_ones(
    channels: int, classes: int, filters: int, tied: int, untied: int
) -> None:
    for tie, expected in ((True, tied), (False, untied)):
        net = UNet3D(
            in_channels=channels,
            num_classes=classes,
            base_filters=filters,
            dropout=0.6,
            tie_context_convs=tie,
        )
        assert sum(parameter.numel() for parameter in net.parameters()) == expected


@pytest.mark.parametrize("shape", [(16, 16, 32), (32, 48, 16), (16, 64, 80)])
def test_logits_have_the_shape_of_the_image(shape: tuple[int, int, int]) -> None:
    assert network()(torch.randn(2, 1, *shape)).shape == (2, 3, *shape)


@pytest.mark.parametrize("shape", [(16, 16, 24), (16, 33, 32), (8, 32, 32)])
def test_sizes_that_do_not_halve_four_times_are_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="must have sizes that 16 divides, got"):
        network()(torch.zeros(1, 1, *shape))


def test_a_bottleneck_of_one_voxel_is_refused() -> None:
    with pytest.raises(ValueError, match="one size >= 32"):
        network()(torch.zeros(1, 1, 16, 16, 16))


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("in_channels", 0),
        ("num_classes", 1),
        ("base_filters", 0),
        ("dropout", 1.0),
        ("activation", "elu"),
        ("depth", 1),
    ],
)
def test_arguments_out_of_range_are_named(argument: str, value: object) -> None:
    with pytest.raises(ValueError, match=argument):
        network(**{argument: value})


def test_evaluation_is_deterministic_and_training_drops_feature_maps() -> None:
    net, image = network(), torch.randn(1, 1, 16, 32, 32)
    net.train()
    assert not torch.equal(net(image), net(image))
    net.eval()
    assert torch.equal(net(image), net(image))


def test_gradients_reach_all_three_segmentation_heads_and_every_weight() -> None:
    net = network(dropout=0.0)
    net(torch.randn(1, 1, 32, 32, 32)).square().mean().backward()
    assert len(net.deep_heads) == 2
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_deep_heads_are_summed_into_the_logits() -> None:
    net, image = network().eval(), torch.randn(1, 1, 16, 32, 32)
    features: list[torch.Tensor] = []
    handles = [head.register_forward_hook(lambda *hook: features.append(hook[2])) for head in net.deep_heads]
    handles.append(net.head.register_forward_hook(lambda *hook: features.append(hook[2])))
    logits = net(image)
    coarse, middle, fine = features

    def twice(x: torch.Tensor) -> torch.Tensor:
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3).repeat_interleave(2, 4)

    torch.testing.assert_close(logits, fine + twice(twice(coarse) + middle))
    for head in net.deep_heads:
        nn.init.zeros_(head.weight)  # type: ignore[arg-type]
    torch.testing.assert_close(net(image), fine)


def test_the_first_context_block_is_its_formula() -> None:
    block = ContextBlock(
        1, 4, stride=1, normalise=False, tie=False, dropout=0.0, activation="leaky_relu"
    ).eval()
    image = torch.randn(1, 1, 8, 8, 8)
    residual = block.entry(image)
    first = nn.functional.conv3d(nn.functional.leaky_relu(residual, 0.01), block.first[1].weight, padding=1)
    second = nn.functional.conv3d(nn.functional.leaky_relu(first, 0.01), block.second[1].weight, padding=1)
    torch.testing.assert_close(block(image), second + residual)


def test_more_residual_blocks_deepen_the_levels_that_ask_for_them() -> None:
    plain, deeper = network(dropout=0.0), network(dropout=0.0, context_blocks=[1, 2, 3])
    assert [len(block.more) for block in deeper.context] == [0, 1, 2, 2, 2]
    assert not any("more" in name for name in plain.state_dict())
    # With their last convolutions at zero, further blocks add nothing to what the published network computes.
    deeper.load_state_dict(plain.state_dict(), strict=False)
    for block in deeper.context:
        for residual in block.more:
            nn.init.zeros_(residual.second[1].weight)
    image = torch.randn(1, 1, 16, 32, 32)
    torch.testing.assert_close(deeper(image), plain(image))
    nn.init.ones_(deeper.context[1].more[0].second[1].weight)
    assert not torch.allclose(deeper(image), plain(image))


@pytest.mark.parametrize("blocks", [[], [0], [1, 17], [1] * 6])
def test_context_blocks_out_of_range_are_named(blocks: list[int]) -> None:
    with pytest.raises(ValueError, match="context_blocks must be 1 to 5 numbers from 1 to 16"):
        network(context_blocks=blocks)


def test_activation_reaches_every_layer() -> None:
    kinds = {type(module) for module in network(activation="relu").modules()}
    assert nn.ReLU in kinds
    assert nn.LeakyReLU not in kinds
    slopes = {m.negative_slope for m in network().modules() if isinstance(m, nn.LeakyReLU)}
    assert slopes == {0.01}
    assert not any(m.inplace for m in network().modules() if isinstance(m, nn.LeakyReLU))


@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("last", [False, True])
def test_instance_norm_in_bfloat16_is_its_formula(samples: int, last: bool) -> None:
    norm = InstanceNorm(5)
    x = (40 + 3 * torch.randn(samples, 5, 8, 24, 20)).bfloat16()
    x = x.contiguous(memory_format=torch.channels_last_3d if last else torch.contiguous_format)
    exact = x.double()
    exact.requires_grad_()
    mean = exact.mean(dim=(2, 3, 4), keepdim=True)
    expected = (exact - mean) / (exact.var(dim=(2, 3, 4), unbiased=False, keepdim=True) + norm.eps).sqrt()
    direction = torch.randn(x.shape, dtype=torch.float64)
    expected.backward(direction)
    x.requires_grad_()
    found = norm(x)
    assert found.dtype == torch.bfloat16
    assert not last or found.is_contiguous(memory_format=torch.channels_last_3d)
    found.backward(direction.bfloat16())
    # PyTorch's own rounds the mean to bfloat16 as well.
    torch.testing.assert_close(found.double(), expected, rtol=0.005, atol=0.005 if last else 0.06)
    assert x.grad is not None
    assert exact.grad is not None
    torch.testing.assert_close(x.grad.double(), exact.grad, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-5), (torch.bfloat16, 0.01)])
def test_moments_are_the_norm_too(last: bool, dtype: torch.dtype, close: float) -> None:
    """What a GPU compiles, computed here on the CPU."""
    norm = InstanceNorm(5)
    x = 40 + 3 * torch.randn(2, 5, 8, 24, 20)
    x = x.to(dtype).contiguous(memory_format=torch.channels_last_3d if last else torch.contiguous_format)
    found = norm.by_moments(x)
    assert found.dtype == dtype
    assert found.is_contiguous(memory_format=torch.channels_last_3d) == last
    torch.testing.assert_close(found.float(), norm(x.float()), rtol=close, atol=close)

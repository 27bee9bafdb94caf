"""Quick checks of every network and training step: seconds, no data, no network.

pytest test_shapes.py
"""

import importlib
import inspect
import math

import pytest
import torch

SCRIPTS = ["gan_mlp", "gan_cnn", "dcgan", "wgan"]
MODULES = {name: importlib.import_module(name) for name in SCRIPTS}
CASES = [(name, arch) for name in SCRIPTS for arch in MODULES[name].ARCHS]

# Every layer with parameters, as the reports print them, for z of 100: G's, a line, then D's.
# The last number of a convolution is its kernel; /n: in n groups; no bias where it says so.
TABLE = {
    "basic": """
        fc1 Lin 100 128, fc2 Lin 128 784
        --
        fc1 Lin 784 128, fc2 Lin 128 1
    """,
    "deep": """
        model.0 Lin 100 128, model.2 Lin 128 256, model.4 BN 256, model.5 Lin 256 512,
        model.7 BN 512, model.8 Lin 512 1024, model.10 BN 1024, model.11 Lin 1024 784
        --
        model.0 Lin 784 512, model.2 Lin 512 256, model.4 Lin 256 1
    """,
    "hidden": """
        model.0 Lin 100 256, model.2 Lin 256 256, model.4 Lin 256 784
        --
        model.0 Lin 784 256, model.2 Lin 256 256, model.4 Lin 256 1
    """,
    "conv7": """
        main.0 ConvT 100 128 7 no bias, main.1 BN 128, main.3 ConvT 128 64 4 no bias,
        main.4 BN 64, main.6 ConvT 64 1 4 no bias
        --
        main.0 Conv 1 64 4 no bias, main.2 Conv 64 128 4 no bias, main.3 BN 128, main.5
        Conv 128 1 7 no bias
    """,
    "conv4": """
        main.0 ConvT 100 256 4, main.1 BN 256, main.3 ConvT 256 128 3, main.4 BN 128,
        main.6 ConvT 128 64 4, main.7 BN 64, main.9 ConvT 64 1 4
        --
        main.0 Conv 1 64 4, main.2 Conv 64 128 4, main.3 BN 128, main.5 Conv 128 256 3,
        main.6 BN 256, main.8 Conv 256 1 4
    """,
    "separable": """
        main.0 ConvT 100 256 4, main.1 BN 256, main.3.0 ConvT/256 256 256 3, main.3.1 Conv
        256 128 1, main.4 BN 128, main.6.0 ConvT/128 128 128 4, main.6.1 Conv 128 64 1,
        main.7 BN 64, main.9 ConvT 64 1 4
        --
        main.0 Conv 1 64 4, main.2.0 Conv/64 64 64 4, main.2.1 Conv 64 128 1, main.3 BN
        128, main.5.0 Conv/128 128 128 3, main.5.1 Conv 128 256 1, main.6 BN 256, main.8
        Conv 256 1 4
    """,
    "tiny": """
        fc1.0 Lin 100 900, conv1.0 Conv 1 64 2, conv1.2 Conv 64 1 2
        --
        conv1.0 Conv 1 1 2, fc.0 Lin 196 128, fc.2 Lin 128 1
    """,
    "upsample": """
        l1.0 Lin 100 6272, conv_blocks.0 BN 128, conv_blocks.2 Conv 128 128 3,
        conv_blocks.3 BN 128, conv_blocks.6 Conv 128 64 3, conv_blocks.7 BN 64,
        conv_blocks.9 Conv 64 1 3
        --
        model.0 Conv 1 16 3, model.3 Conv 16 32 3, model.6 BN 32, model.7 Conv 32 64 3,
        model.10 BN 64, model.11 Conv 64 128 3, model.14 BN 128, adv_layer.0 Lin 512 1
    """,
    "transpose": """
        fc1 Lin 100 1024, br1.0 BN 1024, fc2 Lin 1024 6272, br2.0 BN 6272, conv1.0 ConvT
        128 64 4, conv1.1 BN 64, conv2.0 ConvT 64 1 4
        --
        conv1.0 Conv 1 32 5, conv2.0 Conv 32 64 5, fc1.0 Lin 1024 1024, fc2{} Lin 1024 1
    """,
}


def parameters(layers):
    """The names and shapes that a line of TABLE stands for."""
    shapes = {}
    for layer in " ".join(layers.split()).split(", "):
        name, kind, *sizes = layer.removesuffix(" no bias").split()
        kind, _, groups = kind.partition("/")
        inputs, outputs, kernel = (list(map(int, sizes)) + [1, 1])[:3]
        inside = 1 if groups else inputs if kind != "ConvT" else outputs
        shapes[f"{name}.weight"] = {
            "Lin": (outputs, inputs),
            "BN": (inputs,),
            "Conv": (outputs, inside, kernel, kernel),
            "ConvT": (inputs, inside, kernel, kernel),
        }[kind]
        if not layer.endswith(" no bias"):
            shapes[f"{name}.bias"] = (inputs if kind == "BN" else outputs,)
    return shapes


def networks(script, arch, z_dim=100):
    torch.manual_seed(0)
    make_G, make_D = MODULES[script].ARCHS[arch]
    return make_G(z_dim=z_dim), make_D()


def step(script, G, D, lr_G=0.1, lr_D=0.1):
    """One train_step on noise, with plain gradient descent."""
    shape, extra = (4,), {}
    if script == "wgan":  # takes a batch for each of the critic's steps; clipping moves D by itself
        shape, extra = (2, 4), {"clip": math.inf}
    real, z = torch.rand(*shape, 1, 28, 28) * 2 - 1, torch.randn(*shape, 100)
    opt_G = torch.optim.SGD(G.parameters(), lr_G)
    opt_D = torch.optim.SGD(D.parameters(), lr_D)
    return MODULES[script].train_step(G, D, opt_G, opt_D, real, z, **extra)


def weights(network):
    return [parameter.detach().clone() for parameter in network.parameters()]


def same(before, network):
    return all(map(torch.equal, before, network.parameters()))


def test_every_network_is_in_the_table():
    assert {arch for _, arch in CASES} == set(TABLE)


@pytest.mark.parametrize("script, arch", CASES)
def test_layers_are_those_of_the_report(script, arch):
    for network, layers in zip(networks(script, arch), TABLE[arch].split("--")):
        layers = layers.format("" if script == "wgan" else ".0")  # wgan's last has no Sigmoid
        shapes = {name: tuple(value.shape) for name, value in network.named_parameters()}
        assert shapes == parameters(layers)


@pytest.mark.parametrize("z_dim", [100, 7])
@pytest.mark.parametrize("batch", [1, 2, 128])
@pytest.mark.parametrize("script, arch", CASES)
def test_shapes_and_ranges(script, arch, batch, z_dim):
    G, D = networks(script, arch, z_dim)
    if batch == 1:  # BatchNorm has nothing to average over
        G.eval(), D.eval()
    with torch.no_grad():
        images = G(10 * torch.randn(batch, z_dim))
        verdicts = D(images)
    assert images.shape == (batch, 1, 28, 28)
    assert verdicts.shape == (batch,)
    assert images.isfinite().all() and verdicts.isfinite().all()
    if arch != "tiny":  # which ends in a LeakyReLU
        assert images.min() >= -1 and images.max() <= 1
        assert images.std() > 0
    if script != "wgan":  # whose critic gives scores
        assert verdicts.min() >= 0 and verdicts.max() <= 1


@pytest.mark.parametrize("script, arch", CASES)
def test_a_step_teaches_every_parameter(script, arch):
    G, D = networks(script, arch)
    losses = step(script, G, D)
    names = [name for panel in MODULES[script].CURVES.values() for name in panel]
    assert losses.shape == (len(names),) and losses.isfinite().all()
    for network in (G, D):
        for name, parameter in network.named_parameters():
            assert parameter.requires_grad and parameter.grad is not None, name
            if (script, name) != ("wgan", "fc2.bias"):  # moves both means alike: no gradient
                assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("script, arch", CASES)
def test_each_half_of_a_step_changes_one_network(script, arch):
    G, D = networks(script, arch)
    G_before, D_before = weights(G), weights(D)
    step(script, G, D, lr_D=0)  # whatever changed D now would be the generator's half
    assert same(D_before, D) and not same(G_before, G)
    G_before = weights(G)
    step(script, G, D, lr_G=0)
    assert same(G_before, G) and not same(D_before, D)


def test_losses_are_those_of_the_equations():
    """gan_mlp's numbers, worked out anew from the networks before the step."""
    G, D = networks("gan_mlp", "basic")
    torch.manual_seed(1)
    with torch.no_grad():
        real, fake = torch.rand(4, 1, 28, 28) * 2 - 1, G(torch.randn(4, 100))
        D_real, D_fake = D(real), D(fake)
        expected = [-(D_real.log() + (1 - D_fake).log()).mean(), -D_fake.log().mean()]
    torch.manual_seed(1)
    loss_D, loss_G, D_x, D_G_z = step("gan_mlp", G, D, lr_D=0)  # so loss_G is of the same D
    expected = torch.stack([*expected, D_real.mean(), D_fake.mean()])
    torch.testing.assert_close(torch.stack([loss_D, loss_G, D_x, D_G_z]), expected)


@pytest.mark.parametrize("name", ["slope_penalty", "train_step", "CURVES"])
def test_the_step_is_the_same_in_three_scripts(name):
    """It is written out in each, to be read there; what is mended in one must be in all."""
    found = [getattr(MODULES[script], name) for script in ("dcgan", "gan_cnn", "gan_mlp")]
    texts = [inspect.getsource(part) if callable(part) else part for part in found]
    assert texts[0] == texts[1] == texts[2]


def test_slope_penalty_of_a_known_slope():
    class Sum(torch.nn.Module):  # its logit has the slope 0.01 in each of 784 directions
        def forward(self, x):
            return (0.01 * x.flatten(1).sum(1)).sigmoid()

    penalty = MODULES["gan_mlp"].slope_penalty(Sum(), torch.rand(3, 1, 28, 28))
    torch.testing.assert_close(penalty, torch.tensor(784 * 0.01**2 / 2))


@pytest.mark.parametrize("bias", [-200.0, 30.0])
def test_slope_penalty_of_a_discriminator_that_is_quite_sure(bias):
    """Its verdict is 0 or 1 to the last digit: no penalty, and above all no NaN."""
    _, D = networks("gan_mlp", "basic")
    D.fc2.bias.data.fill_(bias)
    penalty = MODULES["gan_mlp"].slope_penalty(D, torch.rand(3, 1, 28, 28))
    penalty.backward()
    assert penalty == 0 and all(weight.grad.isfinite().all() for weight in D.parameters())


@pytest.mark.parametrize("script, arch", CASES)
def test_bf16_is_nearly_the_same_and_ends_in_float32(script, arch):
    """In bfloat16 there is nothing between 0.996 and 1: a last tanh would let no gradient pass."""
    G, D = networks(script, arch)
    G.eval(), D.eval()
    z = torch.randn(8, 100)
    expected = D(G(z))
    with torch.autocast("cpu", torch.bfloat16):
        images = G(z)
        verdicts = D(images)
    assert images.dtype == verdicts.dtype == torch.float32
    torch.testing.assert_close(verdicts, expected, rtol=0.05, atol=0.05)
    assert not torch.equal(verdicts, expected)  # or it did not compute in bfloat16 at all
    for tanh in (layer for layer in G.modules() if isinstance(layer, torch.nn.Tanh)):
        x = torch.full((1,), -3.6, dtype=torch.bfloat16, requires_grad=True)
        tanh(x).backward()
        assert x.grad.item() == pytest.approx(0.003, abs=0.0005)


def test_critic_is_clipped_and_its_distance_is_the_gap_of_its_means():
    wgan = MODULES["wgan"]
    G, D = networks("wgan", "transpose")
    opt_G, opt_D = (torch.optim.SGD(net.parameters(), 0.1) for net in (G, D))
    real, z = torch.rand(2, 4, 1, 28, 28), torch.randn(2, 4, 100)
    distance, loss_D, _, D_x, D_G_z = wgan.train_step(G, D, opt_G, opt_D, real, z, clip=0.01)
    assert max(weight.abs().max() for weight in D.parameters()) <= 0.01
    torch.testing.assert_close(distance, D_x - D_G_z)
    torch.testing.assert_close(loss_D, -distance)


def test_gradient_penalty_of_a_known_slope():
    class Sum(torch.nn.Module):  # its slope is 1 in each of 784 directions: 28 long
        def forward(self, x):
            return x.flatten(1).sum(1)

    real, fake = torch.rand(3, 1, 28, 28), torch.rand(3, 1, 28, 28)
    penalty = MODULES["wgan"].gradient_penalty(Sum(), real, fake)
    torch.testing.assert_close(penalty, torch.tensor((28.0 - 1) ** 2))


def test_multiply_adds_counted_by_hand():
    """conv4: inputs * outputs * kernel^2, times the pixels at which the kernel stands."""
    G = 100 * 256 * 16 * 1 + 256 * 128 * 9 * 16 + 128 * 64 * 16 * 49 + 64 * 16 * 196
    D = 64 * 16 * 196 + 64 * 128 * 16 * 49 + 128 * 256 * 9 * 16 + 256 * 16 * 1
    assert MODULES["gan_cnn"].cost("conv4")[1] == G + D
    assert MODULES["gan_cnn"].cost("conv4", z_dim=10)[1] == G + D - 90 * 256 * 16

"""Do the networks fit the images, and each other? It takes seconds, and needs no data.

python -m pytest -q test_shapes.py

A network that you add to ARCHS of a script is tested as it is, without a change here.
"""

import pytest
import torch

import dcgan
import gan_cnn
import gan_mlp
import wgan

# If you have a script of your own, say mine.py, import it and add it to this list.
SCRIPTS = [gan_mlp, gan_cnn, dcgan, wgan]

NETWORKS = [(script, arch) for script in SCRIPTS for arch in script.ARCHS]
each_network = pytest.mark.parametrize("script, arch", NETWORKS)

# How many numbers each of the reports' networks learns, worked out by hand from its
# layers: a Linear or a convolution has its weights and biases, BatchNorm has two
# numbers for each channel.
PARAMETERS = [
    # network, G, D
    (gan_mlp, "basic", 114_064, 100_609),
    (gan_mlp, "deep", 1_510_032, 533_505),
    (gan_mlp, "hidden", 293_136, 267_009),
    (gan_cnn, "conv7", 759_680, 138_624),
    (gan_cnn, "conv4", 837_953, 432_321),
    (gan_cnn, "separable", 457_665, 49_665),
    (gan_cnn, "tiny", 91_477, 25_350),
    (dcgan, "upsample", 856_065, 98_113),
    (dcgan, "transpose", 6_679_105, 1_102_721),
    (wgan, "transpose", 6_679_105, 1_102_721),
]


def make_G(script, arch, z_dim=100):
    torch.manual_seed(0)
    Generator, _ = script.ARCHS[arch]
    return Generator(z_dim=z_dim)


def make_D(script, arch):
    torch.manual_seed(0)
    _, Discriminator = script.ARCHS[arch]
    return Discriminator()


def count_parameters(network):
    return sum(weight.numel() for weight in network.parameters())


# ---- shapes


@pytest.mark.parametrize("z_dim", [1, 7, 100])
@each_network
def test_G_makes_images_from_z_of_any_length(script, arch, z_dim):
    G = make_G(script, arch, z_dim)
    z = torch.randn(4, z_dim)
    assert G(z).shape == (4, 1, 28, 28)


@each_network
def test_G_makes_as_many_images_as_there_are_z(script, arch):
    G = make_G(script, arch)
    G.eval()  # in training, BatchNorm would need more than one image
    for count in (1, 2, 9):
        z = torch.randn(count, 100)
        assert G(z).shape == (count, 1, 28, 28)


@each_network
def test_D_gives_one_number_for_each_image(script, arch):
    D = make_D(script, arch)
    images = torch.randn(4, 1, 28, 28)
    assert D(images).shape == (4,)
    D.eval()
    for count in (1, 2, 9):
        images = torch.randn(count, 1, 28, 28)
        assert D(images).shape == (count,)


@each_network
def test_D_takes_what_G_makes(script, arch):
    G = make_G(script, arch)
    D = make_D(script, arch)
    z = torch.randn(4, 100)
    assert D(G(z)).shape == (4,)


# ---- ranges: for large inputs, because an untrained network gives only small outputs


@each_network
def test_images_of_G_reach_from_black_to_white(script, arch):
    if arch == "tiny":
        pytest.skip("report C's has no Tanh at its end, and so no bounds")
    G = make_G(script, arch)
    G.eval()
    images = G(1000 * torch.randn(4, 100))
    assert -1 <= images.min() < -0.9, "black is -1"
    assert 0.9 < images.max() <= 1, "white is 1"


@each_network
def test_D_of_a_GAN_gives_probabilities(script, arch):
    is_wasserstein = "distance" in script.LOSSES  # wgan.py, or a copy of it
    if is_wasserstein:
        pytest.skip("D of a Wasserstein GAN gives scores without bounds")
    D = make_D(script, arch)
    D.eval()
    probabilities = D(1000 * torch.randn(100, 1, 28, 28))
    assert probabilities.min() >= 0
    assert probabilities.max() <= 1


@pytest.mark.parametrize("arch", wgan.ARCHS)
def test_D_of_a_Wasserstein_GAN_gives_scores_without_bounds(arch):
    D = make_D(wgan, arch)
    scores = D(1000 * torch.randn(100, 1, 28, 28))
    assert scores.abs().max() > 1


# ---- sizes


@pytest.mark.parametrize("script, arch, in_G, in_D", PARAMETERS)
def test_numbers_of_parameters_are_those_of_the_report(script, arch, in_G, in_D):
    G = make_G(script, arch)
    D = make_D(script, arch)
    assert count_parameters(G) == in_G
    assert count_parameters(D) == in_D


# ---- learning


def copy_weights(network):
    return {name: weight.clone() for name, weight in network.named_parameters()}


def assert_all_layers_changed(which, network, before):
    after = copy_weights(network)
    for name in before:
        if name.endswith("weight"):  # a bias before BatchNorm does nothing
            is_same = torch.equal(before[name], after[name])
            assert not is_same, f"{name} of {which} did not learn"


@each_network
def test_one_step_changes_every_layer_of_both_networks(script, arch):
    G = make_G(script, arch)
    D = make_D(script, arch)
    opt_G = torch.optim.Adam(G.parameters(), lr=0.001)
    opt_D = torch.optim.Adam(D.parameters(), lr=0.001)
    G_before = copy_weights(G)
    D_before = copy_weights(D)

    # For wgan.py, these are five batches of four: a step of G has five steps of D.
    real = 2 * torch.rand(20, 1, 28, 28) - 1
    z = torch.randn(20, 100)
    losses = script.train_step(G, D, opt_G, opt_D, real, z)

    assert losses.shape == (len(script.LOSSES),)
    assert losses.isfinite().all()
    assert_all_layers_changed("G", G, G_before)
    assert_all_layers_changed("D", D, D_before)

"""The mathematics: the reports' networks, layer by layer, and what one step learns.

All of it is worked out anew here, as plainly as it can be said, and then compared.
"""

import copy
import inspect

import pytest
import torch
from layers import NETWORKS
from small import GANS, SCRIPTS, small_critic, small_D, small_G
from torch import nn
from torch.testing import assert_close

# ---- networks


def name(network):
    return f"{network.script} {network.arch} {network.which}"


each_network = pytest.mark.parametrize("row", NETWORKS, ids=name)


def build(row):
    torch.manual_seed(0)
    make_G, make_D = SCRIPTS[row.script].ARCHS[row.arch]
    return make_G() if row.which == "G" else make_D()


def build_report(row):
    torch.manual_seed(0)
    return row.make_report()


def inputs(row):
    torch.manual_seed(1)
    if row.which == "G":
        return torch.randn(8, 100)
    return torch.randn(8, 1, 28, 28)


def printed_layers(network):
    """As print() shows them, without those that a script may have in its forward()."""
    in_forward = (nn.Flatten, nn.Unflatten, nn.Tanh, nn.Sigmoid)
    lines = []
    for layer in network.modules():
        is_single = not list(layer.children())
        if is_single and not isinstance(layer, in_forward):
            lines.append(str(layer))
    return lines


@each_network
def test_layers_are_those_of_the_report(row):
    assert printed_layers(build(row)) == printed_layers(build_report(row))


@each_network
def test_names_are_those_of_the_report(row):
    shown = [name for name, layer in build(row).named_children()]
    assert shown == row.names.split()


@each_network
def test_first_weights_are_pytorchs_own(row):
    if row.arch == "separable":
        pytest.skip("it is made of a conv4, which has drawn random numbers before")
    weights = list(build(row).parameters())
    wanted = list(build_report(row).parameters())
    assert_close(weights, wanted, rtol=0, atol=0)


@pytest.mark.parametrize("training", [True, False], ids=["training", "drawing"])
@each_network
def test_forward_goes_through_the_layers_in_order(row, training):
    network = build(row).train(training)
    report = build_report(row).train(training)
    weights = network.state_dict().values()
    report.load_state_dict(dict(zip(report.state_dict(), weights, strict=True)))
    x = inputs(row)
    torch.manual_seed(2)  # so that Dropout draws the same numbers twice
    y = network(x)
    torch.manual_seed(2)
    wanted = report(x)
    assert_close(y, wanted)
    slopes = torch.autograd.grad(y.sum(), list(network.parameters()))
    wanted_slopes = torch.autograd.grad(wanted.sum(), list(report.parameters()))
    assert_close(slopes, wanted_slopes)
    assert_close(
        list(network.buffers()),
        list(report.buffers()),
        msg="BatchNorm's statistics: {}".format,
    )


@each_network
def test_in_bfloat16_a_network_gives_nearly_the_same(row):
    network = build(row).eval()
    x = inputs(row)
    exact = network(x)
    with torch.autocast("cpu", torch.bfloat16):
        rough = network(x)
    assert not torch.equal(rough.float(), exact), "it has not computed in bfloat16"
    assert_close(rough.float(), exact, rtol=0.05, atol=0.05)


@each_network
def test_the_last_tanh_or_sigmoid_computes_in_float32(row):
    if name(row) in ("gan_cnn tiny G", "wgan transpose D"):
        pytest.skip("it has none")
    network = build(row)
    with torch.autocast("cpu", torch.bfloat16):
        rough = network(inputs(row))
    assert rough.dtype == torch.float32
    assert (rough != rough.bfloat16()).any(), "its values are those of bfloat16"


# ---- the training step, by plain gradient descent on two small networks

RATE = 0.1
CLIP = 0.3
N_CRITIC = 3
COUNT = 20  # images in a batch: more than the 16 that the penalty takes

each_script = pytest.mark.parametrize("script", SCRIPTS)
each_gan = pytest.mark.parametrize("script", GANS)


def descend(network, loss):
    weights = list(network.parameters())
    slopes = torch.autograd.grad(loss, weights, retain_graph=True)
    for weight, slope in zip(weights, slopes):
        weight.data -= RATE * slope


def gan_step(G, D, real, z, r1, new_z):
    """What train_step of a GAN should do. The losses have their columns' names."""
    ones = torch.ones(COUNT).double()
    zeros = torch.zeros(COUNT).double()
    bce = nn.BCELoss()

    fake = G(z)
    D_real = D(real)
    D_fake = D(fake)
    loss_D = bce(D_real, ones) + bce(D_fake, zeros)
    penalty = 0
    if r1:
        few = real[:16].clone().requires_grad_()
        logits = D(few).logit()
        (slopes,) = torch.autograd.grad(logits.sum(), few, create_graph=True)
        for slope in slopes:
            penalty += slope.norm() ** 2 / 2 / 16
    descend(D, loss_D + r1 * penalty)

    if new_z:
        fake = G(torch.randn_like(z))
    loss_G = bce(D(fake), ones)
    descend(G, loss_G)

    return {
        "loss_D": loss_D,
        "loss_G": loss_G,
        "D(x)": D_real.mean(),
        "D(G(z))": D_fake.mean(),
    }


def wgan_step(G, D, real, z, gp, new_z):
    """What train_step of the Wasserstein GAN should do."""
    distances = []
    losses_D = []
    scores_real = []
    scores_fake = []
    for batch, batch_z in zip(real.split(COUNT), z.split(COUNT)):
        fake = G(batch_z)
        D_real = D(batch).mean()
        D_fake = D(fake).mean()
        penalty = 0
        if gp:
            share = torch.rand(COUNT, 1, 1, 1)
            between = fake + share * (batch - fake)
            between = between.detach().requires_grad_()
            (slopes,) = torch.autograd.grad(
                D(between).sum(), between, create_graph=True
            )
            for slope in slopes:
                penalty += (slope.norm() - 1) ** 2 / COUNT
        loss_D = D_fake - D_real + gp * penalty
        descend(D, loss_D)
        if not gp:
            for weight in D.parameters():
                weight.data = weight.data.clamp(-CLIP, CLIP)
        distances.append(D_real - D_fake)
        losses_D.append(loss_D)
        scores_real.append(D_real)
        scores_fake.append(D_fake)

    if new_z:
        fake = G(torch.randn_like(batch_z))
    loss_G = -D(fake).mean()
    descend(G, loss_G)

    return {
        "distance": sum(distances) / N_CRITIC,
        "loss_D": sum(losses_D) / N_CRITIC,
        "loss_G": loss_G,
        "D(x)": sum(scores_real) / N_CRITIC,
        "D(G(z))": sum(scores_fake) / N_CRITIC,
    }


class Setup:
    """Two small networks with their optimizers, and images for one step."""

    def __init__(self, script):
        torch.manual_seed(0)
        self.module = SCRIPTS[script]
        self.is_gan = script in GANS
        self.G = small_G(3).double()
        self.D = small_D().double() if self.is_gan else small_critic().double()
        self.D[4].weight.data *= 6  # D is quite sure of some images
        self.opt_G = torch.optim.SGD(self.G.parameters(), RATE)
        self.opt_D = torch.optim.SGD(self.D.parameters(), RATE)
        count = COUNT if self.is_gan else N_CRITIC * COUNT
        self.real = 2 * torch.rand(count, 1, 2, 2).double() - 1
        self.z = torch.randn(count, 3).double()

    def make_float32(self):
        self.G.float()
        self.D.float()
        self.real = self.real.float()
        self.z = self.z.float()

    def train_step(self, penalty=0.7, bf16=False, new_z=False, n_critic=N_CRITIC):
        settings = {"bf16": bf16, "new_z": new_z}
        if self.is_gan:
            settings["r1"] = penalty
        else:
            settings["gp"] = penalty
            settings["clip"] = CLIP
            settings["n_critic"] = n_critic
        return self.module.train_step(
            self.G, self.D, self.opt_G, self.opt_D, self.real, self.z, **settings
        )

    def plain_step(self, G, D, penalty, new_z):
        step = gan_step if self.is_gan else wgan_step
        return step(G, D, self.real, self.z, penalty, new_z)


def assert_near(found, wanted, **message):
    # The networks have 64 bits, but a critic's scores are brought to 32.
    assert_close(found, wanted, rtol=1e-5, atol=1e-6, check_dtype=False, **message)


@pytest.mark.parametrize("new_z", [False, True], ids=["same z", "new z"])
@pytest.mark.parametrize("penalty", [0.0, 0.7], ids=["no penalty", "penalty"])
@each_script
def test_a_step_is_what_plain_gradient_descent_gives(script, penalty, new_z):
    setup = Setup(script)
    G = copy.deepcopy(setup.G)
    D = copy.deepcopy(setup.D)
    # A second step would show gradients of the first that were kept.
    for seed in (1, 2):
        torch.manual_seed(seed)
        wanted = setup.plain_step(G, D, penalty, new_z)
        torch.manual_seed(seed)
        losses = setup.train_step(penalty, new_z=new_z)

        losses = dict(zip(setup.module.LOSSES, losses, strict=True))
        assert_near(losses, wanted)
        assert_near(setup.D.state_dict(), D.state_dict(), msg="D: {}".format)
        assert_near(setup.G.state_dict(), G.state_dict(), msg="G: {}".format)


@pytest.mark.parametrize("bf16", [False, True])
@each_script
def test_networks_compute_in_bfloat16_only_if_asked(script, bf16):
    setup = Setup(script)
    seen = {"G": [], "D": []}
    setup.G.register_forward_hook(
        lambda *_: seen["G"].append(torch.is_autocast_enabled("cpu"))
    )
    setup.D.register_forward_hook(
        lambda *_: seen["D"].append(torch.is_autocast_enabled("cpu"))
    )
    setup.train_step(bf16=bf16, new_z=True)
    assert set(seen["G"]) == {bf16}
    assert set(seen["D"]) == {bf16}


def test_scores_of_a_critic_in_bfloat16_are_averaged_in_float32():
    setup = Setup("wgan")
    setup.make_float32()
    losses = setup.train_step(bf16=True, n_critic=1)
    assert losses.dtype == torch.float32
    assert (losses != losses.bfloat16()).all(), "their values are those of bfloat16"


@pytest.mark.parametrize("new_z", [False, True], ids=["same z", "new z"])
@each_script
def test_each_network_learns_in_its_own_half_alone(script, new_z):
    setup = Setup(script)
    G_weight = setup.G[0].weight
    D_weight = setup.D[0].weight
    seen = {"G's gradient": [], "D is frozen": []}
    setup.opt_D.register_step_pre_hook(
        lambda *_: seen["G's gradient"].append(G_weight.grad)
    )
    setup.opt_G.register_step_pre_hook(
        lambda *_: seen["D is frozen"].append(not D_weight.requires_grad)
    )
    setup.train_step(new_z=new_z)
    assert all(gradient is None for gradient in seen["G's gradient"])
    assert seen["D is frozen"] == [True]
    assert D_weight.requires_grad, "D stays frozen after the step"


@each_script
def test_D_takes_one_step_and_the_critic_several(script):
    setup = Setup(script)
    steps = []
    setup.opt_D.register_step_pre_hook(lambda *_: steps.append("D"))
    setup.opt_G.register_step_pre_hook(lambda *_: steps.append("G"))
    setup.train_step()
    steps_of_D = 1 if setup.is_gan else N_CRITIC
    assert steps == ["D"] * steps_of_D + ["G"]


@each_script
def test_what_a_step_returns_keeps_no_graph(script):
    losses = Setup(script).train_step()
    assert not losses.requires_grad


@pytest.mark.parametrize("logit", [500, -500], ids=["says 1", "says 0"])
@each_gan
def test_a_D_that_is_sure_gives_no_infinite_numbers(script, logit):
    setup = Setup(script)
    setup.make_float32()
    setup.D[4].bias.data += logit
    losses = setup.train_step()
    assert losses.isfinite().all()
    for name, weight in setup.D.named_parameters():
        assert weight.isfinite().all(), name
    for name, weight in setup.G.named_parameters():
        assert weight.isfinite().all(), name


# ---- the parts of a step


@each_gan
def test_slope_penalty_is_half_the_squared_slope_of_the_logit(script):
    linear = nn.Linear(4, 1)
    D = nn.Sequential(nn.Flatten(), linear, nn.Sigmoid(), nn.Flatten(0))
    images = 0.1 * torch.randn(6, 1, 2, 2)
    penalty = SCRIPTS[script].slope_penalty(D, images)
    slope = linear.weight  # of a linear function, everywhere
    assert_close(penalty, slope.square().sum() / 2)
    penalty.backward()
    assert_close(linear.weight.grad, slope.detach(), msg="D cannot learn from it")
    assert not images.requires_grad


def test_gradient_penalty_is_how_far_the_slope_is_from_1():
    linear = nn.Linear(4, 1)
    D = nn.Sequential(nn.Flatten(), linear, nn.Flatten(0))
    real = torch.randn(6, 1, 2, 2)
    fake = torch.randn(6, 1, 2, 2)
    penalty = SCRIPTS["wgan"].gradient_penalty(D, real, fake)
    length = linear.weight.norm()
    assert_close(penalty, (length - 1) ** 2)
    penalty.backward()
    assert linear.weight.grad.abs().sum() > 0, "D cannot learn from it"


def test_gradient_penalty_looks_between_each_pair_of_images():
    seen = []

    def D(images):
        seen.append(images.detach())
        return images.flatten(1).sum(dim=1)

    real = torch.ones(100, 1, 2, 2)
    fake = torch.zeros(100, 1, 2, 2)
    SCRIPTS["wgan"].gradient_penalty(D, real, fake)
    (between,) = seen
    shares = between[:, 0, 0, 0]
    assert_close(between, shares.view(100, 1, 1, 1).expand(100, 1, 2, 2))
    assert len(shares.unique()) == 100, "each pair has a share of its own"
    assert 0 <= shares.min() < 0.1
    assert 0.9 < shares.max() <= 1


@pytest.mark.parametrize(
    "ema, step, weight",
    [
        (0.995, 1, 1.0),  # nothing is left of the untrained G
        (0.995, 11, 0.5),
        (0.995, 91, 0.1),
        (0.995, 1991, 0.005),
        (0.995, 9000, 0.005),
        (0.0, 9000, 1.0),  # no average: it is G
    ],
)
@each_script
def test_the_average_moves_towards_the_newest_G(script, ema, step, weight):
    average = small_G().eval()
    G = small_G()
    G(torch.randn(50, 100))  # BatchNorm has statistics that are averaged, too
    before = copy.deepcopy(average.state_dict())
    newest = copy.deepcopy(G.state_dict())
    SCRIPTS[script].update_average(average, G, ema, step)
    for name, mean in average.state_dict().items():
        if name == "1.num_batches_tracked":
            assert_close(mean, before[name])
        else:
            wanted = (1 - weight) * before[name] + weight * newest[name]
            assert_close(mean, wanted, msg=f"{name} of the average")
    assert_close(G.state_dict(), newest, rtol=0, atol=0, msg="G has changed")


# ---- what must be alike: a mistake that is corrected in one script is corrected in all


@pytest.mark.parametrize("name", ["train_step", "slope_penalty"])
def test_the_GANs_have_the_same_step(name):
    texts = {inspect.getsource(getattr(SCRIPTS[script], name)) for script in GANS}
    assert len(texts) == 1, "changed in one script alone"


def test_all_scripts_have_the_same_average():
    texts = {inspect.getsource(module.update_average) for module in SCRIPTS.values()}
    assert len(texts) == 1, "changed in one script alone"

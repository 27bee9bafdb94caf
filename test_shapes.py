"""Quick checks of the networks and of the mathematics: seconds, no data, no network.

What the scripts do is worked out anew here. Whoever changes a network changes LAYERS, too.
"""

import copy
import importlib
import inspect
import re
import sys
from math import inf
from types import SimpleNamespace

import pytest
import torch
from torch import nn, optim
from torch.autograd import grad
from torch.nn import Flatten, Linear, Sequential, Sigmoid, Tanh
from torch.testing import assert_close

import common

SCRIPTS = {name: importlib.import_module(name) for name in ("gan_mlp", "gan_cnn", "dcgan", "wgan")}
NETWORKS = [(s, arch, which) for s in SCRIPTS for arch in SCRIPTS[s].ARCHS for which in "GD"]
each_script = pytest.mark.parametrize("script", SCRIPTS)
WAYS = [*SCRIPTS, "gan_mlp --optimizer sgd", "gan_cnn --optimizer sgd", "wgan --gp 3"]
each_way = pytest.mark.parametrize("way", WAYS)

# ---- networks: the names that print() shows, then all layers but the last Tanh or Sigmoid
relu, leaky_1, leaky_2 = nn.ReLU(), nn.LeakyReLU(0.1), nn.LeakyReLU(0.2)
flat, tanh, sigmoid, drop = Flatten(), Tanh(), Sigmoid(), nn.Dropout2d(0.25)
Conv, ConvT, BN1, BN2 = nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm1d, nn.BatchNorm2d
pool, double, View = nn.MaxPool2d(2), nn.Upsample(scale_factor=2), nn.Unflatten
# fmt: off
LAYERS = {
    "basic G": lambda: ["fc1 nonlin1 fc2", Linear(100, 128), leaky_2, Linear(128, 784)],
    "basic D": lambda: ["fc1 nonlin1 fc2", flat, Linear(784, 128), leaky_2, Linear(128, 1)],
    "deep G": lambda: ["model", Linear(100, 128), leaky_2, *(x for n in (128, 256, 512)
        for x in (Linear(n, 2 * n), BN1(2 * n, 0.8), leaky_2)), Linear(1024, 784)],
    "deep D": lambda: ["model", flat, Linear(784, 512), leaky_2, Linear(512, 256), leaky_2,
        Linear(256, 1)],
    "hidden G": lambda: ["model", Linear(100, 256), relu, Linear(256, 256), relu, Linear(256, 784)],
    "hidden D": lambda: ["model", flat, Linear(784, 256), leaky_1, Linear(256, 256), leaky_1,
        Linear(256, 1)],
    "conv7 G": lambda: ["main", View(1, (100, 1, 1)), ConvT(100, 128, 7, 1, 0, bias=False),
        BN2(128), relu, ConvT(128, 64, 4, 2, 1, bias=False), BN2(64), relu,
        ConvT(64, 1, 4, 2, 1, bias=False)],
    "conv7 D": lambda: ["main", Conv(1, 64, 4, 2, 1, bias=False), leaky_2,
        Conv(64, 128, 4, 2, 1, bias=False), BN2(128), leaky_2, Conv(128, 1, 7, 1, 0, bias=False)],
    "conv4 G": lambda: ["main", View(1, (100, 1, 1)), ConvT(100, 256, 4, 1, 0), BN2(256), relu,
        ConvT(256, 128, 3, 2, 1), BN2(128), relu, ConvT(128, 64, 4, 2, 1), BN2(64), relu,
        ConvT(64, 1, 4, 2, 1)],
    "conv4 D": lambda: ["main", Conv(1, 64, 4, 2, 1), leaky_2, Conv(64, 128, 4, 2, 1), BN2(128),
        leaky_2, Conv(128, 256, 3, 2, 1), BN2(256), leaky_2, Conv(256, 1, 4, 1, 0)],
    "separable G": lambda: ["main", View(1, (100, 1, 1)), ConvT(100, 256, 4, 1, 0), BN2(256), relu,
        ConvT(256, 256, 3, 2, 1, groups=256), Conv(256, 128, 1), BN2(128), relu,
        ConvT(128, 128, 4, 2, 1, groups=128), Conv(128, 64, 1), BN2(64), relu,
        ConvT(64, 1, 4, 2, 1)],
    "separable D": lambda: ["main", Conv(1, 64, 4, 2, 1), leaky_2, Conv(64, 64, 4, 2, 1, groups=64),
        Conv(64, 128, 1), BN2(128), leaky_2, Conv(128, 128, 3, 2, 1, groups=128), Conv(128, 256, 1),
        BN2(256), leaky_2, Conv(256, 1, 4, 1, 0)],
    "tiny G": lambda: ["fc1 conv1", Linear(100, 900), leaky_2, View(1, (1, 30, 30)),
        Conv(1, 64, 2, 1, 0), leaky_2, Conv(64, 1, 2, 1, 0), leaky_2],
    "tiny D": lambda: ["conv1 fc", Conv(1, 1, 2, 2, 0), leaky_2, flat, Linear(196, 128), leaky_2,
        Linear(128, 1), leaky_2],
    "upsample G": lambda: ["l1 conv_blocks", Linear(100, 6272), View(1, (128, 7, 7)), BN2(128),
        double, Conv(128, 128, 3, 1, 1), BN2(128, 0.8), leaky_2, double, Conv(128, 64, 3, 1, 1),
        BN2(64, 0.8), leaky_2, Conv(64, 1, 3, 1, 1)],
    "upsample D": lambda: ["model adv_layer", Conv(1, 16, 3, 2, 1), leaky_2, drop, *(x for n in
        (16, 32, 64) for x in (Conv(n, 2 * n, 3, 2, 1), leaky_2, drop, BN2(2 * n, 0.8))),
        flat, Linear(512, 1)],
    "transpose G": lambda: ["fc1 br1 fc2 br2 conv1 conv2", Linear(100, 1024), BN1(1024), relu,
        Linear(1024, 6272), BN1(6272), relu, View(1, (128, 7, 7)), ConvT(128, 64, 4, 2, 1), BN2(64),
        relu, ConvT(64, 1, 4, 2, 1)],
    "transpose D": lambda: ["conv1 pl1 conv2 pl2 fc1 fc2", Conv(1, 32, 5, 1, 0), leaky_1, pool,
        Conv(32, 64, 5, 1, 0), leaky_1, pool, flat, Linear(1024, 1024), leaky_1, Linear(1024, 1)],
}
# fmt: on


@pytest.mark.parametrize("script, arch, which", NETWORKS)
def test_network(script, arch, which):
    torch.manual_seed(0)
    network = SCRIPTS[script].ARCHS[arch]["GD".index(which)]()
    torch.manual_seed(0)
    names, *layers = LAYERS[f"{arch} {which}"]()
    if (script, which) != ("wgan", "D") and (arch, which) != ("tiny", "G"):
        layers.append(tanh if which == "G" else sigmoid)
    right, unseen = Sequential(*layers), (Flatten, View, Tanh, Sigmoid)  # some stand in forward()
    leaves = [layer for layer in network.modules() if not list(layer.children())]
    shown, wish = ([str(x) for x in some if not isinstance(x, unseen)] for some in (leaves, layers))
    assert shown == wish and " ".join(dict(network.named_children())) == names
    first, weights = right.state_dict(), network.state_dict().values()
    if arch != "separable":  # it draws conv4's weights first
        assert all(map(torch.equal, first.values(), weights)), "first weights: not PyTorch's"
    right.load_state_dict(dict(zip(first, weights)))
    x, shape = torch.randn(8, 1, 28, 28), (8,)
    if which == "G":
        x, shape = torch.randn(8, 100), (8, 1, 28, 28)
        assert SCRIPTS[script].ARCHS[arch][0](z_dim=7)(x[:, :7]).shape == shape
    for is_training in True, False:
        with torch.random.fork_rng():  # so that Dropout draws the same numbers twice
            y = network.train(is_training)(x)
        wish = right.train(is_training)(x).view(shape)
        assert_close(y, wish, msg="right layers, but forward(): {}".format)
    assert_close(*(grad(o.sum(), [*n.parameters()]) for o, n in ((y, network), (wish, right))))
    with torch.autocast("cpu", torch.bfloat16):
        rough = network(x)
    assert rough.dtype == torch.float32 and not torch.equal(rough, y)
    assert_close(rough, y, rtol=0.05, atol=0.05)
    if layers[-1] in (tanh, sigmoid):
        assert (rough != rough.bfloat16()).any(), "the last function is computed in bfloat16"


# ---- the training step: the same by plain gradient descent, with two small networks
def small_G(z_dim=3):
    return Sequential(Linear(z_dim, 4), BN1(4), View(1, (4, 1, 1)), ConvT(4, 1, 2), Tanh())


def small_D(end=sigmoid):
    return Sequential(Conv(1, 5, 2), BN2(5), leaky_2, Flatten(), Linear(5, 1), end, Flatten(0))


def descend(network, loss):
    weights = list(network.parameters())
    for weight, slope in zip(weights, grad(loss, weights, retain_graph=True)):
        weight.data -= 0.1 * slope


def gan_step(G, D, real, z, r1, new_z):
    fake, one, bce, penalty = G(z), torch.ones(len(z)).double(), nn.BCELoss(), 0
    D_real, D_fake = D(real), D(fake)
    loss_D = bce(D_real, one) + bce(D_fake, 0 * one)
    if r1:
        few = real[:16].clone().requires_grad_()
        (slopes,) = grad(D(few).logit().sum(), few, create_graph=True)
        penalty = sum(slope.norm() ** 2 for slope in slopes) / 16 / 2
    descend(D, loss_D + r1 * penalty)
    loss_G = bce(D(G(torch.randn_like(z)) if new_z else fake), one)
    descend(G, loss_G)
    return {"loss_D": loss_D, "loss_G": loss_G, "D(x)": D_real.mean(), "D(G(z))": D_fake.mean()}


def wgan_step(G, D, reals, zs, gp, clip, new_z):
    rows, penalty = [], 0
    for real, z in zip(reals, zs):
        fake = G(z)
        D_real, D_fake = D(real).mean(), D(fake).mean()
        if gp:
            between = (fake + torch.rand(len(z), 1, 1, 1) * (real - fake)).detach().requires_grad_()
            (slopes,) = grad(D(between).sum(), between, create_graph=True)
            penalty = sum((slope.norm() - 1) ** 2 for slope in slopes) / len(z)
        loss_D = D_fake - D_real + gp * penalty
        descend(D, loss_D)
        for weight in [] if gp else D.parameters():
            weight.data = weight.data.clamp(-clip, clip)
        rows.append(torch.stack([D_real - D_fake, loss_D, D_real, D_fake]))
    loss_G = -D(G(torch.randn_like(z)) if new_z else fake).mean()
    descend(G, loss_G)
    return dict(zip(("distance", "loss_D", "D(x)", "D(G(z))"), sum(rows) / 3), loss_G=loss_G)


@pytest.mark.parametrize("new_z", [False, True])
@pytest.mark.parametrize("penalty", [0.0, 0.7])
@each_script
def test_train_step(script, penalty, new_z):
    module, kept, seen = SCRIPTS[script], None, []
    G, D = small_G().double(), small_D(nn.Identity() if script == "wgan" else sigmoid).double()
    D[4].weight.data *= 6  # it is quite sure of some images
    right_G, right_D = copy.deepcopy((G, D))
    real, z = torch.rand(3, 20, 1, 2, 2).double() * 2 - 1, torch.randn(3, 20, 3).double()
    right_step, batch, options = gan_step, (real[0], z[0]), {"r1": penalty}
    if script == "wgan":
        right_step, batch, options = wgan_step, (real, z), {"gp": penalty, "clip": 0.3}
    opt_G, opt_D = (optim.SGD(network.parameters(), 0.1) for network in (G, D))
    for network in G, D:  # bfloat16 leaves networks of double precision alone, but is it on?
        network.register_forward_hook(lambda *_: seen.append(torch.is_autocast_enabled("cpu")))
    opt_D.register_step_pre_hook(lambda *_: seen.append(G[0].weight.grad is kept))
    opt_G.register_step_pre_hook(lambda *_: seen.append(not D[0].weight.requires_grad))
    for seed in range(2):  # the second step shows gradients of the first that were kept
        torch.manual_seed(seed)
        right = right_step(right_G, right_D, *batch, new_z=new_z, **options)
        torch.manual_seed(seed)
        found = module.train_step(G, D, opt_G, opt_D, *batch, bf16=True, new_z=new_z, **options)
        kept = G[0].weight.grad
        assert_close(dict(zip(sum(module.CURVES.values(), ()), found)), right)
        assert_close(D.state_dict(), right_D.state_dict(), msg="D: {}".format)
        assert_close(G.state_dict(), right_G.state_dict(), msg="G: {}".format)
    assert all(seen), "not in bfloat16, or G learns in D's half, or D in G's"
    assert D[0].weight.requires_grad and not found.requires_grad
    D[4].bias.data += 500  # now it says 1 to the last digit
    found = module.train_step(G, D, opt_G, opt_D, *batch, **options)
    assert all(x.isfinite().all() for x in (found, *D.parameters())), "infinite logarithm or slope"


# ---- main(), with the small networks, a few images, and settings that are all different
ROW = {"epochs": 3, "batch_size": 4, "lr": 0.01, "lr_falls_after": 2, "beta1": 0.3, "beta2": 0.9}
ROW |= {"r1": 0.2, "r1_grows_after": 2, "ema": 0.4, "new_z": True, "bf16": None}
ROW |= {"init": "dcgan", "n_critic": 2}
IMAGES = torch.arange(43 * 4).view(43, 1, 2, 2).byte()


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Runs main(). Gives what went through its training step, its pictures and its checkpoint."""

    def run(way, *words, images=IMAGES, networks=(small_G, small_D)):
        module, steps, drawn = SCRIPTS[way.split()[0]], [], []
        row, step = [ROW.get(name, "adam") for name in module.COLUMNS], module.train_step

        def noted(G, D, opt_G, opt_D, real, z, *settings):
            rates = {group["lr"] for opt in (opt_G, opt_D) for group in opt.param_groups}
            losses = step(G, D, opt_G, opt_D, real, z, *settings)
            weights, seed = copy.deepcopy(G.state_dict()), torch.initial_seed()
            real, z = torch.stack(list(real)), torch.stack(list(z))
            steps.append(SimpleNamespace(**locals()))
            return losses

        with monkeypatch.context() as patch:
            patch.chdir(tmp_path)
            patch.setattr(sys, "argv", [*way.split(), "--device", "cpu", "--seed", "7", *words])
            patch.setattr(module, "train_step", noted)
            patch.setattr(module, "ARCHS", dict.fromkeys(module.ARCHS, networks))
            patch.setattr(module, "SETTINGS", dict.fromkeys(module.SETTINGS, (row, row)))
            patch.setattr(common, "load_images", lambda *_: (images, "test"))
            patch.setattr(common, "bf16_is_faster", lambda _: True)
            patch.setattr(common.Log, "draw", lambda *args: drawn.append(args[2].clone()))
            module.main()
            saved = [torch.load(common.newest(f"*/{name}.pt")[0]) for name in ("g", "ckpt")]
            return steps, drawn, saved[1] | {"g.pt": saved[0]["state_dict"]}

    return run


@each_way
def test_what_reaches_the_training_step(train, way, monkeypatch):
    begun = []  # what may be recorded, anew in each epoch
    monkeypatch.setattr(common, "recorded", lambda step, *_: begun.append(step) or step)
    steps, orders, scaled = train(way)[0], {}, IMAGES / 127.5 - 1
    betas = {"gan_mlp": (0.3, 0.9), "wgan --gp 3": (0.0, 0.9)}.get(way, (0.3, 0.999))
    right = optim.Adam([torch.ones(1)], betas=betas, fused=True)
    right = optim.SGD([torch.ones(1)], fused=True) if "sgd" in way else right
    rate, settings, shape = 0.01, (0.2,), (4, 100)
    if "wgan" in way:
        settings, shape = (0.01, 3.0 if "gp" in way else 0.0), (2, 4, 100)
        right = right if "gp" in way else optim.RMSprop([torch.ones(1)])
    for step in steps:
        is_image = (step.real.view(-1, 1, 4) == scaled.view(1, -1, 4)).all(2)
        assert (is_image.sum(1) == 1).all(), "not the images on the scale from -1 to 1"
        orders.setdefault(step.seed, []).extend(is_image.int().argmax(1).tolist())
        if step.seed == 70_003:  # from here on the rate falls and the penalty grows
            rate, settings = 0.01 * (2 / 3), settings if "wgan" in way else (0.2 * 1.5,)
        assert step.settings == (True, *settings, True) and step.z.shape == shape
        assert step.rates == {rate}
    for opt, network in ((step.opt_G, step.G), (step.opt_D, step.D)):
        assert type(opt) is type(right) and opt.defaults == right.defaults | {"lr": 0.01}
        assert all(map(torch.equal, opt.param_groups[0]["params"], network.parameters()))
    assert list(orders) == [70_001, 70_002, 70_003] and len(begun) == 3  # a seed for each epoch
    assert all(len(order) == len(set(order)) == 40 for order in orders.values())
    assert len({tuple(order) for order in (*orders.values(), range(40))}) == 4, "not shuffled"
    z = torch.cat([step.z.view(-1, 100) for step in steps])
    assert len(z) == len(z.unique(dim=0)) == 120, "noise repeats"
    assert abs(z.mean()) < 0.05 and abs(z.std() - 1) < 0.05 and z.max() > 3, "not normal"


@each_way
def test_first_weights_average_pictures_and_checkpoint(train, way):
    steps, drawn, whole = train(way)
    torch.manual_seed(70_000)
    G, D = small_G(100), small_D()
    for layer in [*G, *D] if way == "dcgan" else []:
        if hasattr(layer, "weight"):
            layer.weight.data.normal_(1 if isinstance(layer, (BN1, BN2)) else 0, 0.02)
    z, average = torch.randn(64, 100), G.eval()
    assert_close(drawn[0], average(z))
    for count, step in enumerate(steps, start=1):
        for mean, new in zip(average.state_dict().values(), step.weights.values()):
            if mean.is_floating_point():  # not BatchNorm's count of batches
                mean += max(0.6, 10 / (count + 9)) * (new - mean)
    assert_close([whole["average"], whole["g.pt"]], [average.state_dict()] * 2)
    assert_close(drawn[-1], average(z))
    for name in "G", "D", "opt_G", "opt_D":
        assert_close(whole[name], getattr(step, name).state_dict(), rtol=0, atol=0)
    train(way, "--epochs", "1")
    resumed = train(way, "--resume", "--epochs", "3")[2]
    for name in "G", "D", "average", "opt_G", "opt_D":
        assert_close(resumed[name], whole[name], rtol=0, atol=0)


@each_way
def test_two_processes_share_each_batch(train, way, monkeypatch):
    """Same order, other images, noise and dropout. What is learned of both is torch's affair."""
    module, begun, both = SCRIPTS[way.split()[0]], [], []
    monkeypatch.setattr(torch.distributed, "init_process_group", begun.append)
    wrap = lambda network, broadcast_buffers: begun.append(broadcast_buffers) or Sequential(network)
    monkeypatch.setattr(module, "DistributedDataParallel", wrap)
    monkeypatch.setattr(common, "WORLD", 2)
    for rank in 0, 1:
        monkeypatch.setattr(common, "RANK", rank)
        both.append(train(way)[0])
    assert begun == ["gloo", False, False] * 2
    for epoch in torch.stack([x.real for xs in zip(*both) for x in xs]).view(3, -1, 4):
        assert len(epoch) == len(epoch.unique(dim=0)) == 40
    for one, other in zip(*both):
        assert other.seed == one.seed + 1_000_000 and not torch.equal(one.z, other.z)
        assert len(one.G) == len(one.D) == 1, "not wrapped"


@pytest.mark.parametrize("way", ["gan_mlp", "wgan --gp 1"])
def test_G_comes_nearer_to_the_images(train, way):
    images = torch.zeros(640, 1, 28, 28).byte()  # squares of all greys on black
    images[..., 6:20, 8:22] = torch.randint(100, 256, (640, 1, 1, 1)).byte()
    G, D = SCRIPTS["gan_mlp"].ARCHS["basic"]
    D = D if way == "gan_mlp" else lambda: Sequential(*LAYERS["basic D"]()[1:], Flatten(0))
    words = ["--epochs=8", "--batch-size=32", "--lr=1e-3", "--ema=0.99", "--no-bf16"]
    drawn, data = train(way, *words, images=images, networks=(G, D))[1], images / 127.5 - 1
    distances = [torch.cdist(data.flatten(1), x.flatten(1)).min(0)[0].mean() for x in drawn]
    assert distances[-1] < 0.6 * distances[0]


# fmt: off
SOURCES = {  # of --report, without what is the same in all
    "gan_mlp": [3, 64, "sgd", 0.03, 0.9, 0.999],
    "gan_mlp --arch deep": [200, 64, "adam", 2e-4, 0.5, 0.999],
    "gan_mlp --arch hidden": [30, 128, "adam", 2e-4, 0.9, 0.999],
    "gan_cnn": [3, 64, "adam", 2e-4, 0.5], "gan_cnn --arch conv4": [20, 64, "adam", 2e-4, 0.5],
    "gan_cnn --arch separable": [20, 64, "adam", 2e-4, 0.5],
    "gan_cnn --arch tiny": [20, 64, "sgd", 0.03, 0.5],
    "dcgan --arch upsample": [200, 64, 2e-4, 0.5, "dcgan"], "dcgan": [30, 128, 2e-4, 0.9, "torch"],
    "wgan": [150, 128, 5e-5, 5], "wgan --gp 10": [20, 64, 1e-4, 5],
}
# fmt: on


@pytest.mark.parametrize("way", SOURCES)
def test_options(way, monkeypatch):
    module, read = SCRIPTS[way.split()[0]], []
    for words in "--report", "", "--ema 0 --epochs 7":
        monkeypatch.setattr(sys, "argv", [*way.split(), *words.split()])
        read.append(vars(module.read_options()[0]))
    source, ours, typed = read
    plain = {"lr_falls_after": inf, "r1": 0, "r1_grows_after": inf, "ema": 0, "bf16": 0, "new_z": 1}
    assert [source[name] for name in module.COLUMNS if name not in plain] == SOURCES[way]
    assert all(source.get(name, value) == value for name, value in plain.items())
    assert tuple(ours[name] for name in module.COLUMNS) in next(zip(*module.SETTINGS.values()))
    assert (typed["ema"], typed["epochs"]) == (0, 7)


@each_script
def test_what_every_script_has_is_the_same(script):
    """But for lines of main() with one of these words. What is mended in one is mended in all."""
    own = r"device\(|per_step|batch_size|init|_last|G, D =|0\.9|beta|partial|optimizer|adam|title"
    own += r"|reals|r1 =|used =|names =|how =|log\(learn|end_epoch|means|never|loss_G|stuck"
    for name in ["main", "update_average"] + ["train_step", "slope_penalty"] * (script != "wgan"):
        texts = [inspect.getsource(getattr(SCRIPTS[s], name)) for s in (script, "dcgan")]
        texts = [re.sub(rf".*({own}).*\n", "", x) if name == "main" else x for x in texts]
        assert texts[0] == texts[1]

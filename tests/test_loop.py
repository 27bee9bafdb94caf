"""What main() gives the training step, and what it keeps of it.

It runs with two small networks, a few images of 2 x 2 pixels and settings of their own:
training.py has them.
"""

import copy
import inspect
from math import inf

import pytest
import torch
from small import GANS, SCRIPTS, small_critic, small_D, small_G
from torch import nn
from torch.testing import assert_close
from training import IMAGES, SEED, SETTINGS, read_options, train

import common

# All ways to train: scripts and options that choose an optimizer.
WAYS = [
    "gan_mlp",
    "gan_mlp --optimizer sgd",
    "gan_cnn",
    "gan_cnn --optimizer sgd",
    "dcgan",
    "wgan",
    "wgan --gp 3",
]
EPOCHS = (1, 2, 3)
USED = 40  # images in an epoch: three are left over

each_script = pytest.mark.parametrize("script", SCRIPTS)
each_gan = pytest.mark.parametrize("script", GANS)


@pytest.fixture(scope="module", params=WAYS)
def run(request, tmp_path_factory):
    """A whole training, of each way in turn: the same for all tests that ask for it."""
    return train(tmp_path_factory.mktemp("run"), request.param)


# ---- batches


def numbers(real):
    """Which of IMAGES these are, in their order."""
    scaled = IMAGES.flatten(1) / 127.5 - 1
    found = []
    for image in real.flatten(1):
        is_same = (scaled == image).all(dim=1)
        assert is_same.sum() == 1, "no image of the data, on the scale from -1 to 1"
        found.append(is_same.nonzero().item())
    return found


def order(steps):
    real = torch.cat([step.real for step in steps])
    return numbers(real)


def test_an_epoch_has_each_image_once_in_whole_batches(run):
    for epoch in EPOCHS:
        drawn = order(run.epoch(epoch))
        assert len(drawn) == USED, "not all whole batches, or a short one"
        assert len(set(drawn)) == USED, "an image comes twice"


def test_images_are_shuffled_anew_in_each_epoch(run):
    orders = [order(run.epoch(epoch)) for epoch in EPOCHS]
    assert orders[0] != sorted(orders[0]), "not shuffled"
    assert orders[0] != orders[1], "the same order again"
    assert orders[1] != orders[2], "the same order again"
    left_out = [set(range(len(IMAGES))) - set(drawn) for drawn in orders]
    assert left_out[0] != left_out[1], "the same images are always left over"


def test_a_batch_has_the_images_of_one_step(run):
    count = 8 if run.script == "wgan" else 4  # two steps of the critic with four each
    for step in run.steps:
        assert step.real.shape == (count, 1, 2, 2)
        assert step.z.shape == (count, 100)


def test_each_epoch_has_a_seed_of_its_own(run):
    seeds = []
    for step in run.steps:
        if step.seed not in seeds:
            seeds.append(step.seed)
    assert seeds == [70_001, 70_002, 70_003]


def test_noise_is_normal_and_never_repeats(run):
    z = torch.cat([step.z for step in run.steps])
    assert len(z.unique(dim=0)) == len(z) == 3 * USED, "noise repeats"
    assert abs(z.mean()) < 0.05, "not normal"
    assert abs(z.std() - 1) < 0.05, "not normal"
    assert z.max() > 3, "not normal"


# ---- settings and optimizers


def test_the_learning_rate_falls_after_its_epoch(run):
    third = 0.01 if run.script == "gan_cnn" else 0.01 * (2 / 3)  # gan_cnn's stays
    for epoch, rate in zip(EPOCHS, (0.01, 0.01, third)):
        for step in run.epoch(epoch):
            assert step.rates == {rate}, f"epoch {epoch}"


def test_the_penalty_grows_after_its_epoch(run):
    if run.script == "wgan":
        pytest.skip("it has another penalty, which stays as it is")
    grown = (0.2, 0.2 * 2, 0.2 * 3)
    stays = (0.2, 0.2, 0.2)
    weights = stays if run.script == "gan_cnn" else grown
    for epoch, weight in zip(EPOCHS, weights):
        for step in run.epoch(epoch):
            assert step.settings["r1"] == pytest.approx(weight), f"epoch {epoch}"


def test_settings_reach_the_step(run):
    wanted = {"new_z": True, "bf16": False}
    if run.script == "wgan":
        gp = 3 if "--gp" in run.line else 0
        wanted |= {"n_critic": 2, "clip": 0.02, "gp": gp}
    else:
        wanted |= {"r1": 0.2}
    assert run.steps[0].settings == wanted


@pytest.mark.parametrize("script", ["gan_cnn", "dcgan", "wgan"])
@pytest.mark.parametrize("has_bf16", [True, False])
def test_auto_is_bfloat16_on_a_cpu_that_has_it(script, has_bf16, tmp_path, monkeypatch):
    found = {"avx512_bf16": has_bf16}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)
    settings = SETTINGS | {"epochs": 1, "bf16": "auto"}
    run = train(tmp_path, script, settings=settings)
    assert run.steps[0].settings["bf16"] is has_bf16


def test_optimizers_are_those_of_the_script(run):
    weights = [torch.ones(1)]
    if "--optimizer sgd" in run.line:
        wanted = torch.optim.SGD(weights, lr=0.01, fused=True)
    elif run.line == "wgan":
        wanted = torch.optim.RMSprop(weights, lr=0.01)
    elif run.line == "wgan --gp 3":  # the betas of its paper
        wanted = torch.optim.Adam(weights, lr=0.01, betas=(0.0, 0.9), fused=True)
    elif run.line == "gan_mlp":
        wanted = torch.optim.Adam(weights, lr=0.01, betas=(0.3, 0.9), fused=True)
    else:
        wanted = torch.optim.Adam(weights, lr=0.01, betas=(0.3, 0.999), fused=True)
    step = run.steps[0]
    for optimizer, network in ((step.opt_G, step.G), (step.opt_D, step.D)):
        assert type(optimizer) is type(wanted)
        assert optimizer.defaults == wanted.defaults
        learned = optimizer.param_groups[0]["params"]
        for weight, own in zip(learned, network.parameters(), strict=True):
            assert weight is own, "it changes another network"


def test_a_recorded_step_is_made_anew_in_each_epoch(run):
    """A record keeps numbers as they were, and the rate changes from epoch to epoch."""
    assert run.recorded == [True, True, True]


@each_script
def test_no_step_is_recorded_with_no_graph(script, tmp_path):
    run = train(tmp_path, f"{script} --epochs 1 --no-graph")
    assert run.recorded == [False]


# ---- first weights, the average, pictures


def first_networks(script):
    """The networks before the first step, and the z of all pictures, drawn anew."""
    torch.manual_seed(10_000 * SEED)
    G = small_G()
    D = small_D()
    if script == "dcgan":  # SETTINGS has its init "dcgan"
        for layer in [*G, *D]:
            if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
                layer.weight.data.normal_(1, 0.02)
            elif hasattr(layer, "weight"):
                layer.weight.data.normal_(0, 0.02)
    return G, D, torch.randn(64, 100)


def averages(run):
    """The average of G before the training and after each epoch, computed anew."""
    average, _, _ = first_networks(run.script)
    average.eval()
    found = {0: copy.deepcopy(average)}
    count = 0
    for epoch in EPOCHS:
        for step in run.epoch(epoch):
            count += 1
            weight = max(1 - SETTINGS["ema"], 10 / (count + 9))
            means = average.state_dict().values()
            for mean, newest in zip(means, step.G_after.values()):
                if mean.is_floating_point():
                    mean += weight * (newest - mean)
        found[epoch] = copy.deepcopy(average)
    return found


def test_a_training_begins_with_the_weights_of_its_seed(run):
    G, D, _ = first_networks(run.script)
    step = run.steps[0]
    assert_close(step.G_before, G.state_dict(), rtol=0, atol=0)
    assert_close(step.D_before, D.state_dict(), rtol=0, atol=0)


def test_the_average_is_of_all_steps(run):
    wanted = averages(run)[3].state_dict()
    assert_close(run.files["ckpt.pt"]["average"], wanted)
    assert_close(run.files["g.pt"]["state_dict"], wanted)


def test_pictures_are_drawn_by_the_average_of_the_same_z(run):
    _, _, z = first_networks(run.script)
    wanted = {epoch: average(z) for epoch, average in averages(run).items()}
    assert list(run.pictures) == [0, 1, 2, 3]  # as near to the quarters as can be
    assert_close(run.pictures, wanted)


def large_critic():
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(784, 128),
        nn.LeakyReLU(0.2),
        nn.Linear(128, 1),
        nn.Flatten(0),
    )


@pytest.mark.parametrize("way", ["gan_mlp", "wgan --gp 1"])
def test_G_comes_nearer_to_the_images(way, tmp_path):
    torch.manual_seed(0)
    images = torch.zeros(640, 1, 28, 28).byte()  # squares of many greys, on black
    images[..., 6:20, 8:22] = torch.randint(100, 256, (640, 1, 1, 1)).byte()
    G, D = SCRIPTS["gan_mlp"].ARCHS["basic"]
    if way != "gan_mlp":
        D = large_critic
    line = f"{way} --epochs 8 --batch-size 32 --lr 1e-3 --ema 0.99 --no-bf16"
    run = train(tmp_path, line, images=images, G=G, D=D)
    data = (images / 127.5 - 1).flatten(1)

    def distance(pictures):
        """How far they are from the nearest image, on average."""
        distances = torch.cdist(pictures.flatten(1), data)
        return distances.min(dim=1).values.mean()

    before = distance(run.pictures[0])
    after = distance(run.pictures[8])
    assert after < 0.6 * before


# ---- checkpoints


def test_a_checkpoint_has_all_that_the_training_goes_on_from(run):
    checkpoint = run.files["ckpt.pt"]
    last = run.steps[-1]
    for name in ("G", "D", "opt_G", "opt_D"):
        wanted = getattr(last, name).state_dict()
        assert_close(checkpoint[name], wanted, rtol=0, atol=0, msg=name)


def test_both_files_say_what_they_are_of(run):
    default = {"gan_mlp": "basic", "gan_cnn": "conv7"}.get(run.script, "transpose")
    for name in ("g.pt", "ckpt.pt"):
        content = run.files[name]
        assert content["script"] == run.script
        assert content["arch"] == default
        assert content["z_dim"] == 100
        assert content["epoch"] == 3
        assert content["args"]["seed"] == SEED
        assert content["args"]["dataset"] == "test"
        assert content["args"]["lr"] == 0.01


def test_the_file_of_a_generator_has_nothing_else(run):
    names = {"script", "arch", "z_dim", "epoch", "args", "state_dict"}
    assert set(run.files["g.pt"]) == names


def test_a_resumed_training_gives_the_numbers_of_one_that_never_stopped(run, tmp_path):
    train(tmp_path, f"{run.line} --epochs 1")
    resumed = train(tmp_path, f"{run.line} --resume --epochs 3")
    assert len(resumed.steps) == len(run.steps) * 2 // 3
    assert list(resumed.pictures) == [2, 3]
    assert_close(resumed.pictures[3], run.pictures[3], rtol=0, atol=0)
    for name in ("G", "D", "average", "opt_G", "opt_D"):
        found = resumed.files["ckpt.pt"][name]
        wanted = run.files["ckpt.pt"][name]
        assert_close(found, wanted, rtol=0, atol=0, msg=name)


# ---- several processes, which torchrun starts


@pytest.fixture(scope="module", params=WAYS)
def two_runs(request, tmp_path_factory):
    """Each of two processes, one after the other. What they exchange is torch's affair."""
    folder = tmp_path_factory.mktemp("two")
    first = train(folder, request.param, rank=0, processes=2)
    second = train(folder, request.param, rank=1, processes=2)
    return first, second


def test_two_processes_share_the_images_of_each_step(two_runs):
    for epoch in EPOCHS:
        drawn = []
        for one, other in zip(*(run.epoch(epoch) for run in two_runs), strict=True):
            assert one.real.shape == other.real.shape
            drawn += numbers(one.real)
            drawn += numbers(other.real)
        assert len(drawn) == USED, "one has the other's share, too"
        assert len(set(drawn)) == USED, "both have the same images"


def test_two_processes_draw_different_noise(two_runs):
    first, second = two_runs
    for one, other in zip(first.steps, second.steps, strict=True):
        assert one.z.shape == (len(one.real), 100)
        assert not torch.equal(one.z, other.z), "the same noise"
        assert one.seed < 80_000
        assert other.seed == one.seed + 1_000_000


def test_two_processes_begin_with_the_same_weights(two_runs):
    first, second = two_runs
    one = first.steps[0]
    other = second.steps[0]
    assert_close(one.G_before, other.G_before, rtol=0, atol=0)
    assert_close(one.D_before, other.D_before, rtol=0, atol=0)


def test_two_processes_train_wrapped_networks_and_save_their_own(two_runs):
    for run in two_runs:
        # BatchNorm's statistics must not be sent in the middle of a step.
        assert run.wrapped == ["gloo", False, False]
        assert len(run.steps[0].G) == len(run.steps[0].D) == 1, "not wrapped"
    first, _ = two_runs
    assert list(first.files["ckpt.pt"]["G"]) == list(small_G().state_dict())
    assert list(first.files["ckpt.pt"]["D"]) == list(small_D().state_dict())


def test_one_process_wraps_nothing(run):
    assert run.wrapped == []


# ---- options

# The settings of the code on which the reports were written.
EVERY_SOURCE = {
    "lr_falls_after": inf,
    "r1": 0.0,
    "r1_grows_after": inf,
    "ema": 0.0,
    "new_z": True,
    "bf16": False,
}
SOURCES = {
    "gan_mlp": {
        "epochs": 3,
        "batch_size": 64,
        "optimizer": "sgd",
        "lr": 0.03,
    },
    "gan_mlp --arch deep": {
        "epochs": 200,
        "batch_size": 64,
        "optimizer": "adam",
        "lr": 2e-4,
        "beta1": 0.5,
        "beta2": 0.999,
    },
    "gan_mlp --arch hidden": {
        "epochs": 30,
        "batch_size": 128,
        "optimizer": "adam",
        "lr": 2e-4,
        "beta1": 0.9,
        "beta2": 0.999,
    },
    "gan_cnn": {
        "epochs": 3,
        "batch_size": 64,
        "optimizer": "adam",
        "lr": 2e-4,
        "beta1": 0.5,
    },
    "gan_cnn --arch conv4": {
        "epochs": 20,
        "batch_size": 64,
        "optimizer": "adam",
        "lr": 2e-4,
        "beta1": 0.5,
    },
    "gan_cnn --arch separable": {
        "epochs": 20,
        "batch_size": 64,
        "optimizer": "adam",
        "lr": 2e-4,
        "beta1": 0.5,
    },
    "gan_cnn --arch tiny": {
        "epochs": 20,
        "batch_size": 64,
        "optimizer": "sgd",
        "lr": 0.03,
    },
    "dcgan": {
        "epochs": 30,
        "batch_size": 128,
        "lr": 2e-4,
        "beta1": 0.9,
        "init": "torch",
    },
    "dcgan --arch upsample": {
        "epochs": 200,
        "batch_size": 64,
        "lr": 2e-4,
        "beta1": 0.5,
        "init": "dcgan",
    },
    "wgan": {
        "epochs": 150,
        "batch_size": 128,
        "lr": 5e-5,
        "n_critic": 5,
        "clip": 0.01,
        "gp": 0.0,
    },
    "wgan --gp 10": {
        "epochs": 20,
        "batch_size": 64,
        "lr": 1e-4,
        "n_critic": 5,
        "gp": 10.0,
    },
}


@pytest.mark.parametrize("way", SOURCES)
def test_report_takes_the_settings_of_the_source(way, monkeypatch):
    options = read_options(monkeypatch, f"{way} --report")
    plain = SCRIPTS[way.split()[0]].PLAIN
    for name, wanted in (EVERY_SOURCE | SOURCES[way]).items():
        if name in plain:
            assert options[name] == wanted, name


@each_script
def test_without_report_the_settings_are_ours(script, monkeypatch):
    module = SCRIPTS[script]
    for row, (ours, _) in module.SETTINGS.items():
        if script == "wgan":
            way = "wgan --gp 10" if row == "gp" else "wgan"
            ours = ours | {"gp": 10.0 if row == "gp" else 0.0}
        else:
            way = f"{script} --arch {row}"
        options = read_options(monkeypatch, way)
        assert {name: options[name] for name in ours} == ours


@each_script
def test_every_row_has_the_same_settings(script):
    module = SCRIPTS[script]
    for ours, source in module.SETTINGS.values():
        assert list(ours) == list(source) == list(module.PLAIN)


@each_script
def test_what_was_typed_counts_more_than_the_row(script, monkeypatch):
    typed = "--epochs 7 --batch-size 6 --lr 0.5 --ema 0 --bf16 --z-dim 9 --seed 4"
    ours = read_options(monkeypatch, f"{script} {typed}")
    source = read_options(monkeypatch, f"{script} {typed} --report")
    wanted = {
        "epochs": 7,
        "batch_size": 6,
        "lr": 0.5,
        "ema": 0.0,
        "bf16": True,
        "z_dim": 9,
        "seed": 4,
    }
    assert {name: ours[name] for name in wanted} == wanted
    assert {name: source[name] for name in wanted} == wanted


@pytest.mark.parametrize(
    "way, name, value",
    [
        ("gan_mlp --optimizer sgd", "optimizer", "sgd"),
        ("gan_mlp --beta1 0.7", "beta1", 0.7),
        ("gan_mlp --beta2 0.7", "beta2", 0.7),
        ("gan_mlp --r1 3", "r1", 3.0),
        ("gan_cnn --optimizer sgd", "optimizer", "sgd"),
        ("gan_cnn --beta1 0.7", "beta1", 0.7),
        ("gan_cnn --r1 3", "r1", 3.0),
        ("dcgan --beta1 0.7", "beta1", 0.7),
        ("dcgan --r1 3", "r1", 3.0),
        ("wgan --n-critic 3", "n_critic", 3),
        ("wgan --clip 0.3", "clip", 0.3),
        ("wgan --gp 3", "gp", 3.0),
    ],
)
def test_options_of_the_family_count_more_than_the_row(way, name, value, monkeypatch):
    assert read_options(monkeypatch, way)[name] == value


@each_script
def test_resume_takes_what_was_saved_and_over_it_what_is_typed(
    script, tmp_path, monkeypatch
):
    train(tmp_path, f"{script} --epochs 1 --lr 0.02 --z-dim 5")
    monkeypatch.chdir(tmp_path)
    options = read_options(monkeypatch, f"{script} --resume --epochs 6")
    assert options["epochs"] == 6, "typed now"
    assert options["lr"] == 0.02, "typed then"
    assert options["z_dim"] == 5, "typed then"
    assert options["ema"] == 0.4, "of the row then, not of today's"


@each_script
def test_an_option_that_a_checkpoint_lacks_has_its_default(
    script, tmp_path, monkeypatch
):
    run = train(tmp_path, f"{script} --epochs 1")
    checkpoint = run.files["ckpt.pt"]
    del checkpoint["args"]["ema"]
    del checkpoint["args"]["graph"]
    (path,) = tmp_path.glob("runs/*/ckpt.pt")
    common.save(path, checkpoint)
    monkeypatch.chdir(tmp_path)
    options = read_options(monkeypatch, f"{script} --resume --epochs 6")
    rows = SCRIPTS[script].SETTINGS
    ours, _ = rows.get(options["arch"]) or rows["clip"]  # wgan's rows are no networks
    assert options["ema"] == ours["ema"]
    assert options["graph"] is True


# ---- a network of a student's own


@each_script
def test_an_arch_without_a_row_of_settings_takes_those_of_all(script, monkeypatch):
    module = SCRIPTS[script]
    monkeypatch.setitem(module.ARCHS, "mine", (small_G, small_D))
    ours = read_options(monkeypatch, f"{script} --arch mine")
    source = read_options(monkeypatch, f"{script} --arch mine --report")
    assert ours["arch"] == "mine"
    if script == "wgan":  # its rows are of ways to train, not of networks
        wanted_ours, wanted_source = module.SETTINGS["clip"]
    else:
        wanted_ours = module.OURS
        wanted_source = module.PLAIN
    assert {name: ours[name] for name in wanted_ours} == wanted_ours
    assert {name: source[name] for name in wanted_source} == wanted_source


def assert_refused(folder, script, text, **networks):
    """main() ends in a message, before it has made a folder."""
    with pytest.raises(common.UserError, match=text):
        train(folder, script, **networks)
    assert list(folder.iterdir()) == []


@each_script
def test_a_G_of_another_size_is_refused(script, tmp_path):
    def large_G(z_dim):
        return nn.Sequential(*small_G(z_dim), nn.Upsample(scale_factor=2))

    text = r"G makes images of \[1, 4, 4\], the real ones are \[1, 2, 2\]"
    assert_refused(tmp_path, script, text, G=large_G)


@each_script
def test_a_D_with_ten_outputs_is_refused(script, tmp_path):
    def D_of_ten():
        return nn.Sequential(nn.Flatten(), nn.Linear(4, 10), nn.Sigmoid())

    text = r"D gives \[64, 10\] for 64 images. It must give \[64\], one number for each"
    assert_refused(tmp_path, script, text, D=D_of_ten)


@each_script
def test_a_D_that_gives_a_column_is_refused(script, tmp_path):
    def D_of_a_column():
        return nn.Sequential(nn.Flatten(), nn.Linear(4, 1), nn.Sigmoid())

    assert_refused(tmp_path, script, r"D gives \[64, 1\]", D=D_of_a_column)


@each_gan
def test_a_D_without_a_sigmoid_is_refused(script, tmp_path):
    text = "no probabilities: end it with Float32Sigmoid"
    assert_refused(tmp_path, script, text, D=small_critic)


def test_a_critic_needs_no_sigmoid(tmp_path):
    run = train(tmp_path, "wgan --epochs 1", D=small_critic)
    assert len(run.steps) == 5


# ---- a training that is broken


def good_losses(script):
    return torch.full((6, len(SCRIPTS[script].LOSSES)), 0.5)


@each_script
def test_check_training_lets_a_good_one_pass(script):
    SCRIPTS[script].check_training(good_losses(script), small_G(), small_D(), 1)


@pytest.mark.parametrize("value", [inf, float("nan")])
@each_script
def test_check_training_finds_infinite_numbers(script, value):
    check_training = SCRIPTS[script].check_training
    text = "epoch 5 ended in infinite numbers"

    losses = good_losses(script)
    losses[2, 1] = value
    with pytest.raises(common.UserError, match=text):
        check_training(losses, small_G(), small_D(), 5)

    losses = good_losses(script)
    broken_G = small_G()
    broken_G[0].weight.data[1, 1] = value
    with pytest.raises(common.UserError, match=text):
        check_training(losses, broken_G, small_D(), 5)

    broken_D = small_D()
    broken_D[1].running_var[1] = value
    with pytest.raises(common.UserError, match=text):
        check_training(losses, small_G(), broken_D, 5)


@pytest.mark.parametrize("name, value", [("loss_G", 0.009), ("D(x)", 1e-13)])
@each_gan
def test_check_training_finds_a_D_that_is_stuck_in_the_end(script, name, value):
    module = SCRIPTS[script]
    column = module.LOSSES.index(name)
    losses = good_losses(script)
    losses[-2, column] = value
    module.check_training(losses, small_G(), small_D(), 5)  # it has found its way out
    losses[-1, column] = value
    with pytest.raises(common.UserError, match="D is stuck.* Epoch 5 is not saved"):
        module.check_training(losses, small_G(), small_D(), 5)


@each_script
def test_a_broken_epoch_does_not_replace_the_checkpoint_before_it(script, tmp_path):
    own_step = SCRIPTS[script].train_step

    def breaks_in_epoch_2(*arguments, **settings):
        losses = own_step(*arguments, **settings)
        if torch.initial_seed() == 70_002:
            losses = losses / 0
        return losses

    with pytest.raises(common.UserError, match="epoch 2 ended in infinite numbers"):
        train(tmp_path, script, train_step=breaks_in_epoch_2)
    paths = list(tmp_path.glob("runs/*/*.pt"))
    assert {path.name for path in paths} == {"g.pt", "ckpt.pt"}
    for path in paths:
        assert torch.load(path, weights_only=True)["epoch"] == 1, path.name
    (table,) = tmp_path.glob("runs/*/losses.csv")
    assert "\n2," not in table.read_text(), "losses of the broken epoch"


# ---- what must be alike: a mistake that is corrected in one script is corrected in all


@pytest.mark.parametrize("name", ["batches", "check_networks", "check_training"])
def test_the_GANs_have_the_same_functions(name):
    texts = {inspect.getsource(getattr(SCRIPTS[script], name)) for script in GANS}
    assert len(texts) == 1, "changed in one script alone"

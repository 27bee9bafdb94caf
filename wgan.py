"""The Wasserstein GAN of report E: D is a critic. It estimates how far from the data
G's images are.

Arjovsky et al., 2017, "Wasserstein GAN"; Gulrajani et al., 2017, "Improved Training of
Wasserstein GANs".

Report E is a lab report: README.md says which.

python wgan.py                       # RMSprop, and the critic's weights are clipped
python wgan.py --report              # the settings of report E
python wgan.py --gp 10               # a gradient penalty instead of clipping (WGAN-GP)
python wgan.py --resume --epochs 40  # go on with the newest run

An epoch is one pass of the critic over the data: each of its steps has new real images.
With the paper's 5 steps of the critic for each step of G, and report E's batches of
128, an epoch has 93 steps of G. Ours takes one, with batches of 64: an epoch has 937.
"""

import argparse
import copy
import time
from math import inf
from pathlib import Path

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import common

# Runs go to runs/<name of this file>: a copy of it has its own.
SCRIPT = Path(__file__).stem

# ---- networks
# G maps noise z [N, z_dim] to images [N, 1, 28, 28] in [-1, 1].
# D maps images to scores [N], without bounds: higher for what it takes to be real.


class Float32Tanh(nn.Tanh):
    """A Tanh that computes in float32, also where the layers before it use bfloat16.

    The largest bfloat16 below 1 is 0.996. A Tanh above it would be rounded to 1, and
    its gradient to 0.
    """

    def forward(self, x):
        return torch.tanh(x.float())


class Generator(nn.Module):
    """Report E: the generator of its DCGAN, with a Tanh at its end, too."""

    def __init__(self, z_dim=100):
        super().__init__()
        self.fc1 = nn.Linear(z_dim, 1024)
        self.br1 = nn.Sequential(nn.BatchNorm1d(1024), nn.ReLU())
        self.fc2 = nn.Linear(1024, 128 * 7 * 7)
        self.br2 = nn.Sequential(nn.BatchNorm1d(128 * 7 * 7), nn.ReLU())
        self.conv1 = nn.Sequential(
            nn.ConvTranspose2d(128, 64, 4, 2, 1), nn.BatchNorm2d(64), nn.ReLU()
        )
        self.conv2 = nn.Sequential(nn.ConvTranspose2d(64, 1, 4, 2, 1), Float32Tanh())

    def forward(self, z):
        x = self.br1(self.fc1(z))
        x = self.br2(self.fc2(x))
        x = self.conv1(x.view(-1, 128, 7, 7))
        return self.conv2(x)


class Discriminator(nn.Module):
    """The critic."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(1, 32, 5, 1, 0), nn.LeakyReLU(0.1))
        self.pl1 = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Sequential(nn.Conv2d(32, 64, 5, 1, 0), nn.LeakyReLU(0.1))
        self.pl2 = nn.MaxPool2d(2, 2)
        self.fc1 = nn.Sequential(nn.Linear(64 * 4 * 4, 1024), nn.LeakyReLU(0.1))
        self.fc2 = nn.Linear(1024, 1)  # no Sigmoid: a score, not a probability

    def forward(self, x):
        x = self.pl1(self.conv1(x))
        x = self.pl2(self.conv2(x))
        x = self.fc1(x.flatten(1))
        return self.fc2(x).squeeze(1)


ARCHS = {"transpose": (Generator, Discriminator)}

# ---- settings

PLAIN = {  # the paper's, with the batches of the exercise on which report E was written
    # 30 epochs there have as many steps of G: all 5 of the critic share one batch.
    "epochs": 150,
    "batch_size": 128,
    "lr": 5e-5,  # RMSprop's learning rate, or Adam's with --gp; the same for G and D
    "lr_falls_after": inf,  # from that epoch on: lr * lr_falls_after / epoch
    "n_critic": 5,  # steps of D to one of G
    "clip": 0.01,  # bound of D's weights
    "gp": 0.0,  # weight of the gradient penalty; 0: D's weights are clipped instead
    "ema": 0.0,  # decay of G's moving average; 0: it is G itself
    "new_z": True,  # G learns from new noise; False: from the images D has just seen
    "bf16": False,  # the networks compute in bfloat16
}
# Ours learn faster and better: docs/quality.md says what each change bought.
OURS = PLAIN | {"epochs": 20, "ema": 0.999, "new_z": False, "bf16": "auto"}
# Ours, then those that --report takes: the exercise's; with --gp those of the paper on
# it, but for its number of epochs, which is for larger images.
# "auto": bfloat16 if the processor is fast in it. These networks were no worse in it.
SETTINGS = {
    "clip": (
        OURS
        | {
            "batch_size": 64,
            "lr": 1e-3,
            "lr_falls_after": 3,
            "n_critic": 1,
            "clip": 0.02,
        },
        PLAIN,
    ),
    "gp": (
        OURS | {"lr": 5e-4, "n_critic": 2},
        PLAIN | {"epochs": 20, "batch_size": 64, "lr": 1e-4},
    ),
}

# ---- training

# train_step returns these numbers in this order: the columns of losses.csv, and the
# lines of losses.png with a panel for each row.
CURVES = {
    "Wasserstein estimate": ("distance",),
    "loss": ("loss_D", "loss_G"),
    "output of D": ("D(x)", "D(G(z))"),
}
LOSSES = [name for names in CURVES.values() for name in names]


def gradient_penalty(D, real, fake):
    """How far the slope of D is from 1, between real and generated images."""
    share = torch.rand(len(real), 1, 1, 1, device=real.device)
    between = (share * real + (1 - share) * fake).requires_grad_()
    (slope,) = torch.autograd.grad(D(between).sum(), between, create_graph=True)
    lengths = slope.flatten(1).norm(dim=1)  # [N]
    return (lengths - 1).square().mean()


def train_step(
    G, D, opt_G, opt_D, real, z, n_critic=5, bf16=False, clip=0.01, gp=0.0, new_z=False
):
    """n_critic steps of the critic, each with its share of real and z; one of G."""
    autocast = torch.autocast(z.device.type, torch.bfloat16, enabled=bf16)
    losses = []
    reals = real.unflatten(0, (n_critic, -1))
    zs = z.unflatten(0, (n_critic, -1))
    for number in range(n_critic):
        # D learns to score real images higher than generated ones. Clipped weights, or
        # the penalty, keep it from being steep. Then the difference of the scores
        # estimates the Wasserstein distance (if weights are clipped, up to a factor).
        # Of these fakes G learns from the last, or from none, if it has new noise.
        is_for_G = number == n_critic - 1 and not new_z
        with autocast, torch.set_grad_enabled(is_for_G):
            fake = G(zs[number])
        with autocast:
            D_real = D(reals[number]).float().mean()
            D_fake = D(fake.detach()).float().mean()
            penalty = gradient_penalty(D, reals[number], fake.detach()) if gp else 0
        distance = D_real - D_fake
        loss_D = gp * penalty - distance
        opt_D.zero_grad()
        loss_D.backward()
        opt_D.step()
        if not gp:
            for weight in D.parameters():
                weight.data.clamp_(-clip, clip)
        losses.append(torch.stack([distance, loss_D, D_real, D_fake]).detach())

    # G learns to raise the score of its images. Only opt_G takes a step now: freezing D
    # saves the time of its gradients.
    D.requires_grad_(False)
    with autocast:
        if new_z:
            fake = G(torch.randn_like(zs[-1]))
        # Otherwise fake still serves: D's step changed D, and nothing that made fake.
        score = D(fake).float()
    loss_G = -score.mean()
    opt_G.zero_grad()
    loss_G.backward()
    opt_G.step()
    D.requires_grad_(True)

    distance, loss_D, D_real, D_fake = torch.stack(losses).mean(dim=0)
    return torch.stack([distance, loss_D, loss_G.detach(), D_real, D_fake])


def update_average(average, G, ema, step):
    """An exponential moving average (EMA) of G's weights and BatchNorm statistics.

    The new values count 1 at the first step, so that the untrained G is forgotten; then
    less and less, down to 1 - ema. Until then it is over about a tenth of the steps.
    """
    weight = max(1 - ema, 10 / (step + 9))
    for old, new in zip(average.state_dict().values(), G.state_dict().values()):
        if old.is_floating_point():  # not BatchNorm's count of batches
            old.lerp_(new, weight)  # old + weight * (new - old)


def batches(images, args, epoch):
    """The real images of an epoch, shuffled anew, from bytes to [-1, 1].

    A step takes n_critic batches of them, one for each step of the critic.
    """
    # A seed for each epoch: a resumed run draws the numbers of one that never stopped.
    # Epochs stay below 10,000, so those of --seed 0 and of --seed 1 never share one.
    seed = 10_000 * args.seed + epoch
    torch.manual_seed(seed)
    order = torch.randperm(len(images)).to(images.device)
    if common.RANK > 0:  # all processes share the order; their noise and dropout differ
        torch.manual_seed(seed + 1_000_000 * common.RANK)
    per_step = args.n_critic * args.batch_size
    steps = len(images) // per_step  # whole steps only
    for batch in order.split(per_step)[:steps]:
        # Under torchrun, this process's share of the batch; of one process, all of it.
        share = batch[common.RANK :: common.WORLD]
        yield images.index_select(0, share) / 127.5 - 1


def check_networks(average, D, z, images):
    """Before hours of training: do the networks fit the images and each other?"""
    fake = average(z)  # so far a copy of G, and BatchNorm's statistics stay as they are
    if fake.shape[1:] != images.shape[1:]:
        made, wanted = list(fake.shape[1:]), list(images.shape[1:])
        raise common.UserError(f"G makes images of {made}, the real ones are {wanted}")
    D.eval()
    with torch.no_grad():
        score = D(fake)
    D.train()
    if score.shape != (len(z),):
        raise common.UserError(
            f"D gives {list(score.shape)} for {len(z)} images. It must give "
            f"[{len(z)}], one number for each: end it with .squeeze(1) or .flatten()"
        )


def check_training(losses, G, D, epoch):
    """Stop a broken training before it replaces a good checkpoint."""
    numbers = [losses, *G.state_dict().values(), *D.state_dict().values()]
    if not all(tensor.isfinite().all() for tensor in numbers):
        raise common.UserError(
            f"epoch {epoch} ended in infinite numbers and is not saved: "
            "try a smaller --lr"
        )


def read_options():
    """All options: what was typed counts most, then what was saved, then SETTINGS."""
    parser = common.make_parser(__doc__, SETTINGS)
    parser.add_argument("--arch", choices=ARCHS, help="the network (transpose)")
    parser.add_argument(
        "--n-critic",
        type=common.number(int, 1),
        help="steps of D to one of G (table below)",
    )
    either = parser.add_mutually_exclusive_group()
    either.add_argument(
        "--clip",
        type=common.number(float, 1e-12),
        help="bound of D's weights (table below)",
    )
    either.add_argument(
        "--gp",
        type=common.number(float, 0),
        metavar="W",
        help="weight of a gradient penalty instead: try 10",
    )
    typed, checkpoint = common.parse_args(parser, SCRIPT)
    options = common.DEFAULTS | {"arch": "transpose"}
    if checkpoint:
        options |= checkpoint["args"]
    options |= typed
    ours, source = SETTINGS["gp" if options.get("gp") else "clip"]
    row = source if options["report"] else ours
    args = argparse.Namespace(**(row | options))
    common.check_shares(args.batch_size)
    return args, checkpoint


def main():
    # ---- options, device, data
    args, checkpoint = read_options()
    device = common.prepare_device(args.device)
    if args.bf16 == "auto":  # yes on a CPU that has instructions for it; on a GPU, no
        has_bf16 = torch.cpu.get_capabilities().get("avx512_bf16", False)
        args.bf16 = device.type == "cpu" and has_bf16
    per_step = args.n_critic * args.batch_size  # images
    images, dataset = common.load_images(args, per_step, device)
    args.dataset = dataset  # saved: --resume must find the same
    steps_per_epoch = len(images) // per_step

    # ---- networks and optimizers
    torch.manual_seed(10_000 * args.seed)
    make_G, make_D = ARCHS[args.arch]
    G = make_G(args.z_dim)
    D = make_D()
    # channels_last is a layout in memory in which convolutions are faster. x.view(...)
    # of what a convolution gives then fails: write x.reshape(...), or x.flatten(1).
    G = G.to(device, memory_format=torch.channels_last)
    D = D.to(device, memory_format=torch.channels_last)
    if args.gp:
        betas = (0.0, 0.9)
        opt_G = torch.optim.Adam(G.parameters(), lr=args.lr, betas=betas, fused=True)
        opt_D = torch.optim.Adam(D.parameters(), lr=args.lr, betas=betas, fused=True)
    else:
        opt_G = torch.optim.RMSprop(G.parameters(), lr=args.lr)
        opt_D = torch.optim.RMSprop(D.parameters(), lr=args.lr)
    # A moving average of G draws the samples: they are steadier than G's own.
    average = copy.deepcopy(G).eval().requires_grad_(False)
    fixed_z = torch.randn(64, args.z_dim).to(device)  # every picture is of these 64
    check_networks(average, D, fixed_z, images)
    print(G)
    print(D)
    omit = ["bf16", "clip"] if args.gp else ["bf16", "gp"]
    used = [f"{name} {getattr(args, name)}" for name in PLAIN if name not in omit]
    precision = "bfloat16" if args.bf16 else "float32"
    print(f"{device}, {precision}; {', '.join(used)}")

    # ---- a folder, and with --resume the state of its last epoch
    folder = common.run_folder(args, checkpoint, SCRIPT)
    epochs_done = 0
    if checkpoint:
        with common.refuse_misfit(folder):
            G.load_state_dict(checkpoint["G"])
            D.load_state_dict(checkpoint["D"])
            average.load_state_dict(checkpoint["average"])
            opt_G.load_state_dict(checkpoint["opt_G"])
            opt_D.load_state_dict(checkpoint["opt_D"])
        epochs_done = checkpoint["epoch"]
    raw_G = G  # without DistributedDataParallel: these go into checkpoints
    raw_D = D
    if common.WORLD > 1:  # under torchrun: several processes, each with its share
        backend = "nccl" if device.type == "cuda" else "gloo"
        torch.distributed.init_process_group(backend)
        G = DistributedDataParallel(G, broadcast_buffers=False)
        D = DistributedDataParallel(D, broadcast_buffers=False)
    steps_done = epochs_done * steps_per_epoch

    # ---- the loop
    method = f"--gp {args.gp:g}" if args.gp else f"--clip {args.clip:g}"
    title = f"{SCRIPT}.py {method}, {args.dataset}"
    quarters = [round(args.epochs * part / 4) for part in range(5)]
    total = args.epochs * steps_per_epoch
    # losses.csv stays locked while we train; the bar says how to resume after a stop
    with (
        common.open_losses(folder, LOSSES, epochs_done, steps_per_epoch) as table,
        common.progress_bar(folder, total, steps_done) as bar,
    ):
        settings = {
            "n_critic": args.n_critic,
            "bf16": args.bf16,
            "clip": args.clip,
            "gp": args.gp,
            "new_z": args.new_z,
        }
        writer = None
        if args.tensorboard and common.RANK == 0:
            from torch.utils.tensorboard import SummaryWriter  # slow to import

            writer = SummaryWriter(folder / "tensorboard", purge_step=steps_done + 1)
        began = time.monotonic()
        if epochs_done == 0:
            common.save_samples(folder, 0, average(fixed_z), images, quarters)
        for epoch in range(epochs_done + 1, args.epochs + 1):
            lr = args.lr * min(1, args.lr_falls_after / epoch)
            for group in opt_G.param_groups + opt_D.param_groups:
                group["lr"] = lr
            # train_step itself; on CUDA a recording of it, anew in each epoch
            step = common.recorded(train_step, device, args.graph)
            losses = []
            for real in batches(images, args, epoch):
                z = torch.randn(len(real), args.z_dim, device=device)
                losses.append(step(G, D, opt_G, opt_D, real, z, **settings))
                steps_done += 1
                update_average(average, raw_G, args.ema, steps_done)
                bar.update()
            # Only here does the CPU wait for the device: no .item() in the loop above.
            losses = torch.stack(losses).cpu()

            check_training(losses, raw_G, raw_D, epoch)
            common.append_losses(table, epoch, losses)
            means = dict(zip(LOSSES, losses.mean(dim=0).tolist()))
            text = "  ".join(f"{name} {mean:.3f}" for name, mean in means.items())
            seconds = time.monotonic() - began  # since the last such line
            began = time.monotonic()
            bar.write(f"epoch {epoch}/{args.epochs}  {text}  {seconds:.2f} s")
            if writer:
                first_step = steps_done - steps_per_epoch + 1
                for name, values in zip(LOSSES, losses.T.tolist()):
                    for number, value in enumerate(values, start=first_step):
                        writer.add_scalar(name, value, number)
            is_extra = args.sample_every and epoch % args.sample_every == 0
            if epoch in quarters or is_extra:
                samples = average(fixed_z)
                common.save_samples(folder, epoch, samples, images, quarters)
                common.save_losses(folder, CURVES, title)
                if writer:
                    writer.add_images("samples", (samples + 1) / 2, epoch)
            if writer:
                writer.flush()

            header = {
                "script": SCRIPT,
                "arch": args.arch,
                "z_dim": args.z_dim,
                "epoch": epoch,
                "args": vars(args),
            }
            generator = header | {"state_dict": average.state_dict()}
            checkpoint = header | {
                "G": raw_G.state_dict(),
                "D": raw_D.state_dict(),
                "average": average.state_dict(),
                "opt_G": opt_G.state_dict(),
                "opt_D": opt_D.state_dict(),
            }
            common.save(folder / "g.pt", generator)
            common.save(folder / "ckpt.pt", checkpoint)
    print(f"finished: {folder}")
    print(f'next: python perturb.py --ckpt "{folder / "g.pt"}"')


if __name__ == "__main__":
    common.run(main)

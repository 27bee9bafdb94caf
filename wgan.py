"""The Wasserstein GAN of report E: D is a critic, which estimates how far G's images are
from the data.

Arjovsky et al., 2017, "Wasserstein GAN"; Gulrajani et al., 2017, "Improved Training of
Wasserstein GANs".

python wgan.py                       # RMSprop, and the critic's weights are clipped
python wgan.py --report              # as published: the settings of report E's source
python wgan.py --gp 10               # a gradient penalty instead of clipping (WGAN-GP)
python wgan.py --resume --epochs 40  # go on with the newest run

An epoch is one pass of the critic over the data: each of its steps has new real images.
So with 5 steps of the critic for each step of G, as published, an epoch of batches of 128
has 93 steps of G, where dcgan.py has 468.
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

SCRIPT = Path(
    __file__
).stem  # its runs go to runs/SCRIPT: a copy of this file has its own

# ---- networks
# G maps noise z [N, z_dim] to images [N, 1, 28, 28] in [-1, 1].
# D maps images to scores [N], without bounds: higher for what it takes to be real.


class Float32Tanh(nn.Tanh):
    """A Tanh that computes in float32, also where the layers before it use bfloat16.

    bfloat16 has no number between 0.996 and 1. In it, a Tanh would soon be exactly 1, and
    let no gradient pass.
    """

    def forward(self, x):
        return torch.tanh(x.float())


class Generator(nn.Module):
    """Report E: the DCGAN's, with a Tanh, as there."""

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

PLAIN = {  # as published, and as the exercise has it on which report E was written
    # The exercise's 30 epochs have as many steps of G as 150 of ours.
    "epochs": 150,
    "batch_size": 128,
    "lr": 5e-5,  # RMSprop's learning rate, or Adam's with --gp; the same for G and D
    "lr_falls_after": inf,  # from that epoch on, the rate is lr * lr_falls_after / epoch
    "n_critic": 5,  # steps of D to one of G
    "clip": 0.01,  # bound of D's weights
    "gp": 0.0,  # weight of the gradient penalty; 0: D's weights are clipped instead
    "ema": 0.0,  # how much of the average of G is kept at each step; 0: it is G
    "new_z": True,  # does G learn from new noise, or from the images D has just seen?
    "bf16": False,  # do the networks compute in bfloat16?
}
# Ours learn faster and better: docs/quality.md says what each change bought.
OURS = PLAIN | {"epochs": 20, "ema": 0.999, "new_z": False, "bf16": "auto"}
# Ours, then those of the source, which --report takes: for --gp, the paper's, but for its
# epochs, which are of larger images.
# "auto" is bfloat16 where it was measured to be faster, and no worse: see main().
SETTINGS = {
    "clip": (OURS, PLAIN),
    "gp": (
        OURS | {"lr": 5e-4, "n_critic": 2},
        PLAIN | {"epochs": 20, "batch_size": 64, "lr": 1e-4},
    ),
}

# ---- training

# What train_step returns, in this order: the columns of losses.csv, the lines of
# losses.png, a panel for each row.
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
    lengths = slope.flatten(1).norm(dim=1)  # one for each image
    return (lengths - 1).square().mean()


def train_step(
    G, D, opt_G, opt_D, real, z, n_critic=5, bf16=False, clip=0.01, gp=0.0, new_z=False
):
    """n_critic steps of the critic, each with its share of real and z; then one of G."""
    autocast = torch.autocast(z.device.type, torch.bfloat16, enabled=bf16)
    losses = []
    reals = real.unflatten(0, (n_critic, -1))
    zs = z.unflatten(0, (n_critic, -1))
    for number in range(n_critic):
        # D learns to score real images higher than generated ones. Clipped weights, or the
        # penalty, keep it from being steep. Then the difference of the scores estimates the
        # Wasserstein distance (if weights are clipped, up to a factor).
        is_last = number == n_critic - 1
        with autocast, torch.set_grad_enabled(is_last):  # G learns from the last alone
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

    # G learns to raise the score of its images. D must not learn from this: while it is
    # frozen, its gradients are not even computed.
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
    """Move the average of G's weights and BatchNorm statistics towards those of G.

    The newest weighs 1 at the first step, so that the untrained G is forgotten; then less
    and less, down to 1 - ema.
    """
    weight = max(1 - ema, 10 / (step + 9))
    for mean, newest in zip(average.state_dict().values(), G.state_dict().values()):
        if mean.is_floating_point():  # not BatchNorm's count of batches
            mean.lerp_(newest, weight)  # mean + weight * (newest - mean)


def batches(images, args, epoch):
    """The real images of an epoch, in an order of its own, from bytes to [-1, 1].

    A step takes n_critic batches of them, one for each step of the critic.
    """
    # A seed for each epoch: a resumed run draws the numbers of one that never stopped.
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
    fake = average(z)
    if fake.shape[1:] != images.shape[1:]:
        made, wanted = list(fake.shape[1:]), list(images.shape[1:])
        raise common.UserError(f"G makes images of {made}, the real ones are {wanted}")
    D.eval()
    with torch.no_grad():
        score = D(fake)
    D.train()
    if score.shape != (len(z),):
        raise common.UserError(
            f"D gives {list(score.shape)} for {len(z)} images: one number for each, [N]"
        )


def check_training(losses, G, D, epoch):
    """Stop a broken training before it replaces a good checkpoint."""
    numbers = [losses, *G.state_dict().values(), *D.state_dict().values()]
    if not all(tensor.isfinite().all() for tensor in numbers):
        raise common.UserError(
            f"epoch {epoch} ended in infinite numbers, unsaved: try a smaller --lr"
        )


def read_options():
    """The network's settings; over them what was saved, with --resume, or typed."""
    parser = common.make_parser(__doc__, SETTINGS)
    parser.add_argument("--arch", choices=ARCHS, help="the network (transpose)")
    parser.add_argument(
        "--n-critic",
        type=common.number(int, 1),
        help="steps of D to one of G (see below)",
    )
    either = parser.add_mutually_exclusive_group()
    either.add_argument(
        "--clip",
        type=common.number(float, 1e-12),
        help="bound of D's weights (see below)",
    )
    either.add_argument(
        "--gp",
        type=common.number(float, 0),
        metavar="W",
        help="weight of a gradient penalty instead: try 10",
    )
    typed, checkpoint = common.parse_args(parser, SCRIPT)
    saved = checkpoint["args"] if checkpoint else {}
    # Of an option that several of these have, the last one counts.
    options = common.DEFAULTS | {"arch": "transpose"} | saved | typed
    ours, source = SETTINGS["gp" if options.get("gp") else "clip"]
    settings = source if options["report"] else ours
    args = argparse.Namespace(**(settings | options))
    common.check_shares(args.batch_size)
    return args, checkpoint


def main():
    args, checkpoint = read_options()
    device = common.prepare_device(args.device)
    if args.bf16 == "auto":  # on a CPU that has instructions for it; few gain on a GPU
        has_bf16 = torch.cpu.get_capabilities().get("avx512_bf16", False)
        args.bf16 = device.type == "cpu" and has_bf16
    per_step = args.n_critic * args.batch_size  # images
    images, args.dataset = common.load_images(args, per_step, device)
    steps = len(images) // per_step  # in an epoch

    torch.manual_seed(10_000 * args.seed)
    make_G, make_D = ARCHS[args.arch]
    G = make_G(args.z_dim)
    D = make_D()
    # channels_last is a faster layout for convolutions. A network that takes images apart
    # by x.view(...) must then say x.reshape(...) or x.flatten(1).
    G = G.to(device, memory_format=torch.channels_last)
    D = D.to(device, memory_format=torch.channels_last)
    if args.gp:
        betas = (0.0, 0.9)
        opt_G = torch.optim.Adam(G.parameters(), lr=args.lr, betas=betas, fused=True)
        opt_D = torch.optim.Adam(D.parameters(), lr=args.lr, betas=betas, fused=True)
    else:
        opt_G = torch.optim.RMSprop(G.parameters(), lr=args.lr)
        opt_D = torch.optim.RMSprop(D.parameters(), lr=args.lr)
    # An average of G draws the samples: it changes less from epoch to epoch than G.
    average = copy.deepcopy(G).eval().requires_grad_(False)
    fixed_z = torch.randn(64, args.z_dim).to(device)  # of all samples
    check_networks(average, D, fixed_z, images)
    print(G)
    print(D)
    unused = ["bf16", "clip"] if args.gp else ["bf16", "gp"]
    used = [f"{name} {getattr(args, name)}" for name in PLAIN if name not in unused]
    precision = "bfloat16" if args.bf16 else "float32"
    print(f"{device}, {precision}; {', '.join(used)}")

    folder = common.run_folder(args, checkpoint, SCRIPT)
    done = 0  # epochs
    if checkpoint:
        with common.refuse_misfit(folder):
            G.load_state_dict(checkpoint["G"])
            D.load_state_dict(checkpoint["D"])
            average.load_state_dict(checkpoint["average"])
            opt_G.load_state_dict(checkpoint["opt_G"])
            opt_D.load_state_dict(checkpoint["opt_D"])
        done = checkpoint["epoch"]
    own_G = G  # without the wrapper that follows, as checkpoints have them
    own_D = D
    if common.WORLD > 1:  # under torchrun: several processes, each with its share
        backend = "nccl" if device.type == "cuda" else "gloo"
        torch.distributed.init_process_group(backend)
        G = DistributedDataParallel(G, broadcast_buffers=False)
        D = DistributedDataParallel(D, broadcast_buffers=False)
    writer = None
    if args.tensorboard and common.RANK == 0:
        from torch.utils.tensorboard import SummaryWriter  # slow to import

        writer = SummaryWriter(folder / "tensorboard", purge_step=done * steps + 1)

    title = f"{SCRIPT}.py --gp {args.gp:g}, {args.dataset}"
    quarters = [round(args.epochs * part / 4) for part in range(5)]
    with (
        common.open_losses(folder, LOSSES, done, steps) as table,
        common.progress_bar(folder, args.epochs * steps, done * steps) as bar,
    ):
        settings = {
            "n_critic": args.n_critic,
            "bf16": args.bf16,
            "clip": args.clip,
            "gp": args.gp,
            "new_z": args.new_z,
        }
        began = time.monotonic()
        if done == 0:
            common.save_samples(folder, 0, average(fixed_z), images, quarters)
        for epoch in range(done + 1, args.epochs + 1):
            lr = args.lr * min(1, args.lr_falls_after / epoch)
            for group in opt_G.param_groups + opt_D.param_groups:
                group["lr"] = lr
            step = common.recorded(train_step, device, args.graph)  # on CUDA: a graph
            count = (epoch - 1) * steps  # of all steps so far
            losses = []
            for real in batches(images, args, epoch):
                z = torch.randn(len(real), args.z_dim, device=device)
                losses.append(step(G, D, opt_G, opt_D, real, z, **settings))
                count += 1
                update_average(average, own_G, args.ema, count)
                bar.update()
            # Until here nothing has waited for the device.
            losses = torch.stack(losses).cpu()

            check_training(losses, own_G, own_D, epoch)
            common.append_losses(table, epoch, losses)
            means = dict(zip(LOSSES, losses.mean(dim=0).tolist()))
            text = "  ".join(f"{name} {mean:.3f}" for name, mean in means.items())
            seconds = time.monotonic() - began
            began = time.monotonic()
            bar.write(f"epoch {epoch}/{args.epochs}  {text}  {seconds:.2f} s")
            if writer:
                for name, values in zip(LOSSES, losses.T.tolist()):
                    for number, value in enumerate(values, start=count - steps + 1):
                        writer.add_scalar(name, value, number)
                writer.flush()
            every = args.sample_every
            if epoch in quarters or (every and epoch % every == 0):
                samples = average(fixed_z)
                common.save_samples(folder, epoch, samples, images, quarters)
                common.save_losses(folder, CURVES, title)
                if writer:
                    writer.add_images("samples", (samples + 1) / 2, epoch)
            run = {
                "script": SCRIPT,
                "arch": args.arch,
                "z_dim": args.z_dim,
                "epoch": epoch,
                "args": vars(args),
            }
            generator = {"state_dict": average.state_dict()}
            state = {
                "G": own_G.state_dict(),
                "D": own_D.state_dict(),
                "average": average.state_dict(),
                "opt_G": opt_G.state_dict(),
                "opt_D": opt_D.state_dict(),
            }
            common.save(folder / "g.pt", run | generator)
            common.save(folder / "ckpt.pt", run | state)
    print(f"finished: {folder}")
    print(f'next: python perturb.py --ckpt "{folder / "g.pt"}"')


if __name__ == "__main__":
    common.run(main)

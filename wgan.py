"""The Wasserstein GAN of report E. Its D is a critic: it estimates how far fakes are from the data.

python wgan.py                     # as published: RMSprop, weights of the critic clipped
python wgan.py --report            # the settings of report E's source: 150 epochs
python wgan.py --gp 10             # gradient penalty instead of clipping (WGAN-GP)
python wgan.py --resume --epochs 40

An epoch is one pass of the critic over the data: each of its steps gets new real images. With 5
steps of the critic for each step of the generator, an epoch has 93 steps of the generator, not 468;
with --gp, which takes 2, it has 234.
"""

import copy
from functools import partial
from math import inf
from pathlib import Path

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import common

SCRIPT = Path(__file__).stem  # its runs go to runs/SCRIPT: a copy of this file has its own

# ---- networks
# G maps noise z [N, z_dim] to images [N, 1, 28, 28] in [-1, 1].
# D maps images to scores [N]: higher for what it takes for real, and without bounds.


class Tanh(nn.Tanh):
    """Computes in float32 even if the layers compute in bfloat16, which has no number between 0.996
    and 1: there, a tanh would soon be exactly 1 and let no gradient pass."""

    def forward(self, x):
        return super().forward(x.float())


class Generator(nn.Module):
    def __init__(self, z_dim=100):
        super().__init__()
        self.fc1 = nn.Linear(z_dim, 1024)
        self.br1 = nn.Sequential(nn.BatchNorm1d(1024), nn.ReLU())
        self.fc2 = nn.Linear(1024, 128 * 7 * 7)
        self.br2 = nn.Sequential(nn.BatchNorm1d(128 * 7 * 7), nn.ReLU())
        self.conv1 = nn.Sequential(
            nn.ConvTranspose2d(128, 64, 4, 2, 1), nn.BatchNorm2d(64), nn.ReLU()
        )
        self.conv2 = nn.Sequential(nn.ConvTranspose2d(64, 1, 4, 2, 1), Tanh())

    def forward(self, z):
        x = self.br2(self.fc2(self.br1(self.fc1(z))))
        return self.conv2(self.conv1(x.view(-1, 128, 7, 7)))


class Discriminator(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(1, 32, 5, 1, 0), nn.LeakyReLU(0.1))
        self.pl1 = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Sequential(nn.Conv2d(32, 64, 5, 1, 0), nn.LeakyReLU(0.1))
        self.pl2 = nn.MaxPool2d(2, 2)
        self.fc1 = nn.Sequential(nn.Linear(64 * 4 * 4, 1024), nn.LeakyReLU(0.1))
        self.fc2 = nn.Linear(1024, 1)  # no Sigmoid: a score, not a probability

    def forward(self, x):
        x = self.pl2(self.conv2(self.pl1(self.conv1(x))))
        return self.fc2(self.fc1(x.flatten(1))).float().squeeze(1)


ARCHS = {"transpose": (Generator, Discriminator)}

# Our settings (docs/quality.md says why), then those of the source, which --report takes: the
# exercise of report E (docs/report-e.md), with --gp the paper. The exercise's 30 epochs have five
# times as many steps of G as ours, hence 150. The paper's epochs are those of larger images.
# lr_falls_after: from that epoch on, the rate is lr * lr_falls_after / epoch; inf: constant
# ema: weight of the past in G's moving average, which draws the samples; 0: a copy of G
# new_z: G learns from new noise, not from the images that D has just seen
# bf16: None means where it is faster
# fmt: off
COLUMNS = ("epochs", "batch_size", "lr", "lr_falls_after", "n_critic", "ema", "new_z", "bf16")
SETTINGS = {
    #        epochs batch   lr  falls n_critic  ema   new_z  bf16
    "clip": ((  20,  128,  5e-5,  inf,    5,   0.999, False, None),  # ours
             ( 150,  128,  5e-5,  inf,    5,   0.0,   True,  False)),  # --report
    "gp":   ((  20,  128,  5e-4,  inf,    2,   0.999, False, None),
             (  20,   64,  1e-4,  inf,    5,   0.0,   True,  False)),
}
# fmt: on

# ---- training

# What train_step returns, as losses.csv names it and losses.png draws it.
CURVES = {
    "Wasserstein estimate": ("distance",),
    "loss": ("loss_D", "loss_G"),
    "output of D": ("D(x)", "D(G(z))"),
}


def gradient_penalty(D, real, fake):
    """How far the slope of D is from 1, between real and fake images (Gulrajani et al., 2017)."""
    share = torch.rand(len(real), 1, 1, 1, device=real.device)
    between = (share * real + (1 - share) * fake).requires_grad_()
    (slope,) = torch.autograd.grad(D(between).sum(), between, create_graph=True)
    return (slope.flatten(1).norm(dim=1) - 1).square().mean()


def train_step(G, D, opt_G, opt_D, reals, zs, bf16=False, clip=0.01, gp=0.0, new_z=False):
    """A step of the critic for each batch of reals and of zs, then one of G."""
    autocast = torch.autocast(zs[0].device.type, torch.bfloat16, enabled=bf16)
    values = []
    for count, (real, z) in enumerate(zip(reals, zs), start=1):
        # D learns to score real images higher than generated ones. Clipped weights or the penalty
        # keep it from being steep, and then the difference estimates the Wasserstein distance (up
        # to a factor, if weights are clipped).
        with autocast, torch.set_grad_enabled(count == len(zs)):  # G learns from the last
            fake = G(z)
        with autocast:
            D_real, D_fake = D(real).mean(), D(fake.detach()).mean()
            penalty = gradient_penalty(D, real, fake.detach()) if gp else 0
        distance = D_real - D_fake
        loss_D = gp * penalty - distance
        opt_D.zero_grad()
        loss_D.backward()
        opt_D.step()
        if not gp:
            for weight in D.parameters():
                weight.data.clamp_(-clip, clip)
        values.append(torch.stack([distance, loss_D, D_real, D_fake]).detach())

    # G learns to raise the score of its images. D must not learn from this: while it is frozen, its
    # gradients are not even computed.
    D.requires_grad_(False)
    with autocast:
        score = D(G(torch.randn_like(z)) if new_z else fake)
    loss_G = -score.mean()
    opt_G.zero_grad()
    loss_G.backward()
    opt_G.step()
    D.requires_grad_(True)

    distance, loss_D, D_real, D_fake = torch.stack(values).mean(0)
    return torch.stack([distance, loss_D, loss_G.detach(), D_real, D_fake])


def update_average(average, G, weight):
    """Move the average of G's weights and BatchNorm statistics towards those of G."""
    for mean, newest in zip(average.state_dict().values(), G.state_dict().values()):
        if mean.is_floating_point():  # not BatchNorm's count of batches
            mean.lerp_(newest, weight)


def read_options():
    """What was typed or, with --resume, saved; the rest is a row of SETTINGS."""
    parser = common.make_parser(__doc__, COLUMNS, SETTINGS)
    add, number = parser.add_argument, common.number
    add("--arch", choices=ARCHS, default="transpose", help="the network (%(default)s)")
    add("--n-critic", type=number(int, 1), help="steps of D to one of G (see below)")
    either = parser.add_mutually_exclusive_group()
    bound, weight = number(float, 1e-12), number(float, 0)
    either.add_argument(
        "--clip", type=bound, default=0.01, help="bound of D's weights (%(default)s)"
    )
    either.add_argument(
        "--gp", type=weight, default=0.0, metavar="W", help="weight of a penalty: try 10"
    )
    args, checkpoint = common.parse_args(parser, SCRIPT)
    ours, source = SETTINGS["gp" if args.gp else "clip"]
    for name, value in zip(COLUMNS, source if args.report else ours):
        if getattr(args, name, None) is None:  # not typed, or a setting without an option
            setattr(args, name, value)
    return args, checkpoint


def main():
    args, checkpoint = read_options()
    per_step = args.n_critic * args.batch_size
    device = common.prepare_device(args.device, penalty=args.gp, max_pool=True)
    args.bf16 = common.bf16_is_faster(device) if args.bf16 is None else args.bf16
    images, args.dataset = common.load_images(args, per_step, device)
    steps = len(images) // per_step  # in an epoch: whole batches only

    torch.manual_seed(10_000 * args.seed)
    make_G, make_D = ARCHS[args.arch]
    G, D = make_G(args.z_dim), make_D()
    G, D = (net.to(device, memory_format=torch.channels_last) for net in (G, D))  # a faster layout
    rmsprop = partial(torch.optim.RMSprop, lr=args.lr)
    adam = partial(torch.optim.Adam, lr=args.lr, betas=(0.0, 0.9), fused=True)
    optimizer = adam if args.gp else rmsprop
    opt_G, opt_D = optimizer(G.parameters()), optimizer(D.parameters())
    # A moving average of G draws the samples: they change less from epoch to epoch than G's own.
    average = copy.deepcopy(G).eval().requires_grad_(False)
    fixed_z = torch.randn(64, args.z_dim).to(device)  # of all samples, also after --resume
    print(G, D, sep="\n")
    names = [*COLUMNS, "gp" if args.gp else "clip"]
    used = ", ".join(f"{name} {getattr(args, name)}" for name in names if name != "bf16")
    print(f"{device}, {'bfloat16' if args.bf16 else 'float32'}; {used}")
    folder = common.run_folder(args, checkpoint, SCRIPT)
    parts, done = {"G": G, "D": D, "average": average, "opt_G": opt_G, "opt_D": opt_D}, 0
    if checkpoint:
        with common.refuse_misfit(folder):
            for name, part in parts.items():
                part.load_state_dict(checkpoint[name])
        done, checkpoint = checkpoint["epoch"], None  # None frees its memory
    networks = G, D
    if common.WORLD > 1:  # under torchrun: several processes, each with a share of every batch
        torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
        networks = [DistributedDataParallel(net, broadcast_buffers=False) for net in networks]

    title = f"{SCRIPT}.py --gp {args.gp:g}, {args.dataset}"
    quarters = [round(args.epochs * part / 4) for part in range(5)]  # when samples are drawn
    with common.Log(folder, title, CURVES, args, steps, done) as log:
        if done == 0:
            log.draw(0, average(fixed_z), images, quarters)
        for epoch in range(done + 1, args.epochs + 1):
            # A seed for each epoch: a resumed run draws the numbers of one that never stopped.
            torch.manual_seed(10_000 * args.seed + epoch)
            order = torch.randperm(len(images)).to(device).split(per_step)[:steps]
            if common.RANK > 0:  # all processes share the order; noise and dropout differ
                torch.manual_seed(10_000 * args.seed + epoch + 1_000_000 * common.RANK)
            for group in opt_G.param_groups + opt_D.param_groups:
                group["lr"] = args.lr * min(1, args.lr_falls_after / epoch)
            learn = common.recorded(train_step, args, device)  # on CUDA a graph: see --no-graph
            for step, chosen in enumerate(order, start=(epoch - 1) * steps + 1):
                # This process's share of a batch, from bytes to [-1, 1], where Tanh's images are.
                real = images.index_select(0, chosen[common.RANK :: common.WORLD]) / 127.5 - 1
                z = torch.randn(len(real), args.z_dim, device=device)
                reals, zs = (each.unflatten(0, (args.n_critic, -1)) for each in (real, z))
                how = args.bf16, args.clip, args.gp, args.new_z
                log(learn(*networks, opt_G, opt_D, reals, zs, *how))
                # The weight falls from 1, so that the untrained G is forgotten, to 1 - ema.
                update_average(average, G, max(1 - args.ema, 10 / (step + 9)))

            log.end_epoch(epoch, G, D)
            if epoch in quarters or (args.sample_every and epoch % args.sample_every == 0):
                log.draw(epoch, average(fixed_z), images, quarters)
            about = {"script": SCRIPT, "arch": args.arch, "z_dim": args.z_dim}
            about |= {"epoch": epoch, "args": vars(args)}
            common.save(folder / "g.pt", about | {"state_dict": average.state_dict()})
            state = {name: part.state_dict() for name, part in parts.items()}
            common.save(folder / "ckpt.pt", about | state)
    print(f'finished: {folder}\nnext: python perturb.py --ckpt "{folder / "g.pt"}"')


if __name__ == "__main__":
    common.run(main)

"""MLP GANs on Fashion-MNIST: two fully connected networks play against each other.

python gan_mlp.py                       # the network of reports A, B and C
python gan_mlp.py --arch deep           # report D: wider and wider, with BatchNorm
python gan_mlp.py --arch hidden         # report E: two hidden layers of 256
python gan_mlp.py --report              # the settings of the report's source, not ours
python gan_mlp.py --resume --epochs 40  # go on with the newest run
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
# D maps images to the probability [N] that each of them is real.


class Tanh(nn.Tanh):
    """Computes in float32 even if the layers compute in bfloat16, which has no number between 0.996
    and 1: there, a tanh or a sigmoid would soon be exactly 1 and let no gradient pass."""

    def forward(self, x):
        return super().forward(x.float())


class Sigmoid(nn.Sigmoid):
    def forward(self, x):
        return super().forward(x.float())


class BasicGenerator(nn.Module):
    """Reports A, B and C: one hidden layer of 128."""

    def __init__(self, z_dim=100):
        super().__init__()
        self.fc1 = nn.Linear(z_dim, 128)
        self.nonlin1 = nn.LeakyReLU(0.2)
        self.fc2 = nn.Linear(128, 784)

    def forward(self, z):
        return torch.tanh(self.fc2(self.nonlin1(self.fc1(z))).float()).view(-1, 1, 28, 28)


class BasicDiscriminator(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(784, 128)
        self.nonlin1 = nn.LeakyReLU(0.2)
        self.fc2 = nn.Linear(128, 1)

    def forward(self, x):
        return torch.sigmoid(self.fc2(self.nonlin1(self.fc1(x.flatten(1)))).float()).squeeze(1)


class DeepGenerator(nn.Module):
    """Report D: four ever wider layers, all but the first with BatchNorm. Its eps of 0.8 is the
    source's, most likely a slip: the momentum was meant."""

    def __init__(self, z_dim=100):
        super().__init__()

        def block(inputs, outputs):
            return nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs, eps=0.8), nn.LeakyReLU(0.2)

        self.model = nn.Sequential(
            nn.Linear(z_dim, 128),
            nn.LeakyReLU(0.2),
            *block(128, 256),
            *block(256, 512),
            *block(512, 1024),
            nn.Linear(1024, 784),
            Tanh(),
        )

    def forward(self, z):
        return self.model(z).view(-1, 1, 28, 28)


class DeepDiscriminator(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = nn.Sequential(
            nn.Linear(784, 512),
            nn.LeakyReLU(0.2),
            nn.Linear(512, 256),
            nn.LeakyReLU(0.2),
            nn.Linear(256, 1),
            Sigmoid(),
        )

    def forward(self, x):
        return self.model(x.flatten(1)).squeeze(1)


class HiddenGenerator(nn.Module):
    """Report E."""

    def __init__(self, z_dim=100, h=256):
        super().__init__()
        self.model = nn.Sequential(
            nn.Linear(z_dim, h),
            nn.ReLU(),
            nn.Linear(h, h),
            nn.ReLU(),
            nn.Linear(h, 784),
            Tanh(),
        )

    def forward(self, z):
        return self.model(z).view(-1, 1, 28, 28)


class HiddenDiscriminator(nn.Module):
    """Report E's D gives 784 numbers and compares them with the image; here it gives one."""

    def __init__(self, h=256):
        super().__init__()
        self.model = nn.Sequential(
            nn.Linear(784, h),
            nn.LeakyReLU(0.1),
            nn.Linear(h, h),
            nn.LeakyReLU(0.1),
            nn.Linear(h, 1),
            Sigmoid(),
        )

    def forward(self, x):
        return self.model(x.flatten(1)).squeeze(1)


ARCHS = {
    "basic": (BasicGenerator, BasicDiscriminator),
    "deep": (DeepGenerator, DeepDiscriminator),
    "hidden": (HiddenGenerator, HiddenDiscriminator),
}

# Our settings (docs/quality.md says why), then those of the report's source, the public code on
# which it was written: --report takes them. Of basic that is a notebook, of deep PyTorch-GAN's
# gan.py, of hidden an exercise; docs/report-c.md, -d.md and -e.md say what is a guess.
# lr_falls_after: from that epoch on, the rate is lr * lr_falls_after / epoch; inf: constant
# r1_grows_after: from that epoch on, the penalty's weight is r1 * epoch / r1_grows_after
# ema: weight of the past in G's moving average, which draws the samples; 0: a copy of G
# new_z: G learns from new noise, not from the images that D has just seen
# bf16: False, since on one machine it was slower, on another the images were worse
# fmt: off
COLUMNS = ("epochs", "batch_size", "optimizer", "lr", "lr_falls_after",
           "beta1", "beta2", "r1", "r1_grows_after", "ema", "new_z", "bf16")
SETTINGS = {
    #        epochs batch optimizer lr falls beta1 beta2  r1 grows  ema   new_z  bf16
    "basic":  (( 20, 128, "adam", 1e-3, inf, 0.0, 0.99,  1.0, inf, 0.999, False, False),  # ours
               (  3,  64, "sgd",  0.03, inf, 0.9, 0.999, 0.0, inf, 0.0,   True, False)),  # --report
    "deep":   (( 20, 128, "adam", 1e-3, inf, 0.0, 0.99,  1.0, inf, 0.999, False, False),
               (200,  64, "adam", 2e-4, inf, 0.5, 0.999, 0.0, inf, 0.0,   True,  False)),
    "hidden": (( 20, 128, "adam", 1e-3,  40, 0.0, 0.99,  1.0,  20, 0.999, False, False),
               ( 30, 128, "adam", 2e-4, inf, 0.9, 0.999, 0.0, inf, 0.0,   True,  False)),
}
# fmt: on

# ---- training

# What train_step returns, in this order, for losses.csv. loss_D comes without the penalty.
CURVES = {"loss": ("loss_D", "loss_G"), "output of D": ("D(x)", "D(G(z))")}
EPS = 1e-12  # keeps a logarithm from being infinite


def slope_penalty(D, real):
    """R1 (Mescheder et al., 2018): half the squared slope of D's logit at real images.

    Without it, a D that is too good for G becomes steeper and steeper, until G learns nothing.
    """
    real = real.detach().requires_grad_()
    # logit() undoes the Sigmoid. clamp keeps it finite; outside these bounds the slope is 0.
    logit = D(real).clamp(1e-6, 1 - 1e-6).logit()
    (slope,) = torch.autograd.grad(logit.sum(), real, create_graph=True)
    return slope.square().flatten(1).sum(1).mean() / 2


def train_step(G, D, opt_G, opt_D, real, z, bf16=False, r1=0.0, new_z=False):
    """One step of D and one of G, on real images and as many generated ones."""
    autocast = torch.autocast(z.device.type, torch.bfloat16, enabled=bf16)

    # D learns to say 1 for real and 0 for generated images: it maximises log D(x) +
    # log(1 - D(G(z))). The loss is the negative, as BCELoss. detach: G learns nothing here.
    with autocast:
        fake = G(z)
        D_real, D_fake = D(real), D(fake.detach())
        penalty = slope_penalty(D, real[:16]) if r1 else 0  # a few images are enough
    loss_D = -(torch.log(D_real + EPS) + torch.log(1 - D_fake + EPS)).mean()
    opt_D.zero_grad()
    (loss_D + r1 * penalty).backward()
    opt_D.step()

    # G learns to make D say 1: it maximises log D(G(z)), with the D that has just learned.
    # D must not learn from this: while it is frozen, its gradients are not even computed.
    D.requires_grad_(False)
    with autocast:
        verdict = D(G(torch.randn_like(z)) if new_z else fake)
    loss_G = -torch.log(verdict + EPS).mean()
    opt_G.zero_grad()
    loss_G.backward()
    opt_G.step()
    D.requires_grad_(True)

    return torch.stack([loss_D, loss_G, D_real.mean(), D_fake.mean()]).detach()


def update_average(average, G, weight):
    """Move the average of G's weights and BatchNorm statistics towards those of G."""
    for mean, newest in zip(average.state_dict().values(), G.state_dict().values()):
        if mean.is_floating_point():  # not BatchNorm's count of batches
            mean.lerp_(newest, weight)


def read_options():
    """What was typed or, with --resume, saved; the rest is the network's row of SETTINGS."""
    parser = common.make_parser(__doc__, COLUMNS, SETTINGS)
    add, number = parser.add_argument, common.number
    add("--arch", choices=ARCHS, default="basic", help="the network (%(default)s)")
    add("--optimizer", choices=["adam", "sgd"], help="of both networks (see below)")
    add("--beta1", type=number(float, 0, 0.999), help="of Adam (see below)")
    add("--beta2", type=number(float, 0, 0.999999), help="of Adam (see below)")
    add("--r1", type=number(float, 0), help="weight of the penalty on D's slope (see below)")
    args, checkpoint = common.parse_args(parser, SCRIPT)
    ours, source = SETTINGS[args.arch]
    for name, value in zip(COLUMNS, source if args.report else ours):
        if getattr(args, name, None) is None:  # not typed, or a setting without an option
            setattr(args, name, value)
    return args, checkpoint


def main():
    args, checkpoint = read_options()
    device = common.prepare_device(args.device, penalty=args.r1)
    args.bf16 = common.bf16_is_faster(device) if args.bf16 is None else args.bf16
    images, args.dataset = common.load_images(args, args.batch_size, device)
    steps = len(images) // args.batch_size  # in an epoch: whole batches only

    torch.manual_seed(10_000 * args.seed)
    make_G, make_D = ARCHS[args.arch]
    G, D = make_G(args.z_dim), make_D()
    G, D = G.to(device), D.to(device)
    adam = partial(torch.optim.Adam, lr=args.lr, betas=(args.beta1, args.beta2), fused=True)
    sgd = partial(torch.optim.SGD, lr=args.lr, fused=True)
    optimizer = sgd if args.optimizer == "sgd" else adam
    opt_G, opt_D = optimizer(G.parameters()), optimizer(D.parameters())
    # A moving average of G draws the samples: they change less from epoch to epoch than G's own.
    average = copy.deepcopy(G).eval().requires_grad_(False)
    fixed_z = torch.randn(64, args.z_dim).to(device)  # of all samples, also after --resume
    print(G, D, sep="\n")
    unused = ["bf16"] + ["beta1", "beta2"] * (args.optimizer == "sgd")
    used = ", ".join(f"{name} {getattr(args, name)}" for name in COLUMNS if name not in unused)
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

    title = f"{SCRIPT}.py --arch {args.arch}, {args.dataset}"
    quarters = [round(args.epochs * part / 4) for part in range(5)]  # when samples are drawn
    with common.Log(folder, title, CURVES, args, steps, done) as log:
        if done == 0:
            log.draw(0, average(fixed_z), images, quarters)
        for epoch in range(done + 1, args.epochs + 1):
            # A seed for each epoch: a resumed run draws the numbers of one that never stopped.
            torch.manual_seed(10_000 * args.seed + epoch)
            order = torch.randperm(len(images)).to(device).split(args.batch_size)[:steps]
            if common.RANK > 0:  # all processes share the order; noise and dropout differ
                torch.manual_seed(10_000 * args.seed + epoch + 1_000_000 * common.RANK)
            for group in opt_G.param_groups + opt_D.param_groups:
                group["lr"] = args.lr * min(1, args.lr_falls_after / epoch)
            r1 = args.r1 * max(1, epoch / args.r1_grows_after)
            learn = common.recorded(train_step, args, device)  # on CUDA a graph: see --no-graph
            for step, chosen in enumerate(order, start=(epoch - 1) * steps + 1):
                # This process's share of a batch, from bytes to [-1, 1], where Tanh's images are.
                real = images.index_select(0, chosen[common.RANK :: common.WORLD]) / 127.5 - 1
                z = torch.randn(len(real), args.z_dim, device=device)
                log(learn(*networks, opt_G, opt_D, real, z, args.bf16, r1, args.new_z))
                # The weight falls from 1, so that the untrained G is forgotten, to 1 - ema.
                update_average(average, G, max(1 - args.ema, 10 / (step + 9)))

            means, last = log.end_epoch(epoch, G, D)
            if means["D(x)"] > 0.99 and means["D(G(z))"] < 0.01:
                log.say("D is never wrong, so G learns nothing any more: try a smaller --lr")
            if last["loss_G"] < 0.01 or last["D(x)"] < EPS:  # a sigmoid at 1 or 0 has no gradient
                raise common.UserError(f"D is stuck, epoch {epoch} unsaved: try a smaller --lr")
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

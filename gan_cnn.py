"""Small convolutional GANs on Fashion-MNIST: four generators and discriminators of three reports.

python gan_cnn.py                   # report B: 7x7 kernels between the image and a vector
python gan_cnn.py --arch conv4      # report A: four layers, 4x4 kernels
python gan_cnn.py --arch separable  # report A's promise: conv4 with depthwise convolutions
python gan_cnn.py --arch tiny       # report C: two small convolutions in each network
python gan_cnn.py --report          # the settings of the report's source, not ours
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


class Conv7Generator(nn.Module):
    """Report B. The sides of the picture grow 1, 7, 14, 28."""

    def __init__(self, z_dim=100):
        super().__init__()
        self.main = nn.Sequential(
            nn.ConvTranspose2d(z_dim, 128, 7, 1, 0, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.ConvTranspose2d(128, 64, 4, 2, 1, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.ConvTranspose2d(64, 1, 4, 2, 1, bias=False),
            Tanh(),
        )

    def forward(self, z):
        return self.main(z[:, :, None, None])


class Conv7Discriminator(nn.Module):
    def __init__(self):
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(1, 64, 4, 2, 1, bias=False),
            nn.LeakyReLU(0.2),
            nn.Conv2d(64, 128, 4, 2, 1, bias=False),
            nn.BatchNorm2d(128),
            nn.LeakyReLU(0.2),
            nn.Conv2d(128, 1, 7, 1, 0, bias=False),
            Sigmoid(),
        )

    def forward(self, x):
        return self.main(x).flatten()


class Conv4Generator(nn.Module):
    """Report A's own network. The sides of the picture grow 1, 4, 7, 14, 28."""

    def __init__(self, z_dim=100):
        super().__init__()
        self.main = nn.Sequential(
            nn.ConvTranspose2d(z_dim, 256, 4, 1, 0),
            nn.BatchNorm2d(256),
            nn.ReLU(),
            nn.ConvTranspose2d(256, 128, 3, 2, 1),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.ConvTranspose2d(128, 64, 4, 2, 1),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.ConvTranspose2d(64, 1, 4, 2, 1),
            Tanh(),
        )

    def forward(self, z):
        return self.main(z[:, :, None, None])


class Conv4Discriminator(nn.Module):
    def __init__(self):
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(1, 64, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(64, 128, 4, 2, 1),
            nn.BatchNorm2d(128),
            nn.LeakyReLU(0.2),
            nn.Conv2d(128, 256, 3, 2, 1),
            nn.BatchNorm2d(256),
            nn.LeakyReLU(0.2),
            nn.Conv2d(256, 1, 4, 1, 0),
            Sigmoid(),
        )

    def forward(self, x):
        return self.main(x).flatten()


def separable(conv, inputs, outputs, *shape):
    """A convolution in two steps: each channel on its own (depthwise), then 1x1 across them."""
    return nn.Sequential(conv(inputs, inputs, *shape, groups=inputs), nn.Conv2d(inputs, outputs, 1))


class SeparableGenerator(Conv4Generator):
    """What report A's text promises and its printed network lacks: depthwise convolutions."""

    def __init__(self, z_dim=100):
        super().__init__(z_dim)
        self.main[3] = separable(nn.ConvTranspose2d, 256, 128, 3, 2, 1)
        self.main[6] = separable(nn.ConvTranspose2d, 128, 64, 4, 2, 1)


class SeparableDiscriminator(Conv4Discriminator):
    def __init__(self):
        super().__init__()
        self.main[2] = separable(nn.Conv2d, 64, 128, 4, 2, 1)
        self.main[5] = separable(nn.Conv2d, 128, 256, 3, 2, 1)


class TinyGenerator(nn.Module):
    """Report C, as printed. The last LeakyReLU shrinks what is negative to a fifth: to paint a
    black pixel (-1) the layer before it must reach -5, while a white one takes 1."""

    def __init__(self, z_dim=100):
        super().__init__()
        self.fc1 = nn.Sequential(nn.Linear(z_dim, 900), nn.LeakyReLU(0.2))
        self.conv1 = nn.Sequential(
            nn.Conv2d(1, 64, 2, 1, 0),
            nn.LeakyReLU(0.2),
            nn.Conv2d(64, 1, 2, 1, 0),
            nn.LeakyReLU(0.2),
        )

    def forward(self, z):
        return self.conv1(self.fc1(z).view(-1, 1, 30, 30)).float()


class TinyDiscriminator(nn.Module):
    """Report C, as printed. The last LeakyReLU shrinks what is negative here, too: for an output of
    0.1 the layer before it must reach -11, not -2.2. So D is seldom sure that an image is fake."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(1, 1, 2, 2, 0), nn.LeakyReLU(0.2))
        self.fc = nn.Sequential(
            nn.Linear(196, 128),
            nn.LeakyReLU(0.2),
            nn.Linear(128, 1),
            nn.LeakyReLU(0.2),
        )

    def forward(self, x):
        return torch.sigmoid(self.fc(self.conv1(x).flatten(1)).float()).squeeze(1)


ARCHS = {
    "conv7": (Conv7Generator, Conv7Discriminator),
    "conv4": (Conv4Generator, Conv4Discriminator),
    "separable": (SeparableGenerator, SeparableDiscriminator),
    "tiny": (TinyGenerator, TinyDiscriminator),
}

# Our settings (docs/quality.md says why), then those of the report's source, the public code on
# which it was written: --report takes them. Of conv7 that is a homework, of tiny a notebook; those
# of conv4 are a guess. docs/report-a.md, -b.md and -c.md say more.
# lr_falls_after: from that epoch on, the rate is lr * lr_falls_after / epoch; inf: constant
# r1_grows_after: from that epoch on, the penalty's weight is r1 * epoch / r1_grows_after
# ema: weight of the past in G's moving average, which draws the samples; 0: a copy of G
# new_z: G learns from new noise, not from the images that D has just seen
# bf16: None means where it is faster; with depthwise convolutions it never is
# fmt: off
COLUMNS = ("epochs", "batch_size", "optimizer", "lr", "lr_falls_after",
           "beta1", "r1", "r1_grows_after", "ema", "new_z", "bf16")
SETTINGS = {
    #           epochs batch optimizer lr falls beta1  r1 grows  ema   new_z  bf16
    "conv7":     (( 20,  64, "adam", 2e-3, inf, 0.5,  0.1, inf, 0.999, False, None),  # ours
                  (  3,  64, "adam", 2e-4, inf, 0.5,  0.0, inf, 0.0,   True,  False)),  # --report
    "conv4":     (( 20,  64, "adam", 2e-3, inf, 0.5,  0.1, inf, 0.999, False, None),
                  ( 20,  64, "adam", 2e-4, inf, 0.5,  0.0, inf, 0.0,   True,  False)),
    "separable": (( 20,  64, "adam", 2e-3, inf, 0.5,  0.1, inf, 0.999, False, False),
                  ( 20,  64, "adam", 2e-4, inf, 0.5,  0.0, inf, 0.0,   True,  False)),
    "tiny":      (( 20,  64, "adam", 2e-3, inf, 0.5,  0.1, inf, 0.999, False, None),
                  ( 20,  64, "sgd",  0.03, inf, 0.5,  0.0, inf, 0.0,   True,  False)),
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
    add("--arch", choices=ARCHS, default="conv7", help="the network (%(default)s)")
    add("--optimizer", choices=["adam", "sgd"], help="of both networks (see below)")
    add("--beta1", type=number(float, 0, 0.999), help="of Adam (see below)")
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
    G, D = (net.to(device, memory_format=torch.channels_last) for net in (G, D))  # a faster layout
    adam = partial(torch.optim.Adam, lr=args.lr, betas=(args.beta1, 0.999), fused=True)
    sgd = partial(torch.optim.SGD, lr=args.lr, fused=True)
    optimizer = sgd if args.optimizer == "sgd" else adam
    opt_G, opt_D = optimizer(G.parameters()), optimizer(D.parameters())
    # A moving average of G draws the samples: they change less from epoch to epoch than G's own.
    average = copy.deepcopy(G).eval().requires_grad_(False)
    fixed_z = torch.randn(64, args.z_dim).to(device)  # of all samples, also after --resume
    print(G, D, sep="\n")
    unused = ["bf16"] + ["beta1"] * (args.optimizer == "sgd")
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

"""The Wasserstein GAN of report E: D is a critic that estimates how far the fakes are from the data.

    python wgan.py                     # as published: RMSprop, weights of the critic clipped
    python wgan.py --gp 10             # gradient penalty instead of clipping (WGAN-GP)
    python wgan.py --resume --epochs 40

An epoch is one pass of the critic over the data: every one of its steps gets real images of its
own, so at 5 of them to one of the generator, an epoch has 93 steps of the generator, not 468; with
--gp, at 2 to one, 234.
"""

import functools

import torch
from torch import nn

import common

# ---- networks
# G maps noise z [N, z_dim] to images [N, 1, 28, 28] in [-1, 1].
# D maps images to scores [N]: higher for what it takes for real, and without bounds.


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
        self.conv2 = nn.Sequential(nn.ConvTranspose2d(64, 1, 4, 2, 1), nn.Tanh())

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
        return self.fc2(self.fc1(x.flatten(1))).squeeze(1)


ARCHS = {"transpose": (Generator, Discriminator)}

# ---- training

# What train_step returns, as losses.csv names it and losses.png draws it.
CURVES = {
    "Wasserstein estimate": ("distance",),
    "loss": ("loss_D", "loss_G"),
    "output of D": ("D(x)", "D(G(z))"),
}


def gradient_penalty(D, real, fake):
    """How far the slope of D is from 1, between real and fake images (Gulrajani et al.)."""
    share = torch.rand(len(real), 1, 1, 1, device=real.device)
    between = (share * real + (1 - share) * fake).requires_grad_()
    (slope,) = torch.autograd.grad(D(between).sum(), between, create_graph=True)
    return (slope.flatten(1).norm(dim=1) - 1).square().mean()


def train_step(G, D, opt_G, opt_D, reals, zs, clip=0.01, gp=None):
    """A critic step for each batch of reals [n_critic, N, 1, 28, 28] and zs, then one of G."""
    values = []
    for real, z in zip(reals, zs):
        fake = G(z)
        # D pulls its means on real and on made images apart. Kept from being steep, by clipped
        # weights or by the penalty, the gap it reaches estimates the Wasserstein distance.
        D_real, D_fake = D(real).mean(), D(fake.detach()).mean()
        distance = D_real - D_fake
        loss_D = -distance
        if gp:
            loss_D = loss_D + gp * gradient_penalty(D, real, fake.detach())
        opt_D.zero_grad()
        loss_D.backward()
        opt_D.step()
        if not gp:
            for weight in D.parameters():
                weight.data.clamp_(-clip, clip)
        values.append(torch.stack([distance, loss_D, D_real, D_fake]).detach())

    # G raises the score of the last images. D only judges here, and freezing it saves computing
    # gradients that nobody uses.
    D.requires_grad_(False)
    loss_G = -D(fake).mean()
    opt_G.zero_grad()
    loss_G.backward()
    opt_G.step()
    D.requires_grad_(True)

    distance, loss_D, D_real, D_fake = torch.stack(values).mean(0)
    return torch.stack([distance, loss_D, loss_G.detach(), D_real, D_fake])


def main():
    parser, number = common.Parser(__doc__), common.number
    add, positive = parser.add_argument, number(float, 1e-12, 1e30)
    add("--arch", choices=ARCHS, default="transpose", help="the network (default: transpose)")
    add("--epochs", type=number(int, 1), default=20, help="passes over the data (default: 20)")
    add("--batch-size", type=number(int, 2), default=128, help="images a step (default: 128)")
    add("--lr", type=positive, help="learning rate of both (default: 5e-5; with --gp 5e-4)")
    add("--n-critic", type=number(int, 1), help="steps of D to one of G (default: 5; with --gp 2)")
    add("--clip", type=positive, default=0.01, help="bound of the critic's weights (default: 0.01)")
    add("--ema", type=number(float, 0, 1), default=0.999, help="decay of G's mean (default: 0.999)")
    add("--gp", type=positive, metavar="W", help="penalise D's slope, do not clip (try 10)")
    add(
        "--z-dim", type=number(int, 1, common.MAX_Z), default=100, help="length of z (default: 100)"
    )
    common.add_run_options(parser)
    args, checkpoint = common.parse_args(parser)
    args.lr = args.lr or (5e-4 if args.gp else 5e-5)
    args.n_critic = args.n_critic or (2 if args.gp else 5)

    per_step = args.n_critic * args.batch_size
    device = common.pick_device(args.device)
    if args.gp and device.type == "mps":
        raise common.UserError("--gp needs second derivatives that mps lacks: add --device cpu")
    images = common.load_images(args, per_step).to(device)
    torch.manual_seed(common.stream(args.seed))
    make_G, make_D = ARCHS[args.arch]
    G, D = make_G(args.z_dim), make_D()
    G.to(device, memory_format=torch.channels_last)  # the faster layout for convolutions
    D.to(device, memory_format=torch.channels_last)
    if args.gp:
        adam = {"lr": args.lr, "betas": (0.0, 0.9), "fused": True}
        opt_G, opt_D = (torch.optim.Adam(net.parameters(), **adam) for net in (G, D))
    else:
        opt_G, opt_D = (torch.optim.RMSprop(net.parameters(), lr=args.lr) for net in (G, D))

    # Samples are drawn with the average of G's weights over its last steps, which wanders less.
    average = common.Average(G, args.ema)
    opt_G.register_step_post_hook(average.update)

    steps = len(images) // per_step
    state = {"G": G, "D": D, "opt_G": opt_G, "opt_D": opt_D, "average": average}
    step = functools.partial(train_step, clip=args.clip, gp=args.gp)
    step = common.accelerate(step, G, D, opt_G, opt_D, args, batch_dim=1)
    model = "WGAN-GP" if args.gp else "WGAN"
    with common.Run(model, args, checkpoint, images, steps, CURVES, state) as run:
        for epoch in range(run.epoch + 1, args.epochs + 1):
            torch.manual_seed(common.stream(args.seed, epoch))
            for real in common.batches(images, per_step):
                reals = real.view(args.n_critic, args.batch_size, 1, 28, 28)
                zs = torch.randn(args.n_critic, args.batch_size, args.z_dim, device=device)
                run.log(step(reals, zs))
            run.end_epoch()
        run.finish()


if __name__ == "__main__":
    common.run_main(main)

"""MLP GANs on Fashion-MNIST: two fully connected networks play against each other.

python gan_mlp.py                       # the network of reports A, B and C
python gan_mlp.py --arch deep           # report D: wider and wider, with BatchNorm
python gan_mlp.py --arch hidden         # report E: one hidden layer more
python gan_mlp.py --lr 2e-4 --beta1 0.9 --ema 0  # as most tutorials train it
python gan_mlp.py --resume --epochs 40  # go on with the newest run
"""

import torch
import torch.nn.functional as F
from torch import nn

import common

# ---- networks
# G maps noise z [N, z_dim] to images [N, 1, 28, 28] in [-1, 1].
# D maps images to the probability [N] that each of them is real.


class BasicGenerator(nn.Module):
    """Reports A, B and C: one hidden layer of 128."""

    def __init__(self, z_dim=100):
        super().__init__()
        self.fc1 = nn.Linear(z_dim, 128)
        self.nonlin1 = nn.LeakyReLU(0.2)
        self.fc2 = nn.Linear(128, 784)

    def forward(self, z):
        return torch.tanh(self.fc2(self.nonlin1(self.fc1(z)))).view(-1, 1, 28, 28)


class BasicDiscriminator(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(784, 128)
        self.nonlin1 = nn.LeakyReLU(0.2)
        self.fc2 = nn.Linear(128, 1)

    def forward(self, x):
        return torch.sigmoid(self.fc2(self.nonlin1(self.fc1(x.flatten(1))))).squeeze(1)


class DeepGenerator(nn.Module):
    """Report D: four ever wider layers, BatchNorm after each LeakyReLU but the first."""

    def __init__(self, z_dim=100):
        super().__init__()
        self.model = nn.Sequential(
            nn.Linear(z_dim, 128),
            nn.LeakyReLU(0.2),
            nn.Linear(128, 256),
            nn.LeakyReLU(0.2),
            nn.BatchNorm1d(256),
            nn.Linear(256, 512),
            nn.LeakyReLU(0.2),
            nn.BatchNorm1d(512),
            nn.Linear(512, 1024),
            nn.LeakyReLU(0.2),
            nn.BatchNorm1d(1024),
            nn.Linear(1024, 784),
            nn.Tanh(),
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
            nn.Sigmoid(),
        )

    def forward(self, x):
        return self.model(x.flatten(1)).squeeze(1)


class HiddenGenerator(nn.Module):
    """Report E: two hidden layers of h."""

    def __init__(self, z_dim=100, h=256):
        super().__init__()
        self.model = nn.Sequential(
            nn.Linear(z_dim, h),
            nn.ReLU(),
            nn.Linear(h, h),
            nn.ReLU(),
            nn.Linear(h, 784),
            nn.Tanh(),
        )

    def forward(self, z):
        return self.model(z).view(-1, 1, 28, 28)


class HiddenDiscriminator(nn.Module):
    """Report E's last layer had 784 outputs, compared with the image itself; D must say one thing."""

    def __init__(self, h=256):
        super().__init__()
        self.model = nn.Sequential(
            nn.Linear(784, h),
            nn.LeakyReLU(0.1),
            nn.Linear(h, h),
            nn.LeakyReLU(0.1),
            nn.Linear(h, 1),
            nn.Sigmoid(),
        )

    def forward(self, x):
        return self.model(x.flatten(1)).squeeze(1)


ARCHS = {
    "basic": (BasicGenerator, BasicDiscriminator),
    "deep": (DeepGenerator, DeepDiscriminator),
    "hidden": (HiddenGenerator, HiddenDiscriminator),
}

# ---- training

# What train_step returns, as losses.csv names it and losses.png draws it.
CURVES = {"loss": ("loss_D", "loss_G"), "output of D": ("D(x)", "D(G(z))")}


def train_step(G, D, opt_G, opt_D, real, z):
    """One step for each player, on real images and as many made from z."""
    ones, zeros = torch.ones(len(real), device=z.device), torch.zeros(len(real), device=z.device)
    fake = G(z)

    # D learns to call real images 1 and made ones 0: it maximises log D(x) + log(1 - D(G(z))).
    # detach: G does not learn from this half.
    D_real, D_fake = D(real), D(fake.detach())
    loss_D = F.binary_cross_entropy(D_real, ones) + F.binary_cross_entropy(D_fake, zeros)
    opt_D.zero_grad()
    loss_D.backward()
    opt_D.step()

    # G learns to have its images called 1: it maximises log D(G(z)). D only judges here, and
    # freezing it saves computing gradients that nobody uses.
    D.requires_grad_(False)
    loss_G = F.binary_cross_entropy(D(fake), ones)
    opt_G.zero_grad()
    loss_G.backward()
    opt_G.step()
    D.requires_grad_(True)

    return torch.stack([loss_D, loss_G, D_real.mean(), D_fake.mean()]).detach()


def main():
    parser, number = common.Parser(__doc__), common.number
    add, positive = parser.add_argument, number(float, 1e-12, 1e30)
    add("--arch", choices=ARCHS, default="basic", help="the network (default: basic)")
    add("--epochs", type=number(int, 1), default=20, help="passes over the data (default: 20)")
    add("--batch-size", type=number(int, 2), default=128, help="images a step (default: 128)")
    add("--lr", type=positive, default=1e-3, help="learning rate of both (default: 1e-3)")
    add("--beta1", type=number(float, 0, 0.999), default=0.5, help="Adam's beta1 (default: 0.5)")
    add("--ema", type=number(float, 0, 1), default=0.999, help="decay of G's mean (default: 0.999)")
    add(
        "--z-dim", type=number(int, 1, common.MAX_Z), default=100, help="length of z (default: 100)"
    )
    common.add_run_options(parser)
    args, checkpoint = common.parse_args(parser)

    device = common.pick_device(args.device)
    images = common.load_images(args, args.batch_size).to(device)
    torch.manual_seed(common.stream(args.seed))
    make_G, make_D = ARCHS[args.arch]
    G, D = make_G(args.z_dim).to(device), make_D().to(device)
    adam = {"lr": args.lr, "betas": (args.beta1, 0.999), "fused": True}
    opt_G = torch.optim.Adam(G.parameters(), **adam)
    opt_D = torch.optim.Adam(D.parameters(), **adam)
    # Samples are drawn with the average of G's weights over its last steps, which wanders less.
    average = common.Average(G, args.ema)
    opt_G.register_step_post_hook(average.update)

    steps = len(images) // args.batch_size
    state = {"G": G, "D": D, "opt_G": opt_G, "opt_D": opt_D, "average": average}
    step = common.accelerate(train_step, G, D, opt_G, opt_D, args)
    with common.Run("GAN", args, checkpoint, images, steps, CURVES, state) as run:
        for epoch in range(run.epoch + 1, args.epochs + 1):
            torch.manual_seed(common.stream(args.seed, epoch))
            for real in common.batches(images, args.batch_size):
                z = torch.randn(args.batch_size, args.z_dim, device=device)
                run.log(step(real, z))
            run.end_epoch()
        run.finish()


if __name__ == "__main__":
    common.run_main(main)

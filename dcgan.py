"""DCGANs on Fashion-MNIST: convolutions with BatchNorm, trained as Radford et al. proposed.

python dcgan.py                            # report E: transposed convolutions
python dcgan.py --arch upsample            # reports A and D: upsampling, then convolutions
python dcgan.py --epochs 200 --device cuda
python dcgan.py --resume --epochs 400      # go on with the newest run
"""

import torch
import torch.nn.functional as F
from torch import nn

import common

# ---- networks
# G maps noise z [N, z_dim] to images [N, 1, 28, 28] in [-1, 1].
# D maps images to the probability [N] that each of them is real.


class UpsampleGenerator(nn.Module):
    """Reports A and D. The sides of the picture grow 7, 14, 28 by doubling pixels."""

    def __init__(self, z_dim=100):
        super().__init__()
        self.l1 = nn.Sequential(nn.Linear(z_dim, 128 * 7 * 7))
        self.conv_blocks = nn.Sequential(
            nn.BatchNorm2d(128),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(128, 128, 3, 1, 1),
            nn.BatchNorm2d(128, eps=0.8),
            nn.LeakyReLU(0.2),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(128, 64, 3, 1, 1),
            nn.BatchNorm2d(64, eps=0.8),
            nn.LeakyReLU(0.2),
            nn.Conv2d(64, 1, 3, 1, 1),
            nn.Tanh(),
        )

    def forward(self, z):
        return self.conv_blocks(self.l1(z).view(-1, 128, 7, 7))


class UpsampleDiscriminator(nn.Module):
    """The sides of the picture shrink 28, 14, 7, 4, 2."""

    def __init__(self):
        super().__init__()

        def block(inputs, outputs):
            return [nn.Conv2d(inputs, outputs, 3, 2, 1), nn.LeakyReLU(0.2), nn.Dropout2d(0.25)]

        self.model = nn.Sequential(
            *block(1, 16),
            *block(16, 32),
            nn.BatchNorm2d(32, eps=0.8),
            *block(32, 64),
            nn.BatchNorm2d(64, eps=0.8),
            *block(64, 128),
            nn.BatchNorm2d(128, eps=0.8),
        )
        self.adv_layer = nn.Sequential(nn.Linear(128 * 2 * 2, 1), nn.Sigmoid())

    def forward(self, x):
        return self.adv_layer(self.model(x).flatten(1)).squeeze(1)


def init_weights(layer):
    """The DCGAN paper's start: weights from N(0, 0.02), BatchNorm's scales from N(1, 0.02).

    Not for the upsampling networks: their narrow discriminator, whose BatchNorm has an eps of 0.8
    and so hardly amplifies what is small, then takes two epochs to see any difference.
    """
    if isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(layer.weight, 0.0, 0.02)
    elif isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
        nn.init.normal_(layer.weight, 1.0, 0.02)


class TransposeGenerator(nn.Module):
    """Report E, which ends in a Sigmoid: images in [0, 1]. Tanh agrees with the data's [-1, 1]."""

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
        self.apply(init_weights)

    def forward(self, z):
        x = self.br2(self.fc2(self.br1(self.fc1(z))))
        return self.conv2(self.conv1(x.view(-1, 128, 7, 7)))


class TransposeDiscriminator(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(1, 32, 5, 1, 0), nn.LeakyReLU(0.1))
        self.pl1 = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Sequential(nn.Conv2d(32, 64, 5, 1, 0), nn.LeakyReLU(0.1))
        self.pl2 = nn.MaxPool2d(2, 2)
        self.fc1 = nn.Sequential(nn.Linear(64 * 4 * 4, 1024), nn.LeakyReLU(0.1))
        self.fc2 = nn.Sequential(nn.Linear(1024, 1), nn.Sigmoid())
        self.apply(init_weights)

    def forward(self, x):
        x = self.pl2(self.conv2(self.pl1(self.conv1(x))))
        return self.fc2(self.fc1(x.flatten(1))).squeeze(1)


ARCHS = {
    "upsample": (UpsampleGenerator, UpsampleDiscriminator),
    "transpose": (TransposeGenerator, TransposeDiscriminator),
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
    add("--arch", choices=ARCHS, default="transpose", help="the network (default: transpose)")
    add("--epochs", type=number(int, 1), default=20, help="passes over the data (default: 20)")
    add("--batch-size", type=number(int, 2), default=128, help="images a step (default: 128)")
    add("--lr", type=positive, help="learning rate of both (default: 2e-4; upsample 1e-3)")
    add("--beta1", type=number(float, 0, 0.999), default=0.5, help="Adam's beta1 (default: 0.5)")
    add("--ema", type=number(float, 0, 1), default=0.999, help="decay of G's mean (default: 0.999)")
    add(
        "--z-dim", type=number(int, 1, common.MAX_Z), default=100, help="length of z (default: 100)"
    )
    common.add_run_options(parser)
    args, checkpoint = common.parse_args(parser)
    # The transpose discriminator has neither Dropout nor BatchNorm to hold it back: taught faster,
    # it outgrows G, which then draws fewer and fewer kinds of garments.
    args.lr = args.lr or (1e-3 if args.arch == "upsample" else 2e-4)

    device = common.pick_device(args.device)
    images = common.load_images(args, args.batch_size).to(device)
    torch.manual_seed(common.stream(args.seed))
    make_G, make_D = ARCHS[args.arch]
    G, D = make_G(args.z_dim), make_D()
    G.to(device, memory_format=torch.channels_last)  # the faster layout for convolutions
    D.to(device, memory_format=torch.channels_last)
    adam = {"lr": args.lr, "betas": (args.beta1, 0.999), "fused": True}
    opt_G = torch.optim.Adam(G.parameters(), **adam)
    opt_D = torch.optim.Adam(D.parameters(), **adam)
    # Samples are drawn with the average of G's weights over its last steps, which wanders less.
    average = common.Average(G, args.ema)
    opt_G.register_step_post_hook(average.update)

    steps = len(images) // args.batch_size
    state = {"G": G, "D": D, "opt_G": opt_G, "opt_D": opt_D, "average": average}
    step = common.accelerate(train_step, G, D, opt_G, opt_D, args)
    with common.Run("DCGAN", args, checkpoint, images, steps, CURVES, state) as run:
        for epoch in range(run.epoch + 1, args.epochs + 1):
            torch.manual_seed(common.stream(args.seed, epoch))
            for real in common.batches(images, args.batch_size):
                z = torch.randn(args.batch_size, args.z_dim, device=device)
                run.log(step(real, z))
            run.end_epoch()
        run.finish()


if __name__ == "__main__":
    common.run_main(main)

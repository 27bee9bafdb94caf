"""Small convolutional GANs on Fashion-MNIST: four generators and discriminators of three reports.

python gan_cnn.py                   # report B: 7x7 kernels between the image and a vector
python gan_cnn.py --arch conv4      # report A: four layers, 4x4 kernels
python gan_cnn.py --arch separable  # report A's promise: conv4 with depthwise convolutions
python gan_cnn.py --arch tiny       # report C: two small convolutions in each network
"""

import torch
import torch.nn.functional as F
from torch import nn

import common

# ---- networks
# G maps noise z [N, z_dim] to images [N, 1, 28, 28] in [-1, 1].
# D maps images to the probability [N] that each of them is real.


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
            nn.Tanh(),
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
            nn.Sigmoid(),
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
            nn.Tanh(),
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
            nn.Sigmoid(),
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
    """Report C, as printed. The last LeakyReLU shrinks what is negative to a fifth: to paint a black
    pixel (-1) the layer before it must reach -5, while a white one takes 1."""

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
        return self.conv1(self.fc1(z).view(-1, 1, 30, 30))


class TinyDiscriminator(nn.Module):
    """Report C, as printed. The LeakyReLU before the sigmoid does the same to D's "fake": to say
    0.1 instead of 0.5 takes -11 where -2.2 would have done, so D stays mild with what G makes."""

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
        return torch.sigmoid(self.fc(self.conv1(x).flatten(1))).squeeze(1)


ARCHS = {
    "conv7": (Conv7Generator, Conv7Discriminator),
    "conv4": (Conv4Generator, Conv4Discriminator),
    "separable": (SeparableGenerator, SeparableDiscriminator),
    "tiny": (TinyGenerator, TinyDiscriminator),
}


def cost(arch):
    """Parameters, and multiply-adds for one image, of a generator and its discriminator."""
    G, D = (network().eval() for network in ARCHS[arch])
    multiply_adds = 0

    def count(layer, inputs, output):
        # Each weight works once per pixel: of the output, or of the input of a transposed one.
        nonlocal multiply_adds
        pixels = inputs[0] if isinstance(layer, nn.ConvTranspose2d) else output
        multiply_adds += layer.weight.numel() * pixels[0, 0].numel()

    layers = [*G.modules(), *D.modules()]
    for layer in layers:
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            layer.register_forward_hook(count)
    D(G(torch.zeros(1, 100)))
    return sum(p.numel() for net in (G, D) for p in net.parameters()), multiply_adds


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
    add("--arch", choices=ARCHS, default="conv7", help="the network (default: conv7)")
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
    if args.arch == "separable":
        for arch in ("conv4", "separable"):
            common.say("{}: {:,} parameters, {:,} multiply-adds".format(arch, *cost(arch)))

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
    with common.Run("CNN-GAN", args, checkpoint, images, steps, CURVES, state) as run:
        for epoch in range(run.epoch + 1, args.epochs + 1):
            torch.manual_seed(common.stream(args.seed, epoch))
            for real in common.batches(images, args.batch_size):
                z = torch.randn(args.batch_size, args.z_dim, device=device)
                run.log(step(real, z))
            run.end_epoch()
        run.finish()


if __name__ == "__main__":
    common.run_main(main)

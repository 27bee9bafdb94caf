"""Small convolutional GANs on Fashion-MNIST: four generators and discriminators of three reports.

python gan_cnn.py                   # report B: 7x7 kernels between the image and a vector
python gan_cnn.py --arch conv4      # report A: four layers, 4x4 kernels
python gan_cnn.py --arch separable  # report A's promise: conv4 with depthwise convolutions
python gan_cnn.py --arch tiny       # report C: two small convolutions in each network
"""

import copy
from pathlib import Path

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.flop_counter import FlopCounterMode

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


def cost(arch, z_dim=100):
    """Parameters, and multiply-adds for one image, of a generator and its discriminator."""
    make_G, make_D = ARCHS[arch]
    G, D = make_G(z_dim).eval(), make_D().eval()
    with FlopCounterMode(display=False) as counter:
        D(G(torch.zeros(1, z_dim)))
    parameters = sum(p.numel() for network in (G, D) for p in network.parameters())
    return parameters, counter.get_total_flops() // 2


# ---- training

# What train_step returns, for losses.csv and losses.png. loss_D comes without the penalty.
CURVES = {"loss": ("loss_D", "loss_G"), "output of D": ("D(x)", "D(G(z))")}
EPS = 1e-12  # keeps a logarithm from being infinite


def slope_penalty(D, real):
    """R1 (Mescheder et al., 2018): half the squared slope of D's logit at real images.

    Without it, a D that is too good for G becomes steeper and steeper, until G learns nothing.
    """
    real = real.detach().requires_grad_()
    # Undoes the Sigmoid. clamp keeps the logit finite; outside these bounds the slope is 0.
    logit = D(real).clamp(1e-6, 1 - 1e-6).logit()
    (slope,) = torch.autograd.grad(logit.sum(), real, create_graph=True)
    return slope.square().flatten(1).sum(1).mean() / 2


def train_step(G, D, opt_G, opt_D, real, z, bf16=False, r1=0.0):
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
    # D does not learn from this. Freezing it saves computing gradients that nobody uses.
    D.requires_grad_(False)
    with autocast:
        verdict = D(fake)
    loss_G = -torch.log(verdict + EPS).mean()
    opt_G.zero_grad()
    loss_G.backward()
    opt_G.step()
    D.requires_grad_(True)

    return torch.stack([loss_D, loss_G, D_real.mean(), D_fake.mean()]).detach()


def main():
    parser = common.make_parser(__doc__)
    add, number = parser.add_argument, common.number
    add("--arch", choices=ARCHS, default="conv7", help="the network (%(default)s)")
    add("--batch-size", type=number(int, 2), default=64, help="images in a step (%(default)s)")
    add("--lr", type=number(float, 1e-12, 1e30), default=2e-3, help="learning rate (%(default)s)")
    add("--beta1", type=number(float, 0, 0.999), default=0.5, help="of Adam (%(default)s)")
    add("--r1", type=number(float, 0), default=0.1, help="weight of slope penalty (%(default)s)")
    args, checkpoint = common.parse_args(parser, SCRIPT)

    device = common.pick_device(args.device)
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32 for matrices: fast, and exact enough
    if args.device == "auto" and device.type == "mps" and args.r1:
        device = torch.device("cpu")  # the penalty takes second derivatives: never tried on mps
    if args.bf16 is None:  # on where it is faster and no worse: docs/speed.md, docs/quality.md
        args.bf16 = device.type == "cpu" and torch.cpu.get_capabilities().get("avx512_bf16", False)
        args.bf16 = args.bf16 and args.arch != "separable"  # its depthwise convolutions: slower
    images, args.dataset = common.load_images(args, args.batch_size)
    images = images.to(device)
    steps = len(images) // args.batch_size  # in an epoch

    torch.manual_seed(1_000_000 * args.seed)
    make_G, make_D = ARCHS[args.arch]
    G, D = make_G(args.z_dim), make_D()
    G.to(device, memory_format=torch.channels_last)  # the faster layout for convolutions
    D.to(device, memory_format=torch.channels_last)
    adam = {"lr": args.lr, "betas": (args.beta1, 0.999), "fused": True}
    opt_G = torch.optim.Adam(G.parameters(), **adam)
    opt_D = torch.optim.Adam(D.parameters(), **adam)
    # Samples are drawn by a moving average of G's weights and BatchNorm statistics: steadier.
    # state_dict() gives the tensors themselves, not copies, so the pairs stay up to date.
    average = copy.deepcopy(G).eval()
    both = zip(average.state_dict().values(), G.state_dict().values())
    pairs = [(mean, newest) for mean, newest in both if mean.is_floating_point()]
    fixed_z = torch.randn(64, args.z_dim).to(device)  # for every picture, also after --resume

    # What a checkpoint holds, beside the options and the number of epochs done.
    parts = {"G": G, "D": D, "average": average, "opt_G": opt_G, "opt_D": opt_D}
    done = checkpoint["epoch"] if checkpoint else 0
    if checkpoint:
        with common.must_fit(checkpoint["folder"]):
            for name, part in parts.items():
                part.load_state_dict(checkpoint[name])
    players = [G, D]
    if common.WORLD > 1:  # under torchrun: several processes, each with a part of every batch
        players = [DistributedDataParallel(net, broadcast_buffers=False) for net in players]
    mine = slice(common.RANK, None, common.WORLD)  # the part of each batch for this process

    print(G, D, sep="\n")
    print("{:,} parameters, {:,} multiply-adds for an image".format(*cost(args.arch, args.z_dim)))
    how = f"Adam with lr {args.lr:g}, beta1 {args.beta1:g}; R1 {args.r1:g}; average {args.ema:g}"
    print(f"{device}, {'bfloat16' if args.bf16 else 'float32'}; {how}")
    folder = common.run_folder(args, checkpoint, SCRIPT)
    title = f"{SCRIPT}.py --arch {args.arch}, {args.dataset}"
    milestones = {round(args.epochs * part / 4) for part in range(5)}

    log = common.Log(folder, CURVES, args, steps, done)

    @torch.inference_mode()
    def draw(epoch):
        fakes = average(fixed_z)
        log.samples(common.grid(fakes), epoch)
        common.save_progress(folder, milestones)
        compared = common.grid(torch.cat([images[:8] / 127.5 - 1, fakes[:8]]))
        common.save_sheet(folder / "real_vs_fake.png", compared, rows=["real", "generated"])

    with log:
        if done == 0:
            draw(0)
        for epoch in range(done + 1, args.epochs + 1):
            # A seed for each epoch: a resumed run draws the numbers of one that never stopped.
            torch.manual_seed(1_000_000 * args.seed + epoch)
            batches = common.batches(images, args.batch_size)
            for step, real in enumerate(batches, start=(epoch - 1) * steps + 1):
                z = torch.randn(args.batch_size, args.z_dim, device=device)
                log(train_step(*players, opt_G, opt_D, real[mine], z[mine], args.bf16, args.r1))
                # The newest weights' share: 1 at first, so that the untrained G is soon forgotten,
                # then less and less, until it is 1 - ema after 10 / (1 - ema) steps.
                weight = max(1 - args.ema, 10 / (step + 9))
                for mean, newest in pairs:
                    mean.lerp_(newest, weight)

            means = log.end_epoch(epoch, G, D)
            if means["D(x)"] > 0.99 and means["D(G(z))"] < 0.01:
                log.say("D is never wrong, so G learns nothing any more: try a smaller --lr")
            if means["D(G(z))"] > 0.99:  # a sigmoid at 1 lets no gradient pass: D cannot recover
                raise common.Mistake(f"D is stuck at 1, epoch {epoch} unsaved: try a smaller --lr")
            if epoch in milestones or epoch % (args.sample_every or args.epochs) == 0:
                draw(epoch)
                common.save_losses(folder, CURVES, title)
            about = {"script": SCRIPT, "arch": args.arch, "z_dim": args.z_dim}
            about |= {"epoch": epoch, "args": vars(args)}
            common.save(folder / "g.pt", about | {"state_dict": average.state_dict()})
            state = {name: part.state_dict() for name, part in parts.items()}
            common.save(folder / "ckpt.pt", about | state)
    print(f'finished: {folder}\nnext: python perturb.py --ckpt "{folder / "g.pt"}"')


if __name__ == "__main__":
    common.run(main)

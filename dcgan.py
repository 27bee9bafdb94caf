"""DCGANs on Fashion-MNIST: convolutions with BatchNorm, trained as Radford et al. proposed.

python dcgan.py                            # report E: transposed convolutions
python dcgan.py --arch upsample            # reports A and D: upsampling, then convolutions
python dcgan.py --epochs 200 --device cuda
torchrun --nproc-per-node 2 dcgan.py       # two processes share every batch
python dcgan.py --resume --epochs 400      # go on with the newest run
"""

import copy
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
            Tanh(),
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
        self.adv_layer = nn.Sequential(nn.Linear(128 * 2 * 2, 1), Sigmoid())

    def forward(self, x):
        return self.adv_layer(self.model(x).flatten(1)).squeeze(1)


def init_weights(layer):
    """The DCGAN paper's first weights: from N(0, 0.02), and BatchNorm's scales from N(1, 0.02).

    The upsampling networks do not use them. With weights so small their discriminator takes two
    epochs to see any difference: the eps of 0.8 in its BatchNorm keeps small values small.
    """
    if isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(layer.weight, 0.0, 0.02)
    elif isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
        nn.init.normal_(layer.weight, 1.0, 0.02)


class TransposeGenerator(nn.Module):
    """Report E, but with a Tanh at the end: its Sigmoid cannot give the data's [-1, 1]."""

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
        self.fc2 = nn.Sequential(nn.Linear(1024, 1), Sigmoid())
        self.apply(init_weights)

    def forward(self, x):
        x = self.pl2(self.conv2(self.pl1(self.conv1(x))))
        return self.fc2(self.fc1(x.flatten(1))).squeeze(1)


ARCHS = {
    "upsample": (UpsampleGenerator, UpsampleDiscriminator),
    "transpose": (TransposeGenerator, TransposeDiscriminator),
}


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
    add("--arch", choices=ARCHS, default="transpose", help="the network (%(default)s)")
    add("--batch-size", type=number(int, 2), help="images in a step (128; for upsample 64)")
    add("--lr", type=number(float, 1e-12, 1e30), help="learning rate (1e-3; for upsample 2e-3)")
    add("--beta1", type=number(float, 0, 0.999), default=0.5, help="of Adam (%(default)s)")
    add("--r1", type=number(float, 0), help="weight of slope penalty (1; for upsample 0.1)")
    parser.set_defaults(ema=0.995)
    args, checkpoint = common.parse_args(parser, SCRIPT)
    # What each network learned best with: docs/quality.md
    batch_size, lr, r1 = (64, 2e-3, 0.1) if args.arch == "upsample" else (128, 1e-3, 1.0)
    args.batch_size = args.batch_size or batch_size
    args.lr = args.lr or lr
    args.r1 = r1 if args.r1 is None else args.r1

    device = common.pick_device(args.device)
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32 for matrices: fast, and exact enough
    if args.device == "auto" and device.type == "mps" and args.r1:
        device = torch.device("cpu")  # the penalty takes second derivatives: never tried on mps
    if args.bf16 is None:  # on where it is faster and no worse: docs/speed.md, docs/quality.md
        args.bf16 = device.type == "cpu" and torch.cpu.get_capabilities().get("avx512_bf16", False)
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

"""The Wasserstein GAN of report E: D is a critic: it estimates how far fakes are from the data.

python wgan.py                     # as published: RMSprop, weights of the critic clipped
python wgan.py --epochs 100        # as many steps of the generator as 20 epochs of dcgan.py
python wgan.py --gp 10             # gradient penalty instead of clipping (WGAN-GP)
python wgan.py --resume --epochs 40

An epoch is one pass of the critic over the data: each of its steps gets new real images. With 5
steps of the critic for each step of the generator, an epoch has 93 steps of the generator, not 468;
with --gp, which takes 2, it has 234.
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


def train_step(G, D, opt_G, opt_D, reals, zs, bf16=False, clip=0.01, gp=0.0):
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

    # G learns to raise the score of its last images. D does not learn from this. Freezing it saves
    # computing gradients that nobody uses.
    D.requires_grad_(False)
    with autocast:
        score = D(fake)
    loss_G = -score.mean()
    opt_G.zero_grad()
    loss_G.backward()
    opt_G.step()
    D.requires_grad_(True)

    distance, loss_D, D_real, D_fake = torch.stack(values).mean(0)
    return torch.stack([distance, loss_D, loss_G.detach(), D_real, D_fake])


def main():
    parser = common.make_parser(__doc__)
    add, number = parser.add_argument, common.number
    add("--arch", choices=ARCHS, default="transpose", help="the network (%(default)s)")
    add("--batch-size", type=number(int, 2), default=128, help="images in D's step (%(default)s)")
    add("--lr", type=number(float, 1e-12, 1e30), help="learning rate (5e-5; with --gp 5e-4)")
    add("--n-critic", type=number(int, 1), help="steps of D to one of G (5; with --gp 2)")
    either = parser.add_mutually_exclusive_group()
    either.add_argument(
        "--clip", type=number(float, 1e-12), default=0.01, help="bound of D's weights (%(default)s)"
    )
    either.add_argument(
        "--gp", type=number(float, 0), default=0.0, metavar="W", help="penalise D's slope: try 10"
    )
    args, checkpoint = common.parse_args(parser, SCRIPT)
    args.lr = args.lr or (5e-4 if args.gp else 5e-5)
    args.n_critic = args.n_critic or (2 if args.gp else 5)
    per_step = args.n_critic * args.batch_size

    device = common.pick_device(args.device)
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32 for matrices: fast, and exact enough
    if args.device == "auto" and device.type == "mps" and args.gp:
        device = torch.device("cpu")  # the penalty takes second derivatives: never tried on mps
    if args.bf16 is None:  # on where it is faster and no worse: docs/speed.md, docs/quality.md
        args.bf16 = device.type == "cpu" and torch.cpu.get_capabilities().get("avx512_bf16", False)
    images, args.dataset = common.load_images(args, per_step)
    images = images.to(device)
    steps = len(images) // per_step  # in an epoch

    torch.manual_seed(1_000_000 * args.seed)
    make_G, make_D = ARCHS[args.arch]
    G, D = make_G(args.z_dim), make_D()
    G.to(device, memory_format=torch.channels_last)  # the faster layout for convolutions
    D.to(device, memory_format=torch.channels_last)
    if args.gp:
        adam = {"lr": args.lr, "betas": (0.0, 0.9), "fused": True}
        opt_G, opt_D = (torch.optim.Adam(net.parameters(), **adam) for net in (G, D))
        how = f"Adam with betas 0 and 0.9, penalty {args.gp:g}"
    else:
        opt_G, opt_D = (torch.optim.RMSprop(net.parameters(), lr=args.lr) for net in (G, D))
        how = f"RMSprop, clipping at {args.clip:g}"
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
    how += f"; lr {args.lr:g}; {args.n_critic} steps of D to one of G; average {args.ema:g}"
    print(f"{device}, {'bfloat16' if args.bf16 else 'float32'}; {how}")
    folder = common.run_folder(args, checkpoint, SCRIPT)
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
            batches = common.batches(images, per_step)
            for step, real in enumerate(batches, start=(epoch - 1) * steps + 1):
                z = torch.randn(per_step, args.z_dim, device=device)
                reals, zs = real[mine].chunk(args.n_critic), z[mine].chunk(args.n_critic)
                log(train_step(*players, opt_G, opt_D, reals, zs, args.bf16, args.clip, args.gp))
                # The newest weights' share: 1 at first, so that the untrained G is soon forgotten,
                # then less and less, until it is 1 - ema after 10 / (1 - ema) steps.
                weight = max(1 - args.ema, 10 / (step + 9))
                for mean, newest in pairs:
                    mean.lerp_(newest, weight)

            log.end_epoch(epoch, G, D)
            if epoch in milestones or epoch % (args.sample_every or args.epochs) == 0:
                draw(epoch)
                common.save_losses(folder, CURVES, f"{SCRIPT}.py --gp {args.gp:g}, {args.dataset}")
            about = {"script": SCRIPT, "arch": args.arch, "z_dim": args.z_dim}
            about |= {"epoch": epoch, "args": vars(args)}
            common.save(folder / "g.pt", about | {"state_dict": average.state_dict()})
            state = {name: part.state_dict() for name, part in parts.items()}
            common.save(folder / "ckpt.pt", about | state)
    print(f'finished: {folder}\nnext: python perturb.py --ckpt "{folder / "g.pt"}"')


if __name__ == "__main__":
    common.run(main)

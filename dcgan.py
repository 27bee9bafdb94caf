"""DCGANs on Fashion-MNIST: a generator and a discriminator of convolutions.

Radford et al., 2015, "Unsupervised Representation Learning with Deep Convolutional
Generative Adversarial Networks".

Reports A to E are five lab reports: README.md says which. The source of a report is the
public code on which it was written.

python dcgan.py                            # report E: transposed convolutions
python dcgan.py --arch upsample            # reports A and D: upsampling, convolutions
python dcgan.py --report                   # the settings of the report's source
python dcgan.py --epochs 200 --device cuda
torchrun --nproc-per-node 2 dcgan.py       # two processes share every batch
python dcgan.py --resume --epochs 400      # go on with the newest run
"""

import argparse
import copy
import time
from math import inf
from pathlib import Path

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import common

# Runs go to runs/<name of this file>: a copy of it has its own.
SCRIPT = Path(__file__).stem

# ---- networks
# G maps noise z [N, z_dim] to images [N, 1, 28, 28] in [-1, 1].
# D maps images to the probability [N] that each of them is real.


class Float32Tanh(nn.Tanh):
    """A Tanh that computes in float32, also where the layers before it use bfloat16.

    The largest bfloat16 below 1 is 0.996. A Tanh or a Sigmoid above it would be rounded
    to 1, and its gradient to 0.
    """

    def forward(self, x):
        return torch.tanh(x.float())


class Float32Sigmoid(nn.Sigmoid):
    def forward(self, x):
        return torch.sigmoid(x.float())


class UpsampleGenerator(nn.Module):
    """Reports A and D. The sides of the picture grow 7, 14, 28 by doubling pixels."""

    def __init__(self, z_dim=100):
        super().__init__()
        self.l1 = nn.Sequential(nn.Linear(z_dim, 128 * 7 * 7))
        self.conv_blocks = nn.Sequential(
            nn.BatchNorm2d(128),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(128, 128, 3, 1, 1),
            nn.BatchNorm2d(128, eps=0.8),  # the source's; it may have meant momentum
            nn.LeakyReLU(0.2),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(128, 64, 3, 1, 1),
            nn.BatchNorm2d(64, eps=0.8),
            nn.LeakyReLU(0.2),
            nn.Conv2d(64, 1, 3, 1, 1),
            Float32Tanh(),
        )

    def forward(self, z):
        x = self.l1(z).view(-1, 128, 7, 7)
        return self.conv_blocks(x)


class UpsampleDiscriminator(nn.Module):
    """The sides of the picture shrink 28, 14, 7, 4, 2."""

    def __init__(self):
        super().__init__()

        def block(inputs, outputs):
            return [
                nn.Conv2d(inputs, outputs, 3, 2, 1),
                nn.LeakyReLU(0.2),
                nn.Dropout2d(0.25),
            ]

        self.model = nn.Sequential(
            *block(1, 16),
            *block(16, 32),
            nn.BatchNorm2d(32, eps=0.8),
            *block(32, 64),
            nn.BatchNorm2d(64, eps=0.8),
            *block(64, 128),
            nn.BatchNorm2d(128, eps=0.8),
        )
        self.adv_layer = nn.Sequential(nn.Linear(128 * 2 * 2, 1), Float32Sigmoid())

    def forward(self, x):
        x = self.model(x).flatten(1)
        return self.adv_layer(x).squeeze(1)


class TransposeGenerator(nn.Module):
    """Report E. There it ends in a Sigmoid: images in [0, 1]. Ours are in [-1, 1]."""

    def __init__(self, z_dim=100):
        super().__init__()
        self.fc1 = nn.Linear(z_dim, 1024)
        self.br1 = nn.Sequential(nn.BatchNorm1d(1024), nn.ReLU())
        self.fc2 = nn.Linear(1024, 128 * 7 * 7)
        self.br2 = nn.Sequential(nn.BatchNorm1d(128 * 7 * 7), nn.ReLU())
        self.conv1 = nn.Sequential(
            nn.ConvTranspose2d(128, 64, 4, 2, 1), nn.BatchNorm2d(64), nn.ReLU()
        )
        self.conv2 = nn.Sequential(nn.ConvTranspose2d(64, 1, 4, 2, 1), Float32Tanh())

    def forward(self, z):
        x = self.br1(self.fc1(z))
        x = self.br2(self.fc2(x))
        x = self.conv1(x.view(-1, 128, 7, 7))
        return self.conv2(x)


class TransposeDiscriminator(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(1, 32, 5, 1, 0), nn.LeakyReLU(0.1))
        self.pl1 = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Sequential(nn.Conv2d(32, 64, 5, 1, 0), nn.LeakyReLU(0.1))
        self.pl2 = nn.MaxPool2d(2, 2)
        self.fc1 = nn.Sequential(nn.Linear(64 * 4 * 4, 1024), nn.LeakyReLU(0.1))
        self.fc2 = nn.Sequential(nn.Linear(1024, 1), Float32Sigmoid())

    def forward(self, x):
        x = self.pl1(self.conv1(x))
        x = self.pl2(self.conv2(x))
        x = self.fc1(x.flatten(1))
        return self.fc2(x).squeeze(1)


def init_weights(layer):
    """First weights N(0, 0.02), as in the DCGAN paper, and N(1, 0.02) for BatchNorm."""
    if isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(layer.weight, mean=0.0, std=0.02)
    elif isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
        nn.init.normal_(layer.weight, mean=1.0, std=0.02)


ARCHS = {
    "upsample": (UpsampleGenerator, UpsampleDiscriminator),
    "transpose": (TransposeGenerator, TransposeDiscriminator),
}

# ---- settings

PLAIN = {  # a DCGAN as the public code has it on which the reports were written
    "epochs": 20,
    "batch_size": 64,
    "lr": 2e-4,  # Adam's learning rate, the same for G and D
    "lr_falls_after": inf,  # from that epoch on: lr * lr_falls_after / epoch
    "beta1": 0.5,  # Adam's momentum
    "r1": 0.0,  # weight of the R1 penalty, on the slope of D
    "r1_grows_after": inf,  # from that epoch on: r1 * epoch / r1_grows_after
    "ema": 0.0,  # decay of G's moving average; 0: it is G itself
    "new_z": True,  # G learns from new noise; False: from the images D has just seen
    "bf16": False,  # the networks compute in bfloat16
    "init": "torch",  # first weights: PyTorch's own, or "dcgan": init_weights
}
# Ours learn faster and better: docs/quality.md says what each change bought.
OURS = PLAIN | {"lr": 2e-3, "r1": 0.1, "ema": 0.995, "new_z": False}
# For each network ours, then those of its report's source, which --report takes.
# Sources: upsample is PyTorch-GAN's dcgan.py; transpose is a course exercise.
# "auto": bfloat16 if the processor is fast in it. These networks were no worse in it.
SETTINGS = {
    "upsample": (
        OURS | {"bf16": "auto"},
        PLAIN | {"epochs": 200, "init": "dcgan"},
    ),
    "transpose": (
        OURS
        | {
            "lr_falls_after": 5,
            "r1": 1.0,
            "r1_grows_after": 20,
            "bf16": "auto",
            "init": "dcgan",
        },
        PLAIN | {"epochs": 30, "batch_size": 128, "beta1": 0.9},
    ),
}

# ---- training

# train_step returns these numbers in this order: the columns of losses.csv, and the
# lines of losses.png with a panel for each row. loss_D is without the penalty.
CURVES = {
    "loss": ("loss_D", "loss_G"),
    "output of D": ("D(x)", "D(G(z))"),
}
LOSSES = [name for names in CURVES.values() for name in names]
EPS = 1e-12  # keeps a logarithm from being infinite


def slope_penalty(D, real):
    """R1 (Mescheder et al., 2018): half the squared slope of D's logit at real images.

    It keeps D from being so sure of every image that it teaches G badly.
    """
    real = real.detach().requires_grad_()
    # logit() undoes the Sigmoid. clamp keeps it finite; beyond it the slope is 0.
    logit = D(real).clamp(1e-6, 1 - 1e-6).logit()
    (slope,) = torch.autograd.grad(logit.sum(), real, create_graph=True)
    squared_lengths = slope.square().flatten(1).sum(dim=1)  # [N]
    return squared_lengths.mean() / 2


def train_step(G, D, opt_G, opt_D, real, z, bf16=False, r1=0.0, new_z=False):
    """One step of D and one of G, on real images and as many generated ones."""
    autocast = torch.autocast(z.device.type, torch.bfloat16, enabled=bf16)

    # D learns to give 1 for real and 0 for generated images: it maximises
    # log D(x) + log(1 - D(G(z))). This is nn.BCELoss with these labels, written out.
    with autocast:
        fake = G(z)
        D_real = D(real)
        D_fake = D(fake.detach())  # detach: in this half G learns nothing
        penalty = slope_penalty(D, real[:16]) if r1 else 0  # a few images are enough
    loss_D = -(torch.log(D_real + EPS) + torch.log(1 - D_fake + EPS)).mean()
    opt_D.zero_grad()
    (loss_D + r1 * penalty).backward()
    opt_D.step()

    # G learns to make D give 1: it maximises log D(G(z)), with the D that has just
    # learned. Only opt_G takes a step now: freezing D saves the time of its gradients.
    D.requires_grad_(False)
    with autocast:
        if new_z:
            fake = G(torch.randn_like(z))
        # Otherwise fake still serves: D's step changed D, and nothing that made fake.
        verdict = D(fake)
    loss_G = -torch.log(verdict + EPS).mean()
    opt_G.zero_grad()
    loss_G.backward()
    opt_G.step()
    D.requires_grad_(True)

    return torch.stack([loss_D, loss_G, D_real.mean(), D_fake.mean()]).detach()


def update_average(average, G, ema, step):
    """An exponential moving average (EMA) of G's weights and BatchNorm statistics.

    The new values count 1 at the first step, so that the untrained G is forgotten; then
    less and less, down to 1 - ema. Until then it is over about a tenth of the steps.
    """
    weight = max(1 - ema, 10 / (step + 9))
    for old, new in zip(average.state_dict().values(), G.state_dict().values()):
        if old.is_floating_point():  # not BatchNorm's count of batches
            old.lerp_(new, weight)  # old + weight * (new - old)


def batches(images, args, epoch):
    """The real images of an epoch, shuffled anew, from bytes to [-1, 1]."""
    # A seed for each epoch: a resumed run draws the numbers of one that never stopped.
    # Epochs stay below 10,000, so those of --seed 0 and of --seed 1 never share one.
    seed = 10_000 * args.seed + epoch
    torch.manual_seed(seed)
    order = torch.randperm(len(images)).to(images.device)
    if common.RANK > 0:  # all processes share the order; their noise and dropout differ
        torch.manual_seed(seed + 1_000_000 * common.RANK)
    steps = len(images) // args.batch_size  # whole batches only
    for batch in order.split(args.batch_size)[:steps]:
        # Under torchrun, this process's share of the batch; of one process, all of it.
        share = batch[common.RANK :: common.WORLD]
        yield images.index_select(0, share) / 127.5 - 1


def check_networks(average, D, z, images):
    """Before hours of training: do the networks fit the images and each other?"""
    fake = average(z)  # so far a copy of G, and BatchNorm's statistics stay as they are
    if fake.shape[1:] != images.shape[1:]:
        made, wanted = list(fake.shape[1:]), list(images.shape[1:])
        raise common.UserError(f"G makes images of {made}, the real ones are {wanted}")
    D.eval()
    with torch.no_grad():
        # Far too bright: without a Sigmoid, what D gives is outside [0, 1].
        verdict = D(1e9 * fake)
    D.train()
    if verdict.shape != (len(z),):
        raise common.UserError(
            f"D gives {list(verdict.shape)} for {len(z)} images. It must give "
            f"[{len(z)}], one number for each: end it with .squeeze(1) or .flatten()"
        )
    if verdict.min() < 0 or verdict.max() > 1:
        raise common.UserError("D gives no probabilities: end it with Float32Sigmoid()")


def check_training(losses, G, D, epoch):
    """Stop a broken training before it replaces a good checkpoint."""
    numbers = [losses, *G.state_dict().values(), *D.state_dict().values()]
    if not all(tensor.isfinite().all() for tensor in numbers):
        raise common.UserError(
            f"epoch {epoch} ended in infinite numbers and is not saved: "
            "try a smaller --lr"
        )
    last = dict(zip(LOSSES, losses[-1].tolist()))
    all_are_real = last["loss_G"] < 0.01  # D gives 0.99 even for generated images
    all_are_fake = last["D(x)"] < EPS  # D gives 0 even for real images
    if all_are_real or all_are_fake:  # so near to 1 or 0, a Sigmoid hardly learns
        raise common.UserError(
            f"D is stuck, all images are the same to it. Epoch {epoch} is not saved: "
            "try a smaller --lr"
        )


def read_options():
    """All options: what was typed counts most, then what was saved, then SETTINGS."""
    parser = common.make_parser(__doc__, SETTINGS)
    parser.add_argument("--arch", choices=ARCHS, help="the network (transpose)")
    parser.add_argument(
        "--beta1", type=common.number(float, 0, 0.999), help="of Adam (table below)"
    )
    parser.add_argument(
        "--r1",
        type=common.number(float, 0),
        help="weight of the penalty on D's slope (table below)",
    )
    typed, checkpoint = common.parse_args(parser, SCRIPT)
    options = common.DEFAULTS | {"arch": "transpose"}
    if checkpoint:
        options |= checkpoint["args"]
    options |= typed
    ours, source = SETTINGS.get(options["arch"], (OURS, PLAIN))
    row = source if options["report"] else ours
    args = argparse.Namespace(**(row | options))
    common.check_shares(args.batch_size)
    return args, checkpoint


def main():
    # ---- options, device, data
    args, checkpoint = read_options()
    device = common.prepare_device(args.device)
    if args.bf16 == "auto":  # yes on a CPU that has instructions for it; on a GPU, no
        has_bf16 = torch.cpu.get_capabilities().get("avx512_bf16", False)
        args.bf16 = device.type == "cpu" and has_bf16
    images, dataset = common.load_images(args, args.batch_size, device)
    args.dataset = dataset  # saved: --resume must find the same
    steps_per_epoch = len(images) // args.batch_size

    # ---- networks and optimizers
    torch.manual_seed(10_000 * args.seed)
    make_G, make_D = ARCHS[args.arch]
    G = make_G(args.z_dim)
    D = make_D()
    if args.init == "dcgan":
        G.apply(init_weights)
        D.apply(init_weights)
    # channels_last is a layout in memory in which convolutions are faster. x.view(...)
    # of what a convolution gives then fails: write x.reshape(...), or x.flatten(1).
    G = G.to(device, memory_format=torch.channels_last)
    D = D.to(device, memory_format=torch.channels_last)
    betas = (args.beta1, 0.999)
    opt_G = torch.optim.Adam(G.parameters(), lr=args.lr, betas=betas, fused=True)
    opt_D = torch.optim.Adam(D.parameters(), lr=args.lr, betas=betas, fused=True)
    # A moving average of G draws the samples: they are steadier than G's own.
    average = copy.deepcopy(G).eval().requires_grad_(False)
    fixed_z = torch.randn(64, args.z_dim).to(device)  # every picture is of these 64
    check_networks(average, D, fixed_z, images)
    print(G)
    print(D)
    used = [f"{name} {getattr(args, name)}" for name in PLAIN if name != "bf16"]
    precision = "bfloat16" if args.bf16 else "float32"
    print(f"{device}, {precision}; {', '.join(used)}")

    # ---- a folder, and with --resume the state of its last epoch
    folder = common.run_folder(args, checkpoint, SCRIPT)
    epochs_done = 0
    if checkpoint:
        with common.refuse_misfit(folder):
            G.load_state_dict(checkpoint["G"])
            D.load_state_dict(checkpoint["D"])
            average.load_state_dict(checkpoint["average"])
            opt_G.load_state_dict(checkpoint["opt_G"])
            opt_D.load_state_dict(checkpoint["opt_D"])
        epochs_done = checkpoint["epoch"]
    raw_G = G  # without DistributedDataParallel: these go into checkpoints
    raw_D = D
    if common.WORLD > 1:  # under torchrun: several processes, each with its share
        backend = "nccl" if device.type == "cuda" else "gloo"
        torch.distributed.init_process_group(backend)
        G = DistributedDataParallel(G, broadcast_buffers=False)
        D = DistributedDataParallel(D, broadcast_buffers=False)
    steps_done = epochs_done * steps_per_epoch

    # ---- the loop
    title = f"{SCRIPT}.py --arch {args.arch}, {args.dataset}"
    quarters = [round(args.epochs * part / 4) for part in range(5)]
    total = args.epochs * steps_per_epoch
    # losses.csv stays locked while we train; the bar says how to resume after a stop
    with (
        common.open_losses(folder, LOSSES, epochs_done, steps_per_epoch) as table,
        common.progress_bar(folder, total, steps_done) as bar,
    ):
        writer = None
        if args.tensorboard and common.RANK == 0:
            from torch.utils.tensorboard import SummaryWriter  # slow to import

            writer = SummaryWriter(folder / "tensorboard", purge_step=steps_done + 1)
        began = time.monotonic()
        if epochs_done == 0:
            common.save_samples(folder, 0, average(fixed_z), images, quarters)
        for epoch in range(epochs_done + 1, args.epochs + 1):
            lr = args.lr * min(1, args.lr_falls_after / epoch)
            for group in opt_G.param_groups + opt_D.param_groups:
                group["lr"] = lr
            r1 = args.r1 * max(1, epoch / args.r1_grows_after)
            settings = {"bf16": args.bf16, "r1": r1, "new_z": args.new_z}
            # train_step itself; on CUDA a recording of it, anew in each epoch
            step = common.recorded(train_step, device, args.graph)
            losses = []
            for real in batches(images, args, epoch):
                z = torch.randn(len(real), args.z_dim, device=device)
                losses.append(step(G, D, opt_G, opt_D, real, z, **settings))
                steps_done += 1
                update_average(average, raw_G, args.ema, steps_done)
                bar.update()
            # Only here does the CPU wait for the device: no .item() in the loop above.
            losses = torch.stack(losses).cpu()

            check_training(losses, raw_G, raw_D, epoch)
            common.append_losses(table, epoch, losses)
            means = dict(zip(LOSSES, losses.mean(dim=0).tolist()))
            text = "  ".join(f"{name} {mean:.3f}" for name, mean in means.items())
            seconds = time.monotonic() - began  # since the last such line
            began = time.monotonic()
            bar.write(f"epoch {epoch}/{args.epochs}  {text}  {seconds:.2f} s")
            if means["D(x)"] > 0.99 and means["D(G(z))"] < 0.01:
                bar.write("D is never wrong: it teaches G badly. Try a smaller --lr")
            if writer:
                first_step = steps_done - steps_per_epoch + 1
                for name, values in zip(LOSSES, losses.T.tolist()):
                    for number, value in enumerate(values, start=first_step):
                        writer.add_scalar(name, value, number)
            is_extra = args.sample_every and epoch % args.sample_every == 0
            if epoch in quarters or is_extra:
                samples = average(fixed_z)
                common.save_samples(folder, epoch, samples, images, quarters)
                common.save_losses(folder, CURVES, title)
                if writer:
                    writer.add_images("samples", (samples + 1) / 2, epoch)
            if writer:
                writer.flush()

            header = {
                "script": SCRIPT,
                "arch": args.arch,
                "z_dim": args.z_dim,
                "epoch": epoch,
                "args": vars(args),
            }
            generator = header | {"state_dict": average.state_dict()}
            checkpoint = header | {
                "G": raw_G.state_dict(),
                "D": raw_D.state_dict(),
                "average": average.state_dict(),
                "opt_G": opt_G.state_dict(),
                "opt_D": opt_D.state_dict(),
            }
            common.save(folder / "g.pt", generator)
            common.save(folder / "ckpt.pt", checkpoint)
    print(f"finished: {folder}")
    print(f'next: python perturb.py --ckpt "{folder / "g.pt"}"')


if __name__ == "__main__":
    common.run(main)

"""The reports' networks with one thing changed, for the claims on what that thing does.

    python benchmarks/edits.py transpose-no-bn --report --epochs 5

trains dcgan.py's transpose with an edited network, or with an edited step. All options are those of
the script, and so are the settings: only what is written here differs.
"""

import importlib
import sys
from pathlib import Path

import torch
from torch import nn

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import common
import dcgan
import gan_mlp


# ---- report E: BatchNorm out of the DCGAN's generator, or into its discriminator
class TransposeGeneratorWithoutBatchNorm(dcgan.TransposeGenerator):
    def __init__(self, z_dim=100):
        super().__init__(z_dim)
        self.br1[0] = nn.Identity()
        self.br2[0] = nn.Identity()
        self.conv1[1] = nn.Identity()


class TransposeDiscriminatorWithBatchNorm(dcgan.TransposeDiscriminator):
    """In all layers but the first and the last, as the DCGAN paper has it."""

    def __init__(self):
        super().__init__()
        self.conv2.insert(1, nn.BatchNorm2d(64))
        self.fc1.insert(1, nn.BatchNorm1d(1024))


# ---- report E: ReLU in the GAN's discriminator
class HiddenDiscriminatorWithReLU(gan_mlp.HiddenDiscriminator):
    def __init__(self):
        super().__init__()
        self.model[1] = nn.ReLU()
        self.model[3] = nn.ReLU()


# ---- report D: BatchNorm out of the GAN's generator
class DeepGeneratorWithoutBatchNorm(gan_mlp.DeepGenerator):
    def __init__(self, z_dim=100):
        super().__init__(z_dim)
        for index, layer in enumerate(self.model):
            if isinstance(layer, nn.BatchNorm1d):
                self.model[index] = nn.Identity()


# ---- report A: noise of another scale, in training and after it
class UpsampleGeneratorOfLittleNoise(dcgan.UpsampleGenerator):
    def forward(self, z):
        return super().forward(0.3 * z)


class UpsampleGeneratorOfMuchNoise(dcgan.UpsampleGenerator):
    def forward(self, z):
        return super().forward(3 * z)


# The same without the BatchNorm, which in UpsampleGenerator undoes much of it.
class BasicGeneratorOfLittleNoise(gan_mlp.BasicGenerator):
    def forward(self, z):
        return super().forward(0.3 * z)


class BasicGeneratorOfMuchNoise(gan_mlp.BasicGenerator):
    def forward(self, z):
        return super().forward(3 * z)


# ---- report D: the order of the two steps in PyTorch-GAN
def generator_first(G, D, opt_G, opt_D, real, z, bf16=False, r1=0.0, new_z=False):
    """A step of G, then one of D on the same images. So new_z has no meaning here."""
    if r1:
        raise common.UserError("this order of steps knows no penalty: --report")
    autocast = torch.autocast(z.device.type, torch.bfloat16, enabled=bf16)

    D.requires_grad_(False)
    with autocast:
        fake = G(z)
        verdict = D(fake)
    loss_G = -torch.log(verdict + gan_mlp.EPS).mean()
    opt_G.zero_grad()
    loss_G.backward()
    opt_G.step()
    D.requires_grad_(True)

    with autocast:
        D_real = D(real)
        D_fake = D(fake.detach())
    loss_real = -torch.log(D_real + gan_mlp.EPS).mean()
    loss_fake = -torch.log(1 - D_fake + gan_mlp.EPS).mean()
    loss_D = loss_real + loss_fake
    opt_D.zero_grad()
    (loss_D / 2).backward()  # the source takes half the sum; losses.csv has the sum
    opt_D.step()

    return torch.stack([loss_D, loss_G, D_real.mean(), D_fake.mean()]).detach()


# name: the script, the network it is an edit of, G, D
NETWORKS = {
    "transpose-no-bn": (
        dcgan,
        "transpose",
        TransposeGeneratorWithoutBatchNorm,
        dcgan.TransposeDiscriminator,
    ),
    "transpose-bn-in-d": (
        dcgan,
        "transpose",
        dcgan.TransposeGenerator,
        TransposeDiscriminatorWithBatchNorm,
    ),
    "upsample-noise-0.3": (
        dcgan,
        "upsample",
        UpsampleGeneratorOfLittleNoise,
        dcgan.UpsampleDiscriminator,
    ),
    "upsample-noise-3": (
        dcgan,
        "upsample",
        UpsampleGeneratorOfMuchNoise,
        dcgan.UpsampleDiscriminator,
    ),
    "basic-noise-0.3": (
        gan_mlp,
        "basic",
        BasicGeneratorOfLittleNoise,
        gan_mlp.BasicDiscriminator,
    ),
    "basic-noise-3": (
        gan_mlp,
        "basic",
        BasicGeneratorOfMuchNoise,
        gan_mlp.BasicDiscriminator,
    ),
    "hidden-relu": (
        gan_mlp,
        "hidden",
        gan_mlp.HiddenGenerator,
        HiddenDiscriminatorWithReLU,
    ),
    "deep-no-bn": (
        gan_mlp,
        "deep",
        DeepGeneratorWithoutBatchNorm,
        gan_mlp.DeepDiscriminator,
    ),
    "deep-generator-first": (
        gan_mlp,
        "deep",
        gan_mlp.DeepGenerator,
        gan_mlp.DeepDiscriminator,
    ),
}
STEPS = {"deep-generator-first": generator_first}


def networks(script, arch):
    """The classes of G and D: edited ones, or those of the script itself."""
    if arch in NETWORKS:
        _, _, generator, discriminator = NETWORKS[arch]
        return generator, discriminator
    return importlib.import_module(script).ARCHS[arch]


def main():
    name = sys.argv.pop(1) if len(sys.argv) > 1 else "none"
    if name not in NETWORKS:
        raise common.UserError(
            f"there is no edit {name}; there are {', '.join(NETWORKS)}"
        )
    script, original, generator, discriminator = NETWORKS[name]
    script.ARCHS[name] = generator, discriminator
    script.SETTINGS[name] = script.SETTINGS[original]
    script.train_step = STEPS.get(name, script.train_step)
    sys.argv += ["--arch", name]
    script.main()


if __name__ == "__main__":
    common.run(main)

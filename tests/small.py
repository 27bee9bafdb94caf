"""The scripts, and two networks of a few weights that learn in no time."""

from torch import nn

import dcgan
import gan_cnn
import gan_mlp
import wgan

SCRIPTS = {
    "gan_mlp": gan_mlp,
    "gan_cnn": gan_cnn,
    "dcgan": dcgan,
    "wgan": wgan,
}
GANS = ["gan_mlp", "gan_cnn", "dcgan"]


def small_G(z_dim=100):
    """Makes images of 2 x 2 pixels."""
    return nn.Sequential(
        nn.Linear(z_dim, 4),
        nn.BatchNorm1d(4),
        nn.Unflatten(1, (4, 1, 1)),
        nn.ConvTranspose2d(4, 1, 2),
        nn.Tanh(),
    )


def small_critic():
    return nn.Sequential(
        nn.Conv2d(1, 5, 2),
        nn.BatchNorm2d(5),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        nn.Linear(5, 1),
        nn.Flatten(0),
    )


def small_D():
    return nn.Sequential(*small_critic(), nn.Sigmoid())

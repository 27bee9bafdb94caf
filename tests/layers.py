"""The networks of the reports, one layer on a line, and the names that print() shows.

Where a script flattens or shapes in forward(), here a layer does it.
"""

from collections.abc import Callable
from typing import NamedTuple

from torch.nn import (
    BatchNorm1d,
    BatchNorm2d,
    Conv2d,
    ConvTranspose2d,
    Dropout2d,
    Flatten,
    LeakyReLU,
    Linear,
    MaxPool2d,
    ReLU,
    Sequential,
    Sigmoid,
    Tanh,
    Unflatten,
    Upsample,
)

# ---- gan_mlp.py


def basic_G():
    return Sequential(
        Linear(100, 128),
        LeakyReLU(0.2),
        Linear(128, 784),
        Tanh(),
        Unflatten(1, (1, 28, 28)),
    )


def basic_D():
    return Sequential(
        Flatten(),
        Linear(784, 128),
        LeakyReLU(0.2),
        Linear(128, 1),
        Sigmoid(),
        Flatten(0),
    )


def deep_G():
    return Sequential(
        Linear(100, 128),
        LeakyReLU(0.2),
        Linear(128, 256),
        BatchNorm1d(256, eps=0.8),
        LeakyReLU(0.2),
        Linear(256, 512),
        BatchNorm1d(512, eps=0.8),
        LeakyReLU(0.2),
        Linear(512, 1024),
        BatchNorm1d(1024, eps=0.8),
        LeakyReLU(0.2),
        Linear(1024, 784),
        Tanh(),
        Unflatten(1, (1, 28, 28)),
    )


def deep_D():
    return Sequential(
        Flatten(),
        Linear(784, 512),
        LeakyReLU(0.2),
        Linear(512, 256),
        LeakyReLU(0.2),
        Linear(256, 1),
        Sigmoid(),
        Flatten(0),
    )


def hidden_G():
    return Sequential(
        Linear(100, 256),
        ReLU(),
        Linear(256, 256),
        ReLU(),
        Linear(256, 784),
        Tanh(),
        Unflatten(1, (1, 28, 28)),
    )


def hidden_D():
    return Sequential(
        Flatten(),
        Linear(784, 256),
        LeakyReLU(0.1),
        Linear(256, 256),
        LeakyReLU(0.1),
        Linear(256, 1),
        Sigmoid(),
        Flatten(0),
    )


# ---- gan_cnn.py


def conv7_G():
    return Sequential(
        Unflatten(1, (100, 1, 1)),
        ConvTranspose2d(100, 128, 7, 1, 0, bias=False),
        BatchNorm2d(128),
        ReLU(),
        ConvTranspose2d(128, 64, 4, 2, 1, bias=False),
        BatchNorm2d(64),
        ReLU(),
        ConvTranspose2d(64, 1, 4, 2, 1, bias=False),
        Tanh(),
    )


def conv7_D():
    return Sequential(
        Conv2d(1, 64, 4, 2, 1, bias=False),
        LeakyReLU(0.2),
        Conv2d(64, 128, 4, 2, 1, bias=False),
        BatchNorm2d(128),
        LeakyReLU(0.2),
        Conv2d(128, 1, 7, 1, 0, bias=False),
        Sigmoid(),
        Flatten(0),
    )


def conv4_G():
    return Sequential(
        Unflatten(1, (100, 1, 1)),
        ConvTranspose2d(100, 256, 4, 1, 0),
        BatchNorm2d(256),
        ReLU(),
        ConvTranspose2d(256, 128, 3, 2, 1),
        BatchNorm2d(128),
        ReLU(),
        ConvTranspose2d(128, 64, 4, 2, 1),
        BatchNorm2d(64),
        ReLU(),
        ConvTranspose2d(64, 1, 4, 2, 1),
        Tanh(),
    )


def conv4_D():
    return Sequential(
        Conv2d(1, 64, 4, 2, 1),
        LeakyReLU(0.2),
        Conv2d(64, 128, 4, 2, 1),
        BatchNorm2d(128),
        LeakyReLU(0.2),
        Conv2d(128, 256, 3, 2, 1),
        BatchNorm2d(256),
        LeakyReLU(0.2),
        Conv2d(256, 1, 4, 1, 0),
        Sigmoid(),
        Flatten(0),
    )


def separable_G():
    return Sequential(
        Unflatten(1, (100, 1, 1)),
        ConvTranspose2d(100, 256, 4, 1, 0),
        BatchNorm2d(256),
        ReLU(),
        ConvTranspose2d(256, 256, 3, 2, 1, groups=256),
        Conv2d(256, 128, 1),
        BatchNorm2d(128),
        ReLU(),
        ConvTranspose2d(128, 128, 4, 2, 1, groups=128),
        Conv2d(128, 64, 1),
        BatchNorm2d(64),
        ReLU(),
        ConvTranspose2d(64, 1, 4, 2, 1),
        Tanh(),
    )


def separable_D():
    return Sequential(
        Conv2d(1, 64, 4, 2, 1),
        LeakyReLU(0.2),
        Conv2d(64, 64, 4, 2, 1, groups=64),
        Conv2d(64, 128, 1),
        BatchNorm2d(128),
        LeakyReLU(0.2),
        Conv2d(128, 128, 3, 2, 1, groups=128),
        Conv2d(128, 256, 1),
        BatchNorm2d(256),
        LeakyReLU(0.2),
        Conv2d(256, 1, 4, 1, 0),
        Sigmoid(),
        Flatten(0),
    )


def tiny_G():
    return Sequential(
        Linear(100, 900),
        LeakyReLU(0.2),
        Unflatten(1, (1, 30, 30)),
        Conv2d(1, 64, 2, 1, 0),
        LeakyReLU(0.2),
        Conv2d(64, 1, 2, 1, 0),
        LeakyReLU(0.2),
    )


def tiny_D():
    return Sequential(
        Conv2d(1, 1, 2, 2, 0),
        LeakyReLU(0.2),
        Flatten(),
        Linear(196, 128),
        LeakyReLU(0.2),
        Linear(128, 1),
        LeakyReLU(0.2),
        Sigmoid(),
        Flatten(0),
    )


# ---- dcgan.py


def upsample_G():
    return Sequential(
        Linear(100, 128 * 7 * 7),
        Unflatten(1, (128, 7, 7)),
        BatchNorm2d(128),
        Upsample(scale_factor=2),
        Conv2d(128, 128, 3, 1, 1),
        BatchNorm2d(128, eps=0.8),
        LeakyReLU(0.2),
        Upsample(scale_factor=2),
        Conv2d(128, 64, 3, 1, 1),
        BatchNorm2d(64, eps=0.8),
        LeakyReLU(0.2),
        Conv2d(64, 1, 3, 1, 1),
        Tanh(),
    )


def upsample_D():
    return Sequential(
        Conv2d(1, 16, 3, 2, 1),
        LeakyReLU(0.2),
        Dropout2d(0.25),
        Conv2d(16, 32, 3, 2, 1),
        LeakyReLU(0.2),
        Dropout2d(0.25),
        BatchNorm2d(32, eps=0.8),
        Conv2d(32, 64, 3, 2, 1),
        LeakyReLU(0.2),
        Dropout2d(0.25),
        BatchNorm2d(64, eps=0.8),
        Conv2d(64, 128, 3, 2, 1),
        LeakyReLU(0.2),
        Dropout2d(0.25),
        BatchNorm2d(128, eps=0.8),
        Flatten(),
        Linear(512, 1),
        Sigmoid(),
        Flatten(0),
    )


def transpose_G():
    return Sequential(
        Linear(100, 1024),
        BatchNorm1d(1024),
        ReLU(),
        Linear(1024, 128 * 7 * 7),
        BatchNorm1d(128 * 7 * 7),
        ReLU(),
        Unflatten(1, (128, 7, 7)),
        ConvTranspose2d(128, 64, 4, 2, 1),
        BatchNorm2d(64),
        ReLU(),
        ConvTranspose2d(64, 1, 4, 2, 1),
        Tanh(),
    )


def transpose_D():
    return Sequential(
        Conv2d(1, 32, 5, 1, 0),
        LeakyReLU(0.1),
        MaxPool2d(2, 2),
        Conv2d(32, 64, 5, 1, 0),
        LeakyReLU(0.1),
        MaxPool2d(2, 2),
        Flatten(),
        Linear(64 * 4 * 4, 1024),
        LeakyReLU(0.1),
        Linear(1024, 1),
        Sigmoid(),
        Flatten(0),
    )


# ---- wgan.py


def critic():
    return Sequential(
        Conv2d(1, 32, 5, 1, 0),
        LeakyReLU(0.1),
        MaxPool2d(2, 2),
        Conv2d(32, 64, 5, 1, 0),
        LeakyReLU(0.1),
        MaxPool2d(2, 2),
        Flatten(),
        Linear(64 * 4 * 4, 1024),
        LeakyReLU(0.1),
        Linear(1024, 1),
        Flatten(0),
    )


class Network(NamedTuple):
    script: str
    arch: str
    which: str  # G or D
    make_report: Callable
    names: str  # that print() shows


NETWORKS = [
    Network("gan_mlp", "basic", "G", basic_G, "fc1 nonlin1 fc2"),
    Network("gan_mlp", "basic", "D", basic_D, "fc1 nonlin1 fc2"),
    Network("gan_mlp", "deep", "G", deep_G, "model"),
    Network("gan_mlp", "deep", "D", deep_D, "model"),
    Network("gan_mlp", "hidden", "G", hidden_G, "model"),
    Network("gan_mlp", "hidden", "D", hidden_D, "model"),
    Network("gan_cnn", "conv7", "G", conv7_G, "main"),
    Network("gan_cnn", "conv7", "D", conv7_D, "main"),
    Network("gan_cnn", "conv4", "G", conv4_G, "main"),
    Network("gan_cnn", "conv4", "D", conv4_D, "main"),
    Network("gan_cnn", "separable", "G", separable_G, "main"),
    Network("gan_cnn", "separable", "D", separable_D, "main"),
    Network("gan_cnn", "tiny", "G", tiny_G, "fc1 conv1"),
    Network("gan_cnn", "tiny", "D", tiny_D, "conv1 fc"),
    Network("dcgan", "upsample", "G", upsample_G, "l1 conv_blocks"),
    Network("dcgan", "upsample", "D", upsample_D, "model adv_layer"),
    Network("dcgan", "transpose", "G", transpose_G, "fc1 br1 fc2 br2 conv1 conv2"),
    Network("dcgan", "transpose", "D", transpose_D, "conv1 pl1 conv2 pl2 fc1 fc2"),
    Network("wgan", "transpose", "G", transpose_G, "fc1 br1 fc2 br2 conv1 conv2"),
    Network("wgan", "transpose", "D", critic, "conv1 pl1 conv2 pl2 fc1 fc2"),
]

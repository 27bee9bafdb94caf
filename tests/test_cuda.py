"""CUDA, for every network. Skipped where there is no GPU; it has not been run on one yet."""

import numpy as np
import pytest
import torch
from conftest import FAMILIES, columns, small

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU here")


@pytest.mark.parametrize("family", FAMILIES, ids=" ".join)
def test_resumed_as_if_never_stopped_and_on_another_device(family, type_in):
    cuda = ["--device", "cuda", "--epochs"]
    for epochs, out in ("4", "whole"), ("2", "halves"):
        assert type_in(*small(family, *cuda, epochs, "--out", out)).code == 0
    assert type_in(family[0], "--resume", "halves", "--epochs", "4").code == 0
    np.testing.assert_allclose(columns("halves"), columns("whole"), rtol=1e-3, atol=1e-3)
    assert type_in("perturb", "--ckpt", "halves").code == 0
    for epochs, device in ("5", "cpu"), ("6", "cuda"):
        line = [family[0], "--resume", "halves", "--epochs", epochs, "--device", device]
        assert type_in(*line).code == 0
    assert type_in(*small(family, "--device", "cuda", "--bf16")).code == 0

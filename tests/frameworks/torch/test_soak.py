# SPDX-License-Identifier: Apache-2.0
"""Shapes that never settle do not fill the memory (half an hour; not by default)."""

import gc
import os
import random
import time

import torch
import torch.nn.functional as F

SECONDS = 20 * 60
WARM_SHARE = 0.25  # of the time: caches fill
MIB = 1 << 20


def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.convolve = torch.nn.Conv1d(8, 32, 3, padding=1)
        self.attend = torch.nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
        self.project = torch.nn.Linear(32, 8)

    def forward(self, x):
        return self.project(self.attend(self.convolve(x.transpose(1, 2)).transpose(1, 2)))


def step(model, optimizer, draw):
    x = torch.randn(draw.randint(1, 9), draw.randint(2, 600), 8, device="xhal")
    optimizer.zero_grad()
    with torch.autocast("xhal", dtype=torch.bfloat16, enabled=draw.random() < 0.5):
        loss = F.mse_loss(model(x), x)
    loss.backward()
    optimizer.step()
    if draw.random() < 0.02:
        assert torch.isfinite(loss.float()).item()


def test_training_with_changing_shapes_keeps_the_memory_flat():
    draw = random.Random(11)
    torch.manual_seed(11)
    model = Model().to("xhal")
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    seconds = float(os.environ.get("XHAL_TEST_SOAK_SECONDS", SECONDS))
    begun = time.monotonic()
    peaks = []  # of ten parts of the time after the caches have filled
    while (elapsed := time.monotonic() - begun) < seconds:
        step(model, optimizer, draw)
        part = int((elapsed / seconds - WARM_SHARE) / (1 - WARM_SHARE) * 10)
        if elapsed >= WARM_SHARE * seconds:
            peaks += [0] * (part + 1 - len(peaks))
            peaks[part] = max(peaks[part], resident())
    torch.xhal.synchronize()
    gc.collect()
    assert max(peaks[-3:]) < max(peaks[:3]) + 96 * MIB, [peak // MIB for peak in peaks]


def test_shapes_that_never_repeat_do_not_fill_the_memory_with_prepared_operators():
    weight = torch.zeros(16, 16, 3, 3, device="xhal", dtype=torch.bfloat16)
    x = torch.zeros(1, 16, 40, 1600, device="xhal", dtype=torch.bfloat16)

    def convolve(first, last):
        for i in range(first, last):
            part = x[:, :, : 4 + i % 36, : 8 + i // 2].contiguous()
            F.conv2d(part, weight, padding=1)
        torch.xhal.synchronize()

    convolve(0, 60)
    before = resident()
    convolve(60, 3000)  # about 0.7 MiB each
    assert resident() - before < 1024 * MIB

# SPDX-License-Identifier: Apache-2.0
"""Whole models in training: they follow the CPU's losses, and nothing of them runs on the host."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn


class ResNet(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.norm0 = nn.BatchNorm2d(width)
        self.conv1 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, 2, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(2 * width)
        self.down = nn.Conv2d(width, 2 * width, 1, 2)
        self.out = nn.Linear(2 * width, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.norm0(self.stem(x))), 3, 2, 1)
        y = F.relu(self.norm1(self.conv1(x))) + x
        y = F.relu(self.norm2(self.conv2(y)) + self.down(y))
        return self.out(F.adaptive_avg_pool2d(y, 1).flatten(1))


class Recurrent(nn.Module):
    def __init__(self, cell):
        super().__init__()
        self.embed = nn.Embedding(50, 16)
        self.cell = cell(16, 16, 2, batch_first=True)
        self.out = nn.Linear(16, 50)

    def forward(self, x):
        return self.out(self.cell(self.embed(x))[0])


class Transformer(nn.Module):
    def __init__(self, norm_first=True):
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            32, 4, 64, dropout=0, batch_first=True, norm_first=norm_first, activation="gelu"
        )
        self.embed, self.place = nn.Embedding(50, 32), nn.Embedding(16, 32)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(32)
        self.out = nn.Linear(32, 50, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, x):
        length = x.shape[1]
        h = self.embed(x) + self.place(torch.arange(length, device=x.device))
        mask = nn.Transformer.generate_square_subsequent_mask(length, device=x.device)
        return self.out(self.norm(self.layers(h, mask=mask, is_causal=True)))


def tokens():
    return torch.randint(50, (4, 16))


def images():
    return torch.randn(4, 3, 32, 32)


MODELS = {
    "transformer": (Transformer, tokens),
    "post-norm": (lambda: Transformer(False), tokens),
    "lstm": (lambda: Recurrent(nn.LSTM), tokens),
    "gru": (lambda: Recurrent(nn.GRU), tokens),
    "rnn": (lambda: Recurrent(nn.RNN), tokens),
    "resnet": (ResNet, images),
}

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, weight_decay=1e-4),
    "nesterov": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, nesterov=True),
    "adamw": lambda p: torch.optim.AdamW(p, 1e-3),
    "adamw each": lambda p: torch.optim.AdamW(p, 1e-3, foreach=False),
    "adamw fused": lambda p: torch.optim.AdamW(p, 1e-3, fused=True),
    "adam amsgrad": lambda p: torch.optim.Adam(p, 1e-3, amsgrad=True),
    "sgd fused": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, fused=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 1e-3, centered=True, momentum=0.9),
    "adagrad": lambda p: torch.optim.Adagrad(p, 1e-2),
    "adamax": lambda p: torch.optim.Adamax(p, 1e-3),
    "nadam": lambda p: torch.optim.NAdam(p, 1e-3),
    "radam": lambda p: torch.optim.RAdam(p, 1e-3),
    "adafactor": lambda p: torch.optim.Adafactor(p, 1e-3),
}


def train(model, x, y, optimizer, device, dtype=None, layout=None, steps=4):
    model = copy.deepcopy(model).to(device, memory_format=layout or torch.preserve_format)
    x, y = x.to(device, memory_format=layout or torch.preserve_format), y.to(device)
    optimizer = optimizer(model.parameters())
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        with torch.autocast(device, dtype=dtype or torch.bfloat16, enabled=dtype is not None):
            loss = F.cross_entropy(model(x).flatten(0, -2), y.flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    with torch.no_grad():
        losses.append(F.cross_entropy(model(x).flatten(0, -2), y.flatten()).item())
    return losses


def compare(name, optimizer, rel, **options):
    torch.manual_seed(1)
    make, batch = MODELS[name]
    model, x = make(), batch()
    y = torch.randint(10, (4,)) if x.is_floating_point() else x
    expected = train(model, x, y, optimizer, "cpu", **options)
    torch.xhal.reset_fallbacks()
    assert train(model, x, y, optimizer, "xhal", **options) == pytest.approx(expected, rel=rel)
    assert torch.xhal.fallbacks() == {}


@pytest.mark.parametrize("name", MODELS)
def test_training_follows_the_cpu(name):
    compare(name, OPTIMIZERS["adamw"], 1e-3)


@pytest.mark.parametrize("name", MODELS)
def test_mixed_precision_follows_the_cpu(name):
    compare(name, OPTIMIZERS["adamw"], 3e-2, dtype=torch.bfloat16)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_optimizer_follows_the_cpu(optimizer):
    compare("transformer", OPTIMIZERS[optimizer], 2e-3)


def test_channels_last_follows_the_cpu():
    compare("resnet", OPTIMIZERS["sgd"], 1e-3, layout=torch.channels_last)

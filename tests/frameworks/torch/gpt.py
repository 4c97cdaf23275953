# SPDX-License-Identifier: Apache-2.0
"""A small GPT as a user would write it, and its training; no import of ours."""

import argparse
import json
import sys

import torch
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        batch, length, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).split(width, dim=2)
        q, k, v = (t.view(batch, length, self.heads, -1).transpose(1, 2) for t in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        y = self.out(y.transpose(1, 2).reshape(batch, length, width))
        x = x + F.dropout(y, self.dropout, self.training)
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class GPT(nn.Module):
    def __init__(self, vocabulary=96, width=64, heads=4, layers=2, length=32, dropout=0.0):
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, tokens, targets):
        x = self.tokens(tokens) + self.places(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.blocks:
            x = block(x)
        logits = self.head(self.norm(x))
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def batches(steps, batch=8, length=32, vocabulary=96):
    """A language with something to learn: each token depends on the one before."""
    generator = torch.Generator().manual_seed(7)
    for _ in range(steps):
        start = torch.randint(vocabulary, (batch, 1), generator=generator)
        noise = torch.randint(3, (batch, length), generator=generator)
        tokens = (start + torch.cumsum(noise + 1, 1)) % vocabulary
        yield tokens, (tokens + noise + 1) % vocabulary


def train(
    device,
    steps=50,
    precision="fp32",
    optimizer="adamw",
    dropout=0.0,
    width=64,
    layers=2,
    clip=True,
):
    """Returns the losses. The model is initialised on the CPU, so that devices compare."""
    torch.manual_seed(1)
    model = GPT(width=width, layers=layers, dropout=dropout).to(device)
    make = {
        "adamw": lambda p: torch.optim.AdamW(p, lr=3e-3),
        "fused": lambda p: torch.optim.AdamW(p, lr=3e-3, fused=True),
        "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
        "fused_sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, fused=True),
    }[optimizer]
    step = make(model.parameters())
    dtype = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    scaler = torch.amp.GradScaler(
        torch.device(device).type, enabled=precision == "fp16" and device != "cpu"
    )
    losses = []
    for tokens, targets in batches(steps):
        tokens, targets = tokens.to(device), targets.to(device)
        with torch.autocast(torch.device(device).type, dtype=dtype, enabled=dtype is not None):
            loss = model(tokens, targets)
        step.zero_grad()
        scaler.scale(loss).backward()
        if clip:
            scaler.unscale_(step)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(step)
        scaler.update()
        losses.append(loss.detach())
    return [float(loss) for loss in losses]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--optimizer", default="adamw")
    args = parser.parse_args()
    result = {"losses": train(args.device, args.steps, args.precision, args.optimizer)}
    if args.device != "cpu":
        result["fallbacks"] = torch.xhal.fallbacks()
    json.dump(result, sys.stdout)

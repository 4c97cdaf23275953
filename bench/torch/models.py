# SPDX-License-Identifier: Apache-2.0
"""The models of the training rows: a transformer, a convnet and an LSTM, each with a batch."""

import torch
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        batch, length, width = x.shape
        parts = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, -1)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(seen.transpose(1, 2).reshape(x.shape))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Transformer(nn.Module):
    def __init__(self, layers, width, heads, words=256, length=64):
        super().__init__()
        self.embed, self.place = nn.Embedding(words, width), nn.Embedding(length, width)
        self.blocks = nn.Sequential(*[Block(width, heads) for _ in range(layers)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, words, bias=False)

    def forward(self, x):
        h = self.embed(x) + self.place.weight[: x.shape[1]]
        return self.head(self.norm(self.blocks(h)))


class Convnet(nn.Module):
    def __init__(self, width=16):
        super().__init__()

        def layer(inside, outside, stride):
            return nn.Sequential(
                nn.Conv2d(inside, outside, 3, stride, 1, bias=False),
                nn.BatchNorm2d(outside),
                nn.ReLU(),
            )

        self.body = nn.Sequential(
            layer(3, width, 1),
            layer(width, width, 1),
            layer(width, 2 * width, 2),
            layer(2 * width, 2 * width, 1),
            layer(2 * width, 4 * width, 2),
        )
        self.head = nn.Linear(4 * width, 10)

    def forward(self, x):
        return self.head(F.adaptive_avg_pool2d(self.body(x), 1).flatten(1))


class Recurrent(nn.Module):
    def __init__(self, width=128, words=256):
        super().__init__()
        self.embed = nn.Embedding(words, width)
        self.cell = nn.LSTM(width, width, 1, batch_first=True)
        self.head = nn.Linear(width, words)

    def forward(self, x):
        return self.head(self.cell(self.embed(x))[0])


def words(batch, length):
    x = torch.randint(256, (batch, length))
    return x, x.roll(-1, 1)


# name: model, (inputs, targets), whether products take more than half of the step on the CPU
MODELS = {
    "tiny transformer": (lambda: Transformer(2, 64, 4), lambda: words(4, 32), False),
    "transformer": (lambda: Transformer(4, 256, 8), lambda: words(8, 64), True),
    "convnet": (Convnet, lambda: (torch.randn(16, 3, 32, 32), torch.randint(10, (16,))), True),
    "lstm": (Recurrent, lambda: words(16, 32), True),
}

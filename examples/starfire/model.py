# SPDX-License-Identifier: Apache-2.0
"""A GPT-style language model over bytes, and the presets that train.py knows by name.

Pre-norm blocks, causal attention through torch's scaled_dot_product_attention, learned positions,
the token table shared by input and output, no dropout. Nothing here names a kind of device.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

VOCABULARY = 256  # one token a byte


@dataclass(frozen=True)
class Preset:
    """A model's geometry, and the training defaults that suit it."""

    layers: int
    width: int
    heads: int
    seq_len: int
    batch_size: int
    learning_rate: float
    max_steps: int

    def parameter_count(self, seq_len: int) -> int:
        matrices = 12 * self.width * self.width  # qkv 3, attention output 1, MLP 4 + 4
        vectors = 13 * self.width  # biases 3 + 1 + 4 + 1, two norms of 2
        tables = (VOCABULARY + seq_len) * self.width
        return self.layers * (matrices + vectors) + tables + 2 * self.width


PRESETS = {
    "starfire-tiny": Preset(2, 128, 4, 64, 32, 4e-3, 600),
    "starfire-13b": Preset(40, 5120, 40, 2048, 1024, 1.2e-4, 100_000),
}


class Block(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp_in = nn.Linear(width, 4 * width)
        self.mlp_out = nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.attention_out(mixed.transpose(1, 2).reshape(batch, length, width))
        return x + self.mlp_out(F.gelu(self.mlp_in(self.norm2(x)), approximate="tanh"))


class Transformer(nn.Module):
    def __init__(self, preset: Preset, seq_len: int):
        super().__init__()
        self.seq_len = seq_len
        self.tokens = nn.Embedding(VOCABULARY, preset.width)
        self.positions = nn.Parameter(torch.empty(seq_len, preset.width))
        self.blocks = nn.ModuleList(Block(preset.width, preset.heads) for _ in range(preset.layers))
        self.norm = nn.LayerNorm(preset.width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits in f32, [batch, length, VOCABULARY], for tokens of [batch, length <= seq_len]."""
        length = tokens.shape[1]
        positions = self.positions if length == self.seq_len else self.positions[:length]
        x = self.tokens(tokens) + positions
        for block in self.blocks:
            x = block(x)
        return F.linear(self.norm(x), self.tokens.weight).float()


def initial_value(name: str, shape: torch.Size, index: int, preset: Preset, seed: int):
    """The starting value of parameter number `index`, drawn on the CPU.

    Each parameter has a generator of its own, so a value depends on nothing but (seed, index):
    every device, rank and way of sharding starts from the same numbers, and a model larger than the
    host's memory is filled one parameter at a time.
    """
    if name.endswith("bias"):
        return torch.zeros(shape)
    if "norm" in name:
        return torch.ones(shape)
    deviation = 1 / math.sqrt(shape[-1])
    if name.endswith(("attention_out.weight", "mlp_out.weight")):
        deviation /= math.sqrt(2 * preset.layers)  # the sum over layers keeps its variance
    generator = torch.Generator().manual_seed(seed * 1_000_003 + index)
    return torch.randn(shape, generator=generator) * deviation

# SPDX-License-Identifier: Apache-2.0
"""What a training run needs of each card's memory, worked out before anything is allocated."""

from dataclasses import dataclass

import torch

from .model import VOCABULARY, Preset

GIB = 2**30
CARD_COUNTS = (1, 8, 16, 32, 64, 128)


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes, by card count. fsdp2 divides the state over the cards and ddp copies it to each; a
    micro-step's sequences are divided over the cards either way."""

    parameters: int
    state: dict[str, int]
    sequences: int  # of one micro-step, over all cards
    activations_a_sequence: int
    gathered: int  # what fsdp2 holds unsharded at a time: the block at work and the next one

    @staticmethod
    def of(preset: Preset, seq_len: int, sequences: int, precision: str) -> "MemoryPlan":
        parameters = preset.parameter_count(seq_len)
        compute_bytes = 4 if precision == "fp32" else 2
        state = {
            "weights, f32 master": 4 * parameters,
            "gradients, f32": 4 * parameters,
            "Adam m, f32": 4 * parameters,
            "Adam v, f32": 4 * parameters,
        }
        if precision != "fp32":
            state[f"weights, {precision} copy"] = compute_bytes * parameters
        # Kept by a block for its backward pass, in widths a token: the residual sum twice (f32),
        # and in the working precision both norms, q, k, v, the attention's result and the MLP
        # (4 + 4). A fused attention keeps no scores. Then logits, their f32 copy and gradient.
        block = (2 * 4 + 14 * compute_bytes) * preset.width
        token = preset.layers * block + VOCABULARY * (compute_bytes + 8)
        gathered = 2 * compute_bytes * parameters // preset.layers
        return MemoryPlan(parameters, state, sequences, seq_len * token, gathered)

    def per_card(self, cards: int, sharded: bool) -> int:
        state = sum(self.state.values())
        if sharded and cards > 1:
            state = state // cards + self.gathered
        return state + -(-self.sequences // cards) * self.activations_a_sequence

    def cards_needed(self, available: int) -> int | None:
        """The smallest power of two of fsdp2 cards that fit, or None when none does."""
        cards = 1
        while self.per_card(cards, True) > available:
            cards *= 2
            if cards > self.sequences:
                return None
        return cards

    def table(self, title: str, available: int, cards: int, sharded: bool) -> str:
        rows = [(name, f"{size / GIB:,.1f}") for name, size in self.state.items()]
        activations = self.sequences * self.activations_a_sequence
        rows.append((f"activations of {self.sequences} sequences*", f"{activations / GIB:,.1f}"))
        lines = [f"{title}: {self.parameters / 1e9:.2f} billion parameters; memory plan in GiB"]
        lines += [f"  {name:<36}{size:>9}" for name, size in rows]
        counts = [n for n in CARD_COUNTS if n <= self.sequences]
        a_card = [f"{self.per_card(n, True) / GIB:,.1f}" for n in counts]
        lines.append("  cards, sharded by fsdp2             " + "".join(f"{n:>9}" for n in counts))
        lines.append("  needed a card                       " + "".join(f"{n:>9}" for n in a_card))
        layout = f"{cards} card{'s' * (cards > 1)}{', sharded' * sharded}"
        need = f"{self.per_card(cards, sharded) / GIB:,.1f}"
        lines.append(f"  {f'needed a card by this run ({layout})':<36}{need:>9}")
        lines.append(f"  {'free memory found a card':<36}{f'{available / GIB:,.1f}':>9}")
        lines.append("  * estimate, with a fused attention")
        return "\n".join(lines)


def free_bytes(device: torch.device, processes_on_host: int) -> int | None:
    """Free memory of the device, or None when it cannot tell. The host's is shared by its ranks."""
    if device.type == "cpu":
        with open("/proc/meminfo") as file:
            fields = dict(line.split(":") for line in file)
        return int(fields["MemAvailable"].split()[0]) * 1024 // processes_on_host
    for query in (
        lambda: torch.accelerator.get_memory_info(device),
        lambda: torch.get_device_module(device).mem_get_info(device),
    ):
        try:
            return query()[0]
        except (AttributeError, NotImplementedError, RuntimeError):
            continue
    return None

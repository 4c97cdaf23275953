# SPDX-License-Identifier: Apache-2.0
"""One training run: the model laid out over the ranks, its steps, validation and checkpoints."""

import contextlib
import math
import os
from argparse import Namespace
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from . import checkpoint
from .checkpoint import CheckpointError
from .data import Text, decode, encode
from .model import PRESETS, VOCABULARY, Transformer, initial_value

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# What decides the losses besides the model's shape: a resumed run that differs says so.
LOSS_SETTINGS = (
    "batch_size",
    "gradient_accumulation",
    "precision",
    "lr",
    "max_steps",
    "data",
    "seed",
)


class Ranks:
    """This process's place in the job, from torchrun's environment; alone without it."""

    def __init__(self):
        self.launched = "WORLD_SIZE" in os.environ
        self.world = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        self.local = int(os.environ.get("LOCAL_RANK", "0"))
        self.on_host = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        if self.launched:
            dist.all_reduce(tensor)
        return tensor


class Trainer:
    def __init__(self, args: Namespace, device: torch.device, ranks: Ranks, text: Text):
        self.args, self.device, self.ranks, self.text = args, device, ranks, text
        self.preset = PRESETS[args.model_name]
        self.micro_batch = args.batch_size // (args.gradient_accumulation * ranks.world)
        self.step = 0
        torch.manual_seed(args.seed)
        with torch.device("meta"):
            self.model = Transformer(self.preset, args.seq_len)
        if self._sharded():
            _shard(self.model, device, ranks.world, PRECISIONS[args.precision])
        self.model.to_empty(device=device)
        self.parameters = list(self.model.named_parameters())
        for index, (name, parameter) in enumerate(self.parameters):
            value = initial_value(name, parameter.shape, index, self.preset, args.seed)
            checkpoint.place(parameter, value)
        self.optimizer = _optimizer(self.parameters, args.lr, device)
        scaled = args.precision == "fp16"
        self.scaler = torch.amp.GradScaler(device.type, enabled=scaled)
        self.forward_model: nn.Module = self.model
        if ranks.launched and not self._sharded():
            self.forward_model = nn.parallel.DistributedDataParallel(
                self.model, gradient_as_bucket_view=True
            )

    def _sharded(self) -> bool:
        return self.ranks.launched and self.args.parallel == "fsdp2"

    def autocast(self):
        dtype = PRECISIONS[self.args.precision]
        return torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32)

    def to_device(self, tensor: torch.Tensor) -> torch.Tensor:
        if self.device.type == "cpu":
            return tensor
        return tensor.pin_memory().to(self.device, non_blocking=True)

    def train_step(self) -> torch.Tensor:
        """One optimizer step; returns this rank's mean loss, still on the device."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        batch = self.text.step_batch(self.step, self.args.batch_size, self.args.seed)
        mine = self.args.batch_size // self.ranks.world
        first = self.ranks.rank * mine
        inputs, targets = self.to_device(batch[:, first : first + mine].contiguous())
        accumulation = self.args.gradient_accumulation
        total = None
        for part in range(accumulation):
            rows = slice(part * self.micro_batch, (part + 1) * self.micro_batch)
            last = part == accumulation - 1
            with self._gradient_exchange(last):
                with self.autocast():
                    logits = self.forward_model(inputs[rows])
                    loss = F.cross_entropy(logits.flatten(0, 1), targets[rows].flatten())
                loss = loss / accumulation
                self.scaler.scale(loss).backward()
            total = loss.detach() if total is None else total + loss.detach()
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return total

    def _gradient_exchange(self, last: bool):
        # Only DDP defers: deferring under fsdp2 would keep whole gradients on every card.
        if isinstance(self.forward_model, nn.parallel.DistributedDataParallel) and not last:
            return self.forward_model.no_sync()
        return contextlib.nullcontext()

    def learning_rate(self) -> float:
        """Linear warm-up over the first tenth, at most 1000 steps; a cosine down to a tenth."""
        warm_up = max(1, min(self.args.max_steps // 10, 1000))
        if self.step < warm_up:
            return self.args.lr * (self.step + 1) / warm_up
        done = (self.step - warm_up) / max(1, self.args.max_steps - warm_up)
        return self.args.lr * (0.55 + 0.45 * math.cos(math.pi * min(done, 1)))

    @torch.no_grad()
    def validation_loss(self) -> float:
        """Mean loss in nats a byte over windows of the held-out text, the same ones every time."""
        windows = self.text.eval_batch()
        total = windows.shape[1]
        ranks, size = self.ranks, self.micro_batch
        # Every rank runs the same number of equal batches; what pads them is not counted.
        batches = math.ceil(total / (ranks.world * size))
        padded = windows[:, torch.arange(batches * ranks.world * size) % total]
        padded[1, total:] = -100  # cross_entropy's ignore_index
        inputs, targets = self.to_device(
            padded.view(2, batches, ranks.world, size, -1)[:, :, ranks.rank].contiguous()
        )
        loss = torch.zeros((), device=self.device)
        for batch, expected in zip(inputs, targets):
            with self.autocast():
                logits = self.model(batch)
            loss += F.cross_entropy(logits.flatten(0, 1), expected.flatten(), reduction="sum")
        return ranks.sum(loss).item() / (total * self.args.seq_len)

    @torch.no_grad()
    def sample(self, prompt: str, length: int, temperature: float = 0.7) -> str:
        """A continuation of `prompt`, drawn on the device; the host reads it once, at the end.

        Drawing is the largest of logits + Gumbel noise, with the noise from a seeded CPU generator,
        so every device draws alike.
        """
        start = encode(prompt)
        length = min(length, self.args.seq_len - len(start))
        generator = torch.Generator().manual_seed(self.args.seed)
        uniform = torch.rand(length, VOCABULARY, generator=generator).clamp_(1e-9, 1 - 1e-7)
        noise = self.to_device(-(-uniform.log()).log() * temperature)
        tokens = torch.zeros(1, len(start) + length, dtype=torch.long)
        tokens[0, : len(start)] = torch.tensor(start)
        tokens = self.to_device(tokens)  # a fixed shape; what is still zero cannot be seen
        for index in range(length):
            end = len(start) + index
            with self.autocast():
                logits = self.model(tokens)[:, end - 1]
            tokens[:, end] = (logits + noise[index]).argmax(-1)
        return " ".join(decode(tokens[0].tolist()).split())

    def save(self) -> Path | None:
        """Writes a checkpoint on rank 0; all ranks call it, since shards are gathered."""
        contents = {
            "step": self.step,
            "settings": {name: _plain(value) for name, value in vars(self.args).items()},
            "model": {name: checkpoint.whole(value) for name, value in self.parameters},
            "optimizer": checkpoint.whole(self.optimizer.state_dict()),
            "scaler": self.scaler.state_dict(),
            "rng": torch.get_rng_state(),
        }
        if self.ranks.rank == 0:
            return checkpoint.save(self.args.log_dir, self.step, contents)
        return None

    def resume(self, path: Path) -> list[str]:
        """Takes up the run that `path` holds; returns the settings that differ from it."""
        contents = checkpoint.load(path)
        try:
            settings = contents["settings"]
            for name in ("model_name", "seq_len"):
                if settings[name] != getattr(self.args, name):
                    raise CheckpointError(f"{path} was made with --{name} {settings[name]}")
            for name, parameter in self.parameters:
                checkpoint.place(parameter, contents["model"][name])
            checkpoint.restore_optimizer(self.optimizer, contents["optimizer"])
            if contents["scaler"] and self.scaler.is_enabled():
                self.scaler.load_state_dict(contents["scaler"])
            torch.set_rng_state(contents["rng"])
            self.step = contents["step"]
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"{path} is not a checkpoint of this program: {error}") from None
        return [
            f"--{name} {settings[name]}"
            for name in LOSS_SETTINGS
            if settings[name] != _plain(getattr(self.args, name))
        ]


def _plain(value):
    return str(value) if isinstance(value, Path) else value


def _shard(model: Transformer, device: torch.device, world: int, compute: torch.dtype):
    mesh = init_device_mesh(device.type, (world,))
    # Weights are gathered in the precision that computes: half the traffic, and no copies kept.
    policy = MixedPrecisionPolicy(param_dtype=compute, reduce_dtype=torch.float32)
    for block in model.blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)


def _optimizer(parameters, lr: float, device: torch.device) -> torch.optim.AdamW:
    from torch.utils._foreach_utils import _get_fused_kernels_supported_devices

    fused = device.type in _get_fused_kernels_supported_devices()
    matrices = [p for name, p in parameters if p.dim() > 1]
    vectors = [p for name, p in parameters if p.dim() <= 1]
    groups = [
        {"params": matrices, "weight_decay": 0.1},
        {"params": vectors, "weight_decay": 0.0},
    ]
    implementation = {"fused": True} if fused else {"foreach": True}
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), **implementation)

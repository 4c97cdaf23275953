#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Trains a byte-level language model with plain PyTorch, on whatever device PyTorch reports.

    python examples/train.py --max_steps 200
    python examples/train.py --resume             # go on from the last checkpoint
    torchrun --nproc_per_node 2 examples/train.py --precision bf16 --gradient_accumulation 2

Writes train.jsonl (one line a step) and checkpoints to --log_dir. Ctrl-C saves a checkpoint first.
Exit status: 0 done, 1 failed, 2 wrong usage or not enough memory, 128 + n stopped by signal n.
"""

import argparse
import gc
import math
import signal
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist

from starfire import checkpoint
from starfire.checkpoint import CheckpointError
from starfire.data import DEFAULT_FILE, DataError, Text
from starfire.model import PRESETS
from starfire.plan import MemoryPlan, free_bytes
from starfire.progress import Progress, StopRequest
from starfire.trainer import PRECISIONS, Ranks, Trainer

FETCH_SECONDS = 1.0  # how far apart losses are read from the device, about


class UsageError(Exception):
    """The run cannot start as it was asked for; the text tells what to change."""


class TrainingError(Exception):
    """The run cannot go on."""


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    def positive(text: str) -> int:
        if not text.isdecimal() or int(text) == 0:
            raise argparse.ArgumentTypeError(f"wants a whole number above 0, not '{text}'")
        return int(text)

    def rate(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 < value < math.inf:
            raise argparse.ArgumentTypeError(f"wants a number above 0, not '{text}'")
        return value

    parser = argparse.ArgumentParser(
        prog="train.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--device", help="cpu, cuda, xhal, xhal:1, ... (default: the accelerator torch reports)")
    add("--model_name", choices=PRESETS, default="starfire-tiny")
    add("--batch_size", type=positive, help="sequences an optimizer step, over all ranks")
    add("--gradient_accumulation", type=positive, default=1, help="micro-batches a step and rank")
    add("--precision", choices=PRECISIONS, default="fp32", help="autocast; weights stay f32")
    add("--lr", type=rate, help="peak learning rate")
    add("--seq_len", type=positive, help="bytes a sequence")
    add("--parallel", choices=("ddp", "fsdp2"), default="ddp", help="how ranks share the model")
    add("--log_dir", type=Path, default=Path("logs"))
    add("--save_interval", type=positive, default=5000, help="steps between checkpoints")
    add("--eval_interval", type=positive, default=100, help="steps between validations")
    add("--max_steps", type=positive, help="steps in all, also the length of the schedule")
    add("--data", type=Path, default=DEFAULT_FILE, help=f"text or .gz (default: {DEFAULT_FILE})")
    add("--resume", nargs="?", const="latest", metavar="FILE", help="from FILE, or from the latest")
    add("--seed", type=int, default=1)
    args = parser.parse_args(argv)
    preset = PRESETS[args.model_name]
    for option, default in {
        "batch_size": preset.batch_size,
        "lr": preset.learning_rate,
        "seq_len": preset.seq_len,
        "max_steps": preset.max_steps,
    }.items():
        if getattr(args, option) is None:
            setattr(args, option, default)
    return args


def choose_device(name: str | None, ranks: Ranks) -> torch.device:
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if name is None:
        device = accelerator or torch.device("cpu")
    else:
        try:
            device = torch.device(name)
        except RuntimeError:
            raise UsageError(f"--device {name}: torch knows no such device ({_found(accelerator)})")
    if device.type == "cpu":
        return torch.device("cpu")
    if accelerator is None or device.type != accelerator.type:
        raise UsageError(f"--device {name}: no such device here ({_found(accelerator)})")
    count = torch.accelerator.device_count()
    if device.index is None:
        device = torch.device(device.type, ranks.local % count)
    elif ranks.launched:
        raise UsageError(f"--device {name}: under torchrun each rank takes its own, leave :N out")
    if device.index >= count:
        raise UsageError(f"--device {name}: there are {count} (0 to {count - 1})")
    torch.accelerator.set_device_index(device.index)
    return device


def _found(accelerator: torch.device | None) -> str:
    return f"found: cpu{f', {accelerator.type}' if accelerator else ''}"


def micro_batch_size(args: argparse.Namespace, ranks: Ranks) -> int:
    parts = args.gradient_accumulation * ranks.world
    if args.batch_size % parts:
        raise UsageError(
            f"--batch_size {args.batch_size} cannot be split evenly over {ranks.world} rank(s) x "
            f"{args.gradient_accumulation} accumulation step(s): use a multiple of {parts}"
        )
    return args.batch_size // parts


def check_memory(args: argparse.Namespace, device: torch.device, ranks: Ranks):
    """Refuses, with the whole plan, a run that the memory found cannot hold."""
    sequences = micro_batch_size(args, ranks) * ranks.world
    plan = MemoryPlan.of(PRESETS[args.model_name], args.seq_len, sequences, args.precision)
    sharded = args.parallel == "fsdp2"
    available = free_bytes(device, ranks.on_host)
    if available is None or plan.per_card(ranks.world, sharded) <= available:
        return
    title = f"{args.model_name}, seq_len {args.seq_len}, {args.precision}"
    cards = plan.cards_needed(available)
    advice = f"It fits on {cards} such cards: torchrun with {cards} ranks and --parallel fsdp2."
    if cards is None:
        advice = "No number of such cards holds it: use larger cards or a smaller --seq_len."
    raise UsageError(
        f"{plan.table(title, available, ranks.world, sharded)}\n"
        f"Not started, and nothing was allocated: {device} has too little free memory. {advice}"
    )


def train(trainer: Trainer, progress: Progress, stop: StopRequest) -> int | None:
    """Runs to --max_steps; returns the number of the signal that ended it early, or None."""
    args, ranks = trainer.args, trainer.ranks
    tokens_a_step = args.batch_size * args.seq_len
    window: list[torch.Tensor] = []  # losses still on the device: reading each would stall it
    rates: list[float] = []
    fetch_every, seconds_a_step = 1, 0.0
    began = time.monotonic()
    while trainer.step < args.max_steps:
        rates.append(trainer.learning_rate())
        window.append(trainer.train_step())
        step = trainer.step
        finished = step == args.max_steps
        evaluate = finished or step % args.eval_interval == 0
        save = finished or step % args.save_interval == 0
        if len(window) < fetch_every and not (evaluate or save):
            continue

        # The wish to stop and the pace travel with the losses, so that all ranks act alike.
        report = torch.tensor([float(stop.signal is not None), seconds_a_step])
        sums = ranks.sum(torch.cat((torch.stack(window), trainer.to_device(report))))
        *losses, stopping, pace = (value / ranks.world for value in sums.tolist())
        seconds_a_step = (time.monotonic() - began) / len(window)
        if pace > 0:
            fetch_every = min(100, max(1, round(FETCH_SECONDS / pace)))

        validation = trainer.validation_loss() if evaluate else None
        rate = tokens_a_step / seconds_a_step
        progress.steps(step - len(losses) + 1, losses, rates, rate, validation)
        if not all(map(math.isfinite, losses)):
            raise TrainingError(
                f"the loss became {losses[-1]} by step {step}. Nothing was saved after that; try a "
                f"lower --lr than {args.lr}, and --resume from the last checkpoint."
            )
        if save or stopping:
            path = trainer.save()
            if stopping and not finished:
                progress.message(f"stopped at step {step}, saved {path}; go on with --resume")
                return stop.signal or signal.SIGTERM
            if not finished:
                progress.message(f"saved {path}")
        window, rates, began = [], [], time.monotonic()
    return None


def run(args: argparse.Namespace, ranks: Ranks) -> int:
    device = choose_device(args.device, ranks)
    check_memory(args, device, ranks)
    text = Text(args.data, args.seq_len)
    resume_from = checkpoint.find(args.resume, args.log_dir) if args.resume else None
    if resume_from is None and checkpoint.stored(args.log_dir):
        raise UsageError(
            f"{args.log_dir} holds checkpoints of another run: go on with it by --resume, or "
            "choose another --log_dir"
        )
    if ranks.launched:
        dist.init_process_group(dist.get_default_backend_for_device(device))
    if ranks.rank == 0:
        args.log_dir.mkdir(parents=True, exist_ok=True)
    stopped_by = run_model(Trainer(args, device, ranks, text), resume_from)
    if ranks.launched:
        gc.collect()  # the sharded model and the process group hold each other
        dist.barrier()
        dist.destroy_process_group()
    return 128 + stopped_by if stopped_by else 0


def run_model(trainer: Trainer, resume_from: Path | None) -> int | None:
    args, ranks, device = trainer.args, trainer.ranks, trainer.device
    progress = Progress(args.log_dir, args.max_steps, visible=ranks.rank == 0)
    layout = f", {ranks.world} ranks, {args.parallel}" if ranks.launched else ""
    progress.message(
        f"{args.model_name} on {device.type}{layout}, {args.precision}: "
        f"{sum(p.numel() for _, p in trainer.parameters):,} parameters, "
        f"{args.batch_size} x {args.seq_len} bytes a step from {args.data}"
    )
    if resume_from:
        differing = trainer.resume(resume_from)
        progress.message(f"resumed at step {trainer.step} from {resume_from}")
        if differing:
            progress.message(f"  it was made with {', '.join(differing)}: the losses will differ")
    progress.start(trainer.step)
    stopped_by = train(trainer, progress, StopRequest())
    if stopped_by is None:
        if progress.last_loss is not None:
            progress.message(
                f"done: loss {progress.last_loss:.6f}, validation {progress.validation:.6f} nats a "
                f"byte; {progress.path}"
            )
        progress.message(f"sample: {trainer.sample('The ', 120)}")
    return stopped_by


def main(argv: list[str] | None = None) -> int:
    args = parse_arguments(argv)
    ranks = Ranks()
    try:
        return run(args, ranks)
    except (UsageError, DataError, CheckpointError) as error:
        failure, status = error, 2
    except TrainingError as error:
        failure, status = error, 1
    except OSError as error:  # may befall one rank alone
        print(f"train.py: rank {ranks.rank}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    if ranks.rank == 0:
        print(f"train.py: {failure}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())

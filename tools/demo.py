# SPDX-License-Identifier: Apache-2.0
"""./dev demo: trains a small language model on two xhal devices, and judges how it went.

Lists the devices; trains starfire-tiny by examples/train.py (plain PyTorch) on two ranks in bf16,
stops it half-way, resumes it; does the same on PyTorch's own CPU backend; compares. The table's
figures are read from what the runs left behind: train.jsonl, the fallback reports of the PyTorch
device, the traces of the HAL's trace layer.

Exit status: 0 all well, 1 a finding (named), 2 wrong usage.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from demo_record import (
    ACCUMULATION,
    BATCH_SIZE,
    RANKS,
    SEQ_LEN,
    Curve,
    DemoError,
    fallbacks,
    host_copies,
    read_rows,
)

ROOT = Path(__file__).resolve().parents[1]
TRAIN = ROOT / "examples" / "train.py"
SEED = 1
LOSS_LIMIT = 2.2  # nats a byte, on text that was held out
DIFFERENCE_LIMIT = 0.02  # between the device's validation loss and the CPU's
STALL_SECONDS = 120  # a run that records no step for so long is given up


@dataclass
class Job:
    """One call of train.py under torchrun. Its output goes to a file, its steps to log_dir."""

    name: str
    device: str
    log_dir: Path
    steps: int
    environment: dict[str, str]
    resume: bool = False
    stop_at: int | None = None

    def command(self) -> list[str]:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc_per_node", str(RANKS), str(TRAIN)]
        command += ["--device", self.device, "--model_name", "starfire-tiny"]
        command += ["--precision", "bf16", "--gradient_accumulation", str(ACCUMULATION)]
        command += ["--batch_size", str(BATCH_SIZE), "--seq_len", str(SEQ_LEN)]
        command += ["--max_steps", str(self.steps), "--eval_interval", str(max(self.steps // 6, 1))]
        command += ["--seed", str(SEED), "--log_dir", str(self.log_dir)]
        return command + (["--resume"] if self.resume else [])


class Display:
    """One updating line on a terminal; elsewhere a line now and then."""

    def __init__(self):
        self.terminal = sys.stdout.isatty()
        self.shown = 0.0

    def step(self, text: str):
        print(f"\n{'=' * 3} {text}", flush=True)

    def update(self, job: Job, row: dict | None, seconds: float):
        if not self.terminal and time.monotonic() - self.shown < 10:
            return
        self.shown = time.monotonic()
        if row is None:
            text = f"{job.name}: starting, {seconds:.0f} s"
        else:
            done = row["step"] / job.steps
            bar = "#" * round(24 * done) + "." * (24 - round(24 * done))
            text = (
                f"{job.name} [{bar}] {row['step']}/{job.steps}  loss {row['loss']:.4f}  "
                f"{row['tokens_per_second']:,.0f} tokens/s  {seconds:.0f} s"
            )
        print(f"\r{text}\033[K" if self.terminal else text, end="" if self.terminal else "\n")
        sys.stdout.flush()

    def end(self):
        if self.terminal:
            print("\r\033[K", end="")


def run(job: Job, display: Display) -> str:
    """Runs one job to its end, or to a stop asked for at job.stop_at; returns what it printed."""
    output_path = job.log_dir / f"output-{'resumed' if job.resume else 'first'}.txt"
    job.log_dir.mkdir(parents=True, exist_ok=True)
    began = moved = time.monotonic()
    with open(output_path, "w") as output:
        process = subprocess.Popen(
            job.command(), env=job.environment, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT
        )
        seen, stopped = 0, False
        try:
            while process.poll() is None:
                time.sleep(0.2)
                rows = read_rows(job.log_dir)
                if len(rows) != seen:
                    seen, moved = len(rows), time.monotonic()
                elif time.monotonic() - moved > STALL_SECONDS:
                    raise DemoError(
                        f"{job.name}: no step for {STALL_SECONDS} s; its output: {output_path}"
                    )
                display.update(job, rows[-1] if rows else None, time.monotonic() - began)
                if job.stop_at and not stopped and rows and rows[-1]["step"] >= job.stop_at:
                    process.send_signal(signal.SIGTERM)  # torchrun hands it to the ranks
                    stopped = True
        finally:
            display.end()
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(timeout=40)  # torchrun gives its ranks 30 s
                except subprocess.TimeoutExpired:
                    process.kill()
    printed = output_path.read_text()
    ended_well = "stopped at step" in printed if stopped else process.returncode == 0
    if job.stop_at and not stopped:
        raise DemoError(f"{job.name} ended before step {job.stop_at}; its output: {output_path}")
    if not ended_well:
        tail = "\n".join("    " + line for line in reason(printed))
        raise DemoError(
            f"{job.name} failed with status {process.returncode}; the end of {output_path}:\n{tail}"
        )
    return printed


def reason(printed: str) -> list[str]:
    """The lines of a failed run that tell most: up to where torchrun begins to sum up."""
    lines = [line for line in printed.splitlines() if line.strip()]
    summary = [n for n, line in enumerate(lines) if "elastic/multiprocessing/api.py" in line]
    return lines[: summary[0] if summary else None][-25:]


def device_environment(device: str, out: Path) -> dict[str, str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        environment.pop(name, None)
    if device == "cpu":  # the peer: PyTorch alone
        return environment | {"TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}
    environment.setdefault("XHAL_VISIBLE_DEVICES", "cpu")
    environment.setdefault("XHAL_CPU_DEVICES", str(RANKS))
    return environment | {"XHAL_FALLBACK_REPORT": str(out / "fallbacks-%p.json")}


@dataclass
class Outcome:
    """Everything the table shows; --json writes it."""

    device: str
    steps: int
    stopped_at_step: int
    training_loss: float
    validation_loss: float
    tokens_per_second: float
    cpu_training_loss: float
    cpu_validation_loss: float
    cpu_tokens_per_second: float
    validation_difference: float
    fallbacks: dict[str, int] | None  # None: not a HAL device
    host_copies: dict[str, int] | None
    traced_steps: int
    launches_a_step: float | None
    curve: str
    sample: str
    seconds: dict[str, float]
    findings: list[str]


def judge(outcome: Outcome):
    """Names what is not as it must be."""
    found = outcome.findings
    if not outcome.validation_loss < LOSS_LIMIT:
        found.append(f"validation loss {outcome.validation_loss:.4f} is not below {LOSS_LIMIT}")
    if not outcome.validation_difference <= DIFFERENCE_LIMIT:
        found.append(
            f"validation loss differs by {outcome.validation_difference:.2%} from PyTorch CPU's, "
            f"more than {DIFFERENCE_LIMIT:.0%}"
        )
    if outcome.fallbacks:
        found.append(f"{sum(outcome.fallbacks.values())} operator calls fell back to the host")
    if outcome.host_copies and outcome.host_copies["other"]:
        found.append(f"{outcome.host_copies['other']} host copies that the script did not ask for")


def table(outcome: Outcome) -> str:
    peer = "PyTorch cpu"
    rows = [
        ("", outcome.device, peer),
        ("training loss", f"{outcome.training_loss:.4f}", f"{outcome.cpu_training_loss:.4f}"),
        ("validation loss", f"{outcome.validation_loss:.4f}", f"{outcome.cpu_validation_loss:.4f}"),
        (
            "tokens/s",
            f"{outcome.tokens_per_second:,.0f}",
            f"{outcome.cpu_tokens_per_second:,.0f}",
        ),
    ]
    lines = [f"{name:<22}{ours:>14}{theirs:>14}" for name, ours, theirs in rows]
    ratio = outcome.tokens_per_second / outcome.cpu_tokens_per_second
    lines.append(f"  validation differs by {outcome.validation_difference:.2%}, speed {ratio:.2f}x")
    if outcome.fallbacks is not None:
        lines.append(f"{'fallbacks':<22}{sum(outcome.fallbacks.values()) or 'none':>14}")
        for name, count in sorted(outcome.fallbacks.items(), key=lambda item: -item[1]):
            lines.append(f"  {name:<40}{count:>10,}")
    if outcome.host_copies is not None:
        steps = outcome.traced_steps
        lines.append(f"host copies, {RANKS} ranks, last {steps} steps")
        for kind, words in COPY_KINDS.items():
            lines.append(f"  {words:<28}{outcome.host_copies[kind] or '-':>6}")
        lines.append(f"operator launches a step and rank: {outcome.launches_a_step:,.0f}")
    return "\n".join(lines)


COPY_KINDS = {
    "batch": "batches",
    "loss": "losses",
    "checkpoint": "checkpoint",
    "text": "validation and sample",
    "start": "start, weights of the resume",
    "other": "others",
}


def draw(path: Path, ours: Curve, peer: Curve, device: str, resumed_at: int):
    os.environ.setdefault("MPLCONFIGDIR", str(path.parent / "matplotlib"))
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 5), layout="constrained")
    for curve, name, color, width in (
        (peer, "PyTorch cpu", "0.7", 4),
        (ours, device, "tab:orange", 1.5),
    ):
        steps = range(1, len(curve.losses) + 1)
        axes.plot(steps, curve.losses, color=color, alpha=0.25, linewidth=0.8)
        axes.plot(
            steps, smooth(curve.losses), color=color, linewidth=width, label=f"{name}, training"
        )
        axes.plot(
            *zip(*curve.validations),
            "o--",
            color=color,
            markersize=4 + width,
            label=f"{name}, held-out text",
        )
    axes.axhline(LOSS_LIMIT, color="tab:green", linewidth=0.8, linestyle=":")
    axes.annotate(
        f"{LOSS_LIMIT}", (0, LOSS_LIMIT), color="tab:green", va="bottom", fontsize="small"
    )
    axes.axvline(resumed_at, color="0.7", linewidth=0.8, linestyle=":")
    axes.annotate(" stopped, resumed", (resumed_at, axes.get_ylim()[1]), va="top", fontsize="small")
    axes.set(
        xlabel="optimizer step",
        ylabel="loss, nats a byte",
        title=f"starfire-tiny on {RANKS} {device} ranks, bf16",
    )
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def smooth(values: list[float], keep: float = 0.85) -> list[float]:
    """An exponential mean without the pull of its starting value."""
    mean, weight, result = 0.0, 0.0, []
    for value in values:
        mean = keep * mean + (1 - keep) * value
        weight = keep * weight + (1 - keep)
        result.append(mean / weight)
    return result


def demo(device: str, steps: int, out: Path) -> Outcome:
    display = Display()
    began = time.monotonic()
    seconds = {}
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    on_hal = device == "xhal"
    ours = device_environment(device, out)
    log_dir, cpu_dir = out / "device", out / "cpu"

    if on_hal:
        display.step("the devices")
        try:
            subprocess.run(["xhal", "list"], env=ours, timeout=60, check=True)
        except FileNotFoundError:
            raise DemoError("no command xhal: start this by ./dev demo, which builds it") from None
        except subprocess.SubprocessError as error:
            raise DemoError(f"xhal list: {error}") from None

    def timed(name: str, job: Job) -> str:
        start = time.monotonic()
        printed = run(job, display)
        seconds[name] = round(time.monotonic() - start, 1)
        return printed

    half = steps // 2
    display.step(f"train on {RANKS} {device} devices, stop after step {half}, resume")
    first = Job(f"{device}, first half", device, log_dir, steps, ours, stop_at=half)
    print(last_line(timed("first half", first), "stopped at step"))
    stopped_at = len(read_rows(log_dir))
    traced = {"XHAL_LAYERS": "trace", "XHAL_TRACE_FILE": str(out / "trace-%p.json")}
    second = Job(f"{device}, resumed", device, log_dir, steps, ours | traced, resume=True)
    printed = timed("second half", second)
    print(last_line(printed, "done:"))
    sample = last_line(printed, "sample:")
    print(sample)

    display.step("the same run on PyTorch's own CPU backend, gloo between the ranks")
    peer = Job("PyTorch cpu", "cpu", cpu_dir, steps, device_environment("cpu", out))
    print(last_line(timed("PyTorch cpu", peer), "done:"))

    curve, cpu_curve = Curve.of(log_dir), Curve.of(cpu_dir)
    copies = host_copies(out, log_dir, stopped_at) if on_hal else None
    picture = out / "loss.png"
    draw(picture, curve, cpu_curve, device, stopped_at)
    seconds["all"] = round(time.monotonic() - began, 1)
    outcome = Outcome(
        device=device,
        steps=steps,
        stopped_at_step=stopped_at,
        training_loss=curve.training(),
        validation_loss=curve.validation(),
        tokens_per_second=curve.tokens_per_second,
        cpu_training_loss=cpu_curve.training(),
        cpu_validation_loss=cpu_curve.validation(),
        cpu_tokens_per_second=cpu_curve.tokens_per_second,
        validation_difference=abs(curve.validation() / cpu_curve.validation() - 1),
        fallbacks=fallbacks(out, 2 * RANKS) if on_hal else None,
        host_copies=copies.counts if copies else None,
        traced_steps=copies.steps if copies else 0,
        launches_a_step=copies.launches_a_step if copies else None,
        curve=str(picture),
        sample=sample.removeprefix("sample: "),
        seconds=seconds,
        findings=[],
    )
    judge(outcome)
    return outcome


def last_line(printed: str, words: str) -> str:
    return next((line for line in reversed(printed.splitlines()) if words in line), "")


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev demo", description=__doc__.split("\n\n")[1])
    parser.add_argument("--json", type=Path, metavar="F", help="write what the table shows to F")
    parser.add_argument("--steps", type=int, default=600, help="optimizer steps (default 600)")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "demo", help="for all files")
    parser.add_argument(
        "--device", choices=("xhal", "cpu"), default="xhal", help="cpu: a rehearsal without a HAL"
    )
    args = parser.parse_args()
    if args.steps < 20:
        parser.error("--steps: 20 at least")
    try:
        outcome = demo(args.device, args.steps, args.out.resolve())
    except DemoError as error:
        print(f"\ndemo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(f"\n{table(outcome)}\n\nloss curve: {outcome.curve}")
    print(f"took {outcome.seconds['all']:.0f} s")
    if args.json:
        args.json.write_text(json.dumps(asdict(outcome), indent=1) + "\n")
    for finding in outcome.findings:
        print(f"demo: {finding}", file=sys.stderr)
    print("demo: all well" if not outcome.findings else "demo: not as it must be")
    return 1 if outcome.findings else 0


if __name__ == "__main__":
    sys.exit(main())

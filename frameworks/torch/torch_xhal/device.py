# SPDX-License-Identifier: Apache-2.0
"""torch.xhal: the device module, in the shape of torch.cuda."""

import contextlib
from collections import OrderedDict, namedtuple
from types import SimpleNamespace
from typing import Any, Optional, Union

import torch

from . import _C

DeviceLike = Union[torch.device, str, int, None]

# ---- devices -------------------------------------------------------------------------------------


def is_available() -> bool:
    return _C.device_count() > 0


def device_count() -> int:
    return _C.device_count()


def current_device() -> int:
    return _C.current_device()


def _get_device_index(device: DeviceLike, optional: bool = False, allow_cpu: bool = False) -> int:
    if isinstance(device, int) and not isinstance(device, bool):
        return device
    if isinstance(device, str):
        device = torch.device(device)
    if isinstance(device, torch.device):
        if allow_cpu and device.type == "cpu":
            return -1
        if device.type != "xhal":
            raise ValueError(f"Expected a xhal device, but got: {device}")
        device = device.index
    if device is None:
        if optional:
            return current_device()
        raise ValueError(
            f"Expected a device with a specified index or an integer, but got: {device}"
        )
    return device


def _index(device: DeviceLike) -> int:
    return _get_device_index(device, optional=True)


def set_device(device: DeviceLike) -> None:
    index = _get_device_index(device, optional=True)
    if index >= 0:
        _C.set_device(index)


def _exchange_device(index: int) -> int:
    return _C.exchange_device(index)


def _maybe_exchange_device(index: int) -> int:
    return _C.exchange_device(index)


class device:  # noqa: N801 - torch's name
    """Context manager: the current device inside is the one given; None and -1 change nothing."""

    def __init__(self, device: DeviceLike):
        self.idx = _get_device_index(device, optional=True)
        self.prev_idx = -1

    def __enter__(self):
        self.prev_idx = _C.exchange_device(self.idx)

    def __exit__(self, *exc):
        _C.exchange_device(self.prev_idx)
        return False


class device_of(device):  # noqa: N801
    """As ``device``, of a tensor or storage; nothing changes for one that is elsewhere."""

    def __init__(self, obj):
        super().__init__(obj.get_device() if obj.device.type == "xhal" else -1)


DeviceProperties = namedtuple(
    "DeviceProperties", "name total_memory id plugin vendor emulated compute_units numa_node"
)


def get_device_properties(device: DeviceLike = None) -> DeviceProperties:
    found = _C.describe_open(_index(device))
    return DeviceProperties(
        name=found["name"],
        total_memory=found["total_memory"],
        id=found["id"],
        plugin=found["plugin"],
        vendor=found["vendor"],
        emulated=found["emulated"],
        compute_units=found.get("compute_units", 0),
        numa_node=found["numa_node"],
    )


def get_device_name(device: DeviceLike = None) -> str:
    return _C.describe(_index(device))["name"]


def get_device_capability(device: DeviceLike = None) -> tuple:
    """The version of the catalogue's interface; xHAL devices have no compute capability."""
    _index(device)
    return (0, 1)


def synchronize(device: DeviceLike = None) -> None:
    """Waits for everything submitted to the device; raises what failed there."""
    _C.synchronize(_index(device))


def recover(device: DeviceLike = None) -> None:
    """Makes the streams of a device usable again after a failed operation.

    What was queued behind it has not run.
    """
    _C.recover(_index(device))


# ---- starting and forking ------------------------------------------------------------------------


def init() -> None:
    _lazy_init()


def __getattr__(name: str):
    # torch's activation checkpointing keeps the state of the random numbers of modules that say so.
    # Devices are opened on first use, which may be inside what is recomputed: the state counts from
    # the start.
    if name == "_initialized":
        return is_available() and not _is_in_bad_fork()
    raise AttributeError(f"module 'torch.xhal' has no attribute {name!r}")


def is_initialized() -> bool:
    return any(_C.device_is_open(i) for i in range(_C.device_count())) and not _is_in_bad_fork()


def _is_in_bad_fork() -> bool:
    return _C.is_in_bad_fork()


def _lazy_init() -> None:
    if _is_in_bad_fork():
        raise RuntimeError(
            "Cannot re-initialize xhal in forked subprocess. To use xhal with multiprocessing, you "
            "must use the 'spawn' start method: torch.multiprocessing.set_start_method('spawn')"
        )
    if _C.device_count() == 0:
        raise RuntimeError(f"there is no xHAL device: {_C.why_no_devices()}")


def _lazy_call(callback, **_) -> None:
    callback()


# ---- streams and events --------------------------------------------------------------------------


class Stream(torch.Stream):
    """A stream of a xhal device; priority -1 is more urgent than 0."""

    def __new__(cls, device: DeviceLike = None, priority: int = 0, **kwargs):
        if kwargs:
            return super().__new__(cls, **kwargs)
        return super().__new__(cls, torch.device("xhal", _index(device)), priority=priority)

    def record_event(self, event=None):
        event = Event() if event is None else event
        event.record(self)
        return event

    def wait_event(self, event) -> None:
        event.wait(self)

    def wait_stream(self, stream) -> None:
        self.wait_event(stream.record_event())


def Event(
    enable_timing: bool = False, blocking: bool = False, interprocess: bool = False
):  # noqa: N802
    """A plain torch.Event: its elapsed_time accepts no subclass."""
    return torch.Event(
        "xhal", enable_timing=enable_timing, blocking=blocking, interprocess=interprocess
    )


def current_stream(device: DeviceLike = None) -> torch.Stream:
    return torch._C._accelerator_getStream(_index(device))


def default_stream(device: DeviceLike = None) -> torch.Stream:
    index = _index(device)
    return Stream(stream_id=0, device_index=index, device_type=_device_type_number())


def _device_type_number() -> int:
    return int(torch._C._autograd.DeviceType.PrivateUse1)


def set_stream(stream: Optional[torch.Stream]) -> None:
    if stream is not None:
        torch._C._accelerator_setStream(stream)


@contextlib.contextmanager
def stream(stream: Optional[torch.Stream]):
    """Context manager: work inside goes to ``stream``, on its device; nothing changes for None."""
    if stream is None:
        yield
        return
    before_device = _C.current_device()
    _C.set_device(stream.device_index)
    before = current_stream(stream.device_index)
    torch._C._accelerator_setStream(stream)
    try:
        yield
    finally:
        torch._C._accelerator_setStream(before)
        _C.set_device(before_device)


class StreamContext:
    """What torch.cuda.stream returns; here a thin wrapper of ``stream``."""

    def __init__(self, stream_):
        self.stream = stream_
        self._context = stream(stream_)

    def __enter__(self):
        self._context.__enter__()

    def __exit__(self, *exc):
        return self._context.__exit__(*exc)


# ---- memory --------------------------------------------------------------------------------------


def empty_cache() -> None:
    """Gives memory that no tensor holds back to the devices."""
    _C.empty_cache()


def mem_get_info(device: DeviceLike = None) -> tuple:
    """Free and total bytes of the device."""
    return _C.memory_info(_index(device))


def memory_stats(device: DeviceLike = None) -> "OrderedDict[str, Any]":
    stats: "OrderedDict[str, Any]" = OrderedDict()
    for name, value in _C.memory_counters(_index(device)).items():
        kind, dot, what = name.partition(".")
        stats[f"{kind}.all.{what}" if dot else name] = value
    return stats


def memory_allocated(device: DeviceLike = None) -> int:
    return _C.memory_counters(_index(device))["allocated_bytes.current"]


def max_memory_allocated(device: DeviceLike = None) -> int:
    return _C.memory_counters(_index(device))["allocated_bytes.peak"]


def memory_reserved(device: DeviceLike = None) -> int:
    return _C.memory_counters(_index(device))["reserved_bytes.current"]


def max_memory_reserved(device: DeviceLike = None) -> int:
    return _C.memory_counters(_index(device))["reserved_bytes.peak"]


def reset_peak_memory_stats(device: DeviceLike = None) -> None:
    _C.reset_peak_memory_stats(_index(device))


reset_max_memory_allocated = reset_peak_memory_stats


def reset_accumulated_memory_stats(device: DeviceLike = None) -> None:
    """From here on, what is counted as allocated and freed begins at 0."""
    _C.reset_accumulated_memory_stats(_index(device))


def memory_summary(device: DeviceLike = None, abbreviated: bool = False) -> str:
    index = _index(device)
    counters = _C.memory_counters(index)
    lines = [f"memory of xhal:{index}"]
    for name, value in counters.items():
        text = f"{value / 2**20:.1f} MiB" if "bytes" in name else str(value)
        lines.append(f"  {name:<26} {text:>14}")
    return "\n".join(lines)


# ---- random numbers ------------------------------------------------------------------------------


class _Generators:
    """default_generators: one for each device, made when asked for."""

    def __len__(self):
        return _C.device_count()

    def __getitem__(self, index):
        if index < 0 or index >= _C.device_count():
            raise IndexError(index)
        return _C.default_generator(index)

    def __iter__(self):
        return (self[i] for i in range(len(self)))


default_generators = _Generators()


def _get_generator(device: torch.device) -> torch.Generator:
    return default_generators[_index(device)]


def get_rng_state(device: DeviceLike = "xhal") -> torch.Tensor:
    return default_generators[_index(device)].get_state()


def get_rng_state_all() -> list:
    return [generator.get_state() for generator in default_generators]


def set_rng_state(new_state: torch.Tensor, device: DeviceLike = "xhal") -> None:
    default_generators[_index(device)].set_state(new_state)


def set_rng_state_all(new_states) -> None:
    for index, state in enumerate(new_states):
        set_rng_state(state, index)


def manual_seed(seed: int) -> None:
    if _C.device_count():
        default_generators[current_device()].manual_seed(int(seed))


def manual_seed_all(seed: int) -> None:
    for generator in default_generators:
        generator.manual_seed(int(seed))


def seed() -> None:
    default_generators[current_device()].seed()


def seed_all() -> None:
    first = 0
    for index, generator in enumerate(default_generators):
        if index == 0:
            first = generator.seed()
        else:
            generator.manual_seed(first)


def initial_seed() -> int:
    return default_generators[current_device()].initial_seed()


# ---- mixed precision -----------------------------------------------------------------------------


def is_bf16_supported(including_emulation: bool = True) -> bool:
    return True


def get_amp_supported_dtype() -> list:
    return [torch.bfloat16, torch.float16]


# ---- fallbacks -----------------------------------------------------------------------------------


def fallbacks() -> dict:
    """Operators that ran on the host because the device lacks them: {name: calls}."""
    return _C.fallbacks()


def reset_fallbacks() -> None:
    _C.reset_fallbacks()


# ---- what torch looks for by these names ---------------------------------------------------------

_utils = SimpleNamespace(_get_device_index=_get_device_index)
random = SimpleNamespace(
    get_rng_state=get_rng_state,
    get_rng_state_all=get_rng_state_all,
    set_rng_state=set_rng_state,
    set_rng_state_all=set_rng_state_all,
    manual_seed=manual_seed,
    manual_seed_all=manual_seed_all,
    seed=seed,
    seed_all=seed_all,
    initial_seed=initial_seed,
)
memory = SimpleNamespace(
    empty_cache=empty_cache,
    mem_get_info=mem_get_info,
    memory_stats=memory_stats,
    memory_allocated=memory_allocated,
    max_memory_allocated=max_memory_allocated,
    memory_reserved=memory_reserved,
    max_memory_reserved=max_memory_reserved,
    reset_peak_memory_stats=reset_peak_memory_stats,
    reset_accumulated_memory_stats=reset_accumulated_memory_stats,
    memory_summary=memory_summary,
)


def _inductor_backend_init() -> None:
    """Called by inductor when it meets the device: there is no code generator, it says so."""

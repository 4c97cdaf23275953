# SPDX-License-Identifier: Apache-2.0
"""Run by test_distributed.py, once for each rank: rank 0 waits for rank 1, which does not come, and
is interrupted. Arguments: rank, file of the store, what rank 0 waits in."""

import datetime
import sys

import torch
import torch.distributed as dist

rank, store, what = int(sys.argv[1]), sys.argv[2], sys.argv[3]
if what == "init":
    print("waits", flush=True)
dist.init_process_group(
    "xhal",
    init_method=f"file://{store}",
    rank=rank,
    world_size=2,
    timeout=datetime.timedelta(minutes=20),
)
x = torch.ones(4, device="xhal")
dist.all_reduce(x)
torch.xhal.synchronize()
if rank == 1:
    sys.stdin.read()  # until the test ends this rank
else:
    print("waits", flush=True)
    if what == "recv":
        dist.recv(torch.ones(4), 1)
    elif what == "device barrier":
        dist.barrier()
    elif what == "exit":
        dist.all_reduce(x, async_op=True)
        raise KeyboardInterrupt

# SPDX-License-Identifier: Apache-2.0
"""Lightning's Fabric as its users write it. It knows nothing of xhal."""

import json
import sys

import torch
from lightning.fabric import Fabric

torch.manual_seed(0)
more = {"accelerator": "cpu"} if "--cpu" in sys.argv else {}
if "--two" in sys.argv:
    more.update(devices=2, strategy="ddp")
fabric = Fabric(**more)
fabric.launch()
model = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.GELU(), torch.nn.Linear(32, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
model, optimizer = fabric.setup(model, optimizer)
points = fabric.to_device(torch.randn(64, 16))
losses = []
for _ in range(int(sys.argv[1])):
    loss = model(points[fabric.global_rank :: fabric.world_size]).square().mean()
    fabric.backward(loss)
    optimizer.step()
    optimizer.zero_grad()
    losses.append(fabric.all_reduce(loss.detach()).item())
if fabric.global_rank == 0:
    result = {"device": fabric.device.type, "ranks": fabric.world_size, "losses": losses}
    print(json.dumps(result), flush=True)

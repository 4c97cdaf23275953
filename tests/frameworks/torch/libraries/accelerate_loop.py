# SPDX-License-Identifier: Apache-2.0
"""A training loop as accelerate's users write it. It knows nothing of xhal."""

import json
import sys

import torch
from accelerate import Accelerator

torch.manual_seed(0)
precision = "fp16" if "--fp16" in sys.argv else "no"
accelerator = Accelerator(cpu="--cpu" in sys.argv, mixed_precision=precision)
model = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.GELU(), torch.nn.Linear(32, 4))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
points, classes = torch.randn(64, 16), torch.randint(0, 4, (64,))
data = torch.utils.data.TensorDataset(points, classes)
loader = torch.utils.data.DataLoader(data, batch_size=8)
model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
losses = []
for _ in range(int(sys.argv[1])):
    for x, y in loader:
        with accelerator.autocast():
            loss = torch.nn.functional.cross_entropy(model(x), y)
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(accelerator.gather(loss.detach().reshape(1)).mean().item())
if accelerator.is_main_process:
    scaler = accelerator.scaler is not None and accelerator.scaler.is_enabled()
    result = {
        "device": accelerator.device.type,
        "ranks": accelerator.num_processes,
        "losses": losses,
        "scaler": scaler,
    }
    print(json.dumps(result))
accelerator.end_training()

# SPDX-License-Identifier: Apache-2.0
"""A LightningModule and its Trainer as its users write them. They know nothing of xhal."""

import importlib
import json
import sys

import torch

L = importlib.import_module("pytorch_lightning" if "--old-name" in sys.argv else "lightning")


class Net(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(
            torch.nn.Linear(16, 32), torch.nn.GELU(), torch.nn.Linear(32, 4)
        )
        self.losses = []

    def training_step(self, batch, index):
        points, classes = batch
        loss = torch.nn.functional.cross_entropy(self.net(points), classes)
        self.losses.append(self.all_gather(loss.detach()).mean().item())
        return loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


def main():
    L.seed_everything(0, verbose=False)
    data = torch.utils.data.TensorDataset(torch.randn(64, 16), torch.randint(0, 4, (64,)))
    net = Net()
    more = {"accelerator": "cpu"} if "--cpu" in sys.argv else {}
    if "--two" in sys.argv:
        more.update(devices=2, strategy="ddp")
    trainer = L.Trainer(
        max_steps=int(sys.argv[1]),
        max_epochs=-1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **more,
    )
    trainer.fit(net, torch.utils.data.DataLoader(data, batch_size=8))
    if trainer.is_global_zero:
        device = trainer.strategy.root_device.type
        result = {"device": device, "ranks": trainer.world_size, "losses": net.losses}
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()

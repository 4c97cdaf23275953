# SPDX-License-Identifier: Apache-2.0
"""lightning/pytorch/strategies/ddp.py, DDPStrategy._setup_model, and lightning/fabric/strategies/
ddp.py, DDPStrategy.setup_module: DistributedDataParallel is made on a side stream of CUDA.

Upstream does so for the capture of graphs; ours need no such stream.
"""


def apply(module) -> None:
    strategy = module.DDPStrategy
    name = "_setup_model" if hasattr(strategy, "_setup_model") else "setup_module"
    inner = getattr(strategy, name)
    ids = getattr(strategy, "determine_ddp_device_ids", None) or strategy._determine_ddp_device_ids

    def setup(self, model):
        if self.root_device.type != "xhal":
            return inner(self, model)
        return module.DistributedDataParallel(
            module=model, device_ids=ids(self), **self._ddp_kwargs
        )

    setattr(strategy, name, setup)

# SPDX-License-Identifier: Apache-2.0
"""lightning/pytorch/trainer/connectors/accelerator_connector.py, _AcceleratorConnector, and
lightning/fabric/connector.py, _Connector: _choose_strategy puts one device of an accelerator that
it does not know on the CPU."""


def apply(module) -> None:
    connector = getattr(module, "_AcceleratorConnector", None) or module._Connector
    inner = connector._choose_strategy

    def _choose_strategy(self):
        strategy = inner(self)
        if self.accelerator.name() == "xhal" and isinstance(strategy, module.SingleDeviceStrategy):
            return module.SingleDeviceStrategy(device=self._parallel_devices[0])
        return strategy

    connector._choose_strategy = _choose_strategy

# SPDX-License-Identifier: Apache-2.0
"""lightning/pytorch/trainer/connectors/accelerator_connector.py, _AcceleratorConnector, and
lightning/fabric/connector.py, _Connector: _check_and_init_precision gives autocast the device
``cuda`` for whatever is neither the CPU nor mps."""


def apply(module) -> None:
    connector = getattr(module, "_AcceleratorConnector", None) or module._Connector
    inner = connector._check_and_init_precision
    mixed_precision = module.MixedPrecision

    def _check_and_init_precision(self):
        if self.accelerator.name() != "xhal":
            return inner(self)

        def on_xhal(precision, device):
            return mixed_precision(precision, "xhal")

        module.MixedPrecision = on_xhal
        try:
            return inner(self)
        finally:
            module.MixedPrecision = mixed_precision

    connector._check_and_init_precision = _check_and_init_precision

# SPDX-License-Identifier: Apache-2.0
"""The starfire language model: plain PyTorch, used by ../train.py."""

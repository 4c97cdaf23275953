"""The starfire language model: plain PyTorch, used by ../train.py."""

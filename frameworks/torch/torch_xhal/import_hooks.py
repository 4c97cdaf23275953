# SPDX-License-Identifier: Apache-2.0
"""Something to be done right after a module was imported, by whoever imports it."""

import importlib.abc
import importlib.util
import sys


class _Loader(importlib.abc.Loader):
    """The module's own loader, and then the function."""

    def __init__(self, loader, after):
        self._loader = loader
        self._after = after

    def create_module(self, spec):
        return self._loader.create_module(spec)

    def exec_module(self, module):
        # Whoever looks at the module later finds it as if we had not been here.
        module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        self._after(module)

    def __getattr__(self, name):
        return getattr(self._loader, name)


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, names, after):
        self._names = set(names)
        self._after = after

    def find_spec(self, name, path, target=None):
        if name not in self._names:
            return None
        self._names.remove(name)  # the search below comes here again
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._names.add(name)
        if spec is None or spec.loader is None or not hasattr(spec.loader, "exec_module"):
            return spec
        spec.loader = _Loader(spec.loader, self._after)
        return spec


def _when_complete(module, after) -> None:
    """For a module that is being imported right now: it was that import which imported torch.

    The import system clears ``_initializing`` of the module's spec at the end, also when it failed.
    """
    spec = module.__spec__
    plain = type(spec)

    class Watched(plain):
        def __setattr__(self, name, value):
            super().__setattr__(name, value)
            if name != "_initializing" or value:
                return
            self.__class__ = plain
            if sys.modules.get(module.__name__) is module:
                after(module)

    spec.__class__ = Watched


def after_import(names, after) -> None:
    """Calls ``after(module)`` for each of these modules: now where it is imported already."""
    missing = []
    for name in names:
        module = sys.modules.get(name)
        if module is None:
            missing.append(name)
        elif getattr(getattr(module, "__spec__", None), "_initializing", False):
            _when_complete(module, after)
        else:
            after(module)
    sys.meta_path.insert(0, _Finder(missing, after))

# SPDX-License-Identifier: Apache-2.0
"""Imports a module of a public checkout as it stands, with empty stand-ins for packages that its aggregation does not
compute with (transformers, flwr, ...). For check_public_aggregation.py.
"""
import contextlib
import importlib
import importlib.abc
import importlib.machinery
import io
import sys
import types


class AnyName(type):
    """A class whose attributes are more such classes, the same ones every time."""

    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        setattr(cls, name, stand_in(name))
        return cls.__dict__[name]


def stand_in(name):
    def init(self, *_, **fields):
        self.__dict__.update(fields)

    return AnyName(name, (), {"__init__": init})


class Package(types.ModuleType):
    __path__ = []
    __all__ = []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        setattr(self, name, stand_in(name))
        return self.__dict__[name]


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Stand-ins for `names` and what lies below them."""

    def __init__(self, names):
        self.names = names

    def find_spec(self, name, path=None, target=None):
        if any(name == n or name.startswith(n + ".") for n in self.names):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return Package(spec.name)

    def exec_module(self, module):
        pass


def load(repo, module, stand_ins=(), below="."):
    """The module of this name, found in repo/below; modules of its checkout stay imported."""
    sys.path.insert(0, str(repo / below))
    sys.meta_path.insert(0, Finder(stand_ins))
    sys.dont_write_bytecode = True
    return importlib.import_module(module)


def without_init(repo, *packages):
    """Makes these packages importable without what their __init__.py imports."""
    for name in packages:
        package = types.ModuleType(name)
        package.__path__ = [str(repo / name.replace(".", "/"))]
        sys.modules[name] = package


@contextlib.contextmanager
def quiet():
    """Keeps what a project prints to itself."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield

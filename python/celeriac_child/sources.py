"""Imports the package `celeriac_child` from texts in memory, as the worker sent them."""
import importlib.machinery
import importlib.util
import sys


class Sources:
    """A finder and loader for the modules among `files`, texts by path (`celeriac_child/frames.py`)."""

    def __init__(self, files):
        self.files = files

    def path_of(self, name):
        """The path of a module among the texts, or None."""
        base = name.replace(".", "/")
        for path in (base + "/__init__.py", base + ".py"):
            if path in self.files:
                return path
        return None

    def find_spec(self, name, path=None, target=None):
        """The finder's half, see `importlib.abc.MetaPathFinder`."""
        origin = self.path_of(name)
        if origin is None:
            return None
        package = origin.endswith("/__init__.py")
        spec = importlib.machinery.ModuleSpec(name, self, origin=origin, is_package=package)
        spec.has_location = False
        return spec

    def create_module(self, spec):
        """The loader's half: the default module."""
        return None

    def exec_module(self, module):
        """The loader's half: runs the text."""
        origin = module.__spec__.origin
        exec(compile(self.files[origin], origin, "exec", dont_inherit=True), module.__dict__)

    def get_source(self, name):
        """Lets a traceback show the lines of the text."""
        return self.files[self.path_of(name)]


def install(files):
    """Puts the texts before everything else that Python would import."""
    sys.meta_path.insert(0, Sources(files))

"""Modules that libraries import and hemotorch does not use: imported only if somebody asks for something in them."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import LazyLoader, find_spec, module_from_spec
from typing import Any

#: By library. All of them come with `import scipy.ndimage, scipy.sparse`: 0.32 s of a core, without them 0.19 s.
#: scipy takes every name of numpy over, and the sines of scipy.special for a rotation.
PUT_OFF = {
    "numpy": ("numpy.f2py", "numpy.testing", "numpy.ma", "numpy.polynomial", "numpy.ctypeslib"),
    "scipy": ("scipy.special",),
}


def import_libraries() -> None:
    """Imports numpy, scipy and nibabel without what they need only in parts that nothing here calls.

    Python's own `LazyLoader` stands in for such a module, and imports it when one of its names is used. Nothing is done
    in a process that has imported one of the libraries already: it belongs to another program.
    """
    if {"scipy", "nibabel"} & sys.modules.keys():
        return
    for library, names in PUT_OFF.items():
        import_module(library)
        for name in names:
            _put_off(name)
    import scipy.ndimage
    import scipy.sparse  # noqa: F401

    _import_nibabel_alone()


def _put_off(name: str) -> None:
    """Stands a module in that is imported on first use, if it is not imported yet and there is one of this name."""
    spec = None if name in sys.modules else find_spec(name)
    if spec is None or spec.loader is None:
        return
    spec.loader = LazyLoader(spec.loader)
    module = module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    package, _, attribute = name.rpartition(".")
    setattr(sys.modules[package], attribute, module)


def _import_nibabel_alone() -> None:
    """Imports nibabel without pydicom, for which a user would wait 0.1 s.

    nibabel imports it for DICOM headers within NIfTI files, which nothing here reads.
    """
    if "pydicom" in sys.modules:
        return
    modules: dict[str, Any] = sys.modules
    modules["pydicom"] = None  # Python's own way to say that there is none
    try:
        import nibabel  # noqa: F401
    finally:
        del modules["pydicom"]

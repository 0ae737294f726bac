"""Predicting does not wait for what libraries import and nobody uses, and whoever uses it has it all the same."""

from __future__ import annotations

import json
import subprocess
import sys

from hemotorch.system.lazy_imports import PUT_OFF

CODE = """
import json, sys
from hemotorch.system.lazy_imports import PUT_OFF, import_libraries
import_libraries()
names = [name for names in PUT_OFF.values() for name in names]
loaded = [name for name in names if any(module.startswith(name + ".") for module in sys.modules)]
had_pydicom = "pydicom" in sys.modules
import numpy as np, scipy.ndimage, scipy.special, numpy.ma, numpy.testing
numpy.testing.assert_allclose(scipy.special.gamma(5), 24)
turned = scipy.ndimage.rotate(np.eye(5), 90)  # which needs scipy.special
total = int(numpy.ma.masked_equal([1, 2, 3], 2).sum())
poly = np.polynomial.Polynomial([1, 2])(3.0)
import nibabel, pydicom.uid
print(json.dumps([loaded, had_pydicom, turned.round().tolist(), total, poly, nibabel.__name__]))
"""


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_modules_that_are_put_off_are_imported_on_first_use() -> None:
    loaded, pydicom, turned, total, poly, nibabel = json.loads(run(CODE))
    assert (loaded, pydicom) == ([], False)
    assert turned == [[0.0] * (4 - row) + [1.0] + [0.0] * row for row in range(5)]
    assert (total, poly, nibabel) == (4, 7.0, "nibabel")


def test_a_process_of_another_program_is_left_as_it_is() -> None:
    code = "import sys, scipy.ndimage\n"
    code += "before = set(sys.modules)\nfrom hemotorch.system.lazy_imports import import_libraries as f\nf()\n"
    code += "new = set(sys.modules) - before\nprint(sorted(n for n in new if n.startswith(('numpy', 'scipy', 'nib'))))"
    assert run(code) == "[]\n"


def test_what_is_put_off_is_there() -> None:
    """A name that a library no longer has would be passed over in silence, and the time would be lost."""
    for library, names in PUT_OFF.items():
        code = f"import {', '.join(names)}, {library}; print({library}.__name__)"
        assert run(code) == f"{library}\n"

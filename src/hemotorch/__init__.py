"""hemotorch: networks that outline bleeding inside the skull on head CT. Research use only, not a medical device.

    import hemotorch

    model = hemotorch.load_model("run")
    prediction = model.predict(hemotorch.read_scan("scan.nii.gz"))
    print(prediction.volume_ml["total"], "mL")

What stands in `__all__` is imported when it is first asked for, so that `import hemotorch` takes no time.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hemotorch.data.dataset import Dataset
    from hemotorch.data.prepare import prepare
    from hemotorch.inference.load import load_model, predict
    from hemotorch.io import read_scan
    from hemotorch.recipe import Recipe
    from hemotorch.report.run_report import evaluate_run as evaluate
    from hemotorch.run import Run
    from hemotorch.scan import Prediction, Scan
    from hemotorch.training.loop import train

__all__ = [
    "Dataset",
    "Prediction",
    "Recipe",
    "Run",
    "Scan",
    "evaluate",
    "load_model",
    "predict",
    "prepare",
    "read_scan",
    "train",
]

NOTICE = "Research use only, not a medical device."

__version__ = "0.1.0"

_HOMES = {
    "Dataset": "hemotorch.data.dataset:Dataset",
    "Prediction": "hemotorch.scan:Prediction",
    "Recipe": "hemotorch.recipe:Recipe",
    "Run": "hemotorch.run:Run",
    "Scan": "hemotorch.scan:Scan",
    "evaluate": "hemotorch.report.run_report:evaluate_run",
    "load_model": "hemotorch.inference.load:load_model",
    "predict": "hemotorch.inference.load:predict",
    "prepare": "hemotorch.data.prepare:prepare",
    "read_scan": "hemotorch.io:read_scan",
    "train": "hemotorch.training.loop:train",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hemotorch' has no attribute '{name}'")
    module, _, attribute = _HOMES[name].partition(":")
    try:
        value = getattr(import_module(module), attribute)
    except ImportError as error:
        from hemotorch.system.extras import missing_extra

        raise missing_extra(error, f"hemotorch.{name}") or error from None
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])

"""What is not installed with the core of hemotorch, and which install brings it."""

from __future__ import annotations

from hemotorch.errors import RunError

#: The extra of pyproject.toml that brings a package.
EXTRAS = {
    "numcodecs": "data",
    "torch": "train",
    "matplotlib": "train",
    "onnx": "train",
    "ray": "ray",
    "nrrd": "nrrd",
    "tensorboard": "tensorboard",
    "sklearn": "bench",
    "fastapi": "app",
    "uvicorn": "app",
}


def missing_extra(error: ImportError, use: str = "this") -> RunError | None:
    """What a failed import means for a user, None if it is not of a package that an extra brings.

    Args:
        error: of the import.
        use: what needs the package, at the beginning of a sentence.
    """
    package = (error.name or "").partition(".")[0]
    if not isinstance(error, ModuleNotFoundError) or package not in EXTRAS:
        return None
    todo = f"install it with `pip install 'hemotorch[{EXTRAS[package]}]'`"
    return RunError(f"{use} needs {package}, which is not installed here", todo=todo)

"""Writes src/lib/api/schema.ts: the TypeScript types of the REST interface.

    python web/make_types.py            # after `npm ci` in web/
    python web/make_types.py --check    # exit status 1 if schema.ts is not what it would write

The types are made from the pydantic models that the server answers with, so that no server has to run. What the server
gives has every key; what it takes may leave out those with a default.
"""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from pydantic.json_schema import JsonSchemaMode, models_json_schema

from hemotorch.app import schemas

WEB = Path(__file__).resolve().parent
TYPES = WEB / "src" / "lib" / "api" / "schema.ts"
TAKEN = ("Request", "Change")  #: how the names of those end that a client sends


def openapi() -> dict[str, Any]:
    """An OpenAPI description with the schemas and no paths."""
    models: list[tuple[type[schemas.Schema], JsonSchemaMode]] = []
    for _name, model in inspect.getmembers(schemas, inspect.isclass):
        if issubclass(model, schemas.Schema) and model is not schemas.Schema:
            models.append((model, "validation" if model.__name__.endswith(TAKEN) else "serialization"))
    definitions = models_json_schema(models, ref_template="#/components/schemas/{model}")[1]["$defs"]
    head = {"openapi": "3.1.0", "info": {"title": "hemotorch", "version": "1"}, "paths": {}}
    return {**head, "components": {"schemas": definitions}}


def types() -> str:
    """The TypeScript source."""
    with tempfile.TemporaryDirectory() as folder:
        description, made = Path(folder) / "openapi.json", Path(folder) / "schema.ts"
        description.write_text(json.dumps(openapi()), encoding="utf-8")
        program = WEB / "node_modules" / ".bin" / "openapi-typescript"
        arguments = [str(description), "-o", str(made), "--root-types", "--root-types-no-schema-prefix"]
        arguments.append("--default-non-nullable=false")
        subprocess.run([str(program), *arguments], check=True, capture_output=True, cwd=folder)
        return made.read_text(encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        sys.exit(None if TYPES.read_text(encoding="utf-8") == types() else "schema.ts is old: python web/make_types.py")
    TYPES.parent.mkdir(parents=True, exist_ok=True)
    TYPES.write_text(types(), encoding="utf-8")

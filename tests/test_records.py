"""Typed records: what a file may hold, how what is wrong is said, and the way to disk and back."""

from __future__ import annotations

import subprocess
import sys
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from hemotorch.errors import InputError, OptionError
from hemotorch.system.records import MM, build, field_notes, read, record, to_values, write


@record
class Inner:
    """A record in a record."""

    edge: float = Field(default=1.0, gt=0, le=9, description="how long", json_schema_extra=MM)
    sort: Literal["a", "b"] = Field(default="a", description="which")
    share: float = Field(default=0.5, ge=0, lt=1)


@record
class Outer:
    """A record with one of everything."""

    name: str
    count: int = 3
    flag: bool = False
    numbers: tuple[int, ...] = ()
    lengths: tuple[Annotated[int, Field(gt=0)], ...] = ()
    inner: Inner = Inner()
    more: dict[str, Inner] = Field(default_factory=dict)
    extra: Inner | None = None
    options: dict[str, Any] = Field(default_factory=dict)


FULL = Outer("x", 4, True, (1, 2), (5,), Inner(2.5, "b"), {"one": Inner(0.25)}, Inner(3.0), {"deep": [1, {"k": "v"}]})


@pytest.mark.parametrize("name", ["a.json", "a.toml"])
def test_a_record_comes_back_from_its_file(tmp_path, name):
    write(tmp_path / name, FULL)
    assert read(tmp_path / name, Outer) == FULL


def test_text_that_is_no_unicode_comes_back(tmp_path):
    value = Outer("caf\udce9", options={"\udcff": "\udcff"})
    write(tmp_path / "a.json", value)
    assert read(tmp_path / "a.json", Outer) == value


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"cuont": 1}, "unknown key 'cuont'; did you mean 'count'"),
        ({"inner": {"edgy": 1}}, "unknown key 'inner.edgy'; did you mean 'edge'"),
        ({"more": {"one": {"shore": 1}}}, "unknown key 'more.one.shore'; did you mean 'share'"),
        ({"extra": {"srot": 1}}, "unknown key 'extra.srot'; did you mean 'sort'"),
        ({"\udcff": 1}, "has a key that cannot be"),
        ({1: 1}, "unknown key '1'"),
        ({"count": "3"}, r"'count' is a whole number \(int\), not '3'"),
        ({"count": True}, r"'count' is a whole number \(int\), not True"),
        ({"count": 3.0}, r"'count' is a whole number \(int\), not 3.0"),
        ({"flag": 1}, r"'flag' is true or false \(bool\), not 1"),
        ({"numbers": [1, "2"]}, r"'numbers.1' is a whole number \(int\), not '2'"),
        ({"numbers": 7}, "'numbers' is a list, not 7"),
        ({"numbers": "12"}, "'numbers' is a list, not '12'"),
        ({"lengths": [3, 0]}, "'lengths.1' must be above 0, not 0"),
        ({"inner": 7}, "'inner' is a table, not 7"),
        ({"inner": {"edge": 0}}, "'inner.edge' must be above 0 and up to 9, not 0"),
        ({"inner": {"edge": 10}}, "'inner.edge' must be above 0 and up to 9, not 10"),
        ({"inner": {"share": 1}}, "'inner.share' must be from 0 to below 1, not 1"),
        ({"more": {"one": {"share": -1}}}, "'more.one.share' must be from 0 to below 1, not -1"),
        ({"extra": {"sort": "c"}}, "'extra.sort' is one of a, b, not 'c'"),
        ({"inner": {"edge": float("nan")}}, "'inner.edge' is a finite number, not nan"),
        ({"name": None}, r"'name' is text \(str\), not None"),
        ({"name": ["y" * 999]}, r"'name' is text \(str\), not \['yyy"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(change, says):
    with pytest.raises(OptionError, match=f"^a.json: {says}") as caught:
        build(Outer, {"name": "x", **change}, "a.json", by_hand=True)
    with pytest.raises(InputError, match=r"^a.json: is damaged \(.*\); mend it$"):
        build(Outer, {"name": "x", **change}, "a.json", "mend it")
    assert str(caught.value).startswith("a.json: ") and len(str(caught.value)) < 300


def test_what_is_missing_or_nothing_at_all():
    with pytest.raises(InputError, match=r"a.json: is damaged \(lacks 'name'\); mend it"):
        build(Outer, {}, "a.json", "mend it")
    for values in (3, None, [], "x"):
        with pytest.raises(InputError, match="all of it is a table, not"):
            build(Outer, values, "a.json")


def test_a_value_that_cannot_be_is_not_made_in_python_either():
    with pytest.raises(ValueError, match="edge"):
        Inner(edge=-1)


def test_fields_know_their_values_unit_default_and_help():
    notes = {note.key: note for note in field_notes(Outer)}
    edge = notes["inner.edge"]
    assert (edge.values, edge.unit, edge.default, edge.help) == ("number above 0 and up to 9", "mm", 1.0, "how long")
    assert notes["inner.sort"].values == "a, b" and notes["count"].values == "whole number"
    assert notes["name"].default is None and notes["options"].default == {}


def test_values_are_jsons_own():
    assert to_values(FULL)["numbers"] == [1, 2] and to_values(FULL)["inner"]["sort"] == "b"


@pytest.mark.parametrize("command", [["-c", "import hemotorch"], ["-m", "hemotorch.cli", "--help"]])
def test_help_does_not_wait_for_pydantic(command):
    done = subprocess.run([sys.executable, "-X", "importtime", *command], capture_output=True, text=True, check=True)
    assert "hemotorch" in done.stderr and "pydantic" not in done.stderr and "torch.nn" not in done.stderr

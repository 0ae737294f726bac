"""Errors on their way to another process: as dictionaries of JSON, and pickled."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from hemotorch.errors import HemotorchError, InputError, OptionError, RankLost, RunError, from_dict, to_dict

ERRORS = [
    InputError("is damaged", Path("a") / "scan.nii"),
    OptionError("unknown key", "train.epoch", "did you mean 'epochs'?"),
    RunError("the loss became nan: at once; again"),
    RankLost("was killed", "rank 1", "start again"),
    HemotorchError("any"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_arrives_as_it_was(error: HemotorchError) -> None:
    for received in (from_dict(json.loads(json.dumps(to_dict(error)))), pickle.loads(pickle.dumps(error))):
        assert type(received) is type(error) and str(received) == str(error)
        assert (received.what, received.where, received.todo) == (error.what, error.where, error.todo)


def test_an_error_of_a_kind_that_is_not_known_here_is_an_error_all_the_same() -> None:
    error = from_dict({"kind": "LaterError", "what": "is wrong", "where": None, "todo": None})
    assert type(error) is HemotorchError and str(error) == "is wrong"

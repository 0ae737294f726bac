"""Recipes: what comes with hemotorch loads, TOML goes round, and mistakes are named."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from hemotorch import nets
from hemotorch.cli import main
from hemotorch.errors import HemotorchError, OptionError
from hemotorch.recipe import Recipe, known_recipes, load_recipe, recipe_from_toml
from hemotorch.recipe.show import commented_toml, markdown_table
from hemotorch.system.records import field_notes
from hemotorch.training import losses


@pytest.mark.parametrize("name", known_recipes())
def test_shipped_recipes_load_go_round_and_build(name):
    recipe = load_recipe(name)
    assert recipe.name == name and recipe.description
    assert recipe_from_toml(recipe.to_toml(), "again") == recipe
    assert recipe.net.options.keys() <= nets.options_of(recipe.net.name).keys()
    losses.build(recipe.loss.name, **recipe.loss.options)


def test_the_papers_numbers():
    paper = load_recipe("paper")
    assert (paper.net.name, paper.loss.name, paper.optimizer.name) == ("unet-medicaltorch", "negative-dice", "adam")
    assert (paper.optimizer.lr, paper.train.batch, paper.train.epochs) == (1e-3, 4, 150)
    assert paper.data.slices == "positive" and not paper.data.validation and paper.data.split == "slice-80-20"
    assert paper.grid.pixel_mm == 0 and paper.grid.size_px == 0


def test_set_changes_one_value_and_keeps_the_rest():
    recipe = load_recipe("fast")
    changed = recipe.changed(["train.epochs=3", "data.split=fold-1", "net.options.slices=5", "optimizer.lr=1"])
    assert (changed.train.epochs, changed.data.split, changed.optimizer.lr) == (3, "fold-1", 1.0)
    assert changed.net.options["slices"] == 5
    assert changed.changed([f"train.epochs={recipe.train.epochs}"]).train == recipe.train


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("trian.epochs=3", "'train'"),
        ("train.epoch=3", "'epochs'"),
        ("train.epochs=many", "not 'many'"),
        ("train.epochs=0", "'train.epochs' must be from 1 to 1000000, not 0"),
        ("train.epochs", "section.key=value"),
        ("data.slices=some", "one of all, positive"),
        ("optimizer.lr=-1", "above 0"),
        ("predict.threshold=2", "from 0 to 1"),
        ("augment.flip=1", "bool"),
        ("train.batch=true", "int"),
        ("tiles.size_px=64", "tiles.stride_px"),
        ("name.x=1", "name.x"),
        ("grid.pixel_mm=1e-6", "at least 0.05 mm"),
        ("train.epochs=999999999999", "from 1 to 1000000, not 999999999999"),
        ("train.epochs=0x" + "f" * 5000, "not a number of 20000 bits"),
        ("train.batch=1e9", "int"),
        ("optimizer.lr=0x" + "f" * 5000, "a number .float., not a number of 20000 bits"),
        ("optimizer.weight_decay=nan", "a finite number, not nan"),
        ("train.seed=1e400", "int"),
        ("augment.noise_hu=inf", "a finite number, not inf"),
        ("augment.noise_hu=-1", "from 0 to 10000, not -1"),
        ("predict.min_ml=1e300", "from 0 to 1000000, not 1e.300"),
        ("train.batch=" + "[" * 5000, "too long or too deep"),
        ("net.options.channels=" + "{a=" * 5000, "too long or too deep"),
    ],
)
def test_a_wrong_setting_is_named(setting, says):
    with pytest.raises(OptionError, match=says):
        load_recipe("fast").changed([setting])


def test_unknown_recipe_and_broken_files(tmp_path):
    with pytest.raises(OptionError, match="did you mean 'fast'"):
        load_recipe("fats")
    with pytest.raises(HemotorchError, match="none.toml: no such file"):
        load_recipe(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_bytes(b"\xff")
    with pytest.raises(HemotorchError, match="cannot be read as UTF-8"):
        load_recipe(tmp_path / "bad.toml")
    (tmp_path / "bad.toml").write_text("train = [")
    with pytest.raises(HemotorchError, match="not valid TOML"):
        load_recipe(tmp_path / "bad.toml")
    (tmp_path / "table.toml").write_text("train = 3")
    with pytest.raises(OptionError, match="'train' is a table"):
        load_recipe(tmp_path / "table.toml")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a = " + "[" * 50_000, "too deep"),
        ("a." * 40_000 + "b = 1", "too deep"),
        ("a = " + "9" * 5000, "not valid TOML"),
        ("# " + "x" * 200_000, "too long"),
        ("x" * 10_000 + " = 1", "unknown key"),
        ('"a\\nb" = 1', "unknown key"),
        ("train = " + repr("x" * 10_000), "is a table"),
        ("[tiles]\nsize_px = 4096\nstride_px = 1", "at least 128 with tiles of 4096 pixels"),
    ],
)
def test_recipe_files_that_take_all_memory_or_a_page_of_error(tmp_path, text, says):
    (tmp_path / "odd.toml").write_text(text)
    with pytest.raises(HemotorchError, match=says) as caught:
        load_recipe(tmp_path / "odd.toml")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_a_recipe_that_is_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.toml")
    with pytest.raises(HemotorchError, match=r"pipe.toml: is a pipe or a device, not a TOML file"):
        load_recipe(tmp_path / "pipe.toml")


@pytest.mark.parametrize("text", ["[train]\nbatch = " + "9" * 5000, "a = " + "[" * 100_000, "a." * 5000 + "a = 1"])
def test_toml_that_its_reader_chokes_on(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(HemotorchError):
        load_recipe(tmp_path / "a.toml")


@pytest.mark.parametrize("name", known_recipes())
def test_a_recipe_with_comments_is_the_same_recipe(name):
    recipe = load_recipe(name).changed(["net.options.channels=[8, 16]", "net.options.windows=[[40, 80]]"])
    text = commented_toml(recipe)
    assert recipe_from_toml(text, "text") == recipe
    assert "# edge of a pixel; 0: the scan's own (number from 0 to 20 mm; default 0.0)\npixel_mm = " in text


def test_the_command_prints_a_recipe_and_lists_all(capsys, tmp_path):
    assert main(["recipe", "fast"]) == 0
    (tmp_path / "mine.toml").write_text(capsys.readouterr().out)
    assert load_recipe(tmp_path / "mine.toml") == load_recipe("fast")
    assert main(["recipe"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == known_recipes()
    assert main(["recipe", str(tmp_path / "mine.toml"), "--json"]) == 0
    keys = {entry["key"]: entry for entry in json.loads(capsys.readouterr().out)["keys"]}
    epochs = {"value": 12, "default": 30, "unit": "", "values": "whole number from 1 to 1000000"}
    assert epochs.items() <= keys["train.epochs"].items() and keys["grid.pixel_mm"]["unit"] == "mm"
    assert main(["recipe", "fats"]) == 1
    assert "did you mean 'fast'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("of_recipe", "wrong", "says"),
    [
        ('[net]\nname = "compact"', '[net]\nname = "compakt"', "did you mean 'compact'"),
        ('[loss]\nname = "dice-cross-entropy"', '[loss]\nname = "dice"', "unknown loss 'dice'"),
        ("[loss.options]\n", "[loss.options]\ngama = 2\n", "has no option 'gama'"),
    ],
)
def test_the_command_does_not_print_a_recipe_that_cannot_be_trained(capsys, tmp_path, of_recipe, wrong, says):
    text = load_recipe("fast").to_toml()
    assert of_recipe in text
    (tmp_path / "mine.toml").write_text(text.replace(of_recipe, wrong))
    assert main(["recipe", str(tmp_path / "mine.toml")]) == 1
    assert says in capsys.readouterr().err


def test_the_table_of_keys_in_the_docs_is_that_of_the_fields():
    docs = (Path(__file__).parents[1] / "docs" / "recipes.md").read_text(encoding="utf-8")
    table = docs.partition("sections.py -->\n")[2].partition("<!-- end of keys -->")[0].strip()
    assert table == markdown_table().strip(), "put what `python -m hemotorch.recipe.show` prints into docs/recipes.md"
    assert all(note.help for note in field_notes(Recipe)), "every key has help"

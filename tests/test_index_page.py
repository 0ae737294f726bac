"""The list of all studies: it sorts, filters and pages in a browser, and is not broken by what names hold."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from browser import dom_of, driven, text_of
from hemotorch.labels import TYPES
from hemotorch.report.index_page import PAGE_ROWS, IndexDoubt, IndexRow, index_page

COUNT = 450


def rows() -> list[IndexRow]:
    """Every tenth failed, every fourth doubted; two of them have odd names."""
    made = []
    for number in range(COUNT):
        name = {7: "</script><img src=x onerror=alert(1)>", 8: "ä & b"}.get(number, f"study-{number}")
        if number % 10 == 9:
            made.append(IndexRow(name, failed="it does not look like a head"))
            continue
        volumes = {kind: float(number % 5 * (kind == "subdural")) for kind in TYPES}
        doubts = [IndexDoubt("shading", "its brain is shaded")] if number % 4 == 0 else []
        change = 7.0 if number == 21 else None
        made.append(
            IndexRow(name, "", sum(volumes.values()), volumes, (0.0, 9.0), doubts, change_ml=change,
                     grown=change is not None, slices=28, slices_with_bleeding=4, page=f"{name}.html",
                     files={"mask": f"{name}_mask.nii.gz"})
        )  # fmt: skip
    random.Random(0).shuffle(made)
    return sorted(made, key=lambda row: not row.doubts)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("list") / "index.html"
    path.write_text(index_page(rows(), "net <1>", "studies.csv"), encoding="utf-8")
    return path


def test_the_list_sorts_filters_and_pages(page: Path) -> None:
    script = """
    const names = () => [...body.rows].map(row => row.cells[1].firstChild.textContent);
    const press = key => heads.find(head => head.dataset.key === key).click();
    const states = () => [...table.querySelectorAll("[aria-sort]")].map(head => head.textContent + head.ariaSort);
    const wait = document.getElementById("next");
    said.push([body.rows.length, names()[0], document.getElementById("page").textContent]);
    wait.click(); wait.click();
    said.push([body.rows.length, wait.disabled]);
    press("name");
    said.push([names().slice(0, 3), states()]);
    press("name");
    said.push([names()[0], states()]);
    press("subdural");
    said.push([body.rows[0].cells[2].textContent, states()]);
    press("subdural");
    turn(2);
    said.push(body.rows[body.rows.length - 1].cells[2].textContent);
    filter.value = "SHAD subd"; arrange();
    said.push(document.getElementById("status").textContent);
    filter.value = ""; choice.value = "grown"; arrange();
    said.push(names());
    choice.value = "failed"; arrange();
    said.push([document.getElementById("status").textContent, body.rows[0].cells[8].textContent]);
    choice.value = "all"; filter.value = "onerror"; arrange();
    said.push([names(), body.querySelector("a").getAttribute("href")]);
    """
    said = json.loads(text_of(driven(page, script), "result"))
    made = rows()
    assert said[0] == [PAGE_ROWS, made[0].name, "1 to 200 of 450"] and said[1] == [COUNT - 2 * PAGE_ROWS, True]
    assert said[2] == [["</script><img src=x onerror=alert(1)>", "ä & b", "study-0"], ["Studyascending"]]
    assert said[3] == ["study-449", ["Studydescending"]]
    assert said[4][0].startswith("4.0") and said[4][1] == ["SDHdescending"]
    assert said[5] == "no result", "what has no value stands last whichever way it is sorted"
    doubted = sum(bool(row.doubts) and row.type_ml["subdural"] > 0 for row in made)
    assert said[6] == f"{doubted} of {COUNT} studies" and said[7] == ["study-21"]
    assert said[8] == [f"45 of {COUNT} studies", "it does not look like a head"]
    assert said[9][0] == ["</script><img src=x onerror=alert(1)>"] and "<" not in said[9][1]


def test_a_browser_shows_it_and_complains_of_nothing(page: Path) -> None:
    dom = dom_of(page)
    doubted, failed = sum(bool(row.doubts) for row in rows()), COUNT // 10
    assert f"{COUNT} studies, {doubted} in doubt, {failed} without a result" in dom
    assert dom.count("<tr>") == PAGE_ROWS + 1 and "net &lt;1&gt;" in dom


def test_ten_thousand_rows_are_a_few_megabytes() -> None:
    many = (rows() * 23)[:10_000]
    assert len(index_page(many, "net", "studies.csv")) < 6e6

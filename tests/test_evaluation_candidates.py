"""Tables of candidates: in Markdown and JSON, and in a browser."""

import json
import math
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crystaljax.data.dataset import load
from crystaljax.data.writers import to_cif
from crystaljax.evaluation.candidates import N_IN_MARKDOWN, Candidates, Column
from crystaljax.evaluation.report import Report, Table

N = 12
NAMES = [f"crystal {i}" for i in range(N)]
FORMULAS = [f"{'ABC'[i % 3]}{i + 1}" for i in range(N)]
ENERGIES = [0.1 * ((5 * i) % N) - 0.2 for i in range(N - 1)] + [math.nan]
NOVEL = [i % 4 == 0 for i in range(N)]
SEVEN_MODELS = Table(
    "As wide as that of alloys",
    [["", *"ABCDEFG"], *[["b2_at_room_temperature (%)", *["0.01428 ± 0.00023"] * 7]] * 3],
)


@pytest.fixture(scope="module")
def candidates() -> Candidates:
    crystals = load("prototypes").crystals.to_numpy()[np.arange(N)]
    columns = [
        Column("formula", FORMULAS),
        Column("energy <eV>", ENERGIES),
        Column("novel", NOVEL),
    ]
    return Candidates("The best </script>", columns, list(to_cif(crystals)), NAMES)


def test_a_report_lists_candidates(candidates: Candidates, tmp_path: Path) -> None:
    Report("A study", {}, candidates=candidates).write(tmp_path)
    markdown = (tmp_path / "report.md").read_text().splitlines()
    rows = [[x.strip() for x in line.strip("|").split("|")] for line in markdown if "|" in line]
    assert rows[0] == ["formula", "energy <eV>", "novel"]
    assert len(rows) == 2 + N_IN_MARKDOWN
    assert rows[3] == [FORMULAS[1], f"{ENERGIES[1]:.3f}", "no"]
    kept = json.loads((tmp_path / "report.json").read_text())["candidates"]
    assert kept["formula"] == FORMULAS
    assert kept["energy <eV>"] == [*ENERGIES[:-1], None]
    assert kept["CIF"] == list(candidates.cifs)


def test_a_page_holds_all_it_needs(candidates: Candidates, tmp_path: Path) -> None:
    page = Report("A study", {}, candidates=candidates).write(tmp_path).read_text()
    assert not re.search(r"<(script|link|img)[^>]*(src|href)=.(?!data:|#)", page)
    data = page.split('id="candidates-data">')[1].split("</script>")[0]
    rows = json.loads(data)["rows"]
    assert [row["cells"][0] for row in rows] == FORMULAS
    assert rows[-1]["cells"][1] is None
    assert [row["cif"] for row in rows] == list(candidates.cifs)


def test_columns_and_structures_must_agree(candidates: Candidates) -> None:
    with pytest.raises(ValueError, match="energy: 1 values of 12 candidates"):
        Candidates("The best", [Column("energy", [0.0])], candidates.cifs, NAMES)
    with pytest.raises(ValueError, match="The best: there are no candidates"):
        Candidates("The best", [], [], [])
    with pytest.raises(ValueError, match="names: 1 values of 12 candidates"):
        Candidates("The best", [], candidates.cifs, ["NaCl"])


def test_numbers_of_any_size_are_seen() -> None:
    """A conductivity of 10⁻⁵ S/cm is not 0.000."""
    small, large, whole = (
        Column("x", values).texts() for values in ([1.3e-5, math.nan], [1234567.1, 2.0], [3, 4])
    )
    assert (small, large, whole) == (["1.3e-05", "–"], ["1.235e+06", "2"], ["3", "4"])


@pytest.fixture(scope="module")
def browser(candidates: Candidates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The page in a headless Chromium, which draws in software."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or chromedriver is None:
        pytest.skip("chromium and chromedriver are not installed")
    report = Report("A study", {}, tables=[SEVEN_MODELS], candidates=candidates)
    page = report.write(tmp_path_factory.mktemp("page"))
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for option in (
        "--headless=new",
        "--no-sandbox",
        "--use-gl=angle",
        "--use-angle=swiftshader",
        "--enable-unsafe-swiftshader",
        "--window-size=1300,900",
    ):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(executable_path=chromedriver)
    driver = webdriver.Chrome(options=options, service=service)
    driver.set_page_load_timeout(120)
    driver.get(page.as_uri())
    yield driver
    driver.quit()


def find(browser: Any, selector: str) -> list[Any]:
    found: list[Any] = browser.find_elements("css selector", selector)
    return found


def shown(browser: Any) -> list[str]:
    """What the candidates in the table are called, from the top."""
    return [cell.text for cell in find(browser, ".candidates tbody td:nth-child(2)")]


@pytest.mark.slow
def test_a_wide_table_fits_in_a_browser(browser: Any) -> None:
    (table,) = find(browser, "table.wide")
    assert table.get_property("scrollWidth") <= table.get_property("clientWidth")


@pytest.mark.slow
def test_sorting_in_a_browser(browser: Any) -> None:
    assert shown(browser) == FORMULAS
    head = find(browser, ".candidates thead button")[1]
    order = np.argsort(ENERGIES, kind="stable")  # nan comes last
    head.click()
    assert shown(browser) == [FORMULAS[i] for i in order]
    head.click()
    assert shown(browser) == [FORMULAS[i] for i in [*order[-2::-1], order[-1]]]
    find(browser, ".candidates thead button")[0].click()
    assert shown(browser) == sorted(FORMULAS, key=lambda x: (x[0], int(x[1:])))


@pytest.mark.slow
def test_filters_in_a_browser(browser: Any) -> None:
    text, energy, novel = find(browser, ".candidates .filters input")
    for wanted, holds in {
        "0.1": lambda x: x <= 0.1,
        "> 0.35": lambda x: x >= 0.35,
        "<0": lambda x: x <= 0,
        "≤ 0,1": lambda x: x <= 0.1,
        "≥1e-1": lambda x: x >= 0.1,
        "−0.1": lambda x: x <= -0.1,
        "> +.35": lambda x: x >= 0.35,
    }.items():
        energy.clear()
        energy.send_keys(wanted)
        assert sorted(shown(browser)) == sorted(
            name for name, x in zip(FORMULAS, ENERGIES, strict=True) if holds(x)
        )
    energy.clear()
    energy.send_keys("<")
    assert len(shown(browser)) == N  # not yet a number
    assert energy.get_attribute("aria-invalid") == "true"
    energy.clear()
    energy.send_keys(" ")
    text.send_keys("a")
    assert set(shown(browser)) == {name for name in FORMULAS if "A" in name}
    novel.click()
    expected = {name for name, new in zip(FORMULAS, NOVEL, strict=True) if new and "A" in name}
    assert set(shown(browser)) == expected
    assert find(browser, ".candidates .shown")[0].text == f"{len(expected)} of {N} candidates"
    novel.click()
    text.clear()
    text.send_keys(" ")


@pytest.mark.slow
def test_structures_in_a_browser(browser: Any) -> None:
    """A click shows a structure, the mouse turns it, and its CIF is the candidate's."""
    view = find(browser, ".candidates .view")[0]
    pictures = set()
    for row in find(browser, ".candidates tbody tr")[:2]:
        row.click()
        pictures.add(view.screenshot_as_base64)
    assert len(pictures) == 2
    from selenium.webdriver import ActionChains

    before = view.screenshot_as_base64
    ActionChains(browser).drag_and_drop_by_offset(view, 80, 40).perform()
    assert view.screenshot_as_base64 != before
    link = find(browser, ".candidates .cif")[0]
    name = find(browser, ".candidates tbody tr.chosen td:nth-child(2)")[0].text
    row = FORMULAS.index(name)
    assert link.get_attribute("download") == f"{NAMES[row]}.cif"
    read = "fetch(arguments[0]).then(x => x.text()).then(arguments[1])"
    cif = browser.execute_async_script(read, link.get_attribute("href"))
    data = json.loads(find(browser, "#candidates-data")[0].get_attribute("textContent"))
    assert cif == {row["cells"][0]: row["cif"] for row in data["rows"]}[name]
    elements = {x.text for x in find(browser, ".candidates .elements span")}
    assert elements == set(re.findall(r"^([A-Z][a-z]?)\d+ \1 ", cif, re.M))
    assert find(browser, ".candidates tbody img")
    assert not [x for x in browser.get_log("browser") if x["level"] == "SEVERE"]

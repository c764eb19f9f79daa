"""The page in a real browser: wide and narrow, light and dark, both languages, printed, and without JavaScript."""

from __future__ import annotations

import base64
import io
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from harness.sample_scorecard import empty_scorecard
from pypdf import PdfReader
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

from readiness.judge.model import Scorecard
from readiness.render import Lang, render_html

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
    "--force-device-scale-factor=1",
)  # fmt: skip
#: Seconds for one command of the browser; a page of half a megabyte takes about one.
COMMAND_SECONDS = 30
VIEWS = list(itertools.product(("en", "ko"), (1280, 360), ("light", "dark")))

#: Text that sticks out of the window or is cut by its own box; what scrolls in its own frame may be wider.
STICKING_OUT = """
const found = [];
const scrolls = (e) => e.closest('.scroll, pre.said, .lang, .skip, .stack thead');
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
for (let node; (node = walker.nextNode());) {
  const e = node.parentElement;
  if (!node.textContent.trim() || e.closest('script, style') || !e.checkVisibility() || scrolls(e)) continue;
  const range = document.createRange();
  range.selectNodeContents(node);
  for (const box of range.getClientRects()) {
    if (box.right > innerWidth + 0.5 || box.left < -0.5) found.push(node.textContent.trim().slice(0, 60));
  }
  for (let up = e; up && up !== document.body; up = up.parentElement) {
    const style = getComputedStyle(up);
    if (style.overflowX === 'hidden' && up.scrollWidth > up.clientWidth + 1) found.push('cut: ' + up.className);
  }
}
return [...new Set(found)];
"""

#: Every text node whose colour is too close to what lies behind it, with its ratio.
TOO_FAINT = """
const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
const rgba = (colour) => {
  canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
  const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data; return [r, g, b, a / 255];
};
const over = (top, under) => [0, 1, 2].map((i) => top[i] * top[3] + under[i] * (1 - top[3])).concat(1);
const backs = (e) => {
  const style = getComputedStyle(e);
  const gradient = style.backgroundImage.match(/rgba?\\([^)]*\\)/);
  return gradient ? gradient[0] : style.backgroundColor;
};
const behind = (e) => e ? over(rgba(backs(e)), behind(e.parentElement)) : [255, 255, 255, 1];
const light = ([r, g, b]) => [r, g, b].map((v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const faint = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
let seen = 0;
for (let node; (node = walker.nextNode());) {
  const e = node.parentElement;
  if (!node.textContent.trim() || e.closest('script, style') || !e.checkVisibility()) continue;
  const style = getComputedStyle(e), under = behind(e);
  const text = over(rgba(e.closest('svg') ? style.fill : style.color), under);
  const [a, b] = [light(text), light(under)].sort((x, y) => y - x);
  const ratio = (a + 0.05) / (b + 0.05);
  seen += 1;
  if (ratio < 4.5) faint.push(ratio.toFixed(2) + ' ' + node.textContent.trim().slice(0, 40));
}
return { seen, faint: [...new Set(faint)] };
"""


@dataclass(frozen=True)
class Browser:
    """A running Chromium and the folder of its pages."""

    driver: webdriver.Chrome
    folder: Path

    def open(
        self, page: str, *, width: int = 1280, scheme: str = "light", scripts: bool = True, fold: str = ""
    ) -> None:
        """Show a page in a window of this width and colour scheme; nothing of the page before is left."""
        path = self.folder / "index.html"
        path.write_text(page, encoding="utf-8")
        self.cdp("Emulation.setScriptExecutionDisabled", value=not scripts)
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.cdp("Emulation.setDeviceMetricsOverride", **metrics)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.cdp("Emulation.setEmulatedMedia", media="", features=features)
        self.requests()
        self.driver.get_log("browser")
        self.driver.get("about:blank")
        self.driver.get(path.as_uri() + fold)

    def cdp(self, command: str, **params: object) -> dict[str, Any]:
        """Run a command of the DevTools protocol."""
        answer: dict[str, Any] = self.driver.execute_cdp_cmd(command, params)
        return answer

    def evaluate(self, script: str) -> Any:
        """Run our script in the page, also where the page's own scripts are off."""
        source = f"(() => {{ {script} }})()"
        answer = self.cdp("Runtime.evaluate", expression=source, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def requests(self) -> list[str]:
        """The addresses asked for since the last call."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
        return [params["request"]["url"] for params in sent]

    def pdf(self) -> str:
        """Print to A4 and return the text of all pages, white space removed."""
        printed = base64.b64decode(
            self.cdp("Page.printToPDF", preferCSSPageSize=True, printBackground=True)["data"]
        )
        reader = PdfReader(io.BytesIO(printed))
        assert all(abs(float(page.mediabox.width) - 595) < 2 for page in reader.pages)
        return "".join("".join((page.extract_text() or "").split()) for page in reader.pages)


@pytest.fixture(scope="module")
def chromium(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One headless Chromium for all tests of this file, with a profile of its own; skipped where there is none."""
    top = Path(__file__).resolve().parents[2] / "conftest.py"
    require_part: Callable[[str], Path] = pytestconfig.pluginmanager.get_plugin(str(top)).require_part
    options = Options()
    options.binary_location = str(require_part("chromium"))
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(require_part("chromedriver"))))
    try:
        driver.set_page_load_timeout(COMMAND_SECONDS)
        driver.set_script_timeout(COMMAND_SECONDS)
        yield Browser(driver, tmp_path_factory.mktemp("page"))
    finally:
        driver.quit()


@pytest.mark.parametrize(("lang", "width", "scheme"), VIEWS)
def test_nothing_is_cut_faint_or_asked_for(
    chromium: Browser, pages: dict[Lang, str], lang: Lang, width: int, scheme: str
) -> None:
    """In each view: no console message, no request but the file, nothing sticks out, contrast 4.5 : 1 or more."""
    chromium.open(pages[lang], width=width, scheme=scheme)
    asked = [url for url in chromium.requests() if not url.startswith(("data:", "about:"))]
    assert [Path(url).name for url in asked] == ["index.html"]
    assert chromium.driver.get_log("browser") == []
    chromium.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; });")
    assert chromium.evaluate("return document.documentElement.scrollWidth <= innerWidth")
    assert chromium.evaluate(STICKING_OUT) == []
    found = chromium.evaluate(TOO_FAINT)
    assert found["faint"] == []
    assert found["seen"] > 800


@pytest.mark.parametrize("width", [1280, 360])
def test_hostile_and_empty_runs_break_no_layout(chromium: Browser, hostile: Scorecard, width: int) -> None:
    """10 kB words, overrides and markup of others, or nothing at all: the page still fits, and nothing ran."""
    for page in (render_html(hostile, lang="en"), render_html(empty_scorecard(), lang="ko")):
        chromium.open(page, width=width)
        chromium.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; });")
        assert chromium.evaluate("return document.documentElement.scrollWidth <= innerWidth")
        assert chromium.evaluate(STICKING_OUT) == []
        assert chromium.evaluate("return typeof window.pwned") == "undefined"
        assert chromium.driver.get_log("browser") == []


@pytest.mark.parametrize("scripts", [True, False])
def test_the_language_switch_works(chromium: Browser, pages: dict[Lang, str], scripts: bool) -> None:
    """A click on the other language shows it without reload, with JavaScript off too."""
    chromium.open(pages["en"], scripts=scripts)
    heading = "return document.querySelector('#h-gates').innerText"
    assert chromium.evaluate(heading) == "4Gates"
    chromium.evaluate("document.querySelector('label[for=lang-ko]').click()")
    assert chromium.evaluate(heading) == "4필수 조건"
    assert (
        chromium.evaluate("return document.querySelectorAll('.sentence [lang=en]')[0].checkVisibility()")
        is False
    )
    expected = "ko" if scripts else "en"  # without scripts each phrase carries its language itself
    assert chromium.evaluate("return document.documentElement.lang") == expected


def test_without_scripts_everything_can_be_read(
    chromium: Browser, pages: dict[Lang, str], card: Scorecard
) -> None:
    """With JavaScript off no tool that needs it is shown, every claim is there, and folded ones unfold."""
    chromium.open(pages["en"], scripts=False)
    tools = (
        "return [...document.querySelectorAll('button, .tools')].filter((e) => e.checkVisibility()).length"
    )
    assert chromium.evaluate(tools) == 0
    text = chromium.evaluate("return document.body.innerText")
    assert [claim.id for claim in card.claims if claim.id not in text] == []
    chromium.evaluate("document.querySelector('details.claim summary').click()")
    assert chromium.evaluate("return document.querySelector('details.claim .more').checkVisibility()")


@pytest.mark.parametrize("scripts", [True, False])
@pytest.mark.parametrize("lang", ["en", "ko"])
def test_the_print_has_everything_unfolded(
    chromium: Browser, pages: dict[Lang, str], card: Scorecard, lang: Lang, scripts: bool
) -> None:
    """Printed on A4, every claim stands there with its digest, also from folded parts, in one language only."""
    chromium.open(pages[lang], scripts=scripts, scheme="dark")
    text = chromium.pdf()
    for claim in card.claims:
        assert claim.id in text
        if claim.digest:
            assert (
                text.count(claim.digest[:24]) >= 2
            )  # in the claim and in the appendix, both folded on screen
    assert ("nneeded" if lang == "en" else "추가표본") in text  # a heading that scripts made sortable
    assert ("Howthescoreismade" in text) is (lang == "en")
    assert ("점수산정방식" in text) is (lang == "ko")


def test_scripts_add_copy_filter_sort_and_links(chromium: Browser, pages: dict[Lang, str]) -> None:
    """JavaScript adds: a link opens its claim, claims filter by verdict and word, tables sort, charts zoom."""
    chromium.open(pages["en"], fold="#claim-A5.once")
    assert chromium.evaluate("return document.getElementById('claim-A5.once').open")
    rows = "return [...document.querySelectorAll('#open article')].filter((e) => e.checkVisibility()).length"
    before = chromium.evaluate(rows)
    chromium.evaluate("document.querySelector('#claim-tools button[data-verdict=FAILED]').click()")
    assert 0 < chromium.evaluate(rows) < before
    chromium.evaluate("document.querySelector('#claim-tools button[data-verdict=FAILED]').click()")
    chromium.evaluate(
        "const q = document.querySelector('#claim-tools input'); q.value = 'mtbf';"
        "q.dispatchEvent(new Event('input'));"
    )
    assert chromium.evaluate(rows) == 1
    order = "return [...document.querySelectorAll('#sla tbody tr')].map((r) => r.cells[0].innerText.split(' ')[0])"
    shown = chromium.evaluate(order)
    assert shown == sorted(shown, key=lambda row: int(row[1:]))
    chromium.evaluate("document.querySelectorAll('#sla thead button')[0].click()")
    chromium.evaluate("document.querySelectorAll('#sla thead button')[0].click()")
    assert chromium.evaluate(order) == shown[::-1]
    chromium.evaluate("document.querySelector('button.zoom').click()")
    assert chromium.evaluate("return document.querySelector('figure').classList.contains('zoomed')")


def test_the_copy_button_copies_the_command(chromium: Browser, pages: dict[Lang, str]) -> None:
    """The button beside a command says that it copied, and what it copied is the command."""
    chromium.open(pages["en"])
    chromium.evaluate(
        "window.copied = null; navigator.clipboard.writeText = async (text) => { window.copied = text; };"
        "document.querySelector('#open button.copy').click();"
    )
    assert "--only A5.kill" in chromium.evaluate("return window.copied")

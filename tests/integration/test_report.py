"""The report in a real browser, opened from the disk as a reader does."""

import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import axe_core_python
import cv2
import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

from crosseai.client.findings import ScoredImage
from crosseai.client.report import write_layers, write_report
from crosseai.contract import BoxParameters, ImageFailure, box_preset
from crosseai.imaging import Radiograph, read_radiograph
from crosseai.postproc import binarize, fuse
from tests.run_folder import SPEC, made_up_image, made_up_results, write_run

CHROMIUM, CHROMEDRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"
PATIENCE_S = 20
HOSTILE = "<img src=x onerror=\"document.title='harmed'\">.png"
MANY = 5000


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    if shutil.which(CHROMIUM) is None or shutil.which(CHROMEDRIVER) is None:
        pytest.skip(f"the report needs a browser: {CHROMIUM} and {CHROMEDRIVER} (Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1440,900"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(CHROMEDRIVER))
    yield driver
    driver.quit()


@pytest.fixture(autouse=True)
def no_console_error(browser: webdriver.Chrome) -> Iterator[None]:
    browser.get_log("browser")
    yield
    assert browser.get_log("browser") == []


@pytest.fixture(scope="module")
def radiographs(tmp_path_factory: pytest.TempPathFactory) -> list[Radiograph]:
    """Noise of one size."""
    file = tmp_path_factory.mktemp("images") / "a.png"
    read = []
    for seed in (1, 2, 3):
        cv2.imwrite(str(file), np.random.default_rng(seed).integers(0, 256, (90, 120), np.uint8))
        read.append(read_radiograph(file))
    return read


@pytest.fixture(scope="module")
def images(radiographs: list[Radiograph]) -> list[ScoredImage]:
    """Three images with maps; the name of the last one is markup."""
    named = [("a.png", ["Mass", "Nodule"]), ("b.png", ["Effusion"]), (HOSTILE, [])]
    return [
        made_up_image(radiograph, f"images/{name}", diseases, seed=seed)
        for seed, (radiograph, (name, diseases)) in enumerate(zip(radiographs, named, strict=True), 1)
    ]


@pytest.fixture(scope="module")
def small(images: list[ScoredImage], radiographs: list[Radiograph], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with layers and ground truth."""
    folder = tmp_path_factory.mktemp("small")
    for image, radiograph in zip(images, radiographs, strict=True):
        write_layers(image, radiograph, folder)
    failure = ImageFailure(HOSTILE, "UnreadableImageError", f"{HOSTILE}: expected a file", "read")
    write_run(folder, [image.result for image in images], [failure])
    x0, y0, x1, y1 = np.array(images[0].result.findings[0].box_image_px) * 1024 / (120, 90, 120, 90)
    truth = folder / "truth.csv"
    truth.write_text(f"h\na.png,Mass,{x0},{y0},{x1 - x0},{y1 - y0}\nb.png,Effusion,0,0,10,10\n")
    labels = folder / "labels.csv"
    labels.write_text("Image Index,Finding Labels\na.png,Mass\nb.png,Effusion\n")
    return write_report(folder, truth, labels)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of many images without layers."""
    return write_report(write_run(tmp_path_factory.mktemp("large"), list(made_up_results(MANY))))


def visit(browser: webdriver.Chrome, page: Path, link: str = "") -> None:
    browser.get("about:blank")  # a new fragment alone would not load the page anew
    browser.get(page.as_uri() + link)


def visit_gallery(browser: webdriver.Chrome, page: Path) -> None:
    visit(browser, page)
    browser.execute_script("byId('images').scrollIntoView()")
    wait_for(browser, "document.querySelector('.tile') !== null")


def wait_for(browser: webdriver.Chrome, script: str) -> Any:
    return WebDriverWait(browser, PATIENCE_S, poll_frequency=0.05).until(lambda b: b.execute_script(f"return {script}"))


def press(browser: webdriver.Chrome, *keys: str) -> None:
    for key in keys:
        browser.switch_to.active_element.send_keys(key)


def choose(browser: webdriver.Chrome, name: str, text: str) -> None:
    Select(browser.find_element(By.NAME, name)).select_by_visible_text(text)


def wait_for_count(browser: webdriver.Chrome, shown: int, of: int) -> None:
    wait_for(browser, f"byId('count').value === '{shown:,} of {of:,} files'")


def slide(browser: webdriver.Chrome, name: str, value: float) -> None:
    slider = browser.find_element(By.NAME, name)
    browser.execute_script(
        "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input'))", slider, value
    )


def page_mask(browser: webdriver.Chrome) -> np.ndarray:
    wait_for(browser, "view.mask !== null")
    flat = browser.execute_script("return Array.from(view.mask)")
    return np.array(flat, np.uint8).reshape(SPEC.input_size, SPEC.input_size)


def test_summary(browser: webdriver.Chrome, small: Path) -> None:
    visit(browser, small)
    text = browser.find_element(By.TAG_NAME, "body").text
    for expected in ("Research software, not a medical device.", "version 7", "Images scored\n3", "Why 1 file failed"):
        assert expected in text
    assert "AUC" in browser.find_element(By.ID, "truth").text
    rows = browser.find_elements(By.CSS_SELECTOR, "#localisation tbody tr")
    assert [row.text.split()[:2] for row in rows] == [["Effusion", "1"], ["Mass", "1"], ["Mean", "2"]]


def test_names_of_files_are_text(browser: webdriver.Chrome, small: Path) -> None:
    visit_gallery(browser, small)
    assert HOSTILE in browser.find_element(By.ID, "gallery").text
    browser.execute_script("openImage(items[2])")
    wait_for(browser, "!byId('picture').hidden")
    assert HOSTILE in browser.find_element(By.ID, "viewer-title").text
    assert browser.find_elements(By.CSS_SELECTOR, "img[onerror], img[src=x]") == []
    assert browser.title == "CrossEAI report"


def test_filters(browser: webdriver.Chrome, large: Path) -> None:
    results = list(made_up_results(MANY))
    visit_gallery(browser, large)
    wait_for_count(browser, MANY, MANY)
    choose(browser, "disease", "Mass")
    choose(browser, "status", "positive")
    positive = [result.probabilities["Mass"] for result in results if result.positive["Mass"]]
    wait_for_count(browser, len(positive), MANY)
    low = browser.find_element(By.NAME, "low")
    low.clear()
    low.send_keys("0.9")
    wait_for_count(browser, sum(p >= 0.9 for p in positive), MANY)
    choose(browser, "sort", "probability, highest first")
    best = f"Mass {max(positive):.2f}"
    wait_for(browser, f"document.querySelector('.tile[data-index=\"0\"] .call')?.textContent === {best!r}")
    browser.find_element(By.CSS_SELECTOR, "#filters button[type=reset]").click()
    wait_for_count(browser, MANY, MANY)
    browser.find_element(By.NAME, "text").send_keys("00000042_")
    wait_for_count(browser, 1, MANY)


def test_ground_truth_filters(browser: webdriver.Chrome, small: Path) -> None:
    visit_gallery(browser, small)
    for status, name in (("ground truth hit", "a.png"), ("ground truth missed", "b.png"), ("failed", HOSTILE)):
        choose(browser, "status", status)
        wait_for_count(browser, 1, 4)
        assert browser.find_element(By.CSS_SELECTOR, ".tile b").text == name
    choose(browser, "status", "all files")
    choose(browser, "sort", "IoU, lowest first")
    wait_for(browser, "document.querySelector('.tile[data-index=\"0\"] b')?.textContent === 'b.png'")


def test_thousands_of_images_are_few_elements(browser: webdriver.Chrome, large: Path) -> None:
    visit(browser, large)
    for position in (0, 0.3, 1):
        browser.execute_script("scrollTo(0, arguments[0] * document.body.scrollHeight)", position)
        wait_for(browser, "document.querySelector('.tile') !== null")
        assert browser.execute_script("return document.querySelectorAll('*').length") < 2500
    browser.find_element(By.CSS_SELECTOR, ".tile").click()
    browser.find_element(By.ID, "close").click()
    press(browser, Keys.END)
    assert browser.switch_to.active_element.get_attribute("data-index") == str(MANY - 1)
    assert browser.execute_script("return document.querySelectorAll('*').length") < 2500
    assert "wrote no pictures" in browser.find_element(By.ID, "no-layers").text


@pytest.mark.parametrize("scheme", ["file", "http"])
def test_a_link_opens_the_image(browser: webdriver.Chrome, small: Path, images: list[ScoredImage], scheme: str) -> None:
    link = f"#image={images[1].result.image_id}"
    handler = partial(QuietHandler, directory=str(small.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = small.as_uri() if scheme == "file" else f"http://127.0.0.1:{server.server_port}/{small.name}"
        browser.get("about:blank")
        browser.get(address + link)
        assert page_mask(browser).any()
        assert browser.find_element(By.ID, "viewer-title").text == "b.png"
        browser.find_element(By.ID, "previous").click()
        wait_for(browser, "view.mask !== null && view.item === items[0]")
        server.shutdown()
    best = max(images[0].result.findings, key=lambda finding: finding.probability).disease
    assert browser.current_url == f"{address}#image={images[0].result.image_id}&disease={best}"


def test_a_link_opens_the_disease(browser: webdriver.Chrome, small: Path, images: list[ScoredImage]) -> None:
    visit(browser, small, f"#image={images[0].result.image_id}&disease=Nodule")
    assert page_mask(browser).any()
    assert browser.execute_script("return report.diseases[view.disease]") == "Nodule"
    browser.find_element(By.XPATH, "//button[text()='Mass']").click()
    wait_for(browser, "location.hash.endsWith('&disease=Mass')")


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/favicon.ico":  # browsers ask for it; its absence would be an error in the log
            self.send_response(204)
            self.end_headers()
        else:
            super().do_GET()


def test_the_mask_is_that_of_the_box_and_follows_the_sliders(
    browser: webdriver.Chrome, small: Path, images: list[ScoredImage]
) -> None:
    maps, parameters = images[0].maps[1], SPEC.boxes
    assert images[0].result.findings[1].disease == "Nodule"
    visit(browser, small, f"#image={images[0].result.image_id}")
    wait_for(browser, "view.maps !== null")
    browser.find_element(By.XPATH, "//button[text()='Nodule']").click()
    wait_for(browser, "view.disease === 5 && view.maps !== null")

    def expected(t: float, threshold: float) -> np.ndarray:
        keywords = parameters.fusion_keywords() | {"t": t}
        return binarize(fuse(maps.heatmap, maps.gradient_map, **keywords), threshold=threshold)

    np.testing.assert_array_equal(page_mask(browser), expected(parameters.t, parameters.threshold))
    for t, threshold in ((0.3, 0.35), (1.0, 0.2), (0.0, 0.7)):
        slide(browser, "t", t)
        slide(browser, "threshold", threshold)
        mask = expected(t, threshold)
        np.testing.assert_array_equal(page_mask(browser), mask)
        shown = float(browser.find_element(By.ID, "mask-share").text.split()[1])
        assert shown == pytest.approx(100 * mask.mean(), abs=0.5)
    assert "scored parameters" in browser.find_element(By.ID, "mask-share").text
    press(browser, "r")
    np.testing.assert_array_equal(page_mask(browser), expected(parameters.t, parameters.threshold))
    slide(browser, "opacity", 0.25)
    assert browser.find_element(By.ID, "map").value_of_css_property("opacity") == "0.25"


@pytest.mark.parametrize(
    "parameters",
    [
        box_preset("crosseai"),
        box_preset("scalp"),
        box_preset("tuned"),
        BoxParameters("power", t=0.4, gradient_percentile=90.0, gradient_power=0.5),
        BoxParameters("smooth", t=0.2, gradient_sigma=0.04),
        BoxParameters("closed", t=0.1, threshold=0.3, closing=0.05),
    ],
    ids=lambda parameters: parameters.preset,
)
def test_formulas_are_those_of_postproc(
    browser: webdriver.Chrome, small: Path, images: list[ScoredImage], parameters: BoxParameters
) -> None:
    visit(browser, small, f"#image={images[0].result.image_id}")
    wait_for(browser, "view.maps !== null")
    disease = browser.execute_script("return report.diseases[view.disease]")
    maps = next(
        maps
        for maps, finding in zip(images[0].maps, images[0].result.findings, strict=True)
        if finding.disease == disease
    )
    found, mask = browser.execute_script(
        "const p = {...report.parameters, ...arguments[0]}, fused = fuse(view.maps, p);"
        "return [Array.from(fused), Array.from(binarize(fused, view.maps.height, view.maps.width, p))]",
        parameters.keywords(),
    )
    fused = fuse(maps.heatmap, maps.gradient_map, **parameters.fusion_keywords())
    last_bits = parameters.gradient_power != 1 or parameters.gradient_sigma != 0  # powers and sums may differ in them
    np.testing.assert_allclose(np.reshape(found, fused.shape), fused, rtol=0, atol=1e-4 if last_bits else 0)
    expected = binarize(fused, threshold=parameters.threshold, closing=parameters.closing)
    np.testing.assert_array_equal(np.reshape(mask, fused.shape), expected)


def test_keyboard(browser: webdriver.Chrome, small: Path) -> None:
    visit_gallery(browser, small)
    browser.execute_script("setFocus(0)")
    press(browser, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ENTER)
    wait_for(browser, "viewer.open && view.mask !== null")
    assert browser.find_element(By.ID, "viewer-title").text == "b.png"
    press(browser, "1")
    assert not browser.find_element(By.ID, "map").is_displayed()
    press(browser, "2")
    assert browser.find_element(By.ID, "map").is_displayed()
    press(browser, "b")
    assert browser.find_elements(By.CSS_SELECTOR, "#marks .box") == []
    assert browser.find_elements(By.CSS_SELECTOR, "#marks .truth") != []
    press(browser, "m", "g")
    assert browser.find_element(By.CSS_SELECTOR, "#marks .mask").get_attribute("d") == ""
    assert browser.find_elements(By.CSS_SELECTOR, "#marks .truth") == []
    press(browser, "+", "+")
    assert browser.execute_script("return view.zoom") == pytest.approx(1.5625)
    press(browser, "0")
    assert browser.execute_script("return view.zoom") == 1
    press(browser, Keys.ARROW_LEFT)
    wait_for(browser, "byId('viewer-title').textContent === 'a.png'")
    press(browser, Keys.ESCAPE)
    wait_for(browser, "!viewer.open")
    assert browser.switch_to.active_element.get_attribute("data-index") == "1"


def test_without_layers_the_viewer_shows_boxes(browser: webdriver.Chrome, large: Path) -> None:
    result = next(result for result in made_up_results(MANY) if result.findings)
    visit(browser, large, f"#image={result.image_id}")
    wait_for(browser, "byId('marks').querySelector('.box') !== null")
    assert "no pictures" in browser.find_element(By.ID, "message").text


CONTROLS = """
const nodes = (viewer.open ? viewer : document).querySelectorAll("button, input, select, [role=img]");
return [...nodes].filter((node) => node.checkVisibility());
"""
CONTRAST = """
const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
const luminance = (colour) => channels(colour).slice(0, 3).map((c) => c / 255)
  .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
  .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
const background = (node) => {
  for (; node; node = node.parentElement) {
    const colour = getComputedStyle(node).backgroundColor;
    if ((channels(colour)[3] ?? 1) === 1) return colour;
  }
  return "rgb(255, 255, 255)";
};
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), low = [];
while (walker.nextNode()) {
  const node = walker.currentNode.parentElement;
  if (!walker.currentNode.data.trim() || !node.checkVisibility() || node.closest("script, option")) continue;
  const style = getComputedStyle(node);
  const [a, b] = [luminance(node instanceof SVGElement ? style.fill : style.color), luminance(background(node))];
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (ratio < 4.5) low.push([walker.currentNode.data, ratio]);
}
return low;
"""


RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_no_violation(browser: webdriver.Chrome, small: Path, dark: bool) -> None:
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    for link in ("", "#image=" + "1".rjust(32, "0")):
        visit(browser, small, link)
        if link:
            wait_for(browser, "view.mask !== null")
        else:
            browser.execute_script("byId('images').scrollIntoView()")
            wait_for(browser, "document.querySelector('.tile') !== null")
        browser.execute_script((Path(axe_core_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8"))
        found = browser.execute_async_script(
            "const done = arguments[1];"
            "axe.run(document, {runOnly: {type: 'tag', values: arguments[0]}}).then((found) => done(found.violations))",
            RULES,
        )
        assert [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found] == []


GRAPHICS = """
const luminance = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map((c) => c / 255)
  .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
  .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
const fields = [...document.querySelectorAll("input[type=search], input[type=number], select")]
  .map((node) => getComputedStyle(node)).map((style) => [style.borderTopColor, style.backgroundColor]);
const bars = [...document.querySelectorAll(".card .bar")]
  .map((node) => [getComputedStyle(node).fill, getComputedStyle(node.closest(".card")).backgroundColor]);
return [fields, bars].map((pairs) => Math.min(...pairs.map((pair) => pair.map(luminance))
  .map(([a, b]) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05))));
"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_fields_and_bars_can_be_seen(browser: webdriver.Chrome, small: Path, dark: bool) -> None:
    visit(browser, small)
    browser.execute_script("setTheme(arguments[0])", dark)
    fields, bars = browser.execute_script(GRAPHICS)
    assert fields >= 3, "WCAG 1.4.11"
    assert bars >= 3, "WCAG 1.4.11"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_accessible(browser: webdriver.Chrome, small: Path, dark: bool) -> None:
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    visit(browser, small)
    assert browser.execute_script("return document.documentElement.dataset.theme") == scheme["value"]
    assert browser.execute_script(CONTRAST) == []
    assert [node.tag_name for node in browser.execute_script(CONTROLS) if not node.accessible_name] == []
    browser.execute_script("openImage(items[0])")
    wait_for(browser, "view.mask !== null")
    assert browser.execute_script(CONTRAST) == []
    assert [node.tag_name for node in browser.execute_script(CONTROLS) if not node.accessible_name] == []
    browser.find_element(By.ID, "close").click()
    browser.find_element(By.ID, "theme").click()
    chosen = browser.execute_script("return document.documentElement.dataset.theme")
    assert chosen != scheme["value"]
    visit(browser, small)
    assert browser.execute_script("return document.documentElement.dataset.theme") == chosen, "the choice is kept"
    browser.execute_script("localStorage.clear()")


def test_print(browser: webdriver.Chrome, small: Path) -> None:
    visit(browser, small)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert not browser.find_element(By.ID, "gallery").is_displayed()
    assert browser.find_element(By.ID, "localisation").is_displayed()
    assert browser.find_element(By.ID, "notice").is_displayed()
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})

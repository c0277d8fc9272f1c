"""The page in a browser, on a desktop and on a phone."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from serving import exports

from vpt_jax.config import base

DRAWN = """() => {
    const pen = document.querySelectorAll("article canvas")[3].getContext("2d");
    return pen.getImageData(0, 0, 256, 256).data.some((x) => x > 99);
}"""
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Of a server with a probe and prompts of the quickstart's task."""
    root = tmp_path_factory.mktemp("page")
    for seed, method in enumerate(("linear", "vpt_deep")):
        config = base("digits_photo", method, "vit_nano")
        exports.write(root / method, config, exports.names(method, 10), seed)
    arguments = ["--mode", "serve", "--port", "0", "--max_batch", "2"]
    process = subprocess.Popen(
        [sys.executable, "launch.py", *arguments, "--workdir", str(root)],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stderr is not None
        found = (re.search(r"http://\S+", line) for line in process.stderr)
        yield next(match[0] for match in found if match)
        process.terminate()


@pytest.fixture
def open_page(address, size):
    sync_api = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    assert chromium, "apt install chromium"
    width, height = SIZES[size]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": width, "height": height})
        errors = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address)
        yield page
        browser.close()
        assert not errors


@pytest.mark.browser
@pytest.mark.parametrize("size", SIZES)
def test_an_image_is_seen_by_every_task(open_page, size, tmp_path):
    page = open_page
    page.locator("#examples button").nth(2).click()
    rows = page.locator("article").first.locator(".classes li:not(.empty)")
    rows.first.wait_for()
    assert page.locator("article").count() == 2
    assert rows.count() == 5
    assert "2 tasks, one pass" in page.locator("#message").inner_text()
    page.locator("summary").nth(1).click()
    drawn = (
        "c => c.getContext('2d').getImageData(0, 0, 256, 256).data.some(x => x > 99)"
    )
    canvas = page.locator("article").nth(1).locator("canvas").nth(1)
    page.wait_for_function(
        f"() => ({drawn})(document.querySelectorAll('article canvas')[3])"
    )
    assert canvas.evaluate(drawn)
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= SIZES[size][0]  # nothing to scroll sideways for
    page.screenshot(path=tmp_path / f"{size}.png", full_page=True)


@pytest.mark.browser
@pytest.mark.parametrize("size", ["desktop"])
def test_a_file_that_is_no_image_is_said_to_be_none(open_page, tmp_path):
    page = open_page
    page.locator("article").first.wait_for()
    file = tmp_path / "text.png"
    file.write_text("no image")
    page.locator("#file").set_input_files(file)
    page.locator("#message.wrong").wait_for()
    assert "cannot be read as an image" in page.locator("#message").inner_text()

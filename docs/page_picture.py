"""A picture of the page of `mixreorg serve`, taken in Chromium."""

import io
import re
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from mixreorg.serve.page import EXAMPLES

_WAIT = 60


def draw_page(out: Path) -> None:
    """Serve the bundled model, segment an example, point at the middle of the picture, and save what is seen."""
    command = [sys.executable, "-m", "mixreorg", "serve", "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--window-size=1180,1010", "--force-device-scale-factor=1"):
        options.add_argument(argument)
    # Named, because Selenium asks elsewhere for a driver otherwise. (Debian: chromium, chromium-driver)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        assert server.stdout
        address = re.search(r"http://[\d.:]+", server.stdout.readline())
        assert address
        driver.get(address[0])

        def find(selector: str) -> webdriver.remote.webelement.WebElement:
            return WebDriverWait(driver, _WAIT).until(lambda _: driver.find_elements(By.CSS_SELECTOR, selector))[0]

        find("#photo input[type=file]").send_keys(str(EXAMPLES / "scene_1.jpg"))
        find("#photo img")
        find("#names textarea").send_keys("horse, book, clock, bus")
        find("#segment").click()
        WebDriverWait(driver, _WAIT).until(lambda _: "background" in find("#classes").text)
        ActionChains(driver).move_to_element_with_offset(find("#classes .veil"), 80, 40).perform()
        find("#classes .tip:not([hidden])")
        picture = Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")
        picture.quantize(128).save(out, optimize=True)
    finally:
        driver.quit()
        server.terminate()
        server.wait()

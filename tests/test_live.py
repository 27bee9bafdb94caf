"""perturb.py --live: its sliders and buttons, without a screen and in a browser."""

import asyncio
import base64
import gc
import io
import json
import os
import shutil
import signal
import subprocess
import threading
import time

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from conftest import start
from matplotlib.backend_bases import MouseEvent
from tornado.websocket import websocket_connect

import common
import perturb

POSITIONS = [0, 20, 40]
SAMPLES = 4


# ---- without a screen
def make_G():
    """A quick generator, in which every entry of z moves many pixels."""
    random = torch.Generator().manual_seed(1)
    weights = torch.randn(100, 28 * 28, generator=random) / 10

    def G(z):
        return torch.tanh(z @ weights).view(-1, 1, 28, 28)

    return G


def noise():
    random = torch.Generator().manual_seed(23231)
    return torch.randn(SAMPLES, 100, generator=random)


@pytest.fixture
def live():
    figure = perturb.Live(make_G(), noise(), POSITIONS).figure
    gc.collect()  # as in a notebook: nobody but pyplot keeps the figure
    figure.canvas.draw()
    figure.set_layout_engine("none")  # all stays where it is: quicker
    yield figure.live
    plt.close(figure)


def mouse(axes, kind, across):
    """At a place in axes (0: the left end, 1: the right), or beside them."""
    x, y = axes.transAxes.transform((across, 0.5))
    canvas = axes.figure.canvas
    event = MouseEvent(f"{kind}_event", canvas, x, y, button=1)
    canvas.callbacks.process(event.name, event)


def click(axes, across=0.5):
    mouse(axes, "button_press", across)
    mouse(axes, "button_release", across)


def place_of(slider, value):
    return (value - slider.valmin) / (slider.valmax - slider.valmin)


def drag(slider, value):
    """From where it stands, over a place between, to a value."""
    begin = place_of(slider, slider.val)
    end = place_of(slider, value)
    mouse(slider.ax, "button_press", begin)
    mouse(slider.ax, "motion_notify", (begin + end) / 2)
    mouse(slider.ax, "motion_notify", end)
    mouse(slider.ax, "button_release", end)
    mouse(slider.ax, "motion_notify", 0.5)  # is no drag any more
    assert slider.val == pytest.approx(value, abs=0.1)


def check_images(live, z):
    """What is shown are the images of z."""
    G = make_G()
    wanted = common.grid(G(z), columns=SAMPLES, zoom=1)
    assert np.array_equal(live.picture.get_array(), wanted)


def check_sliders(live, z):
    """They stand at the mean of their entry in z, and are drawn there."""
    for position, slider in live.sliders.items():
        mean = z[:, position].mean().item()
        assert slider.val == pytest.approx(mean, abs=1e-6), f"z[{position}]"
        assert slider.valtext.get_text() == slider._format(slider.val)
    assert live.scale.val == 1


def pixels(figure):
    """As they were last drawn."""
    rgba = np.asarray(figure.canvas.buffer_rgba())
    return rgba[:, :, :3] / 255


def numbers_under(live):
    """The table's numbers under the images."""
    numbers = {}
    for part in live.image_axes.get_xlabel().split("   "):
        name, _, number = part.rpartition(" ")
        numbers[name] = float(number)
    return numbers


def test_it_opens_on_the_samples_as_they_are(live):
    z = noise()
    check_images(live, z)
    check_sliders(live, z)
    assert list(live.sliders) == POSITIONS
    labels = [slider.label.get_text() for slider in live.sliders.values()]
    assert labels == ["z[0]", "z[20]", "z[40]"]
    assert "move all samples" in live.image_axes.get_title()
    assert numbers_under(live)["change"] == 0


def test_a_dragged_slider_sets_its_entry_in_all_samples(live):
    z = noise()
    for value in (5, -7):
        drag(live.sliders[20], value)
        z[:, 20] = live.sliders[20].val
        check_images(live, z)
    check_sliders(live, z)


def test_sliders_go_from_minus_10_to_10(live):
    for slider in live.sliders.values():
        assert (slider.valmin, slider.valmax) == (-10, 10)
    assert (live.scale.valmin, live.scale.valmax) == (0, 5)


def test_the_numbers_follow_the_slider(live):
    z = noise()
    drag(live.sliders[20], 9)
    z[:, 20] = live.sliders[20].val
    G = make_G()
    images = torch.stack([G(noise()), G(z)])
    table = perturb.measure(images)
    wanted = {name: column[1] for name, column in table.items()}
    assert numbers_under(live) == pytest.approx(wanted, abs=0.051)
    assert wanted["change"] > 1


def test_a_second_slider_leaves_the_first_as_it_is(live):
    z = noise()
    for position in (0, 40):
        drag(live.sliders[position], -4)
        z[:, position] = live.sliders[position].val
    check_images(live, z)


def test_after_a_click_on_a_sample_the_sliders_move_it_alone(live):
    z = noise()
    for sample in range(SAMPLES):
        for part in (0.05, 0.95):  # near its left edge, and its right
            click(live.image_axes, across=(sample + part) / SAMPLES)
            assert f"move sample {sample + 1} " in live.image_axes.get_title()
        drag(live.sliders[0], sample + 3)
        z[sample, 0] = live.sliders[0].val
        check_images(live, z)


def test_after_a_click_beside_everything_the_sliders_move_all(live):
    z = noise()
    click(live.image_axes, across=0.3)
    click(live.image_axes, across=-9)
    assert "move all samples" in live.image_axes.get_title()
    drag(live.sliders[0], 6)
    z[:, 0] = live.sliders[0].val
    check_images(live, z)


def test_a_choice_is_drawn_at_once(live):
    of_all = pixels(live.figure)
    click(live.image_axes, across=0.3)
    of_one = pixels(live.figure)
    click(live.image_axes, across=-9)
    assert not np.array_equal(of_all, of_one)
    assert np.array_equal(of_all, pixels(live.figure))


def test_scale_multiplies_what_the_sliders_have_set(live):
    z = noise()
    drag(live.scale, 0.5)
    drag(live.sliders[20], 8)
    z[:, 20] = live.sliders[20].val
    check_images(live, z * live.scale.val)
    drag(live.scale, 3)
    check_images(live, z * live.scale.val)


def test_back_brings_back_images_and_sliders(live):
    z = noise()
    drag(live.sliders[0], 5)
    drag(live.scale, 2)
    click(live.image_axes, across=0.1)
    drag(live.sliders[20], -5)
    click(live.back_button.ax)
    check_images(live, z)
    check_sliders(live, z)
    assert numbers_under(live)["change"] == 0
    # and what is dragged next starts from there
    drag(live.sliders[40], 7)
    z[0, 40] = live.sliders[40].val
    check_images(live, z)


def test_new_z_brings_other_samples_and_back_then_leads_to_them(live):
    drag(live.sliders[0], 5)
    drag(live.scale, 2)
    click(live.new_button.ax)
    new = live.before.clone()
    assert (new - noise()).abs().mean() > 0.5
    assert new.std() == pytest.approx(1, abs=0.2)
    check_images(live, new)
    check_sliders(live, new)
    drag(live.sliders[0], -5)
    click(live.back_button.ax)
    check_images(live, new)
    check_sliders(live, new)


# ---- in a browser
class Page:
    """The server that perturb.py --live starts where no window can open."""

    def __init__(self, folder):
        environment = os.environ | {"MPLBACKEND": "agg"}
        self.process = start("perturb", "--live", cwd=folder, env=environment)
        self.alarm = threading.Timer(300, self.process.kill)  # then every wait ends
        self.alarm.start()

    def wait(self):
        """Read what the server prints until it can be visited."""
        self.lines = []
        for line in self.process.stdout:
            self.lines.append(line.strip())
            if "Press Ctrl+C" in line:
                break
        addresses = [line.split()[-1] for line in self.lines if "visit" in line]
        assert len(addresses) == 1, self.lines
        self.address = addresses[0]

    def press_ctrl_c(self):
        """What the server then writes to stderr, and its exit code."""
        self.process.send_signal(signal.SIGINT)
        _, error = self.process.communicate(timeout=60)
        return error, self.process.returncode

    def close(self):
        self.alarm.cancel()
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def page(tmp_path):
    page = Page(tmp_path)
    try:
        page.wait()
        yield page
    finally:
        page.close()


@pytest.fixture
def window():
    """The same figure in this process: where everything is, and how it looks."""
    G, _ = perturb.load_generator(perturb.SHIPPED)
    z = perturb.draw_z(seed=23231, samples=8, z_dim=100)
    figure = perturb.Live(G, z, perturb.spread(100)).figure
    figure.canvas.draw()
    yield figure
    plt.close(figure)


def difference(one, other):
    return abs(one - other).mean()


def decode(png):
    return plt.imread(io.BytesIO(png))[:, :, :3]


async def first_picture(address):
    """Speaks with the server as the page's own script does."""
    socket = await websocket_connect(address.replace("http", "ws") + "/1/ws")
    for kind in ("supports_binary", "refresh", "draw"):
        await socket.write_message(json.dumps({"type": kind, "value": True}))
    message = ""
    while isinstance(message, str):  # cursors and the like
        message = await socket.read_message()
    return decode(message)


def test_the_page_shows_the_window(page, window):
    """Where no window opens, a page has the same sliders, until Ctrl-C."""
    shown = asyncio.run(asyncio.wait_for(first_picture(page.address), timeout=60))
    wanted = pixels(window)
    assert difference(shown, wanted) < 2e-3, "a fraction of a pixel may be aside"
    assert len(wanted) < 600, "no need to scroll on a laptop"
    assert page.address.startswith("http://127.0.0.1:"), "nobody else can open it"
    port = page.address.rpartition(":")[2]
    assert any(f"ssh -L {port}:127.0.0.1:{port} " in line for line in page.lines)
    assert page.press_ctrl_c() == ("", 130)


def find_browser():
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    if "CI" in os.environ:
        pytest.fail("CI must have a browser: apt-get install chromium")
    pytest.skip("apt-get install chromium")


class Browser:
    """A chromium without a screen, driven by the DevTools protocol over a websocket."""

    def __init__(self, folder):
        self.folder = folder
        command = [
            find_browser(),
            "--headless=new",
            "--no-sandbox",  # it cannot make one as root; it opens our own page alone
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--no-proxy-server",
            "--hide-scrollbars",
            "--force-device-scale-factor=1",
            "--window-size=1200,900",
            "--remote-debugging-port=0",
            f"--user-data-dir={folder}",
            "about:blank",
        ]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # so that close() ends its children, too
        )
        self.messages = 0
        self.session = None

    def close(self):
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it has ended
        self.process.wait(timeout=30)

    async def open(self, address):
        port, path = await until(self.says_where_to_connect)
        self.socket = await websocket_connect(
            f"ws://127.0.0.1:{port}{path}", max_message_size=2**26
        )
        target = await self.call("Target.createTarget", url="about:blank")
        attached = await self.call(
            "Target.attachToTarget", targetId=target["targetId"], flatten=True
        )
        self.session = attached["sessionId"]
        await self.call("Page.navigate", url=address)

    async def says_where_to_connect(self):
        file = self.folder / "DevToolsActivePort"
        lines = file.read_text().splitlines() if file.exists() else []
        return lines if len(lines) == 2 else None

    async def call(self, method, **parameters):
        self.messages += 1
        message = {"id": self.messages, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        await self.socket.write_message(json.dumps(message))
        answer = {}
        while answer.get("id") != self.messages:  # the others are of events
            answer = json.loads(await self.socket.read_message())
        assert "error" not in answer, (method, answer)
        return answer["result"]

    async def evaluate(self, expression):
        answer = await self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True
        )
        return answer["result"].get("value")

    async def mouse(self, kind, place, button="left"):
        x, y = place
        await self.call(
            "Input.dispatchMouseEvent",
            type=kind,
            x=x,
            y=y,
            button=button,
            buttons=int(button == "left" and kind != "mouseReleased"),
            clickCount=1,
        )

    async def drag(self, begin, end):
        await self.mouse("mouseMoved", begin, button="none")
        await self.mouse("mousePressed", begin)
        for share in np.linspace(0.2, 1, 5).tolist():
            x = begin[0] + share * (end[0] - begin[0])
            await self.mouse("mouseMoved", (x, begin[1]))
        await self.mouse("mouseReleased", end)

    async def click(self, place):
        await self.mouse("mouseMoved", place, button="none")
        await self.mouse("mousePressed", place)
        await self.mouse("mouseReleased", place)

    async def screenshot(self):
        answer = await self.call("Page.captureScreenshot", format="png")
        return decode(base64.b64decode(answer["data"]))


async def until(question, seconds=60):
    """Ask until the answer is yes, or something. That answer."""
    end = time.monotonic() + seconds
    while not (answer := await question()):
        assert time.monotonic() < end, f"waited {seconds} seconds in vain"
        await asyncio.sleep(0.1)
    return answer


@pytest.fixture
def browser(tmp_path):
    browser = Browser(tmp_path / "profile")
    yield browser
    browser.close()


class Canvas:
    """The place in a browser's page at which the figure is shown."""

    def __init__(self, browser, figure):
        self.browser = browser
        self.figure = figure

    async def find(self):
        """Its place in the page, as soon as it has its size."""
        self.height, self.width = pixels(self.figure).shape[:2]
        script = """
            (() => {
                const canvas = document.querySelector("canvas");
                if (!canvas) return {};
                const place = canvas.getBoundingClientRect();
                return {left: place.left, top: place.top, width: place.width};
            })()
        """
        found = {}
        while found.get("width") != self.width:
            await asyncio.sleep(0.1)
            found = await self.browser.evaluate(script)
        self.left = round(found["left"])
        self.top = round(found["top"])

    def place(self, axes, across):
        """Where in the page axes of the figure have a place: 0 is left, 1 right."""
        x, y = axes.transAxes.transform((across, 0.5))
        return self.left + x, self.top + self.height - y

    async def click(self, place):
        await self.browser.click(place)
        await self.leave()

    async def drag(self, begin, end):
        await self.browser.drag(begin, end)
        await self.leave()

    async def leave(self):
        """For the edge: a button under the mouse is pale."""
        edge = (self.left + 5, self.top + 5)
        await self.browser.mouse("mouseMoved", edge, button="none")

    async def screenshot(self):
        page = await self.browser.screenshot()
        bottom = self.top + self.height
        right = self.left + self.width
        return page[self.top : bottom, self.left : right]

    async def shows(self, wanted, at_most=7e-4):
        """Wait until the figure looks so. The last screenshot of it."""
        await until(lambda: self.is_near(wanted, at_most))
        return await self.screenshot()

    async def click_until_it_shows(self, place, wanted):
        """The layout is settled at the second drawing; the page may not listen yet."""
        for second in range(60):
            if second % 10 == 0:
                await self.click(place)
            await asyncio.sleep(1)
            if await self.is_near(wanted, at_most=7e-4):
                return await self.screenshot()
        raise AssertionError("the page did not show the figure within a minute")

    async def is_near(self, wanted, at_most):
        shown = await self.screenshot()
        return shown.shape == wanted.shape and difference(shown, wanted) <= at_most


async def drag_and_go_back(browser, address, window):
    await browser.open(address)
    canvas = Canvas(browser, window)
    await canvas.find()
    live = window.live
    back = canvas.place(live.back_button.ax, 0.5)
    slider = live.sliders[20]
    begin = canvas.place(slider.ax, place_of(slider, slider.val))
    end = canvas.place(slider.ax, place_of(slider, 8))

    at_first = await canvas.click_until_it_shows(back, pixels(window))

    await canvas.drag(begin, end)
    slider.set_val(8)
    window.canvas.draw()
    dragged = await canvas.shows(pixels(window))
    assert difference(at_first, dragged) > 0.02, "the drag changed next to nothing"

    await canvas.click(back)
    await canvas.shows(at_first, at_most=1e-4)  # the edge of a letter may be aside


@pytest.mark.slow
def test_a_drag_in_a_browser_and_the_way_back(browser, page, window):
    """With a real mouse on the real page, until Ctrl-C."""
    work = drag_and_go_back(browser, page.address, window)
    asyncio.run(asyncio.wait_for(work, timeout=200))
    assert page.press_ctrl_c() == ("", 130)

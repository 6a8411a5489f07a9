"""The player in a real browser: it plays, rotates, names joints and colors bodies by role."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from sgnray.data.skeleton import NTU25
from sgnray.view.page import render_player
from sgnray.view.scene import Panel, Scene, SceneTrack

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    """A clip of a main actor and a removed body."""
    random = np.random.default_rng(0)
    joints = random.normal(size=(1, 25, 3)) + 0.05 * np.arange(30)[:, None, None] * [1, 0, 0]
    joints = joints.astype(np.float32)
    raw = Panel("recorded", (SceneTrack(joints, "main"), SceneTrack(joints + 1, "removed")))
    one = Scene("first", NTU25, (raw, Panel("prepared", (SceneTrack(joints, "main"),))))
    path = tmp_path_factory.mktemp("player") / "clip.html"
    path.write_text(render_player(one))
    return path


def test_it_plays_and_stops(open_page, page_file):
    page = open_page(page_file)
    time = page.locator("output")
    assert time.inner_text() == "0.0 of 1.0 s"  # no autoplay with reduced motion
    page.get_by_role("button", name="play").click()
    page.wait_for_function("() => document.querySelector('output').value !== '0.0 of 1.0 s'")
    page.get_by_role("button", name="pause").click()
    stopped = time.inner_text()
    page.wait_for_timeout(200)
    assert time.inner_text() == stopped


def test_the_keyboard_goes_frame_by_frame(open_page, page_file):
    page = open_page(page_file)
    page.locator(".stage").focus()
    bar = page.locator("input[type=range]")
    for key, frame in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1)):
        page.keyboard.press(key)
        assert bar.input_value() == str(frame)


def test_the_bar_chooses_a_frame(open_page, page_file):
    page = open_page(page_file)
    page.locator("input[type=range]").fill("12")
    assert page.locator("output").inner_text() == "0.4 of 1.0 s"


def test_dragging_turns_all_panels(open_page, page_file):
    page = open_page(page_file)
    views = page.locator("canvas")
    before = [views.nth(index).screenshot() for index in (0, 1)]
    box = views.nth(0).bounding_box()
    page.mouse.move(box["x"] + 100, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + 180, box["y"] + 120)
    page.mouse.up()
    assert all(views.nth(index).screenshot() != before[index] for index in (0, 1))


def test_hovering_over_a_joint_shows_its_name(open_page, page_file):
    page = open_page(page_file)
    caption = page.locator("figcaption").nth(1)
    box = page.locator("canvas").nth(1).bounding_box()
    spots = [
        (box["x"] + x, box["y"] + y)
        for x in range(100, int(box["width"]) - 100, 25)
        for y in range(60, int(box["height"]) - 60, 25)
    ]
    names = set()
    for spot in spots:
        page.mouse.move(*spot)
        names.add(caption.inner_text().removeprefix("prepared").removeprefix(" · "))
    assert len(names & set(NTU25.joints)) > 5
    assert "" in names  # no name between the joints


def test_tapping_a_joint_shows_its_name(open_page, page_file):
    page = open_page(page_file)
    # Taps all over the canvas, without any motion of a pointer.
    names = page.evaluate(
        """() => {
          const canvas = document.querySelector("canvas"), box = canvas.getBoundingClientRect();
          const names = new Set();
          canvas.setPointerCapture = () => {};
          for (let x = 0; x < box.width; x += 8) for (let y = 0; y < box.height; y += 8) {
            const place = { clientX: box.left + x, clientY: box.top + y, pointerType: "touch" };
            canvas.dispatchEvent(new PointerEvent("pointerdown", place));
            canvas.dispatchEvent(new PointerEvent("pointerup", place));
            names.add(document.querySelector("figcaption").textContent.split(" · ")[1]);
          }
          return [...names];
        }"""
    )
    assert len(set(names) & set(NTU25.joints)) > 20


def test_the_colors_change_with_the_scheme(open_page, page_file):
    page = open_page(page_file)
    read = "document.querySelector('canvas').toDataURL()"
    light = page.evaluate(read)
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(f"light => {read} !== light", arg=light)


def test_a_legend_only_where_there_is_a_choice(open_page, page_file, tmp_path):
    page = open_page(page_file)
    assert page.locator(".legend li").all_inner_texts() == ["main actor", "removed by denoising"]
    flat = dataclasses.replace(NTU25, name="flat", num_coordinates=2)
    joints = np.random.default_rng(0).normal(size=(30, 25, 2)).astype(np.float32)
    scene = Scene("flat", flat, (Panel("prepared", (SceneTrack(joints, "main"),)),))
    (tmp_path / "flat.html").write_text(render_player(scene))
    page = open_page(tmp_path / "flat.html")
    assert page.locator("canvas").count() == 1
    assert page.locator(".legend li").count() == 0

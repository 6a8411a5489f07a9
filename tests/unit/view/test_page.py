"""Scenes as JSON: what a page gets is what was recorded, to the millimeter."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest

from sgnray.data.skeleton import NTU25
from sgnray.view.page import HTML, pack_scene, render_page, render_player
from sgnray.view.scene import Panel, Scene, SceneTrack, scene_of_clip


def unpack(packed, panel, track):
    data = base64.b64decode(packed["panels"][panel]["tracks"][track]["data"])
    shape = (packed["num_frames"], len(packed["joints"]), packed["num_coordinates"])
    return np.frombuffer(data, "<i2").reshape(shape)


def test_a_clip_is_packed_to_the_millimeter(tiny_dataset):
    packed = json.loads(json.dumps(pack_scene(scene_of_clip(tiny_dataset, 4))))
    assert packed["num_frames"] == tiny_dataset.clips.num_frames[4]
    assert packed["joints"] == list(NTU25.joints)
    values = unpack(packed, 0, 0)
    first = tiny_dataset.poses_PVC[tiny_dataset.offsets[4]]
    np.testing.assert_allclose(values[0] / 1000, first, atol=0.0005001)


def test_absent_and_far_away_people_are_packed():
    joints = np.zeros((3, 25, 3), np.float32)
    joints[1], joints[2, 0] = np.nan, 1e6
    packed = pack_scene(Scene("x", NTU25, (Panel("p", (SceneTrack(joints, "main"),)),)))
    values = unpack(packed, 0, 0)
    assert (values[1] == -32768).all()
    assert (values[2, 0] == 32767).all()
    assert (values[0] == 0).all()


def test_poses_in_pixels_keep_their_proportions():
    joints = np.random.default_rng(0).uniform(0, 1920, (4, 25, 3)).astype(np.float32)
    packed = pack_scene(Scene("x", NTU25, (Panel("p", (SceneTrack(joints, "main"),)),)))
    shown = unpack(packed, 0, 0) / 32767 * joints.max()
    np.testing.assert_allclose(shown, joints, atol=0.03)


def test_a_scene_without_people_is_packed():
    joints = np.full((2, 25, 3), np.nan, np.float32)
    packed = pack_scene(Scene("x", NTU25, (Panel("p", (SceneTrack(joints, "main"),)),)))
    assert (unpack(packed, 0, 0) == -32768).all()


@pytest.mark.parametrize(("num_frames", "kept", "fps"), [(60, 60, 30), (61, 31, 15), (300, 60, 6)])
def test_long_clips_are_thinned_and_keep_their_speed(num_frames, kept, fps):
    joints = np.arange(num_frames, dtype=np.float32)[:, None, None] / 1000 * np.ones((1, 25, 3))
    scene = Scene("x", NTU25, (Panel("p", (SceneTrack(joints.astype(np.float32), "main"),)),))
    packed = pack_scene(scene, max_frames=60)
    assert (packed["num_frames"], packed["fps"]) == (kept, fps)
    step = round(30 / fps)
    assert [int(value) for value in unpack(packed, 0, 0)[:3, 0, 0]] == [0, step, 2 * step]


def test_no_name_ends_a_script():
    evil = {"name": "</script><script>alert(1)</script><!-- & \u2028"}
    page = render_page(HTML / "player.html", title="x", scene=evil)
    text = page.partition('id="scene">')[2].partition("</script>")[0]
    assert json.loads(text) == evil
    assert not set("<>&\u2028") & set(text)


def test_a_page_names_its_clip_safely(tiny_dataset, tmp_path):
    scene = scene_of_clip(tiny_dataset, 0)
    evil = Scene("<img src=x onerror=alert(1)>", scene.skeleton, scene.panels)
    (tmp_path / "page.html").write_text(render_player(evil))
    page = (tmp_path / "page.html").read_text()
    assert "<img" not in page
    assert "&lt;img src=x" in page
    assert "default-src 'none'" in page
    assert not any(word in page for word in ("http://", "https://", "import(", "fetch("))

"""`view_clip` on real files: what is in the pictures, and how long they play."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageColor

from sgnray.data.skeleton import NTU25
from sgnray.errors import UsageError
from sgnray.view import view_clip
from sgnray.view.pictures import COLORS, draw_gif, draw_sheet
from sgnray.view.scene import Panel, Scene, Track


@pytest.fixture
def path(tiny_raw):
    return min(tiny_raw.glob("*.skeleton"))


def test_a_gif_takes_as_long_as_the_clip(path, tmp_path):
    written = view_clip(path, out=tmp_path / "a.gif")
    num_frames = int(path.read_text().split("\n", 1)[0])
    with Image.open(written) as picture:
        durations = []
        for index in range(picture.n_frames):
            picture.seek(index)
            durations.append(picture.info["duration"])
        # Frames without a body are dropped, so the clip may be a little shorter.
        assert len(durations) == pytest.approx(num_frames / 2, abs=3)
        assert sum(durations) / 1000 == pytest.approx(num_frames / 30, abs=0.2)
        assert set(durations) <= {60, 70}
        assert picture.size[0] == 640  # raw beside prepared


def test_a_camera_of_another_rate_plays_at_its_own_speed(flat_folder, path, tmp_path):
    page = view_clip(path, out=tmp_path / "a.html", fps=50).read_text()
    assert '"fps":50' in page
    written = view_clip(flat_folder, "clip-03", out=tmp_path / "a.gif", fps=10)
    with Image.open(written) as picture:
        assert (picture.n_frames, picture.info["duration"]) == (12, 100)
    for fps in (0, -1, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="invalid frame rate"):
            view_clip(path, out=tmp_path / "b.gif", fps=fps)


@pytest.mark.parametrize("removed", [False, True])
def test_what_was_removed_has_a_color_of_its_own(removed, tmp_path):
    joints = np.random.default_rng(0).normal(size=(30, 25, 3)).astype(np.float32)
    tracks = [Track(joints, "main")]
    if removed:
        tracks.append(Track(joints + 1, "removed"))
    scene = Scene("x", NTU25, (Panel("recorded", tuple(tracks)),))
    for draw, name in ((draw_gif, "a.gif"), (draw_sheet, "a.png")):
        (tmp_path / name).write_bytes(draw(scene))
        with Image.open(tmp_path / name) as picture:
            colors = np.array(picture.convert("RGB")).reshape(-1, 3).astype(int)
        num_main = num_near(colors, COLORS["main"])
        assert num_main > 500
        # Gray is in the smoothed letters, too.
        assert (num_near(colors, COLORS["removed"]) > num_main / 3) == removed
        assert num_near(colors, COLORS["second"]) == 0


def num_near(colors, name):
    return int((np.abs(colors - ImageColor.getrgb(name)).max(axis=1) < 12).sum())


def test_a_sheet_has_twelve_frames(path, tmp_path):
    with Image.open(view_clip(path, to="png", out=tmp_path / "a.png")) as picture:
        assert picture.size[0] == 800
        assert picture.size[1] > 6 * 200
    with Image.open(view_clip(path, to="png", out=tmp_path / "b.png", names=True)) as picture:
        assert picture.size[0] == 800
        assert picture.size[1] > 12 * 400


def test_long_clips_make_small_files(tmp_path):
    joints = np.random.default_rng(0).normal(size=(3000, 25, 3)).astype(np.float32)
    scene = Scene("x", NTU25, (Panel("recorded", (Track(joints, "main"),)),))
    (tmp_path / "a.gif").write_bytes(draw_gif(scene))
    with Image.open(tmp_path / "a.gif") as picture:
        assert picture.n_frames <= 240


def test_a_skeleton_in_the_plane(flat_folder, tmp_path):
    for to in ("gif", "png", "html"):
        written = view_clip(flat_folder, "clip-03", to=to, out=tmp_path / f"a.{to}")
        assert written.stat().st_size > 1000


def test_empty_frames_and_a_single_point_are_drawn(tmp_path):
    joints = np.full((5, 25, 3), np.nan, np.float32)
    scene = Scene("nobody", NTU25, (Panel("recorded", (Track(joints, "main"),)),))
    assert draw_sheet(scene)
    assert draw_gif(scene)
    assert draw_gif(Scene("a point", NTU25, (Panel("p", (Track(joints * 0 + 1, "main"),)),)))


@pytest.mark.parametrize(
    ("clip", "message"),
    [(None, "there are 27 clips, and only one can be shown"), ("S001", "clip 'S001' not found")],
)
def test_several_clips_need_a_name(tiny_raw, tiny_folder, clip, message):
    for source in (tiny_raw, tiny_folder):
        with pytest.raises(UsageError, match=message):
            view_clip(source, clip)


def test_a_clip_by_its_name_with_or_without_suffix(tiny_raw, path, tmp_path):
    one = view_clip(tiny_raw, path.name, to="png", out=tmp_path / "new" / "1.png").read_bytes()
    assert view_clip(tiny_raw, path.stem, to="png", out=tmp_path / "2.png").read_bytes() == one


def test_the_suffix_decides(path, tmp_path):
    with Image.open(view_clip(path, out=tmp_path / "a.png")) as picture:
        assert picture.format == "PNG"
    with pytest.raises(UsageError, match="unknown format 'jpg'"):
        view_clip(path, to="jpg")
    with pytest.raises(UsageError, match="the file name implies png, but gif was requested"):
        view_clip(path, to="gif", out=tmp_path / "b.png")

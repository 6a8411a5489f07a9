"""`view_clip` on real files: what is in the pictures, and how long they play."""

from __future__ import annotations

import pickle
import zipfile

import numpy as np
import pytest
from PIL import Image, ImageColor

from sgnray.data.skeleton import COCO17, NTU25
from sgnray.errors import UsageError
from sgnray.view import view_clip
from sgnray.view.clip import find_scene
from sgnray.view.pictures import COLORS, draw_gif, draw_sheet
from sgnray.view.scene import Panel, Scene, SceneTrack

from ... import pose_files as files


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


def test_a_recording_or_a_dataset_may_be_at_a_uri(path, flat_folder, tmp_path):
    for source, clip in ((path, None), (flat_folder, "clip-03")):
        written = [
            view_clip(place, clip, out=tmp_path / f"{number}.png", overwrite=True).read_bytes()
            for number, place in enumerate((source, source.as_uri()))
        ]
        assert written[0] == written[1]


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
    tracks = [SceneTrack(joints, "main")]
    if removed:
        tracks.append(SceneTrack(joints + 1, "removed"))
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
    scene = Scene("x", NTU25, (Panel("recorded", (SceneTrack(joints, "main"),)),))
    (tmp_path / "a.gif").write_bytes(draw_gif(scene))
    with Image.open(tmp_path / "a.gif") as picture:
        assert picture.n_frames <= 240


def test_a_skeleton_in_the_plane(flat_folder, tmp_path):
    for to in ("gif", "png", "html"):
        written = view_clip(flat_folder, "clip-03", to=to, out=tmp_path / f"a.{to}")
        assert written.stat().st_size > 1000


def test_empty_frames_and_a_single_point_are_drawn(tmp_path):
    joints = np.full((5, 25, 3), np.nan, np.float32)
    scene = Scene("nobody", NTU25, (Panel("recorded", (SceneTrack(joints, "main"),)),))
    assert draw_sheet(scene)
    assert draw_gif(scene)
    assert draw_gif(Scene("a point", NTU25, (Panel("p", (SceneTrack(joints * 0 + 1, "main"),)),)))


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


@pytest.fixture
def alike(tmp_path):
    """A folder of two recordings with one name, each of its own length."""
    for folder, num_frames in (("clap", 3), ("wave", 9)):
        path = tmp_path / "raw rec" / folder / "c0.csv"
        path.parent.mkdir(parents=True)
        path.write_bytes(files.format_kinect([files.move(NTU25, num_frames)]))
    return tmp_path / "raw rec"


def test_clips_with_one_name_are_told_apart_by_their_folders(alike):
    for name in ("c0", "c0.csv"):
        with pytest.raises(UsageError) as caught:
            find_scene(alike, name)
        assert caught.value.what == f"there are 2 clips with the name {name!r}"
        assert caught.value.now == "name one of them with its folder: clap/c0.csv, wave/c0.csv"
    for name in ("wave/c0", "wave/c0.csv"):
        assert find_scene(alike, name).panels[0].tracks[0].joints_TVC.shape[0] == 9


def test_clips_with_one_path_in_several_zips_are_told_apart_by_the_zip(alike, tmp_path):
    zips = tmp_path / "zips"
    zips.mkdir()
    for folder in ("clap", "wave"):
        with zipfile.ZipFile(zips / f"{folder}.zip", "w") as archive:
            archive.write(alike / folder / "c0.csv", "all/c0.csv")
    with pytest.raises(UsageError) as caught:
        find_scene(zips, "all/c0.csv")
    assert caught.value.now == (
        f"view one of these instead of the folder: {zips / 'clap.zip'}, {zips / 'wave.zip'}"
    )


def test_the_clips_of_a_pickle_have_their_whole_names(tmp_path):
    pixels = files.project(files.move(COCO17, 9))[:, None]
    clips = [
        files.annotate_2d(name, pixels[:num_frames], label)
        for label, (name, num_frames) in enumerate({"clap/c0": 3, "wave/c0": 9}.items())
    ]
    path = tmp_path / "coco.pkl"
    path.write_bytes(pickle.dumps({"annotations": clips, "split": {}}))
    assert find_scene(path, "wave/c0").panels[0].tracks[0].joints_TVC.shape[0] == 9
    with pytest.raises(UsageError, match="there are 2 clips with the name 'c0'"):
        find_scene(path, "c0")


def test_the_example_of_a_command_is_quoted(alike):
    with pytest.raises(UsageError) as caught:
        find_scene(alike, None)
    assert caught.value.now == f"name it, for example: sgn view '{alike}' clap/c0.csv"

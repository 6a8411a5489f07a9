"""A JSON file for each image, as MMPose and YOLO write them of a folder of images."""

import json
import zipfile

import pytest

from sgnray.data.skeleton import COCO17, OPENPOSE18
from sgnray.errors import ClipError, InputError
from sgnray.prepare.readers.detect import detect
from sgnray.prepare.readers.find_recordings import find_recordings
from sgnray.prepare.readers.format_table import HEAD_BYTES
from sgnray.prepare.readers.keypoints import read_keypoints
from sgnray.prepare.readers.recordings import read_recording
from sgnray.storage.location import locate

from ... import pose_files as files
from .conftest import assert_equal

PEOPLE_NVC = files.project(files.move(COCO17, 40))[:, None]
MMPOSE = json.loads(files.format_mmpose(PEOPLE_NVC))
META = {"dataset_name": "coco", "keypoint_id2name": dict(enumerate(COCO17.joints))}
FRAMES = {
    "MMPose": [frame["instances"] for frame in MMPOSE],
    "MMPose, a frame": MMPOSE,
    "MMPose's demo": [{"meta_info": META, "instance_info": f["instances"]} for f in MMPOSE],
    "YOLO": json.loads(files.format_yolo(PEOPLE_NVC)),
    "OpenPifPaf": [json.loads(x) for x in files.format_lines(PEOPLE_NVC).splitlines()],
    "rtmlib": [json.loads(x) for x in files.format_lines(PEOPLE_NVC, "rtmlib").splitlines()],
}
NOBODY = {
    **{kind: [] for kind in FRAMES},
    "MMPose, a frame": {"frame_id": 7, "instances": []},
    "MMPose's demo": {"meta_info": META, "instance_info": []},
    "OpenPifPaf": {"frame": 7, "predictions": []},
    "rtmlib": {"keypoints": [], "scores": []},
}


def write(folder, frames=FRAMES["YOLO"], name="{:06}.json"):
    folder.mkdir(parents=True, exist_ok=True)
    for number, people in frames if isinstance(frames, zip) else enumerate(frames):
        (folder / name.format(number)).write_text(json.dumps(people))


def read_one(folder):
    (file,) = find_recordings(folder).files
    return file, read_recording(file)[0]


@pytest.mark.parametrize("kind", FRAMES)
@pytest.mark.parametrize(
    "name", ["{}.json", "{:06}.json", "clip_{}.json", "f{}_keypoints.json", "v_{:03}.jpg.json"]
)
def test_files_of_images_are_the_frames_of_a_recording(tmp_path, kind, name):
    write(tmp_path / "clip", FRAMES[kind], name)
    (tmp_path / "whole.json").write_text(json.dumps(FRAMES[kind]))
    file, recording = read_one(tmp_path / "clip")
    assert (file.name, file.kind, file.skeleton) == ("clip", "COCO key points", "coco17")
    assert_equal(recording, read_one(tmp_path / "whole.json")[1])
    assert_equal(recording, read_keypoints(json.dumps(MMPOSE).encode(), COCO17))


@pytest.mark.parametrize("kind", FRAMES)
@pytest.mark.parametrize("has_empty", [True, False])
def test_an_image_without_people_is_a_frame(tmp_path, kind, has_empty):
    """After 20 empty or missing frames, somebody who comes back is another body."""
    seen = [
        (n, NOBODY[kind] if 10 <= n < 30 else people)
        for n, people in enumerate(FRAMES[kind])
        if has_empty or not 10 <= n < 30
    ]
    write(tmp_path / "clip", zip(*zip(*seen, strict=True), strict=True))
    _, recording = read_one(tmp_path / "clip")
    assert [body.num_frames for body in recording.bodies] == [10, 10]


def test_a_recording_without_people_is_refused(tmp_path):
    write(tmp_path / "wave" / "a")
    write(tmp_path / "wave" / "b", [[]] * 3)
    listing = find_recordings(tmp_path)
    assert [file.path for file in listing.files] == ["wave/a"]
    (refused,) = listing.refused
    assert (refused.name, refused.reason[-26:]) == ("wave/b", "no frame contains a person")


def test_images_of_another_dataset_are_refused(tmp_path):
    """By the description of MMPose's demo, which is in each file."""
    frames = [frame | {"meta_info": {"dataset_name": "mpii"}} for frame in FRAMES["MMPose's demo"]]
    write(tmp_path / "clip", frames, "results_{}.json")
    with pytest.raises(ClipError, match=r"frame 0 \(results_0.json\): the key points are those of"):
        read_one(tmp_path / "clip")


def test_videos_of_mmpose_are_not_images(tmp_path):
    """Such as clip1 and clip2, also if a video begins without people, or has a single frame."""
    videos = [[NOBODY["MMPose, a frame"], *MMPOSE], MMPOSE[:1]]
    write(tmp_path, [{"meta_info": META, "instance_info": own} for own in videos], "clip{}.json")
    found = find_recordings(tmp_path).files
    assert [file.name for file in found] == ["clip0.json", "clip1.json"]


def test_recordings_of_one_person_are_not_images_of_a_crowd(tmp_path):
    """As other programs write them: frames x joints x 2."""
    clip = {"keypoints": PEOPLE_NVC[:, 0].tolist(), "label": "wave"}
    write(tmp_path, [clip] * 3, "clip{}.json")
    files = find_recordings(tmp_path).files
    assert len(files) == 3
    for file in files:
        with pytest.raises(ClipError, match="neither a list of frames nor an object with a list"):
            read_recording(file)


def test_folders_and_prefixes_are_recordings(tmp_path):
    for label in ("wave", "clap"):
        for clip in ("a", "b"):
            write(tmp_path / "folders" / label / clip)
            write(tmp_path / "prefixes" / label, name=clip + "_{:06}.json")
    for form in ("folders", "prefixes"):
        found = [file.path for file in find_recordings(tmp_path / form).files]
        assert found == ["clap/a", "wave/a", "clap/b", "wave/b"]
    (tmp_path / "folders/wave/a/000003.json").write_text("[]")  # else they are copies
    plan = detect([locate(tmp_path / "folders")])
    assert (plan.skeleton, plan.class_names) == (COCO17, ("clap", "wave"))


def test_files_that_count_as_frames_are_said_to(tmp_path):
    """Such as five recordings without the frames of their people."""
    for label in ("wave", "clap"):
        write(tmp_path / label, [FRAMES["YOLO"][0]] * 5)
    with pytest.raises(InputError, match="no recording has a known label") as caught:
        detect([locate(tmp_path)])
    assert {problem.what for problem in caught.value.problems} == {
        "it is not in a class folder: its 5 files count as the frames of one recording"
    }


def test_files_of_images_in_a_zip(tmp_path):
    write(tmp_path / "clip")
    with zipfile.ZipFile(tmp_path / "clips.zip", "w") as archive:
        for path in sorted((tmp_path / "clip").iterdir()):
            archive.write(path, f"clip/{path.name}")
    file, recording = read_one(tmp_path / "clips.zip")
    assert file.path == "clip"
    assert_equal(recording, read_one(tmp_path / "clip")[1])


def test_single_files_are_what_they_were(tmp_path):
    """One image is a recording of one frame, and so is each file without a number."""
    write(tmp_path / "clip")
    file, recording = read_one(tmp_path / "clip/000000.json")
    assert (file.name, file.kind, recording.num_frames) == ("000000.json", "COCO key points", 1)
    (tmp_path / "empty_1.json").write_text("[]")
    with pytest.raises(InputError, match="its list is empty"):
        find_recordings(tmp_path / "empty_1.json")
    for name in ("a", "b"):
        write(tmp_path / "named", FRAMES["YOLO"][:1], f"{name}.json")
    (tmp_path / "named/whole_1.json").write_text(json.dumps(FRAMES["YOLO"]))
    (tmp_path / "named/whole_2.json").write_bytes(files.make_file("COCO"))
    found = find_recordings(tmp_path / "named").files
    assert [file.name for file in found] == ["a.json", "b.json", "whole_1.json", "whole_2.json"]
    assert {file.kind for file in found} == {"COCO key points"}


@pytest.mark.parametrize(
    "key", ["frame_id", "frame", "frame_number", "timestamp", "frame_idx", "frameId", "img", "t"]
)
def test_a_list_of_people_with_numbers_of_frames_is_not_an_image(tmp_path, key):
    """Else clip1 and clip2 would be images of one recording; an image may have its number."""
    people = [{key: number, **one} for number, (one,) in enumerate(FRAMES["YOLO"])]
    write(tmp_path / "clips", [people, people[:30]], "clip{}.json")
    found = find_recordings(tmp_path / "clips").files
    assert [file.name for file in found] == ["clip0.json", "clip1.json"]
    assert [read_recording(file)[0].num_frames for file in found] == [40, 30]
    write(tmp_path / "images", [[one] for one in people])
    assert read_one(tmp_path / "images")[1].num_frames == 40


def test_a_crowd_is_not_an_image(tmp_path):
    """The first frame has more than the head of a file that the format is detected by."""
    crowd = [person for (person,) in FRAMES["YOLO"]] * 5
    people = [{**one, "frame": number} for number in range(3) for one in crowd]
    write(tmp_path / "clips", [people, people], "clip{}.json")
    found = find_recordings(tmp_path / "clips").files
    assert [file.name for file in found] == ["clip0.json", "clip1.json"]
    write(tmp_path / "images", [people[:200], people[200:400], people[400:]])
    assert min(path.stat().st_size for path in tmp_path.glob("*/*.json")) > HEAD_BYTES
    (file,) = find_recordings(tmp_path / "images").files
    assert (file.name, len(file.frames)) == ("images", 3)


def test_a_broken_image_is_named(tmp_path):
    write(tmp_path / "clip")
    (tmp_path / "clip/000003.json").write_text('[{"keypoints": [[1, 2]]}]')
    with pytest.raises(ClipError, match=r"^frame 3 \(000003\.json\): a person has 1 joints"):
        read_one(tmp_path / "clip")
    (tmp_path / "clip/000003.json").write_text('[{"keypoints": [[1, 2')
    with pytest.raises(ClipError, match=r"^frame 3 \(000003\.json\): malformed JSON"):
        read_one(tmp_path / "clip")


# ------------------------------------------------------------------------------------- AlphaPose


PIXELS_NVC = files.project(files.move(OPENPOSE18, 40))[:, None].round()
PIXELS_NVC[:, :, 1] = PIXELS_NVC[:, :, [2, 5]].mean(axis=2)  # AlphaPose's neck


@pytest.fixture
def expected(tmp_path):
    """What is read of the same frames of OpenPose; those from 10 to 30 are missing."""
    files.write_openpose(tmp_path / "openpose", "a", PIXELS_NVC)
    for number in range(10, 30):
        (tmp_path / f"openpose/a_{number:012}_keypoints.json").unlink()
    return read_one(tmp_path / "openpose")[1]


def list_images(form):
    images = files.list_alphapose(PIXELS_NVC, form)
    return {f"{n}.jpg": image for n, image in enumerate(images) if not 10 <= n < 30}


@pytest.mark.parametrize("form", ["open", "cmu"])
@pytest.mark.parametrize("is_sorted", [False, True])
def test_all_images_of_alphapose(tmp_path, expected, form, is_sorted):
    """With `--format open` or `cmu`, keys may have been sorted since."""
    images = list_images(form)
    if is_sorted:
        images = {name: dict(sorted(image.items())) for name, image in images.items()}
    write(tmp_path / "all", [images, images], "clip{}.json")  # not images of one recording
    listed = find_recordings(tmp_path / "all").files
    assert [(file.name, file.kind, file.skeleton) for file in listed] == [
        ("clip0.json", "AlphaPose", "openpose18"),
        ("clip1.json", "AlphaPose", "openpose18"),
    ]
    recording, skeleton = read_recording(listed[0])
    assert skeleton is OPENPOSE18
    assert len(recording.bodies) == 2
    assert_equal(recording, expected)


def test_long_names_of_images_count_the_frames(tmp_path, expected):
    """A name is cut in messages only."""
    name = "S001C001P001R001A001_rgb_camera_left_frame_{:06}.jpg"
    images = {name.format(int(key[:-4])): image for key, image in list_images("open").items()}
    (tmp_path / "clip.json").write_text(json.dumps(images))
    assert_equal(read_one(tmp_path / "clip.json")[1], expected)
    (tmp_path / "clip.json").write_text(json.dumps(images | {name.format(40): 5}))
    with pytest.raises(
        ClipError, match=r"^frame 20 \(S001C001P001R001A001_rgb_camera_left_fra\): "
    ):
        read_one(tmp_path / "clip.json")


@pytest.mark.parametrize("form", ["open", "cmu"])
def test_each_image_of_alphapose(tmp_path, expected, form):
    """As in its folder sep-json, without the suffix of images."""
    images = {int(name[:-4]): image for name, image in list_images(form).items()}
    write(tmp_path / "clip", zip(images, images.values(), strict=True), "{}.json")
    file, recording = read_one(tmp_path / "clip")
    assert (file.name, file.kind, file.skeleton) == ("clip", "OpenPose", "openpose18")
    assert_equal(recording, expected)
    assert read_one(tmp_path / "clip/3.json")[1].num_frames == 1


@pytest.mark.parametrize("form", ["open", "cmu"])
def test_the_neck_of_alphapose_is_between_the_shoulders(tmp_path, form):
    """With Halpe's joints, AlphaPose puts the top of the head there."""
    moved_NVC = PIXELS_NVC.copy()
    moved_NVC[:, :, 1] -= 70
    for name, frames_NVC in (("coco", PIXELS_NVC), ("halpe", moved_NVC)):
        write(tmp_path / name, files.list_alphapose(frames_NVC, form))
        (tmp_path / f"{name}.json").write_bytes(files.format_alphapose(frames_NVC, form))
    assert_equal(read_one(tmp_path / "halpe")[1], read_one(tmp_path / "coco")[1])
    assert_equal(read_one(tmp_path / "halpe.json")[1], read_one(tmp_path / "coco.json")[1])


def test_both_files_of_alphapose_are_not_two_clips(tmp_path):
    images = list_images("open")
    for label in ("wave", "clap"):
        write(tmp_path / label / "sep-json", images.values(), "{}.json")
        (tmp_path / label / "alphapose-results.json").write_text(json.dumps(images))
    with pytest.raises(InputError, match="these recordings have different formats"):
        detect([locate(tmp_path)])


@pytest.mark.parametrize(
    ("name", "image", "reason"),
    [
        ("1.jpg", 5, "frame 1 (1.jpg): not a JSON object with a list `people`"),
        ("1.jpg", {"people": 5}, "frame 1 (1.jpg): not a JSON object with a list `people`"),
        ("1.jpg", {"people": [5]}, "frame 1 (1.jpg): a person is not a JSON object"),
        ("1.jpg", {"bodies": [{"joints": [1] * 75}]},
         "frame 1 (1.jpg): pose_keypoints_2d has 75 numbers, not 54 as openpose18"),
        ("a\n\ud800.jpg", 5, "frame 40 (a??.jpg): not a JSON object with a list `people`"),
        ("7b.jpg", {"people": []}, ""),
        ("07.jpg", {"people": []}, "not sorted by name: 07.jpg comes after 39.jpg"),
    ],
)  # fmt: skip
def test_refused_images_of_alphapose(tmp_path, name, image, reason):
    path = tmp_path / "clip.json"
    images = json.loads(files.format_alphapose(PIXELS_NVC))
    path.write_text(json.dumps(images | {name: image}))
    if not reason:  # names that do not count the images
        assert read_one(path)[1].num_frames == 40
        return
    with pytest.raises(ClipError) as caught:
        read_one(path)
    assert caught.value.what.startswith(reason)


def test_images_of_openpose_need_its_names(tmp_path):
    frames = [json.loads(files.format_openpose(people)) for people in PIXELS_NVC[:3]]
    write(tmp_path / "clip", frames)
    with pytest.raises(ClipError, match=r"^frame 0 \(000000.json\): it is not named NAME_0"):
        read_one(tmp_path / "clip")

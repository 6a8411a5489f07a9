"""What somebody does in a .skeleton file with one body: onnxruntime and numpy, nothing else.

For a model trained on such files, of NTU RGB+D or Kinect v2.

python recognize_onnx.py sgn.onnx S001C001P001R001A001.skeleton
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession(sys.argv[1])
model = json.loads(session.get_modelmeta().custom_metadata_map["sgnray"])
num_frames, origin = model["num_frames"], model["skeleton"]["origin"]

poses, row = [], 1
lines = Path(sys.argv[2]).read_text().split("\n")
for _ in range(int(lines[0])):  # a frame: its number of bodies; for each, 2 lines and 25 joints
    if int(lines[row]):
        poses.append([line.split()[:3] for line in lines[row + 3 : row + 28]])
    row += 1 + 27 * int(lines[row])
joints = np.array(poses, np.float32)
if origin is not None:
    joints -= joints[0, origin]

width = len(joints) / num_frames
if model["windows"] == "paper":
    width = max(1, int(width))
    joints = np.pad(joints, ((0, max(0, num_frames - len(joints))), (0, 0), (0, 0)))
draws = np.random.default_rng(0).random((model["num_views"], num_frames))
index = ((np.arange(num_frames) + draws) * width).astype(int)
views = joints[index]
turn = model.get("turn_rad", 0)
for number, view in enumerate(views):
    angle = (0, turn, -turn)[number % 3]
    cos, sin = np.cos(angle), np.sin(angle)
    view[:] = view @ np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]], np.float32)
logits = session.run(["logits"], {"joints": views})[0].mean(axis=0)
shares = np.exp(logits - logits.max())
for label in np.argsort(-shares)[:5]:
    print(f"{shares[label] / shares.sum():7.2%}  {model['class_names'][label]}")

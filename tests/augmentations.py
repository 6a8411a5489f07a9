"""Every augmentation of training clips, switched on: also one that is added to the schema later."""

from sgnray.config import DataConfig

# Keys that choose the clips, their poses or their labels, and change them in no other way.
_OTHERS = ("dataset", "case", "num_segments", "windows", "corrected_labels", "pose_device")
_VALUES = {"rotation_rad": (0.1, 1.2, 0.3), "jitter_m": 0.01}
# A key that does not accept this value, such as a name, needs a value of its own above.
_SOME = 0.3

AUGMENTATIONS = {
    key: _VALUES.get(key, _SOME) for key in DataConfig.model_fields if key not in _OTHERS
}

"""Temporally consistent spatial augmentation: one random draw per clip, for all of its frames.

A clip of T frames is cropped, enlarged to its old size again, and made brighter or darker; what
moves in it moves as before. There are no flips: mirrored writing cannot be read.
"""

import torch
from torch import Tensor

CROP_AREA = (0.6, 1.0)  # the share of the picture that is kept …
CROP_RATIO = (0.9, 1.1)  # … and by how much that is stretched: 1 keeps the picture's proportions
BRIGHTNESS = (0.8, 1.2)  # what every pixel is multiplied by, up to white


def augment_clips(clips: Tensor, generator: torch.Generator) -> Tensor:
    """Crop and brighten clips, (B, T, C, h, w) floats in [0, 1], by draws of `generator`.

    >>> clips = torch.full((2, 5, 3, 16, 16), 0.5)
    >>> augment_clips(clips, torch.Generator().manual_seed(0)).shape
    torch.Size([2, 5, 3, 16, 16])
    """
    if clips.ndim != 5 or clips.shape[2] not in (1, 3) or not clips.is_floating_point():
        wanted = "floats in [0, 1] of shape (B, T, 1 or 3, h, w)"
        raise ValueError(f"clips are {tuple(clips.shape)} of {clips.dtype}; expected {wanted}")
    # kornia takes two seconds to import
    from kornia.augmentation import RandomContrast, RandomResizedCrop, VideoSequential

    height, width = clips.shape[3:]
    ratio = tuple(width / height * bound for bound in CROP_RATIO)
    augmentation = VideoSequential(
        RandomResizedCrop((height, width), CROP_AREA, ratio, cropping_mode="resample"),
        RandomContrast(BRIGHTNESS, p=1.0),  # kornia's brightness adds, its contrast multiplies
    )
    with torch.random.fork_rng(devices=[]):  # kornia knows only the global generator
        torch.set_rng_state(generator.get_state())
        augmented = augmentation(clips)
        generator.set_state(torch.get_rng_state())
    return augmented

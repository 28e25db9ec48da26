"""From video files to features: decoding, backbones, extraction; copies of films."""

from vidhash_lab.extras import needs

needs("videos", "av", "filelock", "PIL")

"""From video files to features: decoding, backbones, extraction; copies of films."""

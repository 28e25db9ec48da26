"""The built-in data set: stories told in real handwriting, and the network that describes them."""

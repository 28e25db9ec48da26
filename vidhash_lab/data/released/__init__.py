"""The published data sets, read and written in the files that their authors hand out."""

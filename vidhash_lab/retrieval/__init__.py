"""From codes to judgement: packed codes, Hamming distances, search, metrics, comparison."""

"""DATASETS: every data set that a study file can name. To add one: a file here, and a line below."""

"""Files that start a cluster: one backend per file, behind `registry`."""

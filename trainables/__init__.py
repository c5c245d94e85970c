"""The mathematics: models, losses, nets and the training loop. Imports torch and numpy, and nothing else of vistudy."""

import os

# Else MKL may choose kernels by how a matrix lies in memory, and on some processors a trial's bits then depend on its
# place in the pack. Read at MKL's first product: docs/decisions/018.
os.environ.setdefault("MKL_CBWR", "AUTO")

"""The mathematics: models, losses, nets and the training loop. Imports torch and numpy, and nothing else of vistudy."""

import os

# Otherwise MKL may choose kernels by memory alignment, and on some processors the bits of a trial would depend on its
# position in the pack. MKL reads the variable at its first product: see docs/decisions/018.
os.environ.setdefault("MKL_CBWR", "AUTO")

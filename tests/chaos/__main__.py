"""`python -m tests.chaos --faults 20 --seed 1`: see `tests.chaos.chaos`."""

from tests.chaos.chaos import main

main()

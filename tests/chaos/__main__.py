"""`python -m tests.chaos`: see `harness`."""

from tests.chaos.harness import main

main()

"""`python -m unitscope` is `unitscope`."""

from unitscope.cli import main

main()

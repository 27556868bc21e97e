"""The pipeline's commands, one module each; `python -m stages.<stage> --help` tells what one takes."""

"""The options of the commands that train a policy while a second reward model watches."""

from pathlib import Path
from typing import Annotated

import typer

Train = Annotated[Path, typer.Option(help="samples whose questions are answered (JSON lines)")]
Validate = Annotated[Path, typer.Option(help="more of them")]
Base = Annotated[Path, typer.Option(help="folder of the base model")]
Sft = Annotated[Path, typer.Option(help="folder of the sft adapter")]
Proxy = Annotated[Path, typer.Option(help="folder of the reward model of the first half, which is optimised")]
Gold = Annotated[Path, typer.Option(help="folder of the reward model of the second half, which only judges")]
To = Annotated[Path, typer.Option(help="folder of the adapter")]
Log = Annotated[Path, typer.Option(help="folder of the curve and the training metrics")]
Params = Annotated[Path, typer.Option("--params", help="parameters")]

"""How evaluation episodes were played: the header of their `traces.npz`, which `agents` wrote."""

import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from analysis.study import ResultsError

DAMAGED = (zipfile.BadZipFile, zlib.error)


def load_header(path: Path) -> dict[str, Any]:
    """Return the header of the archive `path`, and as `episodes` how many it holds.

    Raises:
        FileNotFoundError: without the file.
        ResultsError: naming one that is damaged, empty or something else.
    """
    try:
        with path.open("rb") as file, np.load(file) as archive:
            header = json.loads(archive["header"].tobytes())
            return {**header, "episodes": len(archive["episode_seeds"])}
    except FileNotFoundError:
        raise
    except (OSError, ValueError, TypeError, KeyError, EOFError, *DAMAGED) as error:
        raise ResultsError(f"{path}: not a readable archive of traces ({error})") from None

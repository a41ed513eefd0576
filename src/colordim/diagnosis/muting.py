"""What a project does not want to hear of: ``[tool.colordim] mute`` of its ``pyproject.toml``."""

from __future__ import annotations

import tomllib
from pathlib import Path

from colordim.diagnosis import causes
from colordim.diagnosis.diagnosing import SYMPTOMS
from colordim.errors import ArgumentError

__all__ = ["project_mute"]


def project_mute(folder: Path | None = None) -> tuple[str, ...]:
    """Return the symptoms that the project of a folder has muted, as :func:`colordim.diagnosis.diagnose` takes them.

    Parameters
    ----------
    folder : Path, optional
        Its ``pyproject.toml`` counts, or else that of the nearest folder above; by default of the current folder.

    Raises
    ------
    ArgumentError
        If that file cannot be read, or mutes what is no symptom; the message names the file.
    """
    try:
        start = (folder or Path.cwd()).absolute()
    except OSError:  # the current folder was removed
        return ()
    found = next((each for each in (start, *start.parents) if (each / "pyproject.toml").is_file()), None)
    if found is None:
        return ()
    file = found / "pyproject.toml"
    try:
        tool = tomllib.loads(file.read_text(encoding="utf-8")).get("tool", {})
    except (OSError, ValueError) as error:
        raise ArgumentError(
            f"{file} cannot be read ({error}): mend it, or diagnose from another folder.", page="diagnose#muting"
        ) from None
    table = tool.get("colordim", {}) if isinstance(tool, dict) else {}
    if not isinstance(table, dict) or table.keys() - {"mute"}:
        wrong = "" if not isinstance(table, dict) else f" has no {min(table.keys() - {'mute'})!r}, it"
        raise ArgumentError(f"{file}: [tool.colordim]{wrong} takes mute, a list of symptoms.", page="diagnose#muting")
    mute = table.get("mute", [])
    if not isinstance(mute, list) or not all(isinstance(each, str) for each in mute):
        raise ArgumentError(
            f'{file}: mute is a list of symptoms, such as ["massive-activations"], not {mute!r}.',
            page="diagnose#muting",
        )
    try:
        causes.muted(mute, SYMPTOMS)
    except ArgumentError as error:
        raise ArgumentError(f"{file}: {error}", page="diagnose#muting") from None
    return tuple(mute)

"""What a browser sent as one or several files, as the file or folder that the importers read.

    with unpacked([Path("adapter.zip")]) as path:
        service.ledger.bring_in(path, name="adapter.zip")

A zip is unpacked flat, only the kinds of file that an adapter is made of, and never past a limit of size: names in a
zip may point anywhere, and a small one can hold very much.
"""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from app.errors import TooLarge
from knowledge.errors import InvalidInput

ENDINGS = (".safetensors", ".json")
LARGEST = 2 * 1024**3  # bytes unpacked


@contextmanager
def unpacked(files: Sequence[Path]) -> Iterator[Path]:
    """The file itself where it is one .safetensors, else a folder with what was sent; gone afterwards.

    Raises:
        InvalidInput: no file, a broken zip, or a kind of file that no adapter has.
    """
    if not files:
        raise InvalidInput("Choose a file first: a .zip or .safetensors, or the files of a PEFT adapter together.")
    with tempfile.TemporaryDirectory(prefix="palimpsest-") as name:
        folder = Path(name)
        for file in files:
            if file.suffix.lower() == ".zip":
                _unzip(file, folder)
            elif file.suffix.lower() in ENDINGS:
                shutil.copyfile(file, folder / file.name)
            else:
                raise InvalidInput(f"{file.name} is no part of an adapter; send .zip, .safetensors or .json.")
        found = sorted(folder.iterdir())
        yield found[0] if len(found) == 1 and found[0].suffix == ".safetensors" else folder


def _unzip(file: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(file) as archive:
            parts = [part for part in archive.infolist() if Path(part.filename).suffix.lower() in ENDINGS]
            if not parts:
                raise InvalidInput(f"{file.name} holds no .safetensors file; an exported adapter has one.")
            if sum(part.file_size for part in parts) > LARGEST:
                raise TooLarge(f"{file.name} holds more than {LARGEST >> 30} GiB unpacked, the limit for adapters.")
            for part in parts:
                with archive.open(part) as source, (folder / Path(part.filename).name).open("wb") as target:
                    shutil.copyfileobj(source, target)
    except zipfile.BadZipFile as error:
        raise InvalidInput(f"{file.name} is no zip that can be read: {error}.") from error

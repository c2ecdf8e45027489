"""One checkpoint on disk: tensors in safetensors, the rest in JSON, refused unless whole and of the work that asks for it.

The JSON is written last and seals both files with a hash, so that a checkpoint counts only once all of it is on the disk.
"""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from poisonbench.durable import disk_is_full, replacing
from poisonbench.errors import UserError, one_line
from poisonbench.settings import Settings, validated

TENSORS = ".safetensors"


class Work(NamedTuple):
    """What a checkpoint is a checkpoint of.

    Attributes:
        identity: of the cell and its poisoned data.
        about: what is trained on what with which recipe; a plugin that asks for something else starts anew.
    """

    identity: str
    about: str


class Header(Settings, allow_inf_nan=True, ser_json_inf_nan="constants"):
    """The JSON half of a checkpoint.

    Attributes:
        schema_version: of this file.
        identity: see ``Work``.
        about: likewise.
        spent: seconds of work on the cell up to here, in all processes.
        devices: where the tensors were that were not on the CPU.
        state: what is no tensor.
        seal: hash of the tensor file and of everything above.
    """

    schema_version: Literal[1] = 1
    identity: str
    about: str
    spent: float
    devices: dict[str, str]
    state: dict[str, Any]
    seal: str = ""

    def sealed(self, tensors: Path) -> str:
        """The seal that belongs to this header and the tensor file."""
        with tensors.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
        digest.update(self.model_dump_json(exclude={"seal"}).encode())
        return digest.hexdigest()


class Saved(NamedTuple):
    """What a checkpoint holds: tensors, on the devices where they were, and plain values."""

    tensors: dict[str, Tensor]
    state: dict[str, Any]


class Refused(Exception):
    """A checkpoint that must not be used; the message says why."""


def write(
    path: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any], work: Work, spent: float
) -> None:
    """Write both files of a checkpoint.

    Args:
        path: of the JSON file; the tensors go beside it.
        tensors: on any device.
        state: what JSON can hold.
        work: what this is a checkpoint of.
        spent: seconds of work on the cell up to here.

    Raises:
        OSError: when it cannot be written; other files are untouched.
    """
    devices = {name: str(value.device) for name, value in tensors.items() if value.device.type != "cpu"}
    header = Header(**work._asdict(), spent=spent, devices=devices, state=dict(state))
    with replacing(path.with_suffix(TENSORS)) as draft:
        _save({name: _plain(value) for name, value in tensors.items()}, draft)
        header = header.model_copy(update={"seal": header.sealed(draft)})
    with replacing(path) as draft:
        draft.write_text(header.model_dump_json(), encoding="utf-8")


def read(path: Path, work: Work) -> Saved:
    """What ``write`` wrote.

    Raises:
        Refused: when it is damaged, or a checkpoint of something else.
    """
    header, tensors = _header(path), path.with_suffix(TENSORS)
    if header.identity != work.identity:
        raise Refused("it belongs to another cell or to other data")
    if header.about != work.about:
        raise Refused("it was made by other work than the one that asks for it")
    try:
        if header.sealed(tensors) != header.seal:
            raise Refused("its contents do not match its hash")
        found = load_file(tensors)
    except (OSError, SafetensorError) as error:
        raise Refused(f"{tensors.name} cannot be read ({one_line(error)})") from None
    for name, device in header.devices.items():
        found[name] = found[name].to(device)
    return Saved(found, header.state)


def seconds_spent(path: Path, identity: str) -> float:
    """Seconds of work that the checkpoint counts, 0 if it is damaged or of another cell."""
    try:
        header = _header(path)
    except Refused:
        return 0.0
    return header.spent if header.identity == identity else 0.0


def _header(path: Path) -> Header:
    try:
        return validated(Header, json.loads(path.read_text(encoding="utf-8")), "header")
    except (OSError, ValueError, UserError) as error:
        raise Refused(f"it is damaged ({one_line(error)})") from None


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    try:
        save_file(tensors, path)
    except SafetensorError as error:  # it tells of a full disk in words alone
        raise OSError(errno.ENOSPC if disk_is_full(error) else errno.EIO, str(error)) from None


def _plain(value: Tensor) -> Tensor:
    """A copy on the CPU, since a file can hold no memory that two tensors share."""
    return value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)

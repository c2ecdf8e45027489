"""A GPU that is only pretended: its tensors are computed on the CPU, and do not mix with the CPU's.

What holds on any GPU holds here: tensors of two devices meet in no operation (numbers and indices aside), and become no
NumPy arrays before they are back on the CPU. It changes PyTorch for good, so it is a program: cells on the CPU and on the
GPU, one line of JSON each::

    python tests/pretended_gpu.py RUNS folder:TASK ATTACK,DEFENCE,cuda ...
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

NAME = "pretended"
SETTINGS = {"recipe.epochs": 1, "data.limit": 512}
CROSSING = ("_to_copy", "copy_", "_local_scalar_dense", "lift_fresh")
"""Operations in which devices may meet."""
INDEXING = ("index", "index_put", "index_put_", "_index_put_impl_")
"""Operations in which the CPU's indices may meet the GPU's tensors, and not the other way round."""


torch.utils.rename_privateuse1_backend(NAME)
GPU = torch.device(NAME, 0)


class OnGpu(Tensor):
    """A tensor that says that it is on the GPU; ``held`` is the CPU's tensor with its numbers."""

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, held: Tensor) -> OnGpu:
        made: OnGpu = Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype, device=GPU
        )  # fmt: skip
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})

    def tolist(self) -> Any:
        return self.held.tolist()

    def numpy(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("cannot convert a tensor on a GPU to numpy; use Tensor.cpu() first")

    __array__ = numpy


class Pretending(TorchDispatchMode):
    """Tensors that are made or moved while it lasts may be on the GPU."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})


class Backend(backend_registration._DummyBackendModule):
    """What PyTorch asks a device's module for."""

    def get_rng_state(self, device: Any = None) -> Tensor:
        return torch.zeros(16, dtype=torch.uint8)

    def set_rng_state(self, state: Tensor, device: Any = None) -> None: ...

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


def computed(func: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
    """The operation's result: on the device that was asked for, or where its tensors are."""
    _check(func, args, kwargs)
    asked = kwargs.get("device")
    plain = {**kwargs, "device": torch.device("cpu")} if asked is not None else kwargs
    out = func(*tree_map(_held, args), **tree_map(_held, plain))
    first = args[0] if args else None
    if isinstance(first, OnGpu) and out is first.held:  # in place
        return first
    crossing = func.overloadpacket.__name__ in CROSSING
    sources = [first] if crossing else tree_leaves((args, kwargs))
    stays = any(isinstance(one, OnGpu) for one in sources)
    on_gpu = stays if asked is None else torch.device(asked).type == GPU.type
    return tree_map(lambda one: OnGpu(one) if on_gpu and type(one) is Tensor else one, out)


def _held(one: Any) -> Any:
    return one.held if isinstance(one, OnGpu) else one


def _check(func: Any, args: Any, kwargs: Mapping[str, Any]) -> None:
    name = func.overloadpacket.__name__
    if name in CROSSING:
        return
    tensors = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor) and one.dim()]
    where = [isinstance(one, OnGpu) for one in tensors]
    free = name in INDEXING and bool(where) and where[0]
    if any(where) and not all(where) and not free:
        sizes = [
            f"{tuple(one.shape)} on the {'GPU' if on else 'CPU'}"
            for one, on in zip(tensors, where, strict=True)
        ]
        raise RuntimeError(
            f"expected all tensors of {name} to be on the same device, but found {', '.join(sizes)}"
        )


def pretend() -> None:
    """Register the device, and answer for it where the suite asks CUDA about a GPU."""
    backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=Backend())
    torch.inference_mode = torch.no_grad  # type: ignore[misc,assignment]
    torch.cuda.reset_peak_memory_stats = lambda device=None: None
    torch.cuda.max_memory_allocated = lambda device=None: 1
    torch.cuda.get_device_name = lambda device=None: "a pretended GPU"

    from safetensors.torch import load_file

    from poisonbench import precision, resolve, undefended

    def loaded(path: Path, device: str = "cpu") -> dict[str, Tensor]:
        return {name: tensor.to(device) for name, tensor in load_file(path).items()}

    undefended.load_file = loaded  # type: ignore[attr-defined]
    resolve._device = lambda name: str(GPU) if name == "cuda" else name
    precision.multiplies_bf16 = lambda device: False


def results(attack: str, defense: str, device: str, tasks: str, out: Path) -> dict[str, Any]:
    """What a small cell comes to on a device: its status, why it failed, the last epoch's loss and the accuracies."""
    import poisonbench

    plugin, _ = poisonbench.registry.defenses().find(defense)
    settings = SETTINGS | (
        {"defense.epochs": 1, "defense.lrs": [1.0]} if "lrs" in plugin.Config.model_fields else {}
    )
    with Pretending() if device == "cuda" else nullcontext():
        record = poisonbench.run(
            attack, defense, tier="smoke", out=out, settings=settings, evaluation=tasks, device=device
        )  # fmt: skip
    return {
        "status": record.status,
        "reason": record.failure.reason if record.failure else "",
        "loss": record.history[-1]["loss"] if record.history else None,
        "zero_shot": {name: shot.top1 for name, shot in record.zero_shot.items()},
    }


if __name__ == "__main__":
    pretend()
    folder, tasks, *cells = sys.argv[1:]
    torch.set_num_threads(1)
    for cell in cells:
        attack, defense, device = cell.split(",")
        found = results(attack, defense, device, tasks, Path(folder))
        sys.stdout.write(json.dumps({"cell": cell, **found}) + "\n")

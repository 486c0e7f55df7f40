"""Checkpoints: all that a training needs to go on where it was, as safetensors with a JSON header; no pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from featurebank.errors import FineTuneError, one_line
from featurebank.finetuning.training import Epoch, MovingAverage, Trainer, TrainerState

_FACTS = "facts"


def dump(trainer: Trainer, key: str) -> bytes:
    """Return the bytes of a checkpoint.

    Parameters
    ----------
    trainer : Trainer
        Between two epochs.
    key : str
        Digest of everything that the training depends on.
    """
    state = trainer.state
    assert state is not None
    parts: dict[str, Mapping[str, Tensor]] = {
        "now": trainer.weights.copy(),
        "start": state.start,
        "best": state.best,
        "average": state.average.values if state.average else {},
    }
    tensors = {f"{part}/{name}": tensor for part, values in parts.items() for name, tensor in values.items()}
    facts = {
        "key": key,
        "history": [epoch.to_dict() for epoch in state.history],
        "best_epoch": state.best_epoch,
        "rate": state.rate,
        "average_steps": state.average.steps if state.average else None,
        "scaler": trainer.scaler.state_dict(),
    }
    plain: dict[str, dict[str, Any]] = {}
    for number, state in trainer.optimizer.state_dict()["state"].items():
        held = {name: value for name, value in state.items() if isinstance(value, Tensor)}
        plain[number] = {name: value for name, value in state.items() if name not in held}
        tensors |= {f"optimizer/{number}/{name}": tensor for name, tensor in held.items()}
    on_cpu = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    return save_tensors(on_cpu, metadata={_FACTS: json.dumps({**facts, "optimizer": plain})})


def read(path: Path | None) -> bytes:
    """Return what a checkpoint holds.

    Raises
    ------
    FineTuneError
        When there is none.
    """
    if path is None or not path.is_file():
        raise FineTuneError(f"no checkpoint at {str(path)!r} to resume from; leave out --resume to begin anew")
    return path.read_bytes()


def restore(trainer: Trainer, data: bytes, key: str) -> None:
    """Put a training where a checkpoint was made.

    Raises
    ------
    FineTuneError
        When the bytes are no checkpoint, or one of another training.
    """
    try:
        tensors, facts = load_tensors(data), _facts(data)
        if facts["key"] != key:
            raise FineTuneError(
                "the checkpoint is of a fine-tuning with other rows, weights or options; expected the same ones: "
                "repeat them, or leave out --resume to begin anew"
            )
        _restore(trainer, tensors, facts)
    except FineTuneError:
        raise
    except (SafetensorError, ValueError, LookupError, TypeError, RuntimeError) as error:
        raise FineTuneError(
            f"the checkpoint is damaged ({one_line(error)[:120]}): leave out --resume to begin anew"
        ) from error


def _facts(data: bytes) -> dict[str, Any]:
    """Return the facts in a safetensors file's header, which begins behind its own length."""
    length = int.from_bytes(data[:8], "little")
    facts: dict[str, Any] = json.loads(json.loads(data[8 : 8 + length])["__metadata__"][_FACTS])
    return facts


def _restore(trainer: Trainer, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    device = trainer.network.device

    def part(name: str) -> dict[str, Tensor]:
        start = f"{name}/"
        return {key.removeprefix(start): each.to(device) for key, each in tensors.items() if key.startswith(start)}

    trainer.set_rate(float(facts["rate"]))
    trainer.weights.set(part("now"))
    trainer.optimizer.load_state_dict(_optimizer_state(trainer.optimizer, part, facts["optimizer"]))
    _lay_out(trainer.optimizer)
    trainer.scaler.load_state_dict(facts["scaler"])
    steps = facts["average_steps"]
    trainer.state = TrainerState(
        [Epoch(**epoch) for epoch in facts["history"]],
        part("start"),
        part("best"),
        int(facts["best_epoch"]),
        float(facts["rate"]),
        average=None if steps is None else MovingAverage(part("average"), steps),
    )


def _lay_out(optimizer: torch.optim.Optimizer) -> None:
    """Give moments the memory format of their parameters, channels last or not: fused steps go through memory."""
    for parameter, state in optimizer.state.items():
        alike = {name: value for name, value in state.items() if getattr(value, "shape", None) == parameter.shape}
        state.update({name: torch.empty_like(parameter).copy_(value) for name, value in alike.items()})


def _optimizer_state(optimizer: torch.optim.Optimizer, part: Any, plain: dict[str, Any]) -> dict[str, Any]:
    state = {int(number): {**values, **part(f"optimizer/{number}")} for number, values in plain.items()}
    return {**optimizer.state_dict(), "state": state}

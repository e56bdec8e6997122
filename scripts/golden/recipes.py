"""Writes crates/convert/tests/golden/recipes.json: the quantization that mlx_lm's mixed recipes write
for models of 12 and 32 layers.

Needs mlx-lm 0.32.2. Run from anywhere: python -PB scripts/golden/recipes.py

Every layer of a model has one of two entries; of the layers with the higher bits all paths are kept,
of the others how many there are.
"""

import json
import pathlib

from mlx_lm.convert import QUANT_RECIPES, mixed_quant_predicate_builder
from mlx_lm.models.llama import Model, ModelArgs
from mlx_lm.utils import compute_bits_per_weight, quantize_model

OUT = pathlib.Path(__file__).parents[2] / "crates/convert/tests/golden/recipes.json"


def model(layers):
    return Model(
        ModelArgs(
            model_type="llama",
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=16,
            vocab_size=96,
            rms_norm_eps=1e-5,
            tie_word_embeddings=False,
        )
    )


def case(recipe, layers, bits, group):
    made = model(layers)
    predicate = mixed_quant_predicate_builder(recipe, made, group)
    made, config = quantize_model(made, {}, group, bits, mode="affine", quant_predicate=predicate)
    assert config["quantization"] == config["quantization_config"]
    entries = config["quantization"]
    default = {key: value for key, value in entries.items() if not isinstance(value, dict)}
    entries = {path: entry for path, entry in entries.items() if isinstance(entry, dict)}
    high = max(entries.values(), key=lambda entry: entry["bits"])
    low = min(entries.values(), key=lambda entry: entry["bits"])
    paths = [path for path, entry in entries.items() if entry == high]
    assert sum(entry == low for entry in entries.values()) == len(entries) - len(paths)
    return {
        "recipe": recipe,
        "layers": layers,
        "bits": bits,
        "group": group,
        "default": default,
        "entries": len(entries),
        "low": low,
        "high": high,
        "high_paths": sorted(paths),
        "bits_per_weight": compute_bits_per_weight(made),
    }


def main():
    cases = [case(recipe, layers, None, None) for recipe in QUANT_RECIPES for layers in (12, 32)]
    cases += [case("mixed_4_6", 3, 8, 32), case("mixed_2_6", 17, None, 64)]
    lines = ",\n".join(json.dumps(one, separators=(",", ":")) for one in cases)
    OUT.write_text(f"[\n{lines}\n]\n")


main()

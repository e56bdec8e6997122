"""gguf_bytes.py FILE: prints the bytes of the weights that a token needs."""

import sys

import gguf

tensors = {tensor.name: int(tensor.n_bytes) for tensor in gguf.GGUFReader(sys.argv[1]).tensors}
# An embedding that is not the head, too, is read a row at a time.
table = tensors["token_embd.weight"] if "output.weight" in tensors else 0
print(sum(tensors.values()) - table)

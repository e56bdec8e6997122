"""quantise.py SOURCE TARGET FILE-TYPE: llama.cpp's quantiser, on GGUF files of any precision."""

import ctypes
import sys

import llama_cpp as c


@c.llama_log_callback
def silent(level, text, data):
    pass


c.llama_log_set(silent, ctypes.c_void_p(0))
source, target, kind = sys.argv[1:]
parameters = c.llama_model_quantize_default_params()
parameters.ftype = int(kind)
parameters.allow_requantize = True
failed = c.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(parameters))
sys.exit(f"llama_model_quantize: {failed}" if failed else 0)

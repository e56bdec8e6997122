"""llama.cpp through its own C functions, as llama-bench calls them."""

import ctypes

import llama_cpp as c

import common


class Engine:
    def __init__(self, asked):
        c.llama_backend_init()
        parameters = c.llama_model_default_params()
        self.model = c.llama_model_load_from_file(asked.model.encode(), parameters)
        assert self.model, f"{asked.model} cannot be loaded"
        parameters = c.llama_context_default_params()
        parameters.n_ctx = common.context(asked)
        parameters.n_batch = parameters.n_ubatch = 512
        parameters.n_threads = parameters.n_threads_batch = asked.threads
        self.context = c.llama_init_from_model(self.model, parameters)
        assert self.context, "no context"
        self.vocabulary = c.llama_vocab_n_tokens(c.llama_model_get_vocab(self.model))

    def reset(self):
        c.llama_memory_clear(c.llama_get_memory(self.context), True)

    def truncate(self, length):
        c.llama_memory_seq_rm(c.llama_get_memory(self.context), 0, length, -1)

    def read(self, ids):
        for start in range(0, len(ids), 512):
            self.decode(ids[start : start + 512])

    def next(self, token):
        self.decode([token])

    def decode(self, ids):
        tokens = (c.llama_token * len(ids))(*ids)
        failed = c.llama_decode(self.context, c.llama_batch_get_one(tokens, len(ids)))
        assert failed == 0, f"llama_decode: {failed}"
        assert c.llama_get_logits_ith(self.context, -1)


@c.llama_log_callback
def silent(level, text, data):
    pass


c.llama_log_set(silent, ctypes.c_void_p(0))
asked = common.arguments()
common.measure(asked, lambda: Engine(asked), c.__version__)

"""transformers on torch, in the dtype of the checkpoint."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers

import common


class Engine:
    def __init__(self, asked):
        torch.set_num_threads(asked.threads)
        self.model = transformers.AutoModelForCausalLM.from_pretrained(asked.model, dtype="auto").eval()
        self.vocabulary = self.model.config.vocab_size
        self.cache = None

    def reset(self):
        self.cache = None

    def read(self, ids):
        for start in range(0, len(ids), 512):
            self.decode(ids[start : start + 512])

    def next(self, token):
        self.decode([token])

    @torch.inference_mode()
    def decode(self, ids):
        given = torch.tensor([ids])
        out = self.model(given, past_key_values=self.cache, use_cache=True, logits_to_keep=1)
        self.cache = out.past_key_values
        out.logits[0, -1, 0].item()


transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
asked = common.arguments()
common.measure(asked, lambda: Engine(asked), f"{transformers.__version__}, torch {torch.__version__}")

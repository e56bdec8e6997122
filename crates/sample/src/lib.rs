//! From logits to a token: pure functions and a documented chain.

//! Run and convert language models: Kiln's library face.

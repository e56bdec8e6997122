//! Fuzzing: one target for each parser, with what it does in [`parsers`].

#![forbid(unsafe_code)]

pub mod parsers;

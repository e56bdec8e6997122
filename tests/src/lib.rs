//! Strategies, f64 oracle and device list of the conformance tests.

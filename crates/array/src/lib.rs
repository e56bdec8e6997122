//! Lazy n-dimensional arrays with pluggable backends.

//! The CPU backend of Kiln.

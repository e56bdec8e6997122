//! The conformance list on every device.

mod complete;

kiln_tests::every_case!(kiln_tests::on_every_device);

//! `kiln`: everything.

fn main() -> std::process::ExitCode {
    kiln_cli::kiln()
}

//! `kiln-run`: a door to `kiln run`.

fn main() -> std::process::ExitCode {
    kiln_cli::kiln_run()
}

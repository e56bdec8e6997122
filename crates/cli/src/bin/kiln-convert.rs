//! `kiln-convert`: a door to `kiln convert`.

fn main() -> std::process::ExitCode {
    kiln_cli::kiln_convert()
}

//! `ferromesh completion`: for shells.

use clap::{Args, Command};
use clap_complete::{Shell, generate};

use super::print::print;

/// `ferromesh completion`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  ferromesh completion bash > ~/.local/share/bash-completion/completions/ferromesh
  ferromesh completion zsh > \"${fpath[1]}/_ferromesh\"
  ferromesh completion fish > ~/.config/fish/completions/ferromesh.fish")]
pub(super) struct Completion {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the script of `program`.
pub(super) fn run(command: &Completion, program: &mut Command) {
    let name = program.get_name().to_owned();
    let mut script = Vec::new();
    generate(command.shell, program, name, &mut script);
    print(String::from_utf8_lossy(&script).trim_end());
}

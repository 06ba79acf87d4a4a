//! `celeriac completions`.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;
use std::process::ExitCode;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  celeriac completions bash > /etc/bash_completion.d/celeriac\n  celeriac completions zsh > ~/.zfunc/_celeriac"
)]
pub(super) struct CompletionsArgs {
    /// bash, zsh, fish, elvish or powershell
    shell: Shell,
}

pub(super) fn run(args: &CompletionsArgs) -> ExitCode {
    let mut command = super::Cli::command();
    let name = std::env::args_os()
        .next()
        .and_then(|path| std::path::Path::new(&path).file_name()?.to_str().map(str::to_owned))
        .unwrap_or_else(|| "celeriac".to_owned());
    clap_complete::generate(args.shell, &mut command, name, &mut std::io::stdout());
    ExitCode::SUCCESS
}

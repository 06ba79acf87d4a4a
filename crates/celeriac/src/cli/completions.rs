//! `celeriac completions`, and the answers to the shells that use its scripts.
//!
//! A script calls the program at each Tab with [`VARIABLE`] set, so that the answers fit the program and the
//! store as they are then.

mod bash;
mod values;

use super::exit::Failed;
use crate::app::App;
use bash::Bash;
use clap::Args;
use clap_complete::env::{CompleteEnv, Elvish, Fish, Powershell, Shells, Zsh};
use std::ffi::OsString;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use values::Values;

/// Names the shell in a call for completions. Not clap's `COMPLETE`, which others may set for themselves.
const VARIABLE: &str = "CELERIAC_COMPLETE";

const SHELLS: Shells<'static> = Shells(&[&Bash, &Elvish, &Fish, &Powershell, &Zsh]);

const EXAMPLES: &str = "Examples:
  source <(celeriac completions bash)                                  # in ~/.bashrc
  celeriac completions bash > ~/.local/share/bash-completion/completions/celeriac
  celeriac completions zsh > ~/.zfunc/_celeriac
  celeriac completions fish > ~/.config/fish/completions/celeriac.fish

Queues, tasks, workers and dead letters are completed from the store that -b, the environment or
celeriac.toml names, when it answers within 0.3 s; nothing is made or said when it does not. With -A the
application is not imported: name its broker. Print the script anew after an upgrade.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CompletionsArgs {
    /// bash, zsh, fish, elvish or powershell
    shell: clap_complete::Shell,
}

pub(super) fn run(args: &CompletionsArgs) -> Result<ExitCode, Failed> {
    let name = program();
    let (asked, shells) = (args.shell.to_string(), SHELLS);
    let shell = shells
        .completer(&asked)
        .ok_or_else(|| Failed::internal(format!("there is no script for {asked}")))?;
    let mut script = Vec::new();
    shell.write_registration(VARIABLE, &name, &name, &path_of_program(), &mut script)?;
    let _closed = std::io::stdout().write_all(&script);
    Ok(ExitCode::SUCCESS)
}

/// Answers a shell that asks for completions; `None` when none does.
pub(super) fn answer(app: &App) -> Option<ExitCode> {
    let shell = std::env::var_os(VARIABLE)?;
    let given: Vec<OsString> =
        std::env::args_os().skip_while(|word| word != "--").skip(1).collect();
    let words = if Path::new(&shell).file_stem().is_some_and(|name| name == "bash") {
        bash::words_of(&given)
    } else {
        given.iter().map(|word| word.to_string_lossy().into_owned()).collect()
    };
    let values = Arc::new(Values::new(app.clone(), &words));
    let name = program();
    let completer = CompleteEnv::with_factory(|| values::offer(super::command(), None, &values))
        .var(VARIABLE)
        .bin(&name)
        .completer(path_of_program())
        .shells(SHELLS);
    let folder = std::env::current_dir().ok();
    match completer.try_complete(std::env::args_os(), folder.as_deref()) {
        Ok(true) => Some(ExitCode::SUCCESS),
        Ok(false) => None,
        Err(error) => {
            let _unwritable = error.print();
            Some(ExitCode::from(2))
        }
    }
}

/// What this program is called: an application's own has its own name.
pub(super) fn program() -> String {
    let called = std::env::args_os().next();
    let name = called.as_ref().and_then(|path| Path::new(path).file_name()?.to_str());
    name.unwrap_or("celeriac").to_owned()
}

/// How a shell calls this program: by its name where that was enough, else by its path.
fn path_of_program() -> String {
    let called = std::env::args_os().next().unwrap_or_else(|| "celeriac".into());
    let path = Path::new(&called);
    if path.components().count() < 2 {
        return called.to_string_lossy().into_owned();
    }
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).to_string_lossy().into_owned()
}

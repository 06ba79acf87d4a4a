//! `celeriac man`.

use super::Session;
use super::completions::program;
use super::exit::Failed;
use super::output::{object, plural};
use celeriac_wire::Value;
use clap::{Args, Command};
use clap_mangen::Man;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const EXAMPLES: &str = "Examples:
  celeriac man | man -l -
  celeriac man --page 'queue purge' | man -l -
  celeriac man ~/.local/share/man/man1      # then: man celeriac-queue-purge";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ManArgs {
    /// Write a page for each command into this folder, and make it if it is not there
    #[arg(value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Print the page of this command, such as 'queue purge' [default: the program's own]
    #[arg(long, value_name = "COMMAND", conflicts_with = "folder")]
    page: Option<String>,
}

pub(super) fn run(session: &Session, args: &ManArgs) -> Result<ExitCode, Failed> {
    let root = root();
    match &args.folder {
        Some(folder) => write_all(session, root, folder)?,
        None => print_one(session, &root, args.page.as_deref().unwrap_or_default())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Every command with the names that its page needs: `celeriac-queue-purge`.
fn root() -> Command {
    let name = program();
    let command = super::command().bin_name(&name).display_name(name);
    let mut command = command.disable_help_subcommand(true);
    command.build();
    command
}

fn write_all(session: &Session, root: Command, folder: &Path) -> Result<(), Failed> {
    let unwritable = |error: std::io::Error| {
        Failed::usage(format!("cannot write pages into {}: {error}", folder.display()))
            .hint("name a folder that you may write to, such as ~/.local/share/man/man1")
    };
    let count = pages(&root);
    std::fs::create_dir_all(folder).map_err(unwritable)?;
    clap_mangen::generate_to(root, folder).map_err(unwritable)?;
    let shown = folder.display().to_string();
    session.output.line(format!("{} in {shown}", plural(count, "page")));
    session.output.value(&object([
        ("folder", Value::from(shown.as_str())),
        ("pages", Value::from(count as i64)),
    ]));
    Ok(())
}

/// A page for the program, and for each command that is not hidden.
fn pages(command: &Command) -> u64 {
    let shown = command.get_subcommands().filter(|one| !one.is_hide_set());
    1 + shown.map(pages).sum::<u64>()
}

fn print_one(session: &Session, root: &Command, path: &str) -> Result<(), Failed> {
    let mut command = root;
    for word in path.split_whitespace() {
        command = command.find_subcommand(word).ok_or_else(|| {
            Failed::usage(format!("there is no command {path:?}"))
                .hint(format!("see `{} --help`", command.get_bin_name().unwrap_or("celeriac")))
        })?;
    }
    let mut page = Vec::new();
    Man::new(command.clone()).render(&mut page)?;
    let page = String::from_utf8_lossy(&page);
    session.output.line(&page);
    session.output.value(&object([("page", Value::from(page.as_ref()))]));
    Ok(())
}

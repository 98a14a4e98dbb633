//! `mmtrace completions` and `mmtrace man`: made from the command line's definition.

use std::io::{self, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use clap::{Command, CommandFactory as _};
use os_display::Quotable as _;

use crate::cli::{Cli, CompletionsArgs, ManArgs};
use crate::failure::Failure;
use crate::target::Exit;

/// Status when a page cannot be written.
const FAILED: u8 = 2;

/// Carries out `mmtrace completions`.
///
/// # Errors
/// If standard output cannot be written to.
pub(super) fn completions(arguments: &CompletionsArgs) -> Result<Exit> {
    let mut command = visible(&Cli::command());
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, NAME, &mut script);
    print(&script)
}

/// Carries out `mmtrace man`.
///
/// # Errors
/// If a page cannot be written.
pub(super) fn man(arguments: &ManArgs) -> Result<Exit> {
    let command = visible(&Cli::command());
    let Some(directory) = &arguments.dir else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page)?;
        return print(&page);
    };
    pages(command, directory).map_err(|error| {
        let name = directory.quote().external(true).to_string();
        Failure::with_status(FAILED, format!("cannot write pages to {name}: {error}")).into()
    })
}

fn pages(command: Command, directory: &Path) -> io::Result<Exit> {
    clap_mangen::generate_to(command, directory)?;
    Ok(Exit::Code(0))
}

const NAME: &str = "mmtrace";

fn print(text: &[u8]) -> Result<Exit> {
    let written = io::stdout().write_all(text);
    written.context("cannot write to standard output")?;
    Ok(Exit::Code(0))
}

/// A command without the subcommands and the options that its help does not show: clap has no way to
/// leave them out.
fn visible(command: &Command) -> Command {
    let arguments = command.get_arguments().filter(|it| !it.is_hide_set());
    let subcommands = command.get_subcommands().filter(|it| !it.is_hide_set());
    let mut shown = Command::new(command.get_name().to_owned())
        .propagate_version(command.is_propagate_version_set())
        .arg_required_else_help(command.is_arg_required_else_help_set())
        .args(arguments.cloned())
        .subcommands(subcommands.map(visible));
    if let Some(version) = command.get_version() {
        shown = shown.version(version.to_owned());
    }
    if let Some(about) = command.get_about() {
        shown = shown.about(about.clone());
    }
    if let Some(about) = command.get_long_about() {
        shown = shown.long_about(about.clone());
    }
    if let Some(after) = command.get_after_help() {
        shown = shown.after_help(after.clone());
    }
    shown
}

#[cfg(test)]
mod tests {
    use clap_complete::Shell;

    use super::*;

    fn generated(shell: Shell) -> String {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut visible(&Cli::command()), NAME, &mut script);
        String::from_utf8(script).unwrap()
    }

    fn page(name: &str) -> String {
        let directory = tempfile::tempdir().unwrap();
        pages(visible(&Cli::command()), directory.path()).unwrap();
        std::fs::read_to_string(directory.path().join(name)).unwrap()
    }

    #[test]
    fn completions_have_what_is_shown_and_nothing_hidden() {
        for shell in [
            Shell::Bash,
            Shell::Elvish,
            Shell::Fish,
            Shell::PowerShell,
            Shell::Zsh,
        ] {
            let script = generated(shell);
            for shown in ["settle", "copy-budget", "compare"] {
                assert!(script.contains(shown), "{shell}: no {shown}");
            }
            for hidden in ["sabotage", "settle-workload", "settle-sample"] {
                assert!(!script.contains(hidden), "{shell}: {hidden}");
            }
        }
    }

    #[test]
    fn each_shown_subcommand_has_a_page() {
        let directory = tempfile::tempdir().unwrap();
        pages(visible(&Cli::command()), directory.path()).unwrap();
        let mut names: Vec<_> = std::fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.retain(|name| !name.contains("-help"));
        names.sort();
        let command = Cli::command();
        let shown = command.get_subcommands().filter(|it| !it.is_hide_set());
        let mut expected: Vec<_> = shown
            .map(|it| format!("mmtrace-{}.1", it.get_name()))
            .collect();
        expected.push("mmtrace.1".to_owned());
        expected.sort();
        assert_eq!(names, expected);
    }

    #[test]
    fn a_page_tells_the_options_and_the_exit_status() {
        let run = page("mmtrace-run.1");
        assert!(run.contains("copy\\-budget") && run.contains("Exit status: the command"));
        assert!(!page("mmtrace-settle.1").contains("sabotage"));
        assert!(!page("mmtrace.1").contains("workload"));
    }

    #[test]
    fn a_directory_that_is_not_there_is_refused() {
        let arguments = ManArgs {
            dir: Some("/nowhere/at/all".into()),
        };
        let error = man(&arguments).unwrap_err();
        assert!(error.to_string().contains("/nowhere/at/all"), "{error}");
    }
}

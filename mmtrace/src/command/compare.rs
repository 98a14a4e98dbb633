//! `mmtrace compare`: runs two commands in turn, observed, and compares what they cost.

use std::env;
use std::io::{self, Write};

use anyhow::{Context as _, Result};
use nix::sys::signal::SigSet;

use super::run::{How, observe};
use super::table_options;
use crate::cli::CompareArgs;
use crate::collect::Asked;
use crate::compare::{
    Comparison, Figure, Side,
    cache::{Files, State},
    shown,
};
use crate::failure::{self, Failure};
use crate::output::{Export, Outputs};
use crate::privilege;
use crate::progress::Progress;
use crate::recording::Recording;
use crate::report::comparison::{self, Format};
use crate::target::{Account, Exit, Spec};

/// Status when it fails.
const FAILED: u8 = 2;
/// What watching copies may cost, in percent of a command's time: as for `mmtrace run`.
const COPY_BUDGET: f64 = 5.0;

/// Carries out `mmtrace compare`.
///
/// # Errors
/// If a command is none, or fails, or cannot be observed, with the status 2.
pub(super) fn execute(arguments: CompareArgs) -> Result<Exit> {
    compare(arguments).map_err(|error| failure::with_status(&error, FAILED).into())
}

fn compare(arguments: CompareArgs) -> Result<Exit> {
    let invoker = Account::invoker()?;
    let user = match &arguments.user {
        Some(name) => Some(Account::by_name(name)?),
        None => invoker.clone(),
    };
    let commands = [0, 1].map(|index| words(&arguments.commands[index]));
    let [one, other] = commands;
    let outputs = Outputs::prepare(&arguments.output, None, invoker)?;
    privilege::check(env::args_os())?;
    let runner = Runner {
        commands: [one?, other?],
        user,
        arguments,
    };
    let comparison = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?
        .block_on(runner.all())?;
    let mut status = 0;
    let told = Told(&comparison);
    for error in outputs.write(&told) {
        failure::report(&error);
        status = FAILED.into();
    }
    if !runner
        .arguments
        .output
        .iter()
        .any(|path| path.as_os_str() == "-")
    {
        let text = comparison::text(&comparison, table_options(io::stdout()).width);
        let written = io::stdout().write_all(text.as_bytes());
        written.context("cannot write to standard output")?;
    }
    Ok(Exit::Code(status))
}

/// A command's words.
fn words(command: &str) -> Result<Vec<String>> {
    let words = shell_words::split(command)
        .map_err(|error| Failure::own(format!("{}: {error}", shown(&[command.to_owned()]))))?;
    match words.is_empty() {
        true => Err(Failure::own("an empty command").into()),
        false => Ok(words),
    }
}

/// What runs the commands.
struct Runner {
    commands: [Vec<String>; 2],
    user: Option<Account>,
    arguments: CompareArgs,
}

impl Runner {
    /// Runs each command once, then all rounds.
    async fn all(&self) -> Result<Comparison> {
        let state = match (self.arguments.cold, self.arguments.warm) {
            (true, _) => State::Cold,
            (_, true) => State::Warm,
            _ => State::AsItIs,
        };
        // Not timed: they tell what is read, and that the commands work.
        let first = [
            self.once(0, "once before").await?,
            self.once(1, "once before").await?,
        ];
        let files = Files::of(state, &first)?;
        let mut sides = [0, 1].map(|index| Side {
            command: shown(&self.commands[index]),
            rounds: Vec::new(),
            incomplete: 0,
        });
        for round in 0..self.arguments.repeat {
            // Who comes first changes, so that what the first does to the second cancels out.
            let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
            let when = format!("round {} of {}", round + 1, self.arguments.repeat);
            for index in order {
                files.prepare()?;
                let recording = self.once(index, &when).await?;
                let side = &mut sides[index];
                side.rounds
                    .push(Figure::ALL.map(|figure| figure.of(&recording)));
                side.incomplete += usize::from(!recording.lost.is_empty());
            }
        }
        let backend = first[0].probes.backend.name();
        Ok(Comparison::of(sides, state.name(), backend, files.notes()))
    }

    /// Runs a command once.
    async fn once(&self, index: usize, when: &str) -> Result<Recording> {
        let command = shown(&self.commands[index]);
        let mask = SigSet::thread_get_mask().context("the mask of signals")?;
        let spec = Spec {
            command: self.commands[index].iter().map(Into::into).collect(),
            user: self.user.clone(),
            silent: !self.arguments.show_output,
            marker: None,
        };
        let how = How {
            backend: self.arguments.backend.wanted(),
            copies: self.arguments.copies.into(),
            verbose: false,
            asked: Asked {
                copy_budget: COPY_BUDGET,
                ..Asked::default()
            },
            wait_descendants: false,
        };
        let line = format!("compare: {when}: {command}");
        let progress = || match self.arguments.show_output {
            true => Progress::new(!self.arguments.quiet),
            false => Progress::of_silent(!self.arguments.quiet),
        };
        let (session, outcome) = observe(spec, how, || progress().saying(line)).await?;
        let recording = session
            .collect(&outcome)
            .context("cannot collect what was observed")?;
        mask.thread_set_mask().context("the mask of signals")?;
        match outcome.exit {
            Exit::Code(0) => {}
            Exit::Code(_) if self.arguments.ignore_failure => {}
            exit => {
                let message = format!("`{command}` ended by {exit}");
                let remedy = "--ignore-failure goes on with other statuses than 0, --show-output \
                              shows what it says.";
                return Err(Failure::own(message).remedy(remedy).into());
            }
        }
        Ok(recording)
    }
}

/// A comparison to be written.
struct Told<'a>(&'a Comparison);

impl Export for Told<'_> {
    type Format = Format;
    const NAME: &'static str = "comparison";

    fn export(&self, format: Format, to: &mut dyn Write) -> Result<()> {
        Ok(format.write(self.0, to)?)
    }
}

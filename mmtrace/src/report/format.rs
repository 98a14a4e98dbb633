//! What a recording can be written as: the one place where formats are listed.

use std::io::Write;

use anyhow::Result;
use clap::ValueEnum;

use super::{flamegraph, folded, json, page, pprof, quantity::Quantity, speedscope, trace};
use crate::{failure::Failure, output, recording::Recording};

/// A format of a recording.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Format {
    /// The recording itself.
    Json,
    /// A page to look at: where the bytes went, when, in which files and from where in the code.
    Html,
    /// Folded stacks: lines for scripts and for other tools' flame graphs.
    Folded,
    /// A flame graph.
    Svg,
    /// All stacks, for speedscope.
    Speedscope,
    /// All stacks, for pprof.
    Pprof,
    /// When the work was done, in Chrome's Trace Event Format, for Perfetto.
    Trace,
}

impl Format {
    /// Whether it shows stacks, which are only taken if they are wanted.
    #[must_use]
    pub const fn shows_stacks(self) -> bool {
        match self {
            Self::Json | Self::Trace => false,
            Self::Html | Self::Folded | Self::Svg | Self::Speedscope | Self::Pprof => true,
        }
    }

    /// Whether it shows heat maps, which are only made if they are wanted.
    #[must_use]
    pub const fn shows_heat_maps(self) -> bool {
        matches!(self, Self::Html)
    }

    /// Writes `recording`. A format that shows one quantity shows the one that was `asked` for, or
    /// else the first that there are stacks of.
    ///
    /// # Errors
    /// When `to` cannot be written to, or there is nothing to show in this format.
    pub fn write(
        self,
        recording: &Recording,
        asked: Option<Quantity>,
        to: &mut dyn Write,
    ) -> Result<()> {
        let chosen = || Quantity::choose(asked, recording).map_err(Failure::from);
        match self {
            Self::Json => Ok(json::write(recording, to)?),
            Self::Html => Ok(page::write(recording, to)?),
            Self::Folded => folded::write(&chosen()?.1, to),
            Self::Svg => {
                let (quantity, stacks) = chosen()?;
                flamegraph::write(recording, quantity, &stacks, to)
            }
            Self::Speedscope => speedscope::write(recording, to),
            Self::Pprof => pprof::write(recording, to),
            Self::Trace => trace::write(recording, to),
        }
    }
}

impl output::Format for Format {
    const ALL: &'static [Self] = &[
        Self::Json,
        Self::Html,
        Self::Folded,
        Self::Svg,
        Self::Speedscope,
        Self::Pprof,
        Self::Trace,
    ];
    const PLAIN: Self = Self::Json;

    fn suffix(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Html => "html",
            Self::Folded => "folded",
            Self::Svg => "svg",
            Self::Speedscope => "speedscope.json",
            Self::Pprof => "pb.gz",
            Self::Trace => "trace.json",
        }
    }
}

//! The breakpoints on the kernel's copy routines.
//!
//! The CPU has four. Up to Linux 6.3 one function makes all copies, and one breakpoint is enough.
//! Later the copying is inlined where the CPU can do it by one instruction, and the routines around
//! it are watched: those by which data goes, in the order of their importance.

use std::{
    collections::HashMap,
    fs, io,
    os::fd::{AsFd as _, AsRawFd as _},
    thread::JoinHandle,
};

use anyhow::{Context as _, Result, anyhow, bail};
use aya::{Ebpf, programs::Program, util::online_cpus};
use mmtrace_common::{
    Kernel, Path,
    kernel::{COPIES_ALL, COPIES_BY_ROUTINE},
};
use perf_event::Counter;

use super::plan::{Attachment, Hook};
use crate::{
    kernel::{
        breakpoint::{self, Scope},
        symbols::{self, Function},
    },
    recording::Measure,
};

/// By which BPF programs read user memory.
const NOFAULT: &str = "copy_from_user_nofault";

/// The functions that make all copies, with the CPU's property for which the kernel chooses each
/// (`copy_user_generic` in arch/x86/include/asm/uaccess_64.h).
const ALL: [(&str, Hook); 3] = [
    ("erms", at("copy_any", "copy_user_enhanced_fast_string")),
    ("rep_good", at("copy_any", "copy_user_generic_string")),
    ("", at("copy_any", "copy_user_generic_unrolled")),
];

/// The routines, each by the names that it has had: it is the first of these that there is.
const ROUTINES: [&[Hook]; 4] = [
    &[at("copy_to_iter", "_copy_to_iter")],
    &[
        at("copy_from_iter_atomic", "copy_folio_from_iter_atomic"),
        at("copy_from_iter_atomic", "copy_page_from_iter_atomic"),
    ],
    &[at("copy_from_iter", "_copy_from_iter")],
    &[at("copy_to_user", "_copy_to_user")],
];

const fn at(program: &'static str, function: &'static str) -> Hook {
    Hook {
        program,
        at: Attachment::Breakpoint(function),
    }
}

/// How copies are to be found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wanted {
    /// At the copy routines where that can be had, by what calls return where not.
    #[default]
    Auto,
    /// At the copy routines, or not at all.
    Exact,
    /// At the copy routines all the time, by what calls return where that cannot be had.
    ExactIfAllowed,
    /// At the copy routines for a part of the time, or not at all.
    Sampled,
    /// By what calls return.
    Returns,
}

impl Wanted {
    /// Whether what calls return will do where the kernel allows nothing else.
    #[must_use]
    pub const fn may_be_returns(self) -> bool {
        matches!(self, Self::Auto | Self::ExactIfAllowed | Self::Returns)
    }
}

/// Where breakpoints go.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The hooks, and where each is.
    pub hooks: Vec<(Hook, u64)>,
    /// Whether these see all copies, or those by the routines that are watched.
    pub all: bool,
    nofault: Option<Function>,
}

impl Plan {
    /// Looks where the copies of this kernel can be seen.
    ///
    /// # Errors
    ///
    /// If it takes no breakpoints on its own code, or the routines cannot be found.
    pub fn of_kernel() -> Result<Self> {
        if !cfg!(target_arch = "x86_64") {
            bail!("breakpoints on the kernel's code are used on x86-64 only");
        }
        breakpoint::allowed().map_err(breakpoint::why)?;
        let hooks = ALL.iter().map(|(_, hook)| hook);
        let names: Vec<&str> = hooks
            .chain(ROUTINES.into_iter().flatten())
            .map(|hook| hook.at.target())
            .chain([NOFAULT])
            .collect();
        let cpu = fs::read_to_string("/proc/cpuinfo").context("cannot read /proc/cpuinfo")?;
        Self::choose(&symbols::find(&names)?, &cpu)
    }

    /// As [`Plan::of_kernel`], in a thread of its own: the list of symbols takes a while.
    #[must_use]
    pub fn in_background() -> JoinHandle<Result<Self>> {
        std::thread::spawn(Self::of_kernel)
    }

    fn choose(functions: &HashMap<&str, Function>, cpu: &str) -> Result<Self> {
        let find = |hook: &Hook| {
            let function = functions.get(hook.at.target())?;
            Some((*hook, function.start))
        };
        let (_, properties) = cpu
            .lines()
            .find_map(|line| line.strip_prefix("flags")?.split_once(':'))
            .context("/proc/cpuinfo has no flags")?;
        let has = |property: &str| properties.split_whitespace().any(|known| known == property);
        let chosen = ALL
            .iter()
            .find(|(property, _)| property.is_empty() || has(property));
        if let Some(hook) = chosen.and_then(|(_, hook)| find(hook)) {
            let nofault = functions
                .get(NOFAULT)
                .with_context(|| format!("this kernel has no function {NOFAULT}"))?;
            return Ok(Self {
                hooks: vec![hook],
                all: true,
                nofault: Some(*nofault),
            });
        }
        let hooks = ROUTINES.iter().map(|names| {
            let found = names.iter().find_map(find);
            found.with_context(|| format!("this kernel has no function {}", names[0].at.target()))
        });
        Ok(Self {
            hooks: hooks.collect::<Result<_>>()?,
            all: false,
            nofault: None,
        })
    }

    /// Tells the kernel programs.
    pub fn describe(&self, kernel: &mut Kernel) {
        kernel.copies = if self.all {
            COPIES_ALL
        } else {
            COPIES_BY_ROUTINE
        };
        // The upper half of the addresses of the kernel's code is all ones.
        if let Some(nofault) = self.nofault {
            kernel.nofault_start = nofault.start as u32;
            kernel.nofault_end = nofault.end as u32;
        }
    }

    /// What these breakpoints do not see: why, of which measures, and on which paths.
    #[must_use]
    pub fn blind(&self) -> Vec<(&'static str, Measure, &'static [Path])> {
        let mut blind: Vec<(_, _, &[Path])> = vec![(
            "the kernel stores directories' entries piece by piece, without a copy routine",
            Measure::CopiedToUserBytes,
            &[Path::Metadata],
        )];
        if !self.all {
            blind.push((
                "the CPU has four breakpoints, and _copy_from_user, which reads arguments of calls, \
                 is the fifth of the routines",
                Measure::CopiedFromUserBytes,
                &[Path::Exec, Path::Splice, Path::Metadata, Path::Other],
            ));
        }
        blind
    }

    /// Loads the programs.
    ///
    /// # Errors
    ///
    /// If the kernel refuses one.
    pub fn load(&self, ebpf: &mut Ebpf) -> Result<()> {
        for (hook, _) in &self.hooks {
            match ebpf.program_mut(hook.program) {
                Some(Program::PerfEvent(program)) if program.fd().is_err() => program.load()?,
                Some(Program::PerfEvent(_)) => {}
                _ => bail!("the kernel programs have no {}", hook.program),
            }
        }
        Ok(())
    }

    /// Watches the copies of some threads until the result is dropped.
    ///
    /// # Errors
    ///
    /// If the programs are not loaded, or the kernel refuses a breakpoint.
    pub fn watch(&self, ebpf: &Ebpf, scope: Scope) -> Result<Vec<Counter>> {
        let open = |(hook, address): &(Hook, u64)| {
            let Some(Program::PerfEvent(program)) = ebpf.program(hook.program) else {
                bail!("the kernel programs have no {}", hook.program);
            };
            let program = program.fd()?.as_fd().as_raw_fd();
            breakpoint::open(*address, scope, program)
                .map_err(|error| breakpoint::why(error).context(hook.at.target()))
        };
        self.hooks.iter().map(open).collect()
    }

    /// Watches the copies of all threads. Breakpoints of the command's own, which what it starts
    /// inherits, would cost others nothing. But whoever starts a thread is asked for CAP_SYS_ADMIN
    /// before it hands one on (`hw_breakpoint_parse` in kernel/events/hw_breakpoint.c): to a command
    /// without that right, or that gives it up, the kernel would refuse the thread.
    ///
    /// # Errors
    ///
    /// As [`Plan::watch`].
    pub fn watch_all(&self, ebpf: &Ebpf) -> Result<Watched> {
        let mut watched = Watched::default();
        for cpu in online_cpus().map_err(|(what, error)| anyhow!(error).context(what))? {
            match self.watch_cpu(ebpf, cpu, &mut watched) {
                Err(error) if has_gone(&error) => {}
                result => result?,
            }
        }
        Ok(watched)
    }

    /// Watches the copies on a CPU, in place of what watched them there.
    ///
    /// # Errors
    ///
    /// As [`Plan::watch`].
    pub fn watch_cpu(&self, ebpf: &Ebpf, cpu: u32, watched: &mut Watched) -> Result<()> {
        watched.0.retain(|(on, _)| *on != cpu);
        let counters = self.watch(ebpf, Scope::Cpu(cpu))?.into_iter();
        watched.0.extend(counters.map(|counter| (cpu, counter)));
        Ok(())
    }
}

/// Whether a breakpoint cannot be had because its CPU is offline.
fn has_gone(error: &anyhow::Error) -> bool {
    let mut causes = error.chain();
    causes.any(|cause| {
        let error = cause.downcast_ref::<io::Error>();
        error.is_some_and(|error| error.raw_os_error() == Some(libc::ENODEV))
    })
}

/// Breakpoints that watch copies until this is dropped, each with its CPU.
#[derive(Default)]
pub struct Watched(Vec<(u32, Counter)>);

impl Watched {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Turns them on.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn enable(&mut self) -> io::Result<()> {
        self.0.iter_mut().try_for_each(|(_, each)| each.enable())
    }

    /// Turns them off.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn disable(&mut self) -> io::Result<()> {
        self.0.iter_mut().try_for_each(|(_, each)| each.disable())
    }

    /// How many copies they have seen. Of a CPU that is offline some kernels do not tell.
    pub fn copies(&mut self) -> u64 {
        let each = self.0.iter_mut();
        each.map(|(_, counter)| counter.read().unwrap_or(0)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FUNCTIONS: [(&str, u64); 7] = [
        ("copy_user_generic_string", 0xffff_ffff_8100_0000),
        ("copy_user_generic_unrolled", 0xffff_ffff_8100_1000),
        (NOFAULT, 0xffff_ffff_8100_2000),
        ("_copy_to_iter", 0xffff_ffff_8100_3000),
        ("copy_page_from_iter_atomic", 0xffff_ffff_8100_4000),
        ("_copy_from_iter", 0xffff_ffff_8100_5000),
        ("_copy_to_user", 0xffff_ffff_8100_6000),
    ];

    /// The names of the functions that a kernel with such functions is watched at.
    fn chosen(functions: &[(&'static str, u64)], cpu: &str) -> Result<Vec<&'static str>> {
        let functions = functions.iter().map(|&(name, start)| {
            let end = start + 0x100;
            (name, Function { start, end })
        });
        let plan = Plan::choose(&functions.collect(), cpu)?;
        let names = plan.hooks.iter().map(|(hook, _)| hook.at.target());
        Ok(names.collect())
    }

    #[test]
    fn one_function_makes_all_copies_where_there_is_one() {
        let cpu = |flags: &str| format!("processor\t: 0\nflags\t\t: fpu {flags}\n");
        let string = chosen(&FUNCTIONS, &cpu("rep_good")).unwrap();
        assert_eq!(string, ["copy_user_generic_string"]);
        let unrolled = chosen(&FUNCTIONS, &cpu("vme")).unwrap();
        assert_eq!(unrolled, ["copy_user_generic_unrolled"]);
    }

    #[test]
    fn else_the_routines_are_watched_by_the_names_that_they_have() {
        let found = chosen(&FUNCTIONS[3..], "flags\t\t: fpu erms rep_good fsrm\n").unwrap();
        let names = [
            "_copy_to_iter",
            "copy_page_from_iter_atomic",
            "_copy_from_iter",
            "_copy_to_user",
        ];
        assert_eq!(found, names);
        let error = chosen(&FUNCTIONS[4..], "flags\t\t: fpu\n").unwrap_err();
        assert_eq!(
            error.to_string(),
            "this kernel has no function _copy_to_iter"
        );
    }
}

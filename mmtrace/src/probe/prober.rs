//! What attaching takes, whatever the backend.

use std::thread::JoinHandle;

use anyhow::{Result, anyhow};
use aya::EbpfLoader;
use mmtrace_common::{
    AHEAD_ROWS, AHEAD_SLOTS, HEAT_SLOTS, Kernel, Path, SAMPLE_SLOTS,
    stack::{FRAMES_SLOTS, RECALLED_SLOTS, REMEMBERED_SLOTS, RULES_SLOTS, STACK_SLOTS},
};

use super::{
    attach::{Attached, no_copies},
    attempt::Attempt,
    copies::{self, Wanted},
    cpus::possible_cpus,
    object::{fill_calls, quick_loader, with_kernel_calls},
    plan::{Backend, Purpose},
};
use crate::kernel::{
    attempt,
    btf::Btf,
    offsets,
    refusal::{Asked, Refusal},
};

/// What is observed only if it is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extras {
    /// [Samples](super::sample) of the kernel.
    pub samples: bool,
    /// Stacks of where work was caused.
    pub stacks: bool,
    /// Heat maps of files.
    pub heat_maps: bool,
    /// What becomes of what is read ahead.
    pub readahead_use: bool,
}

/// What attaching takes, whatever the backend: this kernel's types, where its copies can be seen,
/// and the loader.
pub struct Prober {
    btf: Btf,
    kernel: Kernel,
    copies: Result<copies::Plan, Refusal>,
    loader: EbpfLoader<'static>,
}

impl Prober {
    /// Reads this kernel's types. `nonce` is what followed threads are known by.
    ///
    /// # Errors
    ///
    /// If the kernel has no types, or lacks some that the programs need, or its copies cannot be
    /// watched and nothing else will do.
    pub fn new(copies: Wanted, nonce: u32, verbose: bool) -> Result<Self> {
        let looking = (copies != Wanted::Returns).then(copies::Plan::in_background);
        let btf = Btf::of_kernel()?;
        let mut loader = quick_loader()?;
        for map in [
            "SAMPLES",
            "FRAMES",
            "STACKS",
            "RULES",
            "REMEMBERED",
            "RECALLED",
            "HEAT_MAPS",
            "AHEAD",
            "AHEAD_EVICTED",
        ] {
            loader.map_max_entries(map, 1);
        }
        let entries = possible_cpus()? * Path::ALL.len();
        loader.map_max_entries("WATCHED_CALLS", u32::try_from(entries)?);
        let mut kernel = offsets::of(&btf)?;
        kernel.verbose = u32::from(verbose);
        kernel.nonce = nonce;
        let plan = match looking.map(JoinHandle::join) {
            None => Err(anyhow!("not asked for (--copies returns)")),
            Some(Ok(plan)) => plan,
            Some(Err(_)) => Err(anyhow!("looking for the copy routines panicked")),
        };
        let mut plan = match plan {
            Err(error) if !copies.may_be_returns() => {
                return Err(error.context("the kernel's copies cannot be watched"));
            }
            plan => plan.map_err(|error| no_copies(&error)),
        };
        if let Ok(plan) = &mut plan {
            plan.describe(&mut kernel);
            kernel.sampling = u32::from(matches!(copies, Wanted::Auto | Wanted::Sampled));
        }
        Ok(Self {
            btf,
            kernel,
            copies: plan,
            loader,
        })
    }

    /// Has this observed too, and makes room for it.
    pub(super) fn add(&mut self, extras: Extras) {
        if extras.samples {
            self.loader.map_max_entries("SAMPLES", SAMPLE_SLOTS);
        }
        if extras.stacks {
            self.kernel.stacks = 1;
            let helper = self.btf.enum_value("bpf_func_id", "BPF_FUNC_task_pt_regs");
            self.kernel.task_pt_regs = u32::from(helper.is_some());
            self.loader.map_max_entries("FRAMES", FRAMES_SLOTS);
            self.loader.map_max_entries("STACKS", STACK_SLOTS);
            self.loader.map_max_entries("RULES", RULES_SLOTS);
            self.loader.map_max_entries("REMEMBERED", REMEMBERED_SLOTS);
            self.loader.map_max_entries("RECALLED", RECALLED_SLOTS);
        }
        if extras.heat_maps {
            self.kernel.heat_maps = 1;
            self.loader.map_max_entries("HEAT_MAPS", HEAT_SLOTS);
        }
        if extras.readahead_use {
            self.kernel.readahead_use = 1;
            self.loader.map_max_entries("AHEAD", AHEAD_SLOTS);
            self.loader.map_max_entries("AHEAD_EVICTED", AHEAD_ROWS);
        }
    }

    /// Attaches the hooks of a backend: for each purpose the first choice that works.
    pub(super) fn attach(&mut self, backend: Backend) -> Result<Result<Attached, Refusal>> {
        let mut attempt = match self.open(backend)? {
            Ok(attempt) => attempt,
            Err(refusal) => return Ok(Err(refusal)),
        };
        for purpose in Purpose::ALL {
            let trial = attempt.serve(purpose);
            if let Some(refusal) = trial.refusal()
                && purpose.required()
            {
                let lacking = format!("no hooks for {}", purpose.name());
                return Ok(Err(refusal.within(&lacking)));
            }
        }
        attempt.prepare_copies()?;
        Ok(Ok(attempt.attached))
    }

    /// Loads the programs for a backend, and attaches none yet. The inner error is the kernel's
    /// refusal.
    ///
    /// # Errors
    ///
    /// If the programs are not what they should be, which is no fault of the kernel's.
    pub fn open(&mut self, backend: Backend) -> Result<Result<Attempt<'_>, Refusal>> {
        let allowed = match backend {
            Backend::Fentry => attempt::fentry(&self.btf),
            Backend::Kprobe => attempt::kprobe(),
            Backend::Tracepoint => Ok(()),
        };
        if let Err(refusal) = allowed {
            return Ok(Err(refusal));
        }
        let mut kernel = self.kernel;
        kernel.faults_by_entry = u32::from(backend != Backend::Tracepoint);
        let issues_hooked =
            backend != Backend::Tracepoint && self.btf.function_id("io_issue_sqe").is_some();
        kernel.look_up_workers = u32::from(!issues_hooked);
        if backend == Backend::Tracepoint {
            // What faults map is not known: nothing could be said in the end.
            kernel.readahead_use = 0;
        }
        let programs = with_kernel_calls(&self.btf);
        let loaded = self
            .loader
            // The programs have no relocations against kernel types: see mmtrace_common::kernel.
            .btf(None)
            // Leaked: the loader serves several backends, and takes what it is given for as long.
            .override_global("KERNEL", &*Box::leak(Box::new(kernel)), true)
            .load(&programs);
        let mut ebpf = match loaded {
            Ok(ebpf) => ebpf,
            Err(error) => {
                let what = "it does not take the kernel programs' maps";
                let refusal = Refusal::of(Asked::Program, what, &error.into());
                return Ok(Err(refusal));
            }
        };
        fill_calls(&mut ebpf)?;
        let types = match backend {
            Backend::Fentry => Some(aya::Btf::from_sys_fs()?),
            _ => None,
        };
        let mut attempt = Attempt {
            attached: Attached {
                ebpf,
                backend,
                hooks: Vec::new(),
                on_cpus: Vec::new(),
                unavailable: Vec::new(),
                copies: None,
                refused: Vec::new(),
            },
            btf: &self.btf,
            copies: &self.copies,
            types,
        };
        attempt.load_ahead();
        Ok(Ok(attempt))
    }
}

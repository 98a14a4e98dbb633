//! What the watchpoint witness saw, for the audit and the recording.

use crate::{
    audit::{self, Coverage},
    kernel::stack::{Frame, Symbols, copy_routine},
    recording::{AuditEntry, Recording, Unavailable, WitnessTrial},
    witness::{Finding, Observed, Trial},
};

/// How many bytes each trial watches.
const WATCHED_BYTES: u64 = 1;

/// Compares what was seen of the watched bytes with what must be. Where no watchpoint can be had at
/// all, that is one entry.
pub(super) fn audit(findings: &[Finding]) -> Vec<AuditEntry> {
    let mut entries: Vec<AuditEntry> = findings.iter().filter_map(compared).collect();
    let made = || {
        findings
            .iter()
            .filter_map(|finding| finding.observed.as_ref().ok())
    };
    if made().next().is_none() {
        entries.truncate(1);
        return entries;
    }
    // What the program stores while the kernel works for it counts here too: there must be none.
    let own = made().map(|seen| seen.own.by_program() + seen.stores.by_program());
    entries.push(audit::own_stores(own.sum(), made().count() as u64));
    entries
}

fn compared(finding: &Finding) -> Option<AuditEntry> {
    let (what, done) = match finding.trial {
        Trial::ReadMemory => ("read", WATCHED_BYTES),
        Trial::ReadFile => ("read file", WATCHED_BYTES),
        Trial::Map => ("mapped page", 0),
        // Whether the file system goes past the page cache then, it decides.
        Trial::Direct => return None,
    };
    Some(match &finding.observed {
        Ok(Observed {
            stores,
            excuse: Some(excuse),
            ..
        }) if stores.by_kernel() == 0 => {
            audit::watched(what, Some(0), done, Coverage::Differs(excuse))
        }
        Ok(Observed { stores, .. }) if stores.lost > 0 => {
            let reason = format!("{} stores were lost", stores.lost);
            audit::watched(what, None, done, Coverage::Differs(&reason))
        }
        Ok(Observed { stores, .. }) => {
            audit::watched(what, Some(stores.by_kernel()), done, Coverage::Same)
        }
        Err(reason) => audit::watched(what, None, done, Coverage::Differs(reason)),
    })
}

/// Adds what was seen, by name, to a recording.
pub(super) fn add(
    findings: &[Finding],
    symbols: &Result<Symbols, String>,
    recording: &mut Recording,
) {
    let trials: Vec<WitnessTrial> = findings
        .iter()
        .map(|finding| trial(finding, symbols))
        .collect();
    let stored = || {
        let read = trials.iter().filter(|trial| trial.trial == "read");
        read.filter(|trial| trial.kernel_stores > Some(0))
    };
    let routines = match symbols {
        Ok(_) => Coverage::Same,
        Err(reason) => Coverage::Differs(reason),
    };
    if stored().next().is_some() {
        let known = stored().filter(|trial| trial.copy_routine.is_some());
        let known = symbols.is_ok().then_some(known.count() as u64);
        let entry = audit::through_copy_routines(known, stored().count() as u64, routines);
        recording.audit.push(entry);
    }
    let mut reasons = findings
        .iter()
        .filter_map(|finding| finding.observed.as_ref().err());
    if let Some(reason) = reasons.next()
        && trials.iter().all(|trial| trial.kernel_stores.is_none())
    {
        recording.probes.unavailable.push(Unavailable {
            purpose: "witness".to_owned(),
            reason: reason.clone(),
            measures: Vec::new(),
            paths: Vec::new(),
        });
    }
    recording.witness = trials;
}

fn trial(finding: &Finding, symbols: &Result<Symbols, String>) -> WitnessTrial {
    let (trial, file) = match finding.trial {
        Trial::ReadMemory => ("read", "memory"),
        Trial::ReadFile => ("read", "mmtrace"),
        Trial::Map => ("mmap", "mmtrace"),
        Trial::Direct => ("direct", "mmtrace"),
    };
    let seen = finding.observed.as_ref();
    let mut stores = seen.into_iter().flat_map(|seen| &seen.stores.seen);
    let first = stores.find(|store| store.by_kernel);
    let stack = match (first, symbols) {
        (Some(store), Ok(symbols)) => store.stack(symbols),
        _ => Vec::new(),
    };
    let functions = stack
        .iter()
        .map(|frame| frame.as_ref().map_or("", |frame| &frame.function));
    let copy_routine = copy_routine(functions).map(str::to_owned);
    let note = match (seen, first, symbols) {
        (Err(reason), _, _) => Some(reason.clone()),
        (Ok(_), Some(_), Err(reason)) => Some(reason.clone()),
        (Ok(seen), None, _) => seen.excuse.clone(),
        (Ok(_), Some(_), Ok(_)) => None,
    };
    let seen = seen.ok();
    WitnessTrial {
        trial: trial.to_owned(),
        file: file.to_owned(),
        watched_bytes: WATCHED_BYTES,
        kernel_stores: seen.map(|seen| seen.stores.by_kernel()),
        user_stores: seen.map(|seen| seen.stores.by_program()),
        own_stores: seen.map(|seen| seen.own.by_program()),
        faults: seen.map(|seen| seen.faults),
        copy_routine,
        stack: stack
            .iter()
            .map(|frame| frame.as_ref().map_or("?".to_owned(), Frame::to_string))
            .collect(),
        note,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::witness::{Store, Stores};

    fn store(by_kernel: bool) -> Stores {
        Stores {
            seen: vec![Store {
                by_kernel,
                ip: 1,
                callers: Vec::new(),
            }],
            lost: 0,
        }
    }

    fn finding(trial: Trial, stores: Stores) -> Finding {
        Finding {
            trial,
            observed: Ok(Observed {
                stores,
                own: store(false),
                ..Observed::default()
            }),
        }
    }

    fn agreement(findings: &[Finding]) -> Vec<Option<bool>> {
        audit(findings).iter().map(|entry| entry.agree).collect()
    }

    #[test]
    fn a_read_is_stored_and_a_mapped_page_is_not() {
        let right = [
            finding(Trial::ReadMemory, store(true)),
            finding(Trial::Map, Stores::default()),
            finding(Trial::Direct, Stores::default()),
        ];
        assert_eq!(agreement(&right), [Some(true); 3]);
        let wrong = [
            finding(Trial::ReadMemory, Stores::default()),
            finding(Trial::Map, store(true)),
        ];
        assert_eq!(agreement(&wrong), [Some(false), Some(false), Some(true)]);
    }

    #[test]
    fn a_watch_that_does_not_see_is_no_evidence() {
        let mut blind = finding(Trial::Map, Stores::default());
        if let Ok(observed) = &mut blind.observed {
            observed.own = Stores::default();
        }
        assert_eq!(agreement(&[blind]), [Some(true), Some(false)]);
    }

    #[test]
    fn what_could_not_be_watched_is_told_once() {
        let refused = Trial::ALL.map(|trial| Finding {
            trial,
            observed: Err("no watchpoint".to_owned()),
        });
        let entries = audit(&refused);
        assert_eq!(entries.len(), 1);
        assert_eq!((entries[0].agree, entries[0].ours), (None, None));
        assert_eq!(entries[0].note.as_deref(), Some("no watchpoint"));
    }

    #[test]
    fn a_file_system_may_bring_data_without_a_copy() {
        let mut silent = finding(Trial::ReadFile, Stores::default());
        if let Ok(observed) = &mut silent.observed {
            observed.excuse = Some("9p".to_owned());
        }
        assert_eq!(agreement(&[silent]), [None, Some(true)]);
    }
}

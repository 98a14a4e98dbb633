//! The code that programs have mapped: what their addresses mean.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    rc::Rc,
    sync::{Arc, atomic::Ordering},
};

use anyhow::Result;
use aya::Ebpf;
use mmtrace_common::{
    CodeEvent, FileKey, StackEvent,
    stack::{
        CodePlace, RULES_SLOTS, RULES_TRIES, RuleSlot, SIGNAL_FRAME_POINTER, SIGNAL_STACK_POINTER,
        STACK_FRAMES, StackKey, UnwindRule,
    },
};

use super::{
    events::{FileSeen, ProcessSeen},
    module::{Mapping, Mappings, Module},
    perf_map::PerfMaps,
    shared::Shared,
};

/// Who has called a function.
pub(super) struct Callers {
    /// Where they are returned to, outwards.
    pub addresses: Vec<u64>,
    /// Whether what was told of the stack reached to the last of them.
    pub whole: bool,
}

/// A program that a process runs or has run: to which its addresses belong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Image {
    /// The process, as in the rows.
    pub process: u64,
    /// Which of its programs.
    pub number: u64,
}

impl Image {
    /// The program of a stack.
    pub(super) fn of(key: &StackKey) -> Self {
        Self {
            process: key.process,
            number: key.image.into(),
        }
    }
}

/// How large stacks are, mostly: what is further away is none of the stack's.
const LARGEST_STACK_BYTES: u64 = 8 << 20;

/// What is known of the programs' code.
#[derive(Default)]
pub(super) struct Code {
    /// Where the kernel programs look rules up, an array of [`RuleSlot`]; `None` if stacks are not
    /// wanted.
    rules: Option<Shared>,
    images: HashMap<Image, Rc<Mappings>>,
    /// Which program each process runs now.
    running: HashMap<u64, u64>,
    modules: HashMap<FileKey, Module>,
    /// The places whose rules were put there.
    rules_told: HashSet<CodePlace>,
    /// How many of them there was no room for.
    rules_left_out: usize,
    /// Callers in stacks that were told, by the stack's number.
    unwound: HashMap<u64, Callers>,
    /// What programs tell of code that they make; `None` if stacks are not wanted.
    perf_maps: Option<PerfMaps>,
}

impl Code {
    /// That puts rules where the kernel programs look.
    ///
    /// # Errors
    ///
    /// If they have no such place.
    pub(super) fn new(ebpf: &Ebpf) -> Result<Self> {
        let words = RULES_SLOTS as usize * SLOT_WORDS;
        Ok(Self {
            rules: Some(Shared::new(ebpf, "RULES", words)?),
            perf_maps: Some(PerfMaps::new()),
            ..Self::default()
        })
    }

    /// A process has been made, which has its parent's code.
    pub(super) fn forked(&mut self, process: u64, pid: u32, parent: u64) {
        if let Some(perf_maps) = &mut self.perf_maps {
            perf_maps.forked(process, pid, parent);
        }
        let of_parent = self.image(parent);
        let own = Image {
            process,
            ..of_parent
        };
        self.running.insert(process, own.number);
        if let Some(mappings) = self.images.get(&of_parent) {
            let mappings = Rc::clone(mappings);
            self.images.insert(own, mappings);
        }
    }

    /// What a process runs now.
    fn image(&self, process: u64) -> Image {
        let number = self.running.get(&process).copied().unwrap_or(0);
        Image { process, number }
    }

    /// A process runs another program.
    pub(super) fn executed(&mut self, process: u64) {
        if let Some(perf_maps) = &mut self.perf_maps {
            perf_maps.executed(process);
        }
        *self.running.entry(process).or_default() += 1;
    }

    /// A process has mapped code.
    pub(super) fn mapped(
        &mut self,
        event: &CodeEvent,
        process: Option<&ProcessSeen>,
        file: Option<&FileSeen>,
    ) {
        let image = Image {
            process: event.process,
            number: event.image,
        };
        // Even if an event between was lost.
        self.running.insert(image.process, image.number);
        let mappings = Rc::make_mut(self.images.entry(image).or_default());
        // What was there has been replaced.
        mappings.retain(|start, mapping| mapping.end <= event.start || *start >= event.end);
        mappings.insert(
            event.start,
            Mapping {
                end: event.end,
                place: event.place,
            },
        );
        if !self.modules.contains_key(&event.place.file)
            && let (Some(process), Some(file)) = (process, file)
            && let Some(module) = Module::open(event, process.pid, file)
        {
            self.modules.insert(event.place.file, module);
        }
        if let Some(module) = self.modules.get(&event.place.file) {
            module.add_siblings(event, mappings);
        }
    }

    /// As [`Unwinding::rule_at`], of a place in a file, which the kernel programs know from now on too.
    fn tell_rule(&mut self, place: CodePlace) -> Option<UnwindRule> {
        let rule = self.rule(place);
        if self.rules_told.insert(place)
            && let Some(rules) = &self.rules
        {
            let rule = rule.unwrap_or(UnwindRule::FRAME_POINTER);
            if !put(rules, place, rule) {
                self.rules_left_out += 1;
            }
        }
        rule
    }

    /// Places whose rules the kernel programs have no room for.
    pub(super) fn rules_left_out(&self) -> usize {
        self.rules_left_out
    }

    /// What is on a stack of which the kernel programs do not know all rules, from the event's stack
    /// pointer up.
    pub(super) fn stack_told(&mut self, event: &StackEvent, stack: &[u8]) {
        let callers = self.callers(event, stack);
        self.unwound.insert(event.number, callers);
    }

    /// The callers of the function where a stack was told. The kernel programs know the rules on the way
    /// from now on.
    fn callers(&mut self, event: &StackEvent, stack: &[u8]) -> Callers {
        let word = |address: u64| {
            let at = usize::try_from(address.checked_sub(event.stack_pointer)?).ok()?;
            let bytes = stack.get(at..at.checked_add(8)?)?;
            Some(u64::from_le_bytes(bytes.try_into().ok()?)).filter(|word| *word != 0)
        };
        let end = event.stack_pointer.saturating_add(stack.len() as u64);
        let (mut stack_pointer, mut frame_pointer) = (event.stack_pointer, event.frame_pointer);
        let mut instruction = event.instruction;
        let image = Image {
            process: event.process,
            number: event.image,
        };
        let mut callers = Vec::new();
        let mut whole = true;
        let is_beyond = |address: u64| address > end && address - end < LARGEST_STACK_BYTES;
        while callers.len() < STACK_FRAMES {
            let place = if callers.is_empty() {
                Some(event.place)
            } else {
                self.find(image, instruction)
            };
            let rule = place.and_then(|place| self.tell_rule(place));
            let caller = match rule.unwrap_or(UnwindRule::FRAME_POINTER) {
                UnwindRule::END => None,
                UnwindRule::FRAME_POINTER => {
                    stack_pointer = frame_pointer.wrapping_add(16);
                    frame_pointer = word(frame_pointer).unwrap_or(0);
                    word(stack_pointer.wrapping_sub(8))
                }
                UnwindRule::SIGNAL => {
                    let registers = stack_pointer;
                    let register = |at| word(registers.wrapping_add(at)).unwrap_or(0);
                    frame_pointer = register(SIGNAL_FRAME_POINTER);
                    stack_pointer = register(SIGNAL_STACK_POINTER);
                    word(registers.wrapping_add(SIGNAL_STACK_POINTER + 8))
                }
                rule => {
                    stack_pointer = stack_pointer.wrapping_add(rule.frame_bytes());
                    if rule.saved_bytes() != 0 {
                        let saved = stack_pointer.wrapping_sub(rule.saved_bytes());
                        frame_pointer = word(saved).unwrap_or(0);
                    }
                    word(stack_pointer.wrapping_sub(8))
                }
            };
            whole = !is_beyond(stack_pointer);
            let Some(caller) = caller else { break };
            callers.push(caller);
            // The call, of the place that it returns to.
            instruction = caller - 1;
        }
        Callers {
            addresses: callers,
            whole,
        }
    }

    /// The callers that were found of a stack that was told, by its number.
    pub(super) fn unwound(&self, number: u64) -> Option<&Callers> {
        self.unwound.get(&number)
    }

    /// Which place an address of a program is.
    pub(super) fn find(&self, image: Image, address: u64) -> Option<CodePlace> {
        let mappings = self.images.get(&image)?;
        let (start, mapping) = mappings.range(..=address).next_back()?;
        (address < mapping.end).then(|| CodePlace {
            offset: mapping.place.offset + (address - start),
            ..mapping.place
        })
    }

    /// A file with code.
    pub(super) fn module(&self, file: &FileKey) -> Option<&Module> {
        self.modules.get(file)
    }

    /// As [`Unwinding::rule_at`], of a place in a file.
    pub(super) fn rule(&mut self, place: CodePlace) -> Option<UnwindRule> {
        self.modules.get_mut(&place.file)?.rule(place.offset)
    }

    /// The name of the file of a place, if it [may hide](Module::may_hide_callers) the callers there.
    pub(super) fn hiding(&mut self, place: CodePlace) -> Option<String> {
        let module = self.modules.get_mut(&place.file)?;
        module
            .may_hide_callers(place.offset)
            .then(|| module.name.clone())
    }

    /// As [`PerfMaps::names`]: none of a program that the process runs no more, since another's names are
    /// in the file.
    pub(super) fn made_at_run_time(
        &self,
        image: Image,
        addresses: &BTreeSet<u64>,
    ) -> (BTreeMap<u64, Arc<str>>, Option<String>) {
        let process = image.process;
        let runs = self.image(process) == image;
        let perf_maps = self.perf_maps.as_ref().filter(|_| runs);
        perf_maps.map_or_else(Default::default, |perf_maps| {
            perf_maps.names(process, addresses)
        })
    }
}

/// Words of an entry of the kernel programs' rules: the place's, and the rule.
const SLOT_WORDS: usize = size_of::<RuleSlot>() / size_of::<u64>();

/// Puts a place's rule where the kernel programs look it up; says whether there is room for it.
fn put(rules: &Shared, place: CodePlace, rule: UnwindRule) -> bool {
    for slot in 0..RULES_TRIES {
        let slot = (place.first_slot() + slot) & (RULES_SLOTS - 1);
        let first_word = slot as usize * SLOT_WORDS;
        let rule_word = rules.word(first_word + SLOT_WORDS - 1);
        if rule_word.load(Ordering::Relaxed) == UnwindRule::UNKNOWN.number() {
            for (index, word) in place.words().into_iter().enumerate() {
                rules
                    .word(first_word + index)
                    .store(word, Ordering::Relaxed);
            }
            // What has a rule is complete.
            rule_word.store(rule.number(), Ordering::Release);
            return true;
        }
    }
    false
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use std::{
        arch::asm,
        fs::File,
        hint::black_box,
        os::unix::{ffi::OsStrExt as _, fs::FileExt as _},
    };

    use mmtrace_common::STACK_BYTES;

    use super::*;

    /// A process that runs this very program.
    const PROCESS: Image = Image {
        process: 1,
        number: 0,
    };

    /// The code of this very program, as if it were that process.
    fn own_code() -> Code {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let own = std::env::current_exe().unwrap();
        let of_own_code =
            |line: &&str| line.contains(" r-xp ") && line.ends_with(own.to_str().unwrap());
        let line = maps.lines().find(of_own_code).unwrap();
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        let (start, end) = words[0].split_once('-').unwrap();
        let number = |digits| u64::from_str_radix(digits, 16).unwrap();
        let event = CodeEvent {
            process: 1,
            start: number(start),
            end: number(end),
            place: CodePlace {
                offset: number(words[2]),
                ..CodePlace::default()
            },
            ..CodeEvent::default()
        };
        let process = ProcessSeen {
            pid: std::process::id(),
            ..ProcessSeen::default()
        };
        let names = own.as_os_str().as_bytes().split(|byte| *byte == b'/');
        let names = names.rev().flat_map(|name| [name, b"\0"].concat());
        let file = FileSeen {
            names: names.collect(),
            ..FileSeen::default()
        };
        let mut code = Code::default();
        code.mapped(&event, Some(&process), Some(&file));
        code
    }

    /// What the kernel programs tell of a stack.
    #[derive(Default)]
    struct Told {
        event: StackEvent,
        bytes: Vec<u8>,
    }

    /// Makes this what the kernel programs would tell here of the stack, of which they know as much as
    /// there is room for.
    #[inline(never)]
    fn tell(told: &mut Told) -> usize {
        let event = &mut told.event;
        // SAFETY: reads registers.
        unsafe {
            asm!(
                "lea {}, [rip]", "mov {}, rsp", "mov {}, rbp",
                out(reg) event.instruction, out(reg) event.stack_pointer, out(reg) event.frame_pointer,
                options(nomem, nostack, preserves_flags),
            );
        }
        let memory = File::open("/proc/self/mem").unwrap();
        memory
            .read_at(&mut told.bytes, event.stack_pointer)
            .unwrap()
    }

    /// Calls [`tell`], so that it is a caller.
    #[inline(never)]
    fn inner(told: &mut Told) -> usize {
        black_box(tell(black_box(told)))
    }

    /// Calls [`inner`], so that it is another.
    #[inline(never)]
    fn outer(told: &mut Told) -> usize {
        black_box(inner(black_box(told)))
    }

    /// Has `code` know of the stack here, of which so many bytes are told.
    fn tell_to(code: &mut Code, known: usize) {
        let mut told = Told {
            event: StackEvent {
                process: 1,
                number: 7,
                ..StackEvent::default()
            },
            bytes: vec![0; known],
        };
        let read = outer(&mut told);
        told.event.place = code.find(PROCESS, told.event.instruction).unwrap();
        code.stack_told(&told.event, &told.bytes[..read]);
    }

    fn function_at(code: &Code, address: u64) -> u64 {
        let place = code.find(PROCESS, address).unwrap();
        let module = code.module(&place.file).unwrap();
        let began = module.function_at(place.offset).unwrap();
        // As far from where the file has it as the address is.
        began + (address - module.address(place.offset).unwrap())
    }

    #[test]
    fn callers_are_found_in_what_is_told_of_a_stack() {
        let mut code = own_code();
        tell_to(&mut code, STACK_BYTES);
        let callers = &code.unwound(7).unwrap().addresses;
        assert!(callers.len() > 2, "{callers:x?}");
        for (caller, function) in callers.iter().zip([inner as *const (), outer as *const ()]) {
            assert_eq!(function_at(&code, caller - 1), function.addr() as u64);
        }
        assert!(code.unwound(8).is_none());
    }

    #[test]
    fn addresses_belong_to_the_program_that_was_run() {
        let mut code = own_code();
        let address = tell as *const () as u64;
        let place = code.find(PROCESS, address);
        assert!(place.is_some());
        code.forked(3, 0, PROCESS.process);
        assert_eq!(code.find(code.image(3), address), place);
        code.executed(PROCESS.process);
        let now = code.image(PROCESS.process);
        assert_eq!(code.find(PROCESS, address), place);
        assert_eq!(code.find(now, address), None);
        // A child has what its parent runs, not what it has run.
        code.forked(2, 0, PROCESS.process);
        let child = code.image(2);
        assert_eq!((child.process, child.number), (2, now.number));
        assert_eq!(code.find(child, address), None);
    }

    #[test]
    fn callers_beyond_what_is_told_of_a_stack_are_not_made_up() {
        let mut code = own_code();
        tell_to(&mut code, 0);
        let callers = code.unwound(7).unwrap();
        assert!(callers.addresses.is_empty() && !callers.whole);
    }
}

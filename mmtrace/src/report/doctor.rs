//! What `doctor` found out, for people and as JSON.

use serde::Serialize;

use super::{
    paint::{Paint, Tone},
    text::{Shown, wrapped},
};
use crate::doctor::{
    BackendReport, ChoiceReport, Denial, Diagnosis, Fact, PurposeReport, SCHEMA, State,
};
use crate::recording::{Backend, Unavailable};

/// How the text is drawn.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Columns of the terminal; it is not drawn narrower than [`MIN_WIDTH`].
    pub width: usize,
    /// Whether to use colour.
    pub color: bool,
}

/// The narrowest text.
pub const MIN_WIDTH: usize = 60;

/// One JSON object, in lines.
///
/// # Errors
///
/// None that the types allow.
pub fn json(diagnosis: &Diagnosis) -> serde_json::Result<String> {
    #[derive(Serialize)]
    struct Document<'a> {
        schema: &'static str,
        #[serde(flatten)]
        diagnosis: &'a Diagnosis,
    }

    let document = Document {
        schema: SCHEMA,
        diagnosis,
    };
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}

/// Draws it as text that ends with a line end. No line is wider than the width asked for.
#[must_use]
pub fn render(diagnosis: &Diagnosis, options: &Options) -> String {
    let mut page = Page {
        lines: Vec::new(),
        width: options.width.max(MIN_WIDTH),
        paint: Paint {
            color: options.color,
        },
    };
    let tone = match diagnosis.verdict.can_measure {
        true => Tone::Strong,
        false => Tone::Alarm,
    };
    page.text(0, tone, &diagnosis.verdict.text);
    for (heading, facts) in [
        ("Kernel", &diagnosis.kernel),
        ("This process", &diagnosis.process),
        ("Settings", &diagnosis.settings),
        ("Debug registers and sampling", &diagnosis.perf),
    ] {
        page.heading(heading);
        for fact in facts {
            page.fact(fact);
        }
    }
    // Better ones come before the one that is used in their place.
    let mut in_place = diagnosis.verdict.backend;
    for report in &diagnosis.backends {
        page.backend(report, in_place);
        in_place = in_place.filter(|_| report.state != State::Chosen);
    }
    let mut backends = diagnosis.backends.iter();
    if let Some(chosen) = backends.find(|report| report.state == State::Chosen) {
        page.heading("What `run` cannot measure here");
        for entry in &chosen.unavailable {
            page.unavailable(entry);
        }
    }
    page.lines.join("\n") + "\n"
}

/// Lines that are being written.
struct Page {
    lines: Vec<String>,
    width: usize,
    paint: Paint,
}

/// Columns of the mark before a name.
const MARK: usize = 5;

/// Columns of a name.
const NAME: usize = 33;

/// Where what is said of a name begins.
const DETAIL: usize = 8;

impl Page {
    fn text(&mut self, indent: usize, tone: Tone, text: &str) {
        for line in wrapped(text, indent, self.width) {
            self.lines.push(self.paint.tone(tone, &line));
        }
    }

    /// Something more on a name, with a hanging indent.
    fn detail(&mut self, tone: Tone, text: &str) {
        const HANGING: usize = 2;
        for (index, line) in wrapped(text, DETAIL + HANGING, self.width)
            .iter()
            .enumerate()
        {
            let line = if index == 0 { &line[HANGING..] } else { line };
            self.lines.push(self.paint.tone(tone, line));
        }
    }

    /// Text under a name that is on the first line.
    fn named(&mut self, mark: &str, name: &str, tone: Tone, text: &str) {
        let indent = MARK + NAME;
        let head = format!(
            "{mark:<MARK$}{:<NAME$}",
            Shown::prose(name).keep_start(NAME - 1)
        );
        for (index, line) in wrapped(text, indent, self.width).into_iter().enumerate() {
            let line = match index {
                0 => format!("{head}{}", &line[indent.min(line.len())..]),
                _ => line,
            };
            self.lines.push(self.paint.tone(tone, line.trim_end()));
        }
    }

    fn heading(&mut self, text: &str) {
        self.lines.push(String::new());
        self.text(0, Tone::Strong, text);
    }

    fn fact(&mut self, fact: &Fact) {
        self.named(mark(fact.state), &fact.name, tone(fact.state), &fact.value);
        if let Some(denial) = &fact.refusal {
            self.denial(denial);
        }
        for cost in &fact.costs {
            self.detail(Tone::Plain, &format!("costs: {cost}"));
        }
    }

    fn denial(&mut self, denial: &Denial) {
        self.detail(Tone::Plain, &denial.reason);
        self.explanation(denial);
    }

    fn explanation(&mut self, denial: &Denial) {
        if let Some(meaning) = &denial.meaning {
            self.detail(Tone::Plain, &format!("that is: {meaning}"));
        }
        for by in &denial.lifted_by {
            self.detail(Tone::Plain, &format!("lifted by: {by}"));
        }
    }

    fn backend(&mut self, report: &BackendReport, in_place: Option<Backend>) {
        let name = report.backend.name();
        let heading = match report.state {
            State::Chosen => format!("Backend {name}: the one that `run` uses"),
            State::Possible => format!("Backend {name}: usable (--backend {name})"),
            State::Refused => format!("Backend {name}: refused"),
            State::Untried | State::Note => {
                format!("Backend {name}: not tried; as root `run` would try this")
            }
        };
        self.heading(&heading);
        if let Some(denial) = &report.refusal {
            self.denial(denial);
            if let Some(other) = in_place {
                let cost = format!(
                    "costs: `run` uses the {} backend in its place",
                    other.name()
                );
                self.detail(Tone::Plain, &cost);
            }
        }
        let told = report.refusal.as_ref();
        for purpose in &report.purposes {
            self.purpose(purpose, told);
        }
    }

    /// `told` is what the backend's own lines have explained.
    fn purpose(&mut self, purpose: &PurposeReport, told: Option<&Denial>) {
        let state = purpose.state;
        let used = purpose.choices.iter().find(|choice| choice.state == state);
        match (&purpose.refusal, used) {
            (Some(denial), _) => {
                self.named(mark(state), &purpose.name, tone(state), &denial.reason);
                if told.is_none_or(|told| told.meaning != denial.meaning) {
                    self.explanation(denial);
                }
            }
            (None, Some(choice)) => {
                self.named(mark(state), &purpose.name, tone(state), &hooks(choice));
            }
            (None, None) => self.named(mark(state), &purpose.name, tone(state), "no hooks"),
        }
        for measure in &purpose.null {
            let cost = format!("costs: {} is null", name_of(measure));
            self.detail(Tone::Plain, &cost);
        }
        for cost in &purpose.costs {
            self.detail(Tone::Plain, &format!("costs: {cost}"));
        }
        for choice in &purpose.choices {
            let said = match (choice.state, &choice.refusal) {
                // The same hooks with other programs are no news to people.
                (State::Possible, _) if used.map(hooks) != Some(hooks(choice)) => {
                    format!("also possible: {}", hooks(choice))
                }
                // That the kernel lacks what other kernels have says nothing about this one.
                (State::Refused, Some(denial))
                    if denial.errno.is_some() && purpose.refusal.as_ref() != Some(denial) =>
                {
                    format!("refused: {}", denial.reason)
                }
                _ => continue,
            };
            self.detail(Tone::Quiet, &said);
        }
    }

    fn unavailable(&mut self, entry: &Unavailable) {
        let measures: Vec<String> = entry.measures.iter().map(name_of).collect();
        let paths: Vec<&str> = entry.paths.iter().map(|path| path.name()).collect();
        let mut text = entry.reason.clone();
        if !measures.is_empty() {
            text += &format!(" (null: {}", measures.join(", "));
            if !paths.is_empty() {
                text += &format!(" of {}", paths.join(", "));
            }
            text.push(')');
        }
        self.named("", &entry.purpose, Tone::Plain, &text);
    }
}

/// A measure's name in recordings.
fn name_of(measure: &crate::recording::Measure) -> String {
    measure.name().to_owned()
}

/// A choice's hooks, those of a kind together.
fn hooks(choice: &ChoiceReport) -> String {
    let mut text = String::new();
    let mut kind = "";
    for hook in &choice.hooks {
        if hook.kind == kind {
            text += ", ";
        } else {
            if !text.is_empty() {
                text += "; ";
            }
            text += &hook.kind;
            text.push(' ');
            kind = &hook.kind;
        }
        text += &hook.name;
    }
    text
}

fn mark(state: State) -> &'static str {
    match state {
        State::Chosen | State::Possible => "yes",
        State::Refused => "no",
        State::Untried => "?",
        State::Note => "",
    }
}

fn tone(state: State) -> Tone {
    match state {
        State::Refused => Tone::Alarm,
        State::Untried => Tone::Quiet,
        State::Chosen | State::Possible | State::Note => Tone::Plain,
    }
}

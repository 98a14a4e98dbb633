//! What `doctor` found out, and its JSON. The keys are fixed; a later version may add some.
//! `docs/doctor.md` describes them.

use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::SerializeMap as _};

use crate::{
    kernel::{conditions::Conditions, refusal::Refusal, remedy},
    recording::{Backend, Copies, Measure, Tool, Unavailable},
};

/// The version of the format.
pub const SCHEMA: &str = "mmtrace.doctor/1";

/// All of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Diagnosis {
    /// The program that asked.
    pub tool: Tool,
    /// The answer.
    pub verdict: Verdict,
    /// The kernel.
    #[serde(serialize_with = "by_name", deserialize_with = "in_order")]
    pub kernel: Vec<Fact>,
    /// This process: its user, its rights, what it is inside of.
    #[serde(serialize_with = "by_name", deserialize_with = "in_order")]
    pub process: Vec<Fact>,
    /// The system's settings.
    #[serde(serialize_with = "by_name", deserialize_with = "in_order")]
    pub settings: Vec<Fact>,
    /// Debug registers and sampling.
    #[serde(serialize_with = "by_name", deserialize_with = "in_order")]
    pub perf: Vec<Fact>,
    /// Every backend, the best first.
    pub backends: Vec<BackendReport>,
}

/// The answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Verdict {
    /// Whether `run` can measure at least read against mmap.
    pub can_measure: bool,
    /// The backend that it would use.
    pub backend: Option<Backend>,
    /// How it would find copied bytes.
    pub copies: Option<Copies>,
    /// The same in a sentence.
    pub text: String,
}

/// How something fared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It was tried and worked, and it is what `run` uses (of a purpose: under its backend).
    Chosen,
    /// It was tried and worked, or is there.
    Possible,
    /// It is not there, or was refused.
    Refused,
    /// It was not tried, for want of rights.
    Untried,
    /// There is nothing to be refused.
    Note,
}

/// A refusal, explained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denial {
    /// In words.
    pub reason: String,
    /// The kernel's error, such as `EPERM`.
    pub errno: Option<String>,
    /// What that comes from.
    pub meaning: Option<String>,
    /// What would lift it.
    pub lifted_by: Vec<String>,
}

impl Denial {
    /// Explains a refusal.
    #[must_use]
    pub fn of(refusal: &Refusal, here: &Conditions) -> Self {
        let remedy = remedy::of(refusal, here);
        let lifted_by = remedy.map_or(&[][..], |remedy| remedy.lifted_by);
        Self {
            reason: refusal.reason.clone(),
            errno: refusal.errno_name(),
            meaning: remedy.map(|remedy| remedy.meaning.to_owned()),
            lifted_by: lifted_by.iter().map(|by| (*by).to_owned()).collect(),
        }
    }
}

/// Something about the system.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Fact {
    /// What.
    #[serde(skip)]
    pub name: String,
    /// Whether it is there.
    pub state: State,
    /// What it is, in words.
    pub value: String,
    /// How many there are, of what can be counted.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub count: Option<u32>,
    /// Why it is not there.
    pub refusal: Option<Denial>,
    /// What it costs that it is not there.
    pub costs: Vec<String>,
}

impl Fact {
    /// Something that just is so.
    pub fn note(name: &str, value: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            state: State::Note,
            value: value.into(),
            count: None,
            refusal: None,
            costs: Vec::new(),
        }
    }

    /// Something that is there.
    pub fn there(name: &str, value: impl Into<String>) -> Self {
        Self {
            state: State::Possible,
            ..Self::note(name, value)
        }
    }

    /// Something that is not, and what that costs.
    pub fn refused(name: &str, value: impl Into<String>, refusal: Denial, costs: &[&str]) -> Self {
        Self {
            state: State::Refused,
            refusal: Some(refusal),
            costs: costs.iter().map(|cost| (*cost).to_owned()).collect(),
            ..Self::note(name, value)
        }
    }
}

/// A backend.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BackendReport {
    /// Which.
    #[serde(rename = "name")]
    pub backend: Backend,
    /// How it fared: `chosen` is what `run` uses without `--backend`.
    pub state: State,
    /// Why `run` cannot use it.
    pub refusal: Option<Denial>,
    /// How it finds copied bytes; null where it cannot be used.
    pub copies: Option<Copies>,
    /// What a recording made with it says that it cannot measure.
    pub unavailable: Vec<Unavailable>,
    /// What hooks are for, one by one; empty where the backend is refused as a whole.
    pub purposes: Vec<PurposeReport>,
}

/// What hooks are for, under a backend.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PurposeReport {
    /// Its name, as in recordings.
    pub name: String,
    /// Whether a backend without it is none.
    pub required: bool,
    /// `chosen` where a choice works.
    pub state: State,
    /// Why none does.
    pub refusal: Option<Denial>,
    /// The measures that are null without it.
    pub null: Vec<Measure>,
    /// What else it costs that it is not there, or what is inexact with what was chosen.
    pub costs: Vec<String>,
    /// Every choice, the best first.
    pub choices: Vec<ChoiceReport>,
}

/// A way to serve a purpose.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ChoiceReport {
    /// How it fared.
    pub state: State,
    /// Why it cannot be had.
    pub refusal: Option<Denial>,
    /// Its hooks, all of which are needed.
    pub hooks: Vec<Hook>,
}

/// A hook.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hook {
    /// The function, tracepoint or event.
    pub name: String,
    /// How it is attached, as in recordings.
    pub kind: String,
    /// The program of mmtrace that runs there, as in recordings.
    pub program: String,
}

/// Facts as one object, each under its name.
fn by_name<S: Serializer>(facts: &[Fact], to: S) -> Result<S::Ok, S::Error> {
    let mut map = to.serialize_map(Some(facts.len()))?;
    for fact in facts {
        map.serialize_entry(&fact.name, fact)?;
    }
    map.end()
}

/// Facts out of such an object, in its order.
fn in_order<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Fact>, D::Error> {
    struct Facts;

    impl<'de> serde::de::Visitor<'de> for Facts {
        type Value = Vec<Fact>;

        fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            formatter.write_str("an object of facts")
        }

        fn visit_map<M: serde::de::MapAccess<'de>>(
            self,
            mut map: M,
        ) -> Result<Self::Value, M::Error> {
            let mut facts = Vec::new();
            while let Some((name, fact)) = map.next_entry::<String, Fact>()? {
                facts.push(Fact { name, ..fact });
            }
            Ok(facts)
        }
    }

    from.deserialize_map(Facts)
}

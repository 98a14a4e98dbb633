use std::collections::BTreeMap;

use super::*;
use crate::settle::{
    claims,
    experiment::Experiment,
    figure::{Evidence, Figure, Value, Values},
    outcome::Outcome,
    rule::{Amount, Must, Rule},
};

const SIZE_BYTES: u64 = 1_000_003;
const PAGE_BYTES: u64 = 4096;

type Made = BTreeMap<Experiment, Values>;

fn number(amount: Amount) -> u64 {
    match amount {
        Amount::Exactly(number) => number,
        Amount::Sizes(times) => times * SIZE_BYTES,
        Amount::SizesInPages(times) => times * SIZE_BYTES.next_multiple_of(PAGE_BYTES),
        Amount::Pages => SIZE_BYTES.div_ceil(PAGE_BYTES),
        Amount::CallsOf(bytes) => SIZE_BYTES.div_ceil(bytes) + 1,
    }
}

fn known(number: u64) -> Value {
    Value::known(number, Evidence::Hooks)
}

/// Measurements with which each rule of a claim holds, but for what its author alone predicts.
fn ideal(claim: &Claim) -> Made {
    let mut made = Made::new();
    let mut put = |experiment, figure, value| {
        let values: &mut Values = made.entry(experiment).or_default();
        values.insert(Figure::SizeBytes, known(SIZE_BYTES));
        values.entry(figure).or_insert(known(value));
    };
    let rules = claim
        .rules
        .iter()
        .filter(|rule| rule.role != Role::AuthorPrediction);
    for rule in rules {
        let value = match rule.must {
            Must::Be(amount)
            | Must::BeOnDisk(amount)
            | Must::BeWithHeads(amount)
            | Must::BeAbout(amount)
            | Must::BeAtLeast(amount)
            | Must::BeAtMost(amount) => number(amount),
            Must::BeLessThanIn(other) => {
                put(other, rule.figure, SIZE_BYTES);
                0
            }
        };
        put(rule.experiment, rule.figure, value);
    }
    made
}

fn repeated(times: &[&Made]) -> Outcomes {
    let outcomes = (0..).zip(times).flat_map(|(repetition, made)| {
        made.iter().map(move |(experiment, values)| Outcome {
            experiment: *experiment,
            repetition,
            values: values.clone(),
            stack: Vec::new(),
            copy_routine: None,
            failed: None,
        })
    });
    Outcomes::new(outcomes.collect(), PAGE_BYTES)
}

fn tried(claim: &Claim, made: &Made) -> Tried {
    Tried::new(claim, &repeated(&[made]))
}

/// The same measurements, but for one figure.
fn but(made: &Made, rule: &Rule, value: Value) -> Made {
    let mut made = made.clone();
    made.entry(rule.experiment)
        .or_default()
        .insert(rule.figure, value);
    made
}

/// Every standing that a claim has.
fn standings(tried: &Tried) -> Vec<Standing> {
    let readings = tried.readings.iter().flatten();
    [&tried.verdict]
        .into_iter()
        .chain(readings)
        .map(|it| it.standing)
        .collect()
}

#[test]
fn what_is_as_predicted_is_confirmed() {
    for claim in claims::all().filter(|claim| !claim.is_timed()) {
        let tried = tried(claim, &ideal(claim));
        let expected = if claim.has_readings() {
            vec![Standing::Refuted, Standing::Refuted, Standing::Confirmed]
        } else {
            vec![Standing::Confirmed]
        };
        assert_eq!(standings(&tried), expected, "{}", tried.verdict.verdict);
        assert!(tried.decided());
        let begins = |it: &Verdict| it.verdict.starts_with(it.standing.word());
        assert!(begins(&tried.verdict) && tried.readings.iter().flatten().all(begins));
    }
}

#[test]
fn what_is_not_known_decides_nothing() {
    for claim in claims::all().filter(|claim| !claim.is_timed()) {
        let made = ideal(claim);
        for rule in claim
            .rules
            .iter()
            .filter(|rule| !matches!(rule.role, Role::Note | Role::ControlIfHad))
        {
            let tried = tried(claim, &but(&made, rule, Value::unknown("of a reason")));
            assert!(!tried.decided(), "{}: {rule:?}", claim.id);
            assert!(
                tried.verdict.verdict.contains("of a reason"),
                "{}",
                tried.verdict.verdict
            );
        }
    }
}

#[test]
fn a_control_that_fails_leaves_nothing_decided() {
    for claim in claims::all().filter(|claim| !claim.is_timed()) {
        let made = ideal(claim);
        let controls = claim
            .rules
            .iter()
            .filter(|rule| matches!(rule.role, Role::Control | Role::ControlIfHad));
        for rule in controls {
            // No figure must be so large; where one may, one must not be none.
            let wrong = match rule.must {
                Must::BeAtLeast(_) => 0,
                _ => u64::MAX / 2,
            };
            let tried = tried(claim, &but(&made, rule, known(wrong)));
            let all = standings(&tried);
            assert!(
                all.iter().all(|it| *it == Standing::Undecided),
                "{}: {rule:?}",
                claim.id
            );
        }
    }
}

/// Whatever a probe that sees nothing leaves, no reading of a claim is confirmed by it.
#[test]
fn probes_that_see_nothing_confirm_nothing() {
    for claim in claims::all().filter(|claim| !claim.is_timed()) {
        for blind in [
            &[Figure::DiskReadBytes][..],
            &[
                Figure::CopiedToUserBytes,
                Figure::CopiedFromUserBytes,
                Figure::CopiedInKernelBytes,
                Figure::Copies,
            ],
            &[Figure::Operations, Figure::ReturnedBytes],
        ] {
            let mut made = ideal(claim);
            let mut rests = false;
            for values in made.values_mut() {
                for (figure, value) in values.iter_mut() {
                    rests |= blind.contains(figure) && value.number != Some(0);
                    if blind.contains(figure) {
                        *value = known(0);
                    }
                }
            }
            let counts = |rule: &&Rule| rule.role != Role::Note && blind.contains(&rule.figure);
            if rests
                && claim
                    .rules
                    .iter()
                    .any(|rule| counts(&rule) && rule.must != Must::Be(Amount::Exactly(0)))
            {
                let tried = tried(claim, &made);
                let all = standings(&tried);
                assert!(
                    !all.contains(&Standing::Confirmed),
                    "{} without {blind:?}",
                    claim.id
                );
            }
        }
    }
}

#[test]
fn a_prediction_that_fails_is_said() {
    let claim = claims::find("warm-copies").expect("a claim");
    let made = ideal(claim);
    let predictions: Vec<_> = claim
        .rules
        .iter()
        .filter(|it| it.role == Role::Prediction)
        .collect();
    let partly = tried(claim, &but(&made, predictions[0], known(4096)));
    assert_eq!(partly.verdict.standing, Standing::Partly);
    assert!(
        partly
            .verdict
            .verdict
            .contains("this is not: read from disk: 4,096 B, must be 0 B (read-warm)")
    );
    let wrong = |made, rule: &&Rule| but(&made, rule, known(7));
    let refuted = tried(claim, &predictions.iter().fold(made, wrong));
    assert_eq!(refuted.verdict.standing, Standing::Refuted);
}

#[test]
fn a_prediction_must_hold_each_time() {
    let claim = claims::find("map-reads-nothing").expect("a claim");
    let made = ideal(claim);
    let predictions = claim.rules.iter().filter(|it| it.role == Role::Prediction);
    for rule in predictions {
        let once = but(&made, rule, known(1));
        let tried = Tried::new(claim, &repeated(&[&made, &once, &made]));
        assert_eq!(tried.verdict.standing, Standing::Partly, "{rule:?}");
        let unknown = but(&made, rule, Value::unknown("once"));
        let tried = Tried::new(claim, &repeated(&[&made, &unknown]));
        assert_eq!(tried.verdict.standing, Standing::Undecided, "{rule:?}");
    }
}

#[test]
fn an_experiment_that_was_not_made_decides_nothing() {
    for claim in claims::all().filter(|claim| !claim.is_timed()) {
        let tried = tried(claim, &Made::new());
        assert!(!tried.decided(), "{}", claim.id);
    }
}

#[test]
fn what_cannot_be_timed_is_undecided() {
    let claim = claims::all().find(|claim| claim.is_timed()).unwrap();
    let tried = Tried::timed(claim, &Err("no room".to_owned()));
    assert!(!tried.decided());
    assert!(tried.verdict.verdict.starts_with("undecided"));
    assert!(tried.verdict.verdict.contains("no room"));
}

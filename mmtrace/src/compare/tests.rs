use super::*;

const MIB: u64 = 1 << 20;

fn side(command: &str, rounds: &[[Option<u64>; 6]]) -> Side {
    Side {
        command: command.into(),
        rounds: rounds.to_vec(),
        incomplete: 0,
    }
}

/// Rounds that take these milliseconds, and read so many bytes.
fn rounds(times_ms: &[u64], returned: u64, copied: Option<u64>) -> Vec<[Option<u64>; 6]> {
    let round = |time| {
        [
            Some(time * 1_000_000),
            Some(0),
            copied,
            Some(returned),
            Some(9),
            None,
        ]
    };
    times_ms.iter().copied().map(round).collect()
}

fn compare(one: &[[Option<u64>; 6]], other: &[[Option<u64>; 6]]) -> Comparison {
    Comparison::of(
        [side("a", one), side("b", other)],
        "warm",
        "tracepoint",
        Vec::new(),
    )
}

#[test]
fn the_answer_names_the_slower_one_and_what_it_copies() {
    let slow = rounds(&[120, 121, 119, 120], 0, None);
    let fast = rounds(&[100, 100, 101, 99], 256 * MIB, None);
    let answer = "takes 1.20 ± 0.10 times as long; its calls read 0 B against 256.0 MiB.";
    assert_eq!(compare(&slow, &fast).answer, format!("`a` {answer}"));
    assert_eq!(compare(&fast, &slow).answer, format!("`b` {answer}"));
}

#[test]
fn copies_that_were_seen_come_before_what_calls_read() {
    let one = rounds(&[120, 121, 119], 5, Some(0));
    let other = rounds(&[10, 10, 10], 5, Some(MIB));
    let answer = compare(&one, &other).answer;
    assert!(
        answer.ends_with("; the kernel copies to it 0 B against 1.0 MiB."),
        "{answer}"
    );
}

#[test]
fn nobody_is_faster_within_the_spread_or_in_two_rounds() {
    let one = rounds(&[100, 130, 90, 120], 1, None);
    let other = rounds(&[110, 100, 120, 95], 1, None);
    let answer = compare(&one, &other).answer;
    assert!(
        answer.starts_with("Neither is faster beyond the spread: `a` takes 1.0"),
        "{answer}"
    );
    assert_eq!(
        compare(&one[..2], &other[..2]).answer,
        "Which takes longer is not known: that takes 3 rounds or more."
    );
}

#[test]
fn figures_tell_whether_they_differ() {
    let one = rounds(&[100, 100, 100], 0, None);
    let other = rounds(&[100, 100, 100], MIB, None);
    let comparison = compare(&one, &other);
    let differs = |figure| comparison.figure(figure).unwrap().differs;
    assert_eq!(differs(Figure::BytesRead), Some(true));
    assert_eq!(differs(Figure::Faults), Some(false));
    assert_eq!(differs(Figure::DiskReadBytes), Some(false));
    // Not measured is not equal.
    assert_eq!(differs(Figure::KernelTimeNs), None);
    assert_eq!(
        comparison.figure(Figure::KernelTimeNs).unwrap().spread,
        [None; 2]
    );
}

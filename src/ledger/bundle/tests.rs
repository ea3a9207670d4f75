use super::*;
use crate::id::CampaignName;
use crate::run::BatchState;
use jiff::Timestamp;

fn run() -> RunId {
    let campaign: CampaignName = "winback".parse().unwrap();
    RunId::scheduled(&campaign, Timestamp::UNIX_EPOCH)
}

fn begin(batch: u32, attempt: u32) -> Command {
    Command::BeginAttempt(AttemptBegun {
        run: run(),
        term: 1,
        path: BatchPath::whole(batch),
        generation: 0,
        attempt,
        members: 1,
        body_hash: [7; 32],
        places: None,
        at: Timestamp::UNIX_EPOCH,
    })
}

fn change(batch: u32) -> Command {
    Command::ChangeBatch(BatchChange {
        run: run(),
        term: 1,
        path: BatchPath::whole(batch),
        attempt: 1,
        from: BatchState::Sending,
        to: BatchState::Accepted,
        status: None,
        http_status: None,
        at: Timestamp::UNIX_EPOCH,
        next_at: None,
        excused: std::time::Duration::ZERO,
        error: None,
        refused: Vec::new(),
    })
}

/// The steps in short: `f` for first attempts, `c` for changes, `1` for others.
fn check(commands: &[Command], expect: &[(char, &[usize])]) {
    let steps: Vec<(char, Vec<usize>)> = steps(commands.iter())
        .into_iter()
        .map(|step| match step {
            Step::One(place, _) => ('1', vec![place]),
            Step::First(all) => ('f', all.iter().map(|(place, _)| *place).collect()),
            Step::Changes(all) => ('c', all.iter().map(|(place, _)| *place).collect()),
        })
        .collect();
    let expect: Vec<(char, Vec<usize>)> = expect
        .iter()
        .map(|(kind, places)| (*kind, places.to_vec()))
        .collect();
    assert_eq!(steps, expect);
}

#[test]
fn what_is_alike_goes_together_and_nothing_passes_another_kind_of_write() {
    check(&[], &[]);
    check(
        &[begin(1, 1), change(2), begin(3, 1), change(4)],
        &[('f', &[0, 2]), ('c', &[1, 3])],
    );
    check(
        &[begin(1, 1), begin(2, 2), begin(3, 1)],
        &[('f', &[0]), ('1', &[1]), ('f', &[2])],
    );
}

#[test]
fn two_writes_of_one_batch_stay_in_their_order() {
    check(
        &[begin(1, 1), begin(2, 1), change(1), begin(3, 1)],
        &[('f', &[0, 1]), ('f', &[3]), ('c', &[2])],
    );
    check(&[change(1), change(1)], &[('c', &[0]), ('c', &[1])]);
}

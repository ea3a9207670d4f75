//! Every life one batch can have: each interleaving of crash, lost reply, kind
//! of answer and passing of the dedupe window, as far as three attempts and two
//! crashes reach. The decisions are the program's own; the ledger, the wire and
//! the receiver are modelled here. Eight broken variants show that the model
//! can tell.
#![cfg(test)]

use campaignd::delivery::{Clearance, Course, Move, OnAmbiguous, Outcome, Rejections, Rules};
use jiff::{SignedDuration, Timestamp};
use std::collections::HashSet;
use std::time::Duration;

const TIMEOUT: i64 = 30;
const WINDOW: i64 = 300;
const GIVE_UP_AFTER: u64 = 500;
const DELAY: Duration = Duration::from_secs(20);

/// How long a batch may lie before its next attempt: our own delay, a while,
/// almost the window, and past it.
const WAITS: [i64; 4] = [20, 100, 200, 310];

const MAX_ATTEMPTS: u32 = 3;
const MAX_CRASHES: u32 = 2;

/// What is wrong with the program, if anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variant {
    Sound,
    NoFsyncBeforeTheSend,
    LostLedgerReadAsNotStarted,
    AmbiguousResentWithoutAWindow,
    TimeOutOr5xxTakenAsANo,
    WindowIgnored,
    WindowCheckedTooEarly,
    SettledBeforeSent,
    LaterNoClearsAnAmbiguity,
}

/// Where the ledger has the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum State {
    Sending,
    Waiting,
    Ambiguous,
    Delivered,
    Rejected,
    Failed,
    Parked,
}

/// The ledger's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Row {
    state: State,
    first_at: i64,
    was_ambiguous: bool,
}

/// Everything there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct World {
    now: i64,
    row: Option<Row>,
    attempts: u32,
    crashes: u32,
    /// When the receiver first took the batch, while it remembers.
    taken_at: Option<i64>,
    /// How often it took effect.
    effects: u32,
}

/// What happens to a request.
#[derive(Debug, Clone, Copy)]
enum Wire {
    NoConnection,
    Answered(u16),
    /// Takes effect, and is answered so.
    TakenAndAnswered(u16),
    TakenAndLost,
    LostOnTheWay,
}

const WIRES: [Wire; 9] = [
    Wire::NoConnection,
    Wire::TakenAndAnswered(200),
    Wire::TakenAndAnswered(503),
    Wire::TakenAndLost,
    Wire::LostOnTheWay,
    Wire::Answered(503),
    Wire::Answered(429),
    Wire::Answered(422),
    Wire::Answered(409),
];

struct Model {
    variant: Variant,
    rules: Rules,
    seen: HashSet<World>,
    ends: HashSet<State>,
}

impl Model {
    fn new(variant: Variant) -> Self {
        let without_window = variant == Variant::AmbiguousResentWithoutAWindow;
        Self {
            variant,
            rules: Rules {
                timeout: Duration::from_secs(TIMEOUT.unsigned_abs()),
                retry_initial: DELAY,
                retry_max: DELAY,
                give_up_after: Duration::from_secs(GIVE_UP_AFTER),
                dedupe_window: (!without_window)
                    .then(|| Duration::from_secs(WINDOW.unsigned_abs())),
                on_ambiguous: OnAmbiguous::Resend,
                not_processed: Vec::new(),
            },
            seen: HashSet::new(),
            ends: HashSet::new(),
        }
    }

    /// Explores every life; the error is the first that breaks a rule.
    fn explore(mut self) -> Result<Self, String> {
        let mut open = vec![World {
            now: 0,
            row: None,
            attempts: 0,
            crashes: 0,
            taken_at: None,
            effects: 0,
        }];
        while let Some(world) = open.pop() {
            if !self.seen.insert(world) {
                continue;
            }
            self.judge(&world)?;
            open.extend(self.lives_after(world));
        }
        Ok(self)
    }

    fn judge(&mut self, world: &World) -> Result<(), String> {
        let broken = |rule: &str| Err(format!("{rule}: {world:?}"));
        if world.effects > 1 {
            return broken("a member was contacted twice");
        }
        let Some(row) = world.row else { return Ok(()) };
        match row.state {
            State::Delivered if world.effects == 0 => {
                return broken("delivered, and nothing arrived");
            }
            State::Failed | State::Rejected if world.effects > 0 => {
                return broken("not delivered, and it arrived");
            }
            _ => {}
        }
        self.ends.insert(row.state);
        Ok(())
    }

    /// A process that lives takes the batch up, waits, asks whether it may
    /// send, and makes an attempt.
    fn lives_after(&self, world: World) -> Vec<World> {
        let mut row = world.row;
        if let Some(left) = row.as_mut().filter(|row| row.state == State::Sending) {
            left.state = State::Ambiguous;
            left.was_ambiguous = true;
        }
        let over = row.is_some_and(|row| !matches!(row.state, State::Waiting | State::Ambiguous));
        if over || world.attempts == MAX_ATTEMPTS {
            return Vec::new();
        }
        let waits: &[i64] = if row.is_some() { &WAITS } else { &[0] };
        let mut lives = Vec::new();
        for wait in waits {
            let now = world.now + wait;
            let asked_at = match self.variant {
                Variant::WindowCheckedTooEarly => world.now,
                _ => now,
            };
            let taken_up = World { now, row, ..world };
            match self.clearance(row, asked_at) {
                Clearance::Park => lives.push(ended(taken_up, State::Parked)),
                Clearance::Send => lives.extend(self.attempts(taken_up)),
            }
        }
        lives
    }

    fn clearance(&self, row: Option<Row>, at: i64) -> Clearance {
        match self.variant {
            Variant::WindowIgnored | Variant::AmbiguousResentWithoutAWindow => Clearance::Send,
            _ => course(row).clearance(&self.rules, instant(at)),
        }
    }

    fn attempts(&self, world: World) -> Vec<World> {
        let before = world.row;
        let begun = Row {
            state: match self.variant {
                Variant::SettledBeforeSent => State::Delivered,
                _ => State::Sending,
            },
            first_at: before.map_or(world.now, |row| row.first_at),
            was_ambiguous: before.is_some_and(|row| row.was_ambiguous),
        };
        let sending = World {
            row: Some(begun),
            attempts: world.attempts + 1,
            ..world
        };
        let mut lives = vec![];
        // Died before the intent was durable, and just behind it.
        lives.extend(self.crash(world, before));
        lives.extend(self.crash(sending, before));
        for wire in WIRES {
            for takes in [0, TIMEOUT] {
                let (after, outcome) = on_the_wire(sending, wire, takes);
                // Died with the request on its way.
                lives.extend(self.crash(after, before));
                lives.push(self.follow(after, before, &outcome));
            }
        }
        lives
    }

    /// The process dies and starts again; the ledger is what is durable.
    fn crash(&self, world: World, before: Option<Row>) -> Option<World> {
        let row = match self.variant {
            Variant::NoFsyncBeforeTheSend => before,
            Variant::LostLedgerReadAsNotStarted => None,
            _ => world.row,
        };
        (world.crashes < MAX_CRASHES).then_some(World {
            row,
            crashes: world.crashes + 1,
            ..world
        })
    }

    fn follow(&self, world: World, before: Option<Row>, outcome: &Outcome) -> World {
        let begun = world.row.expect("an attempt has a row");
        let known = course(Some(Row {
            was_ambiguous: before.is_some_and(|row| row.was_ambiguous),
            ..begun
        }));
        let read = match (self.variant, outcome) {
            (Variant::TimeOutOr5xxTakenAsANo, Outcome::Ambiguous { reason }) => Outcome::NotSent {
                reason: reason.clone(),
            },
            (Variant::TimeOutOr5xxTakenAsANo, Outcome::Answered { status: 503, .. }) => answer(429),
            _ => outcome.clone(),
        };
        let ignores_window = matches!(
            self.variant,
            Variant::WindowIgnored | Variant::AmbiguousResentWithoutAWindow
        );
        let next = known.after(&read, &self.rules, instant(world.now), DELAY);
        match next {
            Move::Accepted => ended(world, State::Delivered),
            Move::Rejected => ended(world, State::Rejected),
            Move::Failed => ended(world, State::Failed),
            Move::Parked if ignores_window => with(world, State::Ambiguous, true),
            Move::Parked => ended(world, State::Parked),
            Move::Again {
                may_have_arrived, ..
            }
            | Move::Stop {
                may_have_arrived, ..
            } => {
                let is_no = matches!(
                    read,
                    Outcome::NotSent { .. } | Outcome::Answered { status: 429, .. }
                );
                let cleared = self.variant == Variant::LaterNoClearsAnAmbiguity && is_no;
                match may_have_arrived && !cleared {
                    true => with(world, State::Ambiguous, true),
                    false => with(world, State::Waiting, false),
                }
            }
        }
    }
}

/// The request travels, takes its time, and may take effect on the way.
fn on_the_wire(world: World, wire: Wire, takes: i64) -> (World, Outcome) {
    let arrives = matches!(wire, Wire::TakenAndAnswered(_) | Wire::TakenAndLost);
    let mut after = World {
        now: world.now + takes,
        ..world
    };
    if arrives {
        let remembered = after.taken_at.is_some_and(|at| after.now - at < WINDOW);
        if !remembered {
            after.effects += 1;
            after.taken_at = Some(after.now);
        }
    }
    let lost = Outcome::Ambiguous {
        reason: "no answer".to_owned(),
    };
    let outcome = match wire {
        Wire::NoConnection => Outcome::NotSent {
            reason: "no connection".to_owned(),
        },
        Wire::Answered(status) | Wire::TakenAndAnswered(status) => answer(status),
        Wire::TakenAndLost | Wire::LostOnTheWay => lost,
    };
    (after, outcome)
}

fn answer(status: u16) -> Outcome {
    Outcome::Answered {
        status,
        retry_after: None,
        rejections: Rejections::None,
    }
}

fn course(row: Option<Row>) -> Course {
    Course {
        first_sending_at: row.map(|row| instant(row.first_at)),
        was_ambiguous: row.is_some_and(|row| row.was_ambiguous),
        ..Course::default()
    }
}

fn instant(seconds: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(1_000_000 + seconds)
}

fn with(world: World, state: State, was_ambiguous: bool) -> World {
    let row = world.row.map(|row| Row {
        state,
        was_ambiguous,
        ..row
    });
    World { row, ..world }
}

fn ended(world: World, state: State) -> World {
    let was_ambiguous = world.row.is_some_and(|row| row.was_ambiguous);
    with(world, state, was_ambiguous)
}

#[test]
fn no_life_of_a_batch_contacts_twice_or_lies_about_it() {
    let model = Model::new(Variant::Sound).explore().unwrap();
    assert!(model.seen.len() > 1_000, "{} worlds", model.seen.len());
    let every_end = [
        State::Delivered,
        State::Rejected,
        State::Failed,
        State::Parked,
    ];
    assert!(every_end.iter().all(|end| model.ends.contains(end)));
}

#[track_caller]
fn is_caught(variant: Variant) {
    assert!(
        Model::new(variant).explore().is_err(),
        "{variant:?} goes unnoticed"
    );
}

#[test]
fn a_send_before_its_intent_is_durable_is_caught() {
    is_caught(Variant::NoFsyncBeforeTheSend);
}

#[test]
fn a_lost_ledger_read_as_not_started_is_caught() {
    is_caught(Variant::LostLedgerReadAsNotStarted);
}

#[test]
fn an_ambiguous_batch_resent_without_a_window_is_caught() {
    is_caught(Variant::AmbiguousResentWithoutAWindow);
}

#[test]
fn a_time_out_or_a_5xx_taken_as_a_no_is_caught() {
    is_caught(Variant::TimeOutOr5xxTakenAsANo);
}

#[test]
fn a_window_that_is_ignored_is_caught() {
    is_caught(Variant::WindowIgnored);
}

#[test]
fn a_window_that_is_checked_too_early_is_caught() {
    is_caught(Variant::WindowCheckedTooEarly);
}

#[test]
fn a_batch_settled_before_it_is_sent_is_caught() {
    is_caught(Variant::SettledBeforeSent);
}

#[test]
fn a_later_no_that_clears_an_ambiguity_is_caught() {
    is_caught(Variant::LaterNoClearsAnAmbiguity);
}

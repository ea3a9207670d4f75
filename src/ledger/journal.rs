//! The quick way for what nearly every batch does: its first attempt, and that
//! it was accepted. A group of these is one small row, durable like any other
//! write; the rows of `batches` are made of many at once, before anything else
//! looks at them or changes them.
//!
//! The process that writes a SQLite ledger is alone (`lock`), so what a first
//! attempt must find can be known without asking: which batches of the run
//! have one, and under which term it is.

use super::bundle;
use super::command::Command;
use super::rows::{micros, micros_of, to_json};
use super::write_batch;
use super::writer::{Answer, refuse};
use crate::id::RunId;
use crate::run::{AttemptBegun, BatchChange, BatchState, BatchStatus};
use sqlx::SqliteConnection;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Entries before rows are made of them: so few that nothing waits for long
/// meanwhile, some tens of milliseconds.
const MAX_ENTRIES: usize = 2_048;

const WRITE: &str = "/* journal */ \
    insert into journal (run_id, begun, accepted) values (?1, ?2, ?3)";

// Those that were made rows of while their request was on its way. Not an
// `update … from`: that goes through all batches of the run, each time.
const FOLD_ACCEPTED: &str = "/* fold accepted */ \
    insert into batches (run_id, batch, part, generation, state, attempts, members, body_hash, \
    first_sending_at, ended_at, http_status, excused) \
    select b.run_id, b.batch, b.part, b.generation, b.state, b.attempts, b.members, b.body_hash, \
    b.first_sending_at, a.ended_at, a.http_status, a.excused \
    from journal_accepted a cross join batches b on b.run_id = a.run_id and b.batch = a.batch \
    and b.part = '' and b.state = 'sending' and b.attempts = 1 where true \
    on conflict (run_id, batch, part) do update set state = 'accepted', status = 'delivered', \
    http_status = coalesce(excluded.http_status, http_status), next_at = null, \
    ended_at = excluded.ended_at, error = null, settled = 0, \
    excused = max(excused, excluded.excused), rejected = null";

const FOLD_BEGUN: &str = "/* fold begun */ \
    insert into batches (run_id, batch, part, generation, state, status, attempts, members, \
    body_hash, first_sending_at, ended_at, http_status, excused) \
    select g.run_id, g.batch, '', g.generation, \
    case when a.batch is null then 'sending' else 'accepted' end, \
    case when a.batch is null then null else 'delivered' end, \
    1, g.members, unhex(g.body_hash), g.first_sending_at, a.ended_at, a.http_status, \
    coalesce(a.excused, 0) from journal_begun g \
    left join journal_accepted a on a.run_id = g.run_id and a.batch = g.batch";

const EMPTY: &str = "/* empty journal */ delete from journal";

const TERM: &str = "/* term */ select term from runs where run_id = ?1";

const WHOLE: &str = "/* whole batches */ \
    select batch from batches where run_id = ?1 and part = ''";

/// How many entries may wait for their rows, as of the last commit: shared with
/// who reads.
#[derive(Debug, Clone)]
pub(super) struct Waiting(Arc<AtomicUsize>);

impl Default for Waiting {
    /// What an earlier process has left is not counted: one, to be safe.
    fn default() -> Self {
        Self(Arc::new(AtomicUsize::new(1)))
    }
}

impl Waiting {
    /// Whether there may be any.
    pub(super) fn any(&self) -> bool {
        self.0.load(Ordering::Acquire) > 0
    }
}

/// The writer's knowledge of the runs it writes quickly.
pub(super) struct Journal {
    runs: HashMap<RunId, Known>,
    /// Entries that wait for their rows, with what is not committed yet.
    entries: usize,
    waiting: Waiting,
}

/// What is known of a run.
struct Known {
    /// Its term; none where the ledger has no such run.
    term: Option<i32>,
    /// The whole batches that have a first attempt.
    begun: Numbers,
    /// Those of them whose first attempt was written here, with no outcome yet:
    /// no more than requests in flight and ready.
    sending: HashSet<u32>,
}

impl Known {
    fn is_under(&self, term: i32) -> bool {
        self.term.is_none_or(|own| own == term)
    }
}

/// Numbers of batches, a bit each.
#[derive(Default)]
struct Numbers(Vec<u64>);

impl Numbers {
    fn contains(&self, number: u32) -> bool {
        let (word, bit) = place(number);
        self.0.get(word).is_some_and(|word| word & bit != 0)
    }

    fn insert(&mut self, number: u32) {
        let (word, bit) = place(number);
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= bit;
    }

    fn remove(&mut self, number: u32) {
        let (word, bit) = place(number);
        if let Some(word) = self.0.get_mut(word) {
            *word &= !bit;
        }
    }
}

fn place(number: u32) -> (usize, u64) {
    (number as usize / 64, 1 << (number % 64))
}

/// What a group adds to the journal of one run.
#[derive(Default)]
struct Entries {
    begun: Vec<(u32, u32, u32, String, i64)>,
    accepted: Vec<(u32, Option<u16>, i64, i64)>,
}

impl Journal {
    /// Knows nothing yet.
    pub(super) fn new(waiting: Waiting) -> Self {
        Self {
            runs: HashMap::new(),
            entries: 1,
            waiting,
        }
    }

    /// What was written last is there for who reads.
    pub(super) fn committed(&self) {
        self.waiting.0.store(self.entries, Ordering::Release);
    }

    /// Forgets everything: what was written last may not have been.
    pub(super) fn doubt(&mut self) {
        self.runs.clear();
        self.entries = self.entries.max(1);
        self.committed();
    }

    /// Writes first attempts of different batches.
    pub(super) async fn begin(
        &mut self,
        db: &mut SqliteConnection,
        attempts: Vec<(usize, &AttemptBegun)>,
        answers: &mut [Answer],
    ) -> Result<(), sqlx::Error> {
        let mut entries: HashMap<&RunId, Entries> = HashMap::new();
        let mut slow = Vec::new();
        for (place, begun) in attempts {
            let known = self.known(db, &begun.run).await?;
            let number = begun.path.batch;
            if !begun.path.part.is_empty() || begun.places.is_some() {
                slow.push((place, begun));
            } else if known.is_under(begun.term) && !known.begun.contains(number) {
                known.begun.insert(number);
                known.sending.insert(number);
                let hash = hex::encode(begun.body_hash);
                let at = micros(begun.at);
                let row = (number, begun.generation, begun.members, hash, at);
                entries.entry(&begun.run).or_default().begun.push(row);
            } else {
                answers[place] = Err(bundle::not_begun(begun));
            }
        }
        if !slow.is_empty() {
            let all: Vec<_> = slow.iter().map(|(_, begun)| *begun).collect();
            let done = write_batch::begin_first(db, &all).await?;
            refuse(answers, slow, |begun| bundle::begun(begun, &done));
        }
        self.write(db, entries).await
    }

    /// Moves different batches.
    pub(super) async fn change(
        &mut self,
        db: &mut SqliteConnection,
        changes: Vec<(usize, &BatchChange)>,
        answers: &mut [Answer],
    ) -> Result<(), sqlx::Error> {
        let mut entries: HashMap<&RunId, Entries> = HashMap::new();
        let mut slow = Vec::new();
        for (place, change) in changes {
            let number = change.path.batch;
            let known = self.runs.get_mut(&change.run).filter(|known| {
                is_usual(change) && known.is_under(change.term) && known.sending.contains(&number)
            });
            let Some(known) = known else {
                slow.push((place, change));
                continue;
            };
            known.sending.remove(&number);
            let ended_at = micros(change.at);
            let row = (
                number,
                change.http_status,
                ended_at,
                micros_of(change.excused),
            );
            entries.entry(&change.run).or_default().accepted.push(row);
        }
        if !slow.is_empty() {
            self.fold(db).await?;
            let all: Vec<_> = slow.iter().map(|(_, change)| *change).collect();
            let done = write_batch::change(db, &all).await?;
            refuse(answers, slow, |change| {
                bundle::changed(change, &done)?;
                self.left(&change.run, change.path.batch, &change.path.part);
                Ok(())
            });
        }
        self.write(db, entries).await
    }

    /// Does what `command`, which is written in its own way, asks for before.
    pub(super) async fn make_way(
        &mut self,
        db: &mut SqliteConnection,
        command: &Command,
    ) -> Result<(), sqlx::Error> {
        match command {
            Command::Claim(_) | Command::ClaimManual { .. } => {
                self.runs.retain(|_, known| known.term.is_some());
            }
            // Whether anything was sent of a run that is not open is read
            // from its rows alone.
            Command::ChangeRun(change) if !change.to.is_open() => {
                self.fold(db).await?;
                self.runs.remove(&change.run);
            }
            Command::TakeLease { run, .. } => {
                self.runs.remove(run);
            }
            Command::ChangeRun(_)
            | Command::SetPause(_)
            | Command::Note(_)
            | Command::Cancel { .. }
            | Command::SetAlarm { .. }
            | Command::Accept(_)
            | Command::RenewLease { .. }
            | Command::ReleaseLease { .. } => {}
            Command::BeginAttempt(_)
            | Command::ChangeBatch(_)
            | Command::TakeBack(_)
            | Command::MarkSettled { .. }
            | Command::Fold => self.fold(db).await?,
            Command::Adopt(_)
            | Command::Forget(_)
            | Command::Reopen(_)
            | Command::ApplyReopening { .. }
            | Command::Resolve { .. } => {
                self.fold(db).await?;
                self.runs.clear();
            }
        }
        Ok(())
    }

    /// Notes what `command`, which is done, has taken away.
    pub(super) fn done(&mut self, command: &Command) {
        if let Command::TakeBack(change) = command {
            self.left(&change.run, change.path.batch, &change.path.part);
            if let Some(known) = self.runs.get_mut(&change.run)
                && change.path.part.is_empty()
            {
                known.begun.remove(change.path.batch);
            }
        }
    }

    /// Makes rows of the entries where they have become many.
    pub(super) async fn tidy(&mut self, db: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        if self.entries > MAX_ENTRIES {
            self.fold(db).await?;
        }
        Ok(())
    }

    /// Makes rows of all entries.
    async fn fold(&mut self, db: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        if self.entries > 0 {
            for sql in [FOLD_ACCEPTED, FOLD_BEGUN, EMPTY] {
                sqlx::query(sql).execute(&mut *db).await?;
            }
            self.entries = 0;
        }
        Ok(())
    }

    /// The batch is written in another way from now on.
    fn left(&mut self, run: &RunId, batch: u32, part: &str) {
        if let Some(known) = self.runs.get_mut(run)
            && part.is_empty()
        {
            known.sending.remove(&batch);
        }
    }

    async fn known(
        &mut self,
        db: &mut SqliteConnection,
        run: &RunId,
    ) -> Result<&mut Known, sqlx::Error> {
        if !self.runs.contains_key(run) {
            self.fold(db).await?;
            let term = sqlx::query_scalar(TERM).bind(run.as_str());
            let term = term.fetch_optional(&mut *db).await?;
            let whole = sqlx::query_scalar(WHOLE).bind(run.as_str());
            let mut begun = Numbers::default();
            for number in whole.fetch_all(&mut *db).await? {
                begun.insert(number);
            }
            let known = Known {
                term,
                begun,
                sending: HashSet::new(),
            };
            self.runs.insert(run.clone(), known);
        }
        Ok(self.runs.get_mut(run).expect("it has just been put there"))
    }

    async fn write(
        &mut self,
        db: &mut SqliteConnection,
        entries: HashMap<&RunId, Entries>,
    ) -> Result<(), sqlx::Error> {
        for (run, Entries { begun, accepted }) in entries {
            self.entries += begun.len() + accepted.len();
            sqlx::query(WRITE)
                .bind(run.as_str())
                .bind(to_json(&begun))
                .bind(to_json(&accepted))
                .execute(&mut *db)
                .await?;
        }
        Ok(())
    }
}

/// Whether it is what nearly every batch does.
fn is_usual(change: &BatchChange) -> bool {
    change.path.part.is_empty()
        && change.attempt == 1
        && change.from == BatchState::Sending
        && change.to == BatchState::Accepted
        && change.status == Some(BatchStatus::Delivered)
        && change.error.is_none()
        && change.refused.is_empty()
}

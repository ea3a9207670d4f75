//! One run, carried from its fire time to its contact history: its states,
//! the ports through which it reaches the world, and the engine between them.

mod actions;
mod adoption;
mod alive;
mod ask;
mod behind;
mod canary;
mod cancel;
mod carrier;
mod clock;
mod consent;
mod deliver;
mod expected;
mod expiry;
mod fresh;
mod guards;
mod known;
mod lanes;
mod lease;
mod memory;
mod pages;
mod parcel;
mod pauses;
mod permits;
mod place;
mod ports;
mod progress;
mod records;
mod rejected;
mod reopen;
mod rest;
mod restored;
mod retry;
mod send;
mod settler;
mod state;
mod strain;
mod throttle;
mod turns;
mod waits;

pub use actions::{Action, Forget};
pub use adoption::adopt_silent;
pub use canary::reason_of_resumed;
pub use carrier::{Carrier, Kit, RunError};
pub use clock::{Clock, SystemClock};
pub use guards::Guards;
pub use lease::{DEFAULT_LEASE, Lease, MARGIN};
pub use memory::Memory;
pub use pauses::{PauseChange, PauseScope, Paused, Pauses};
pub use permits::Limit;
pub use place::Place;
pub use ports::{
    Destination, GONE, Ledger, LedgerError, NOT_OURS, Registration, Request, Warehouse,
    WarehouseError, WarehouseErrorClass, gone,
};
pub use progress::{Progress, Reporter};
pub use records::{
    Adopted, AttemptBegun, BatchChange, BatchRecord, Claim, Cursor, HeldRun, Installation, NewRun,
    Reopen, Reopening, Resolution, RunChange, RunRecord,
};
pub use rest::PAUSED_BY;
pub use settler::Settler;
pub use state::{BatchState, IllegalTransition, RunEvent, RunState};
pub use throttle::{Pass, Throttle, ThrottleOptions};
pub use turns::{Turn, Turns};

// What the ports speak of, for the adapters, which may not name the rooms
// these live in.
pub use crate::audience::Funnel;
pub use crate::delivery::{Kind, Outcome, Page};
pub use crate::history::{BatchStatus, Tally};

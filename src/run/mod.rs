//! One run, carried from its fire time to its contact history: its states,
//! the ports through which it reaches the world, and the engine between them.

mod clock;
mod ports;
mod records;
mod state;

pub use clock::{Clock, SystemClock};
pub use ports::{
    Destination, Ledger, LedgerError, Registration, Request, Warehouse, WarehouseError,
    WarehouseErrorClass,
};
pub use records::{
    AttemptBegun, BatchChange, BatchRecord, Claim, Cursor, Installation, NewRun, RunChange,
    RunRecord,
};
pub use state::{BatchState, IllegalTransition, RunEvent, RunState};

// What the ports speak of, for the adapters, which may not name the rooms
// these live in.
pub use crate::audience::Funnel;
pub use crate::delivery::{Kind, Outcome, Page};
pub use crate::history::{BatchStatus, Tally};

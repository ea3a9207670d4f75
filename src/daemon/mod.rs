//! The process: settings and campaigns read, adapters picked, schedules
//! watched, runs carried, everything stopped again.

mod ahead;
mod counter;
mod desk;
mod expired;
mod files;
pub mod folder;
mod freshness;
mod gone;
pub mod log;
mod look;
mod manual;
mod plan;
mod reload;
mod reopen;
mod runs;
mod serve;
pub mod settings;
mod silent;
pub mod source;
mod ticker;
mod turn;
mod upkeep;
mod wake;
mod world;

pub use desk::Desk;
pub use files::{FilesView, InForce, invalid};
pub use freshness::{Freshness, Verdict};
pub use manual::{OpenRun, Wish};
pub use plan::{Asked, CountView, FireTime, PlanView, refused};
pub use reload::{Operator, Reloaded, Why, fixed_keys};
pub use serve::{ServeError, Service, serve};
pub use world::{AssemblyError, Undefined, World};

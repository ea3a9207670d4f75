//! How a person reaches the running daemon: the control socket.

mod control;
mod message;
mod user;

pub use control::{ControlError, Handler, ask, serve};
pub use message::{Erasing, PlanWish, Reply, Request, Seen};
pub use user::{own_name, user_name};

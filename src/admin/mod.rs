//! How a person reaches the running daemon: the control socket.

mod control;
mod message;

pub use control::{ControlError, Handler, ask, serve};
pub use message::{Reply, Request};

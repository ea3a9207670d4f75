//! The warehouses behind the port: sqlx, and the SQL of `audience` and
//! `history` run in the order the design gives.

mod options;
pub mod sample;

pub use options::{ConnectorOptions, ServerOptions, Tls};

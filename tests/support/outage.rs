//! A server that goes away in the middle, and comes back.

use super::postgres::{Postgres, account, end, launch};

impl Postgres {
    /// Stops the server as a crash would: sessions are cut, and what was not
    /// committed is gone.
    pub fn crash(&self) {
        // SIGQUIT: an immediate shutdown.
        end(&mut self.server.lock().unwrap(), "-QUIT");
    }

    /// Starts it again, where it was and with what it had.
    pub fn start_again(&self) {
        let (folder, account) = (self.folder.path(), account());
        let started = launch(&self.programs, folder, self.port, account.as_ref());
        *self.server.lock().unwrap() = started.expect("the server starts again");
    }
}

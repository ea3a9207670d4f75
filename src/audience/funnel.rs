//! The counts from the audience down to the members planned for contact.

use serde::{Deserialize, Serialize};

/// How many members fell out where. The rule that holds at every commit:
/// `audience` is the sum of all the other fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Funnel {
    /// Rows the campaign's query returned.
    pub audience: u64,
    /// Rows whose key is NULL.
    pub no_key: u64,
    /// Rows whose key is over 256 bytes.
    pub bad_key: u64,
    /// Rows that repeat the key of the row that was kept.
    pub duplicate: u64,
    /// Members on a suppression list.
    pub suppressed: u64,
    /// Members a frequency cap withholds.
    pub capped: u64,
    /// Members this campaign has contacted too recently.
    pub cooling_down: u64,
    /// Members withheld to measure the effect.
    pub held_out: u64,
    /// Members beyond the run's limit.
    pub over_limit: u64,
    /// Members to be contacted.
    pub planned: u64,
}

impl Funnel {
    /// Adds `rows` frozen under the status `status`. A status that is none of
    /// ours is the caller's mistake, and given back.
    pub fn count<'a>(&mut self, status: &'a str, rows: u64) -> Result<(), &'a str> {
        let field = match status {
            "no_key" => &mut self.no_key,
            "bad_key" => &mut self.bad_key,
            "duplicate" => &mut self.duplicate,
            "suppressed" => &mut self.suppressed,
            "held_out" => &mut self.held_out,
            "capped" => &mut self.capped,
            "cooling_down" => &mut self.cooling_down,
            "over_limit" => &mut self.over_limit,
            "ok" | "planned" => &mut self.planned,
            other => return Err(other),
        };
        *field += rows;
        self.audience += rows;
        Ok(())
    }

    /// The same without the planned members, who are to be counted anew.
    #[must_use]
    pub fn before_admission(self) -> Self {
        Self {
            audience: self.audience - self.planned,
            planned: 0,
            ..self
        }
    }

    /// Whether every row of the audience is accounted for exactly once.
    pub fn adds_up(&self) -> bool {
        self.audience
            == self.no_key + self.bad_key + self.duplicate + self.withheld() + self.planned
    }

    /// Members with a key who are not contacted, for whatever reason.
    pub fn withheld(&self) -> u64 {
        self.suppressed + self.capped + self.cooling_down + self.held_out + self.over_limit
    }
}

//! Members who are erased: their keys as a person lists them, and the
//! statements that find and remove what is kept under these keys.

use super::cells::Cells;
use super::tidy::PREFIXES;
use super::{Unwritable, carried};
use crate::audience::{Schema, Statement};
use std::collections::BTreeSet;
use std::fmt;

const STEP: &str = "erase";
const WHAT: &str = "members";

/// The longest key there can be, in bytes: a longer one is never planned.
const MAX_KEY: usize = 256;

/// The most keys that are taken at a time: what is held in memory.
const MAX_KEYS: usize = 1_000_000;

/// The most bytes a list of keys can have: each key at its longest, and the
/// end of its line.
pub const MAX_LIST: u64 = (MAX_KEYS * (MAX_KEY + 2)) as u64;

/// The keys of the members to be erased, each once and in order.
#[derive(Clone, PartialEq, Eq)]
pub struct ErasedKeys(Vec<String>);

/// Only how many: a key is never to be logged.
impl fmt::Debug for ErasedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} keys", self.0.len())
    }
}

/// Why a list of keys is not taken; names a line, never a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadKeys {
    /// There is nothing in it.
    #[error("there is no key in it; write one key a line")]
    None,
    /// There is too much in it.
    #[error("there are more than {MAX_KEYS} keys in it; split it and erase in several goes")]
    TooMany,
    /// A line is not text.
    #[error("line {0} is not UTF-8 text; write one key a line")]
    NotText(usize),
    /// A line holds NUL.
    #[error("line {0} holds a NUL, which no key can; write one key a line")]
    Nul(usize),
    /// A line is longer than any key.
    #[error("line {0} is longer than {MAX_KEY} bytes, which no key is; write one key a line")]
    TooLong(usize),
}

impl ErasedKeys {
    /// The keys of `list`, one a line. Blanks at the end of a line count for
    /// nothing, as in the warehouse, and neither do empty lines.
    pub fn parse(list: &[u8]) -> Result<Self, BadKeys> {
        let mut keys = BTreeSet::new();
        for (n, line) in list.split(|byte| *byte == b'\n').enumerate() {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let key = std::str::from_utf8(line).map_err(|_| BadKeys::NotText(n + 1))?;
            let key = key.trim_end_matches(' ');
            if key.contains('\0') {
                return Err(BadKeys::Nul(n + 1));
            }
            if key.len() > MAX_KEY {
                return Err(BadKeys::TooLong(n + 1));
            }
            if !key.is_empty() {
                keys.insert(key.to_owned());
            }
            if keys.len() > MAX_KEYS {
                return Err(BadKeys::TooMany);
            }
        }
        match keys.is_empty() {
            true => Err(BadKeys::None),
            false => Ok(Self(keys.into_iter().collect())),
        }
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.len() as u64
    }
}

/// The temporary table of the keys, with the keys in it, as many an `insert`
/// as members are carried by one.
pub fn load(schema: &Schema, keys: &ErasedKeys) -> Result<Vec<Statement>, Unwritable> {
    let create = "create temp table cd_erased (cd_key varchar(256))";
    let mut script = vec![Statement::new(STEP, WHAT, create)];
    let at_once = usize::try_from(carried::MEMBERS_AT_ONCE).unwrap_or(usize::MAX);
    for some in keys.0.chunks(at_once) {
        let row = |key: &String| Cells::new(schema.dialect).text(key).row();
        let rows = some.iter().map(row).collect::<Result<Vec<_>, _>>()?;
        let sql = format!("insert into cd_erased values ({})", rows.join("), ("));
        script.push(Statement::new(STEP, WHAT, &sql));
    }
    Ok(script)
}

/// Drops the temporary table.
pub fn unload() -> Statement {
    Statement::new(STEP, WHAT, "drop table cd_erased")
}

/// Every run that is open, one id a row. None comes to it while `cap_lock` is
/// held.
pub fn open_runs(schema: &Schema) -> Statement {
    let sql = format!(
        "select run_id from {} order by run_id",
        schema.table("open_runs")
    );
    Statement::new(STEP, WHAT, &sql)
}

/// Whether a table of our schema is called as one of a run is: a prefix and 16
/// hexadecimal digits.
pub fn is_of_a_run(table: &str) -> bool {
    let digits = PREFIXES.iter().find_map(|p| table.strip_prefix(p));
    digits.is_some_and(|digits| {
        digits.len() == 16
            && digits
                .bytes()
                .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// How many members of a run's `table` are among the keys: one number.
pub fn count_in_table(schema: &Schema, table: &str) -> Statement {
    count(&schema.table(table), "cd_key")
}

/// How many rows of history are of the keys: one number.
pub fn count_in_history(schema: &Schema) -> Statement {
    count(&schema.table("contact_history"), "profile_id")
}

fn count(table: &str, key: &str) -> Statement {
    let sql = format!("select count(*) from {table} where {key} in (select cd_key from cd_erased)");
    Statement::new(STEP, WHAT, &sql)
}

/// Removes the rows of history that are of the keys.
pub fn erase_history(schema: &Schema) -> Statement {
    let sql = format!(
        "delete from {} where profile_id in (select cd_key from cd_erased)",
        schema.table("contact_history")
    );
    Statement::new(STEP, WHAT, &sql)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_one_a_line_each_once_and_without_blanks_behind_them() {
        let keys = ErasedKeys::parse(b"p-2  \r\n\n p-1\np-2\n   \n").unwrap();
        assert_eq!(keys.0, [" p-1", "p-2"]);
        assert_eq!(format!("{keys:?}"), "2 keys");
    }

    #[test]
    fn a_bad_list_is_refused_by_its_line_and_never_by_its_key() {
        let long = format!("p-1\n{}", "x".repeat(257));
        for (list, wanted) in [
            (b"\n  \n".as_slice(), BadKeys::None),
            (b"p-1\n\xff\n", BadKeys::NotText(2)),
            (b"p-1\np\0\n", BadKeys::Nul(2)),
            (long.as_bytes(), BadKeys::TooLong(2)),
        ] {
            assert_eq!(ErasedKeys::parse(list), Err(wanted));
        }
    }

    #[test]
    fn only_names_with_a_hash_behind_the_prefix_are_tables_of_runs() {
        for (name, wanted) in [
            ("run_0123456789abcdef", true),
            ("stage_0123456789abcdef", true),
            ("admit_0123456789abcdef", true),
            ("run_of_the_mill", false),
            ("run_0123456789ABCDEF", false),
            ("contact_history", false),
        ] {
            assert_eq!(is_of_a_run(name), wanted, "{name}");
        }
    }
}

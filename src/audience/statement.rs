//! A statement ready to be run, and where the daemon's tables are.

use super::Dialect;
use super::quote::identifier;
use std::ops::Range;

/// One SQL statement. It begins with a comment that names it, so that the
/// warehouse's own log says what it is part of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// The text, one message.
    pub sql: String,
    /// Where in it the campaign's own SQL stands, in characters, if it is
    /// there: a place the warehouse reports is counted from its start.
    pub campaign_sql: Option<Range<usize>>,
}

impl Statement {
    /// A statement of the step `step` for `what`: a run id, or what stands
    /// for it. Neither may hold the end of a comment.
    pub fn new(step: &str, what: &str, sql: &str) -> Self {
        Self {
            sql: format!("/* campaignd {step} {what} */ {sql}"),
            campaign_sql: None,
        }
    }

    /// The campaign's own SQL, if it is there.
    pub fn campaign_text(&self) -> Option<String> {
        let range = self.campaign_sql.clone()?;
        let characters = self.sql.chars().skip(range.start).take(range.len());
        Some(characters.collect())
    }

    /// The line and column, from 1, in the campaign's own SQL of the
    /// character at `position` of the statement, from 0. What lies behind
    /// the campaign's SQL is its end.
    pub fn campaign_place(&self, position: usize) -> Option<(usize, usize)> {
        let range = self.campaign_sql.clone()?;
        let within = position.min(range.end).checked_sub(range.start)?;
        let before: String = self.campaign_text()?.chars().take(within).collect();
        let line = before.matches('\n').count() + 1;
        let last = before.rsplit('\n').next().unwrap_or("");
        Some((line, last.chars().count() + 1))
    }

    /// The same, around the campaign's own SQL, which stands on lines of its
    /// own: a comment at its end cannot swallow what follows.
    pub(super) fn around(step: &str, what: &str, parts: [&str; 3]) -> Self {
        let [before, campaign_sql, after] = parts;
        let before = format!("/* campaignd {step} {what} */ {before}\n");
        let start = before.chars().count();
        Self {
            campaign_sql: Some(start..start + campaign_sql.chars().count()),
            sql: format!("{before}{campaign_sql}\n{after}"),
        }
    }
}

/// Which of the two lock tables a transaction begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lock {
    /// Registering, admitting, closing.
    Cap,
    /// Settling.
    Settle,
}

/// Where the daemon's own tables are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema {
    /// The database its statements are written for.
    pub dialect: Dialect,
    /// The schema's name; SQLite has none.
    pub name: String,
}

impl Schema {
    /// `table` as statements name it.
    pub fn table(&self, table: &str) -> String {
        match self.dialect {
            Dialect::Sqlite => identifier(table),
            Dialect::Postgres | Dialect::Redshift => {
                format!("{}.{}", identifier(&self.name), identifier(table))
            }
        }
    }

    /// Begins a transaction. The lock is its first statement, so that what it
    /// reads afterwards is what the transaction before it has left. SQLite
    /// takes the whole file.
    pub fn begin(&self, what: &str, lock: Option<Lock>) -> Vec<Statement> {
        let begin = match self.dialect {
            Dialect::Sqlite => return vec![Statement::new("begin", what, "begin immediate")],
            Dialect::Postgres | Dialect::Redshift => Statement::new("begin", what, "begin"),
        };
        let (table, lock_is_settle) = match lock {
            None => return vec![begin],
            Some(Lock::Cap) => ("cap_lock", false),
            Some(Lock::Settle) => ("settle_lock", true),
        };
        let lock = format!("lock table {}", self.table(table));
        let mut script = vec![begin, Statement::new("lock", what, &lock)];
        if self.dialect == Dialect::Postgres && lock_is_settle {
            // The planner takes the outcomes that `deliveries` has for very
            // few, and would look at each of them for each that is new.
            let join = "set local enable_nestloop = off";
            script.push(Statement::new("plan", what, join));
        }
        script
    }

    /// Begins a transaction that cannot write; nothing where no query could.
    pub fn begin_reading(&self, what: &str) -> Option<Statement> {
        match self.dialect {
            Dialect::Sqlite => None,
            Dialect::Postgres | Dialect::Redshift => {
                Some(Statement::new("begin", what, "begin read only"))
            }
        }
    }

    /// Ends a transaction.
    pub fn commit(&self, what: &str) -> Statement {
        Statement::new("commit", what, "commit")
    }

    /// Which of `tables` exist: one name a row.
    pub fn existing(&self, what: &str, tables: &[&str]) -> Statement {
        let names = tables.iter().map(|name| format!("'{name}'"));
        let names = names.collect::<Vec<_>>().join(", ");
        let sql = match self.dialect {
            Dialect::Sqlite => {
                format!("select name from sqlite_master where type = 'table' and name in ({names})")
            }
            Dialect::Postgres | Dialect::Redshift => format!(
                "select c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace \
                 where n.nspname = {} and c.relkind = 'r' and c.relname in ({names})",
                self.name_literal()
            ),
        };
        Statement::new("look", what, &sql)
    }

    /// The columns of `table` in order, one a row: its name, and the type's
    /// number (PostgreSQL, Redshift) or declared name (SQLite).
    pub fn columns_of(&self, what: &str, table: &str) -> Statement {
        let sql = match self.dialect {
            Dialect::Sqlite => format!("select name, type from pragma_table_info('{table}')"),
            Dialect::Postgres | Dialect::Redshift => format!(
                "select a.attname, a.atttypid from pg_attribute a join pg_class c \
                 on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace \
                 where n.nspname = {} and c.relname = '{table}' \
                 and a.attnum > 0 and not a.attisdropped order by a.attnum",
                self.name_literal()
            ),
        };
        Statement::new("look", what, &sql)
    }

    /// The schema's name as a literal; NUL, which no schema's name can hold,
    /// is dropped.
    pub fn name_literal(&self) -> String {
        self.dialect
            .literal(&self.name.replace('\0', ""))
            .expect("a name without NUL is a literal")
    }

    /// Drops `table` if it is there.
    pub fn drop_table(&self, what: &str, table: &str) -> Statement {
        let sql = format!("drop table if exists {}", self.table(table));
        Statement::new("drop", what, &sql)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_in_a_statement_is_found_in_the_campaigns_own_sql() {
        let statement = Statement::around("probe", "r", ["select (", "sélect\n  frm", ") as q"]);
        assert_eq!(statement.campaign_text().unwrap(), "sélect\n  frm");
        let position = statement.sql.chars().count() - ") as q".len() - 4;
        assert_eq!(statement.campaign_place(position), Some((2, 3)));
        assert_eq!(statement.campaign_place(0), None);
        assert_eq!(statement.campaign_place(10_000), Some((2, 6)));
    }
}

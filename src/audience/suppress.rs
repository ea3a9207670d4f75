//! Members on a suppression list, found by equality joins on distinct keys.

use super::columns::Column;
use super::quote::identifier;
use super::stage::RunTables;
use super::{Dialect, Statement};

/// `value` as a member key.
pub(super) fn key_text(dialect: Dialect, value: &str) -> String {
    format!("rtrim({})", untrimmed(dialect, value))
}

/// The same with the blanks at its end.
pub(super) fn untrimmed(dialect: Dialect, value: &str) -> String {
    match dialect {
        // A cast to a width is a call for each row even where the value is
        // text already; Redshift's `text` would be one of 256 bytes.
        Dialect::Postgres | Dialect::Sqlite => format!("cast({value} as text)"),
        Dialect::Redshift => format!("cast({value} as varchar(65535))"),
    }
}

impl RunTables<'_> {
    /// The keys on the lists, each once, as `cd_key`.
    fn suppressed_keys(&self, key: &Column) -> String {
        let value = key_text(self.schema.dialect, &format!("q.{}", identifier(&key.name)));
        let lists = self
            .suppress
            .iter()
            .map(|relation| format!("select {value} as cd_key from {relation} q"));
        // `union` drops what is there twice, also within one list.
        let all = lists.collect::<Vec<_>>().join(" union ");
        format!("select distinct k.cd_key from ({all}) as k where k.cd_key is not null")
    }

    /// The join that tells which rows `x` are suppressed, and the arm of the
    /// `case` that says so; neither where there is no list.
    pub(super) fn suppression(&self, key: &Column) -> (String, &'static str) {
        if self.suppress.is_empty() {
            return (String::new(), "");
        }
        let join = format!(
            " left join ({}) as s on s.cd_key = x.cd_key",
            self.suppressed_keys(key)
        );
        (join, "when s.cd_key is not null then 'suppressed' ")
    }

    /// Withholds the members who are on a list by now, of the batches from
    /// `from` on, save those `except`.
    pub fn withhold(&self, key: &Column, from: u32, except: &[u32]) -> Statement {
        let except = match except {
            [] => String::new(),
            batches => {
                let batches: Vec<String> = batches.iter().map(u32::to_string).collect();
                format!(" and cd_batch not in ({})", batches.join(", "))
            }
        };
        let sql = format!(
            "update {} set cd_status = 'suppressed' where cd_seq is not null \
             and cd_status <> 'suppressed' and cd_batch >= {from}{except} and cd_key in ({})",
            self.schema.table(&self.names().run),
            self.suppressed_keys(key),
        );
        self.statement("withhold", &sql)
    }

    /// The places of the members withheld since they were numbered, in order.
    pub fn withheld(&self) -> Statement {
        let sql = format!(
            "select cd_seq from {} where cd_status = 'suppressed' and cd_seq is not null \
             order by cd_seq",
            self.schema.table(&self.names().run)
        );
        self.statement("look", &sql)
    }

    /// The last place.
    pub fn places(&self) -> Statement {
        let sql = format!(
            "select max(cd_seq) from {}",
            self.schema.table(&self.names().run)
        );
        self.statement("look", &sql)
    }
}

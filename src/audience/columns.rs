//! What the campaign's query returns, and whether it can be staged.

use super::Dialect;
use super::quote::identifier;

/// The most columns a query may return: Redshift tables hold 1,600, of which
/// ten are kept for ours.
pub const MAX_COLUMNS: usize = 1_590;

/// What our own columns begin with.
pub(super) const OURS: &str = "cd_";

/// The type numbers that PostgreSQL and Redshift order without help: bool,
/// "char", name, int8, int2, int4, text, oid, float4, float8, bpchar, varchar,
/// date, time, timestamp, timestamptz, timetz, numeric, uuid.
const ORDERED: &[u32] = &[
    16, 18, 19, 20, 21, 23, 25, 26, 700, 701, 1042, 1043, 1082, 1083, 1114, 1184, 1266, 1700, 2950,
];

/// One column of the campaign's query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name, as the warehouse has it.
    pub name: String,
    /// The type's number (PostgreSQL, Redshift) or declared name (SQLite).
    pub type_name: String,
}

impl Column {
    /// Whether it is one of ours.
    pub fn is_ours(&self) -> bool {
        self.name.to_ascii_lowercase().starts_with(OURS)
    }

    /// The type's number, where types have numbers.
    pub fn type_number(&self) -> Option<u32> {
        self.type_name.parse().ok()
    }

    /// The expression that rows are ordered by, if this column can be. `row`
    /// is the alias of the row it is in.
    pub(super) fn order_term(&self, dialect: Dialect, row: &str) -> Option<String> {
        let column = format!("{row}.{}", identifier(&self.name));
        let is_ordered = self.type_number().is_some_and(|n| ORDERED.contains(&n));
        match dialect {
            Dialect::Sqlite => Some(column),
            Dialect::Postgres | Dialect::Redshift if is_ordered => Some(column),
            Dialect::Postgres => Some(format!("cast({column} as text)")),
            Dialect::Redshift => None,
        }
    }

    /// The column as SQLite declares it in our tables: under the type it has
    /// in the table it comes from, so that `boolean` stays `boolean`.
    pub(super) fn declaration(&self) -> String {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || " _(),".contains(c);
        let declared: String = self.type_name.chars().filter(|&c| is_plain(c)).collect();
        format!("{} {declared}", identifier(&self.name))
    }
}

/// Columns that cannot be staged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadColumns {
    /// The key is not among them.
    #[error("the query does not return the key column `{key}`; it returns {returned}")]
    NoKey {
        /// The key the campaign names.
        key: String,
        /// What there is.
        returned: String,
    },
    /// A name that is kept for us.
    #[error(
        "the column `{name}` begins with `cd_`, which is kept for campaignd; give it another name with `as`"
    )]
    Reserved {
        /// The column.
        name: String,
    },
    /// Two columns under one name.
    #[error(
        "the query returns two columns named `{name}`; give one of them another name with `as`"
    )]
    Duplicate {
        /// The name.
        name: String,
    },
    /// More than a table holds.
    #[error("the query returns {count} columns; at most {MAX_COLUMNS} can be staged; select fewer")]
    TooMany {
        /// How many.
        count: usize,
    },
}

/// Finds the key among `columns`, or says why they cannot be staged.
pub fn check_columns<'a>(columns: &'a [Column], key: &str) -> Result<&'a Column, BadColumns> {
    if columns.len() > MAX_COLUMNS {
        let count = columns.len();
        return Err(BadColumns::TooMany { count });
    }
    if let Some(column) = columns.iter().find(|column| column.is_ours()) {
        let name = column.name.clone();
        return Err(BadColumns::Reserved { name });
    }
    if let Some(name) = duplicate(columns) {
        return Err(BadColumns::Duplicate { name });
    }
    let exact = columns.iter().find(|column| column.name == key);
    let folded = || columns.iter().find(|c| c.name.eq_ignore_ascii_case(key));
    exact.or_else(folded).ok_or_else(|| BadColumns::NoKey {
        key: key.to_owned(),
        returned: list(columns),
    })
}

/// A name that two columns share. SQLite tells them apart by a number behind
/// a colon when they go into a table.
fn duplicate(columns: &[Column]) -> Option<String> {
    let mut seen = std::collections::HashSet::new();
    for column in columns {
        let folded = column.name.to_ascii_lowercase();
        let base = folded.rsplit_once(':').filter(|(base, number)| {
            number.bytes().all(|b| b.is_ascii_digit()) && seen.contains(*base)
        });
        if let Some((base, _)) = base {
            return Some(base.to_owned());
        }
        if !seen.insert(folded) {
            return Some(column.name.clone());
        }
    }
    None
}

fn list(columns: &[Column]) -> String {
    let shown = columns.iter().take(20).map(|c| format!("`{}`", c.name));
    let mut text = shown.collect::<Vec<_>>().join(", ");
    if columns.len() > 20 {
        text.push_str(" and more");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(names: &[&str]) -> Vec<Column> {
        let column = |name: &&str| Column {
            name: (*name).to_owned(),
            type_name: "25".to_owned(),
        };
        names.iter().map(column).collect()
    }

    #[test]
    fn the_key_is_found_whatever_its_case() {
        let columns = columns(&["email", "Profile_Id"]);
        assert_eq!(
            check_columns(&columns, "profile_id").unwrap().name,
            "Profile_Id"
        );
        let problem = check_columns(&columns, "id").unwrap_err().to_string();
        assert!(problem.contains("`email`, `Profile_Id`"), "{problem}");
    }

    #[test]
    fn our_names_and_repeated_names_are_refused() {
        let ours = check_columns(&columns(&["id", "CD_x"]), "id").unwrap_err();
        assert!(matches!(ours, BadColumns::Reserved { .. }));
        for twice in [["id", "id"], ["id", "id:1"]] {
            let twice = check_columns(&columns(&twice), "id").unwrap_err();
            assert!(matches!(twice, BadColumns::Duplicate { .. }));
        }
        let many = (0..1_591).map(|n| format!("c{n}")).collect::<Vec<_>>();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let many = check_columns(&columns(&many), "c0").unwrap_err();
        assert_eq!(many, BadColumns::TooMany { count: 1_591 });
    }
}

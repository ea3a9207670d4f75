//! Text inside SQL: literals, identifiers, instants. The only place that
//! puts quotes around anything.

use super::Dialect;
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Text that no literal can hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a text that is to be written into the warehouse holds a NUL character; remove it")]
pub struct BadText;

impl Dialect {
    /// `text` as a string literal.
    ///
    /// Redshift reads a backslash inside a literal as an escape and has no
    /// setting against it; PostgreSQL does not, once each connection has said
    /// `standard_conforming_strings = on`. Doubling it for the one and not for
    /// the other is what keeps a value from ending its literal.
    pub fn literal(self, text: &str) -> Result<String, BadText> {
        let mut quoted = String::with_capacity(text.len() + 2);
        quoted.push('\'');
        for character in text.chars() {
            match character {
                '\0' => return Err(BadText),
                '\'' => quoted.push_str("''"),
                '\\' if self == Self::Redshift => quoted.push_str("\\\\"),
                other => quoted.push(other),
            }
        }
        quoted.push('\'');
        Ok(quoted)
    }

    /// `at` as a value of a `timestamp` column, UTC, to the microsecond.
    pub fn instant(self, at: Timestamp) -> String {
        let text = at.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M:%S%.6f");
        match self {
            Self::Sqlite => format!("'{text}'"),
            Self::Postgres | Self::Redshift => format!("cast('{text}' as timestamp)"),
        }
    }

    /// The warehouse's own clock, UTC, as a value of a `timestamp` column.
    pub fn now(self) -> &'static str {
        match self {
            Self::Sqlite => "(strftime('%Y-%m-%d %H:%M:%f', 'now') || '000')",
            Self::Postgres => "cast(current_timestamp at time zone 'UTC' as timestamp)",
            Self::Redshift => "sysdate",
        }
    }

    /// The same, to be written in each of many rows. On PostgreSQL a query of
    /// its own, which is asked once: to look the zone up costs a tenth of what
    /// it does to write the row. Not for conditions, which are planned by it.
    pub fn now_in_each(self) -> String {
        match self {
            Self::Postgres => format!("(select {})", self.now()),
            Self::Sqlite | Self::Redshift => self.now().to_owned(),
        }
    }

    /// `true` or `false` as a value of a `boolean` column.
    pub fn boolean(self, value: bool) -> &'static str {
        match (self, value) {
            (Self::Sqlite, true) => "1",
            (Self::Sqlite, false) => "0",
            (_, true) => "true",
            (_, false) => "false",
        }
    }
}

/// `name` as an identifier, exactly as it is written.
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_or_backslash_cannot_end_a_literal() {
        let nasty = r"x\'); drop table t; --";
        assert_eq!(
            Dialect::Postgres.literal(nasty).unwrap(),
            r"'x\''); drop table t; --'"
        );
        assert_eq!(
            Dialect::Redshift.literal(nasty).unwrap(),
            r"'x\\''); drop table t; --'"
        );
        assert_eq!(Dialect::Sqlite.literal("a\0b"), Err(BadText));
        assert_eq!(identifier("a\"b"), "\"a\"\"b\"");
    }

    #[test]
    fn an_instant_is_written_in_utc_to_the_microsecond() {
        let at: Timestamp = "2026-01-02T03:04:05.5+02:00".parse().unwrap();
        assert_eq!(Dialect::Sqlite.instant(at), "'2026-01-02 01:04:05.500000'");
    }
}

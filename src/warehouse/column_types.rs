//! What a column's type must be for what a campaign does with it. SQLite types
//! its cells, not its columns, so nothing is said of it.

use crate::audience::{Column, Dialect};

/// Redshift's types that no text can be made of by a cast, by their numbers,
/// and their words.
const WITHOUT_TEXT: [(u32, &str); 5] = [
    (16, "boolean"),
    (2935, "HLLSKETCH"),
    (3000, "GEOMETRY"),
    (3001, "GEOGRAPHY"),
    (3999, "GEOMETRY"),
];

/// The types that a point in time can be read from: text, date, timestamp with
/// and without a zone.
const TELLS_TIME: [u32; 6] = [25, 1042, 1043, 1082, 1114, 1184];

/// Why the column `key` cannot be the key, and what to do: keys are kept as
/// text.
pub(super) fn unfit_key(dialect: Dialect, key: &Column) -> Option<String> {
    let number = key.type_number()?;
    let found = WITHOUT_TEXT.iter().find(|(other, _)| *other == number);
    let (_, word) = found.filter(|_| dialect == Dialect::Redshift)?;
    let name = &key.name;
    Some(format!(
        "the key `{name}` is of type {word}, of which Redshift makes no text; select another \
         column as the key"
    ))
}

/// Why what `fresh_when.sql` returns does not say how recent data is, and what
/// to do.
pub(super) fn unfit_freshness(dialect: Dialect, columns: &[Column]) -> Option<String> {
    let [column] = columns else {
        let count = columns.len();
        return Some(format!(
            "it returns {count} columns; it must return one value, the time of the newest data"
        ));
    };
    let number = column.type_number()?;
    let tells = dialect == Dialect::Sqlite || TELLS_TIME.contains(&number);
    let name = &column.name;
    (!tells).then(|| {
        format!(
            "its column `{name}` is no timestamp; return the time of the newest data, as in \
             `max(loaded_at)`"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(number: &str) -> Column {
        Column {
            name: "c".to_owned(),
            type_name: number.to_owned(),
        }
    }

    #[test]
    fn a_key_must_be_what_text_can_be_made_of() {
        for number in ["16", "2935", "3000", "3001", "3999"] {
            let said = unfit_key(Dialect::Redshift, &column(number)).unwrap();
            assert!(said.ends_with("select another column as the key"), "{said}");
            assert_eq!(unfit_key(Dialect::Postgres, &column(number)), None);
        }
        for number in ["20", "25", "1043", "1700", "2950", "4000", "6551", ""] {
            assert_eq!(unfit_key(Dialect::Redshift, &column(number)), None);
        }
    }

    #[test]
    fn freshness_is_one_point_in_time() {
        for number in ["25", "1043", "1082", "1114", "1184"] {
            assert_eq!(unfit_freshness(Dialect::Postgres, &[column(number)]), None);
        }
        for number in ["20", "1700", "16", "4000"] {
            let said = unfit_freshness(Dialect::Redshift, &[column(number)]);
            assert!(said.unwrap().contains("is no timestamp"));
        }
        let two = [column("1114"), column("1114")];
        let said = unfit_freshness(Dialect::Sqlite, &two).unwrap();
        assert!(said.starts_with("it returns 2 columns"), "{said}");
    }
}

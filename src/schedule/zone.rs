//! Time zones by name.

use jiff::tz::{TimeZone, TimeZoneDatabase};

/// The zone called `name`, or why there is none.
///
/// Looked up in the tables built into the program, not in the machine's: two
/// hosts that share a ledger must agree on every fire time, and a pure room
/// opens no file.
pub(super) fn find(name: &str) -> Result<TimeZone, String> {
    let zones = TimeZoneDatabase::bundled();
    if let Ok(zone) = zones.get(name)
        && !zone.is_unknown()
    {
        return Ok(zone);
    }
    let folded = name.to_lowercase();
    let near = zones
        .available()
        .map(|known| {
            let known = known.to_string();
            (
                strsim::damerau_levenshtein(&folded, &known.to_lowercase()),
                known,
            )
        })
        .min()
        // More than a third wrong is another word, not a slip.
        .filter(|(distance, known)| distance * 3 <= known.len());
    Err(match near {
        Some((_, near)) => format!("unknown time zone `{name}`; did you mean `{near}`?"),
        None => format!("unknown time zone `{name}`; give an IANA name like `Europe/Berlin`"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_zone_is_answered_with_the_nearest_name() {
        assert_eq!(
            find("Europe/Berln").unwrap_err(),
            "unknown time zone `Europe/Berln`; did you mean `Europe/Berlin`?"
        );
        assert_eq!(
            find("moonbase").unwrap_err(),
            "unknown time zone `moonbase`; give an IANA name like `Europe/Berlin`"
        );
        assert!(find("").is_err());
        assert!(find("CET-1CEST").is_err());
    }

    #[test]
    fn a_zone_is_known_in_any_case_and_called_by_its_own_name() {
        let zone = find("america/new_york").unwrap();
        assert_eq!(zone.iana_name(), Some("America/New_York"));
    }
}

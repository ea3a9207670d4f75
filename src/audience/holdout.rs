//! Members who are never contacted under a salt, so that the effect of
//! contacting the others can be measured.

use super::{BadText, Dialect};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;

/// Into how many buckets keys are divided: a holdout's share is a whole number
/// of hundredths of a per cent.
const BUCKETS: u32 = 10_000;

/// The longest key in characters, none of which is shorter than a byte.
const MAX_KEY_CHARACTERS: u32 = 256;

/// How many characters SQLite looks at before it asks whether there are more:
/// most keys end within the first such block.
const BLOCK: u32 = 16;

/// A prime above every character's number; what is below it, multiplied, and
/// added up over a key, stays below 2^63.
const PRIME: u32 = 2_147_483_647;

/// The share of members that is left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Holdout {
    /// In hundredths of a per cent, 0 to 10,000.
    pub basis_points: u32,
    /// Campaigns with the same salt leave out the same members.
    pub salt: String,
}

impl Holdout {
    /// The condition under which the member `key`, an expression, is left out.
    pub(super) fn condition(&self, dialect: Dialect, key: &str) -> Result<String, BadText> {
        let bucket = bucket(dialect, &self.salt, key)?;
        Ok(format!("{bucket} < {}", self.basis_points.min(BUCKETS)))
    }
}

/// The bucket of a key, 0 to 9,999: the first 32 bits of the MD5 of salt, a
/// colon and key modulo 10,000, of their UTF-8. SQLite has no MD5.
fn bucket(dialect: Dialect, salt: &str, key: &str) -> Result<String, BadText> {
    if dialect == Dialect::Sqlite {
        return Ok(sqlite_bucket(salt, key));
    }
    let salt = dialect.literal(&format!("{salt}:"))?;
    Ok(match dialect {
        Dialect::Redshift => {
            format!("mod(strtol(substring(md5({salt} || {key}), 1, 8), 16), {BUCKETS})")
        }
        Dialect::Postgres | Dialect::Sqlite => format!(
            "mod(cast(cast('x' || substr(md5(convert_to({salt} || {key}, 'UTF8')), 1, 8) \
             as bit(32)) as bigint), {BUCKETS})"
        ),
    })
}

/// Each character's number times a factor of its place, added up modulo a
/// prime. The salt chooses the factors, which makes the buckets of two keys,
/// and of one key under two salts, independent of each other (multilinear
/// universal hashing).
fn sqlite_bucket(salt: &str, key: &str) -> String {
    let mut sum = factor(salt, 0).to_string();
    for place in 1..=MAX_KEY_CHARACTERS {
        if place > 1 && place % BLOCK == 1 {
            write!(sum, " + case when length({key}) >= {place} then 0").expect("it is a string");
        }
        write!(
            sum,
            " + coalesce(unicode(substr({key}, {place}, 1)), 0) * {}",
            factor(salt, place)
        )
        .expect("it is a string");
    }
    let blocks = (MAX_KEY_CHARACTERS - 1) / BLOCK;
    for _ in 0..blocks {
        sum.push_str(" else 0 end");
    }
    format!("({sum}) % {PRIME} % {BUCKETS}")
}

/// A number from 1 to `PRIME` - 1 that depends on salt and place alone.
fn factor(salt: &str, place: u32) -> u32 {
    let digest = Sha256::new()
        .chain_update(place.to_be_bytes())
        .chain_update(salt.as_bytes())
        .finalize();
    let [a, b, c, d, ..] = <[u8; 32]>::from(digest);
    1 + u32::from_be_bytes([a, b, c, d]) % (PRIME - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redshift_and_postgres_ask_for_the_same_bits_of_the_same_text() {
        let holdout = Holdout {
            basis_points: 1_000,
            salt: r"it's\1".to_owned(),
        };
        let of = |dialect| holdout.condition(dialect, "x.cd_key").unwrap();
        assert_eq!(
            of(Dialect::Redshift),
            r"mod(strtol(substring(md5('it''s\\1:' || x.cd_key), 1, 8), 16), 10000) < 1000"
        );
        assert!(of(Dialect::Postgres).contains(r"('it''s\1:' || x.cd_key, 'UTF8')"));
    }

    #[test]
    fn no_sum_over_a_key_is_too_large_for_sqlite() {
        let largest = u64::from(u32::from(char::MAX)) * u64::from(PRIME);
        let all = largest * u64::from(MAX_KEY_CHARACTERS) + u64::from(PRIME);
        assert!(i64::try_from(all).is_ok());
        let text = sqlite_bucket("s", "k");
        assert_eq!(text.matches("case").count(), text.matches(" end").count());
    }
}

//! Invented customers, their orders, a newsletter list and who wants no contact,
//! in a SQLite file:
//! what the demo's campaigns are about. Nobody in it exists.

use crate::run::{WarehouseError, WarehouseErrorClass};
use jiff::{SignedDuration, Timestamp};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, raw_sql};
use std::fmt::Write;
use std::path::Path;

/// Rows in one insert: past a few hundred nothing gets faster.
const ROWS_PER_INSERT: usize = 500;

const TABLES: &str = "/* campaignd sample: tables */
drop table if exists customers;
drop table if exists orders;
drop table if exists newsletter_signups;
drop table if exists do_not_contact;
create table customers (
  profile_id text, email text, phone text, first_name text, country text, tier text,
  consent_email boolean, consent_sms boolean, created_at timestamp);
create table orders (order_id integer, profile_id text, total numeric, ordered_at timestamp);
create table newsletter_signups (profile_id text, email text, signed_up_at timestamp);
create table do_not_contact (profile_id text, since timestamp);";

/// One customer in so many wants to hear nothing, whatever they agreed to.
const OBJECTS_EVERY: u32 = 40;

/// Some of these are hard to quote, on purpose.
const FIRST_NAMES: &[&str] = &[
    "Ada",
    "Zoë",
    "Jürgen",
    "D'Arcy",
    "Łucja",
    "Søren",
    "José",
    "小雨",
    "さくら",
    "Ольга",
    "Anna \"Annie\"",
    "Mia 🦊",
    "Chloé",
    "Thảo",
    "Åsa",
    "Ümit",
    "Màiri",
    "Back\\slash",
    "Noor",
    "Kwame",
    "Priya",
    "O'Neil",
    "Grace",
    "Luca",
    "Fatima",
    "Björn",
    "Eve",
    "Tomás",
    "Ines",
    "Hiroshi",
    "Amélie",
    "Sam",
];

/// Repeated as often as they are likely.
const COUNTRIES: &[&str] = &[
    "DE", "DE", "DE", "US", "US", "US", "FR", "FR", "GB", "GB", "SE", "PL", "JP", "BR", "IN",
];

/// Repeated as often as they are likely.
const TIERS: &[&str] = &[
    "standard", "standard", "standard", "standard", "standard", "standard", "silver", "silver",
    "silver", "gold",
];

/// Writes `customers` invented customers, with orders and sign-ups that lie
/// before `now`, into the file at `path`; tables of an earlier filling are
/// replaced. The same arguments give the same rows.
pub async fn fill(
    path: &Path,
    customers: u32,
    seed: u64,
    now: Timestamp,
) -> Result<(), WarehouseError> {
    write(path, customers, seed, now)
        .await
        .map_err(|error| failure(path, &error))
}

async fn write(path: &Path, customers: u32, seed: u64, now: Timestamp) -> Result<(), sqlx::Error> {
    let mut connection = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .pragma("journal_mode", "wal")
        .disable_statement_logging()
        .connect()
        .await?;
    let mut transaction = connection.begin_with("begin immediate").await?;
    raw_sql(TABLES).execute(&mut *transaction).await?;
    let mut dice = Dice(seed);
    let mut tables = [
        Inserts::into("customers"),
        Inserts::into("orders"),
        Inserts::into("newsletter_signups"),
        Inserts::into("do_not_contact"),
    ];
    for number in 1..=customers {
        let [people, orders, signups, objections] = &mut tables;
        invent(number, now, &mut dice, people, orders, signups);
        if number.is_multiple_of(OBJECTS_EVERY) {
            let id = quoted(&customer(number));
            objections.row(&[&id, &now.strftime("'%Y-%m-%d 00:00:00'").to_string()]);
        }
        for table in &mut tables {
            if table.rows >= ROWS_PER_INSERT {
                table.flush(&mut transaction).await?;
            }
        }
    }
    for table in &mut tables {
        table.flush(&mut transaction).await?;
    }
    transaction.commit().await?;
    connection.close().await
}

fn customer(number: u32) -> String {
    format!("p-{number:06}")
}

/// One customer, with what they ordered and where they signed up.
fn invent(
    number: u32,
    now: Timestamp,
    dice: &mut Dice,
    people: &mut Inserts,
    orders: &mut Inserts,
    signups: &mut Inserts,
) {
    let id = customer(number);
    let email = format!("customer{number}@example.com");
    let age_days = dice.between(30, 1500);
    let phone = match dice.percent(85) {
        true => quoted(&format!("+49 30 5550{number:06}")),
        false => "null".to_owned(),
    };
    people.row(&[
        &quoted(&id),
        &quoted(&email),
        &phone,
        &quoted(dice.pick(FIRST_NAMES)),
        &quoted(dice.pick(COUNTRIES)),
        &quoted(dice.pick(TIERS)),
        dice.flag(85),
        dice.flag(40),
        &days_before(now, age_days, dice),
    ]);

    // Two customers in five have not ordered for three months or longer.
    let newest = match dice.percent(40) {
        true => 91.min(age_days - 1),
        false => 0,
    };
    for order in 0..dice.between(0, 6) {
        let total = format!("{}.{:02}", dice.between(5, 400), dice.between(0, 100));
        orders.row(&[
            &(u64::from(number) * 10 + order).to_string(),
            &quoted(&id),
            &total,
            &days_before(now, dice.between(newest, age_days), dice),
        ]);
    }

    // Some sign up twice, and some without their customer number.
    for _ in 0..dice.between(0, 3) / 2 * dice.between(1, 3) {
        let known = match dice.percent(80) {
            true => quoted(&id),
            false => "null".to_owned(),
        };
        let at = days_before(now, dice.between(0, 365), dice);
        signups.row(&[&known, &quoted(&email), &at]);
    }
}

fn days_before(now: Timestamp, days: u64, dice: &mut Dice) -> String {
    let seconds = days * 86_400 + dice.between(0, 86_400);
    let back = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(0));
    let at = now.saturating_sub(back).unwrap_or(now);
    at.strftime("'%Y-%m-%d %H:%M:%S'").to_string()
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Rows of one table that wait for their insert.
struct Inserts {
    table: &'static str,
    values: String,
    rows: usize,
}

impl Inserts {
    fn into(table: &'static str) -> Self {
        Self {
            table,
            values: String::new(),
            rows: 0,
        }
    }

    /// Appends a row of SQL literals.
    fn row(&mut self, literals: &[&str]) {
        let comma = if self.rows == 0 { "" } else { "," };
        write!(self.values, "{comma}({})", literals.join(","))
            .expect("writing to a string cannot fail");
        self.rows += 1;
    }

    async fn flush(&mut self, connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        if self.rows > 0 {
            let (table, values) = (self.table, &self.values);
            let sql =
                format!("/* campaignd sample: {table} */ insert into {table} values {values}");
            raw_sql(AssertSqlSafe(sql)).execute(connection).await?;
            self.values.clear();
            self.rows = 0;
        }
        Ok(())
    }
}

/// SplitMix64: good enough for invented people, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From `low`, and below `high`.
    fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.roll() % (high - low)
    }

    fn percent(&mut self, percent: u64) -> bool {
        self.between(0, 100) < percent
    }

    fn flag(&mut self, percent: u64) -> &'static str {
        if self.percent(percent) { "1" } else { "0" }
    }

    fn pick(&mut self, from: &[&'static str]) -> &'static str {
        let index = usize::try_from(self.roll() % from.len() as u64).unwrap_or(0);
        from[index]
    }
}

fn failure(path: &Path, error: &sqlx::Error) -> WarehouseError {
    let code = error
        .as_database_error()
        .and_then(|error| error.code())
        .map(|code| code.into_owned());
    WarehouseError {
        class: WarehouseErrorClass::Configuration,
        message: format!(
            "the sample data cannot be written to {}; check that its folder is there and has room, and that no other program holds it",
            path.display()
        ),
        code,
        place: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sqlx::Row;

    const COUNTS: &str = "select
      (select count(*) from customers),
      (select count(distinct profile_id) from customers),
      (select count(*) from orders),
      (select count(*) from newsletter_signups where profile_id is null),
      (select count(profile_id) - count(distinct profile_id) from newsletter_signups),
      (select count(distinct order_id) from orders),
      (select sum(total * 100) from orders) + (select sum(length(first_name)) from customers),
      (select max(created_at) || max(ordered_at) from customers, (select max(ordered_at) as ordered_at from orders))";

    fn now() -> Timestamp {
        "2026-11-22T14:00:00Z".parse().unwrap()
    }

    async fn counts(path: &Path) -> (Vec<i64>, String) {
        let options = SqliteConnectOptions::new().filename(path);
        let mut connection = options.connect().await.unwrap();
        let row = raw_sql(COUNTS).fetch_one(&mut connection).await.unwrap();
        let counts = (0..6).map(|index| row.get::<i64, _>(index)).collect();
        (counts, row.get(7))
    }

    #[tokio::test]
    async fn the_same_seed_gives_the_same_rows_however_often_it_is_filled() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("1.db"), folder.path().join("2.db"));
        fill(&one, 1200, 7, now()).await.unwrap();
        let first = counts(&one).await;
        fill(&one, 1200, 7, now()).await.unwrap();
        fill(&two, 1200, 7, now()).await.unwrap();
        assert_eq!(counts(&one).await, first);
        assert_eq!(counts(&two).await, first);
        fill(&two, 1200, 8, now()).await.unwrap();
        assert_ne!(counts(&two).await, first);
    }

    #[tokio::test]
    async fn there_are_members_with_every_peculiarity_the_funnel_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sample.db");
        fill(&path, 1000, 7, now()).await.unwrap();
        let (counts, newest) = counts(&path).await;
        let [customers, keys, orders, without_key, repeated, order_ids] = counts[..] else {
            panic!("{counts:?}");
        };
        assert_eq!((customers, keys), (1000, 1000));
        assert_eq!(orders, order_ids);
        assert!(
            orders > 1500 && without_key > 50 && repeated > 50,
            "{counts:?}"
        );
        assert!(newest.as_str() < "2026-11-22 14:00:00", "{newest}");
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_written_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("absent").join("sample.db");
        let error = fill(&path, 1, 7, now()).await.unwrap_err();
        assert!(error.message.contains("absent"), "{error}");
    }
}

//! The table of types: what each of Redshift's and PostgreSQL's comes to, as a
//! cell and as JSON.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use crate::support;

use campaignd::delivery::{Envelope, Renderer};
use campaignd::id::BatchPath;
use campaignd::run::Kind;
use support::place::{Place, facts};

/// A value in SQL, and what its cell and its JSON are.
type Line = (&'static str, Kind, &'static str, &'static str);

/// The same on both.
const BOTH: &[Line] = &[
    ("true", Kind::Bool, "true", "true"),
    ("7::smallint", Kind::Integer, "7", "7"),
    (
        "cast('-2147483648' as int)",
        Kind::Integer,
        "-2147483648",
        "-2147483648",
    ),
    (
        "9007199254740992::bigint",
        Kind::Integer,
        "9007199254740992",
        "9007199254740992",
    ),
    (
        "9223372036854775807::bigint",
        Kind::Integer,
        "9223372036854775807",
        "\"9223372036854775807\"",
    ),
    ("-1.00::numeric(8,2)", Kind::Decimal, "-1.00", "-1.00"),
    (
        "12345678901234567890123456789012345678::numeric(38,0)",
        Kind::Decimal,
        "12345678901234567890123456789012345678",
        "\"12345678901234567890123456789012345678\"",
    ),
    ("cast('NaN' as float8)", Kind::Float, "NaN", "null"),
    (
        "cast('-Infinity' as real)",
        Kind::Float,
        "-Infinity",
        "null",
    ),
    // Trailing blanks of CHAR are there, and say nothing.
    ("cast('ab' as char(4))", Kind::Text, "ab  ", "\"ab  \""),
    ("cast('ä\"' as varchar(4))", Kind::Text, "ä\"", "\"ä\\\"\""),
    ("cast('' as varchar(4))", Kind::Text, "", "\"\""),
    (
        "cast('2026-01-02' as date)",
        Kind::Text,
        "2026-01-02",
        "\"2026-01-02\"",
    ),
    (
        "cast('03:04:05.25' as time)",
        Kind::Text,
        "03:04:05.25",
        "\"03:04:05.25\"",
    ),
    (
        "cast('03:04:05+02' as timetz)",
        Kind::Text,
        "03:04:05+02",
        "\"03:04:05+02\"",
    ),
    (
        "cast('2026-01-02 03:04:05.6' as timestamp)",
        Kind::Timestamp,
        "2026-01-02 03:04:05.6",
        "\"2026-01-02T03:04:05.6Z\"",
    ),
    (
        "cast('2026-01-02 03:04:05+02' as timestamptz)",
        Kind::TimestampTz,
        "2026-01-02 01:04:05+00",
        "\"2026-01-02T01:04:05Z\"",
    ),
    (
        "cast('infinity' as timestamp)",
        Kind::Timestamp,
        "infinity",
        "null",
    ),
    ("cast(null as int)", Kind::Null, "", "null"),
];

/// Redshift's, and what it writes otherwise.
const REDSHIFT: &[Line] = &[
    // It does not look for the shortest digits.
    ("cast(0.7 as real)", Kind::Float, "7e-1", "0.7"),
    (
        "cast(16777217 as real)",
        Kind::Float,
        "1.6777216e7",
        "16777216",
    ),
    (
        "cast(-1.5e-30 as real)",
        Kind::Float,
        "-1.5e-30",
        "-1.5e-30",
    ),
    (
        "cast(0.1 as float8)",
        Kind::Float,
        "0.10000000000000001",
        "0.1",
    ),
    (
        "cast(1e300 as float8)",
        Kind::Float,
        "1.0000000000000001e+300",
        "1e300",
    ),
    (
        "interval '1-2' year to month",
        Kind::Text,
        "1 years 2 mons",
        "\"1 years 2 mons\"",
    ),
    (
        "interval '3 4:05:06.7' day to second",
        Kind::Text,
        "3 days 4 hours 5 mins 6.7 secs",
        "\"3 days 4 hours 5 mins 6.7 secs\"",
    ),
    (
        r#"json_parse('{"a": [1, 2.50]}')"#,
        Kind::Json,
        r#"{"a": [1, 2.50]}"#,
        r#"{"a": [1, 2.50]}"#,
    ),
    ("from_hex('00FF')", Kind::Text, "AP8=", "\"AP8=\""),
    (
        "st_geomfromewkb('0101000000000000000000144000000000000024C0')",
        Kind::Text,
        "0101000000000000000000144000000000000024C0",
        "\"0101000000000000000000144000000000000024C0\"",
    ),
    (
        "st_geogfromwkb('0101000020E6100000000000000000144000000000000024C0')",
        Kind::Text,
        "0101000020E6100000000000000000144000000000000024C0",
        "\"0101000020E6100000000000000000144000000000000024C0\"",
    ),
    (r"'k\\\''", Kind::Text, r"k\'", r#""k\\'""#),
    ("nvl(null, 'x')", Kind::Text, "x", "\"x\""),
    (
        "dateadd(day, 1, '2026-01-31'::timestamp)",
        Kind::Timestamp,
        "2026-02-01 00:00:00",
        "\"2026-02-01T00:00:00Z\"",
    ),
];

/// PostgreSQL's; what is unknown is text.
const POSTGRES: &[Line] = &[
    ("cast(0.7 as real)", Kind::Float, "0.7", "0.7"),
    (
        "cast(16777217 as real)",
        Kind::Float,
        "1.6777216e+07",
        "16777216",
    ),
    ("cast(0.1 as float8)", Kind::Float, "0.1", "0.1"),
    ("cast('NaN' as numeric)", Kind::Float, "NaN", "null"),
    (
        "interval '1-2' year to month",
        Kind::Text,
        "1 year 2 mons",
        "\"1 year 2 mons\"",
    ),
    (
        "interval '3 4:05:06.7' day to second",
        Kind::Text,
        "3 days 04:05:06.7",
        "\"3 days 04:05:06.7\"",
    ),
    (
        r#"cast('{"a":1}' as jsonb)"#,
        Kind::Json,
        r#"{"a": 1}"#,
        r#"{"a": 1}"#,
    ),
    ("cast('[1]' as json)", Kind::Json, "[1]", "[1]"),
    ("cast('fine' as mood)", Kind::Text, "fine", "\"fine\""),
    ("cast('(1,2)' as point)", Kind::Text, "(1,2)", "\"(1,2)\""),
    (
        r"cast('\x00ff' as bytea)",
        Kind::Text,
        r"\x00ff",
        r#""\\x00ff""#,
    ),
];

/// Reads one row with all of `lines` and renders it.
async fn check(place: &Place, lines: &[&[Line]]) {
    let lines: Vec<&Line> = lines.iter().copied().flatten().collect();
    let values = lines.iter().enumerate();
    let values: Vec<String> = values
        .map(|(n, (sql, ..))| format!(", {sql} as c{n}"))
        .collect();
    let facts = facts(&format!("select 'k' as id{}", values.join("")));
    let funnel = place.laid_out(&facts).await;
    assert_eq!(funnel.planned, 1);
    let page = place
        .warehouse
        .page(&facts, (1, 1), usize::MAX)
        .await
        .unwrap();
    let cells: Vec<_> = page.row(0).cells().skip(1).collect();
    assert_eq!(cells.len(), lines.len());
    for (found, (sql, kind, cell, _)) in cells.iter().zip(&lines) {
        assert_eq!(*found, (*kind, *cell), "{sql}");
    }
    let envelope = Envelope {
        campaign: facts.campaign.clone(),
        run: facts.run.clone(),
        fire_time: facts.fire_time,
        channel: "email".to_owned(),
        attributes: serde_json::Map::new(),
        batches: 1,
    };
    let body = Renderer::new(&envelope).render(&BatchPath::whole(1), &page, 0..1);
    let body = String::from_utf8(body.unwrap().to_vec()).unwrap();
    let json = lines.iter().enumerate();
    let json: Vec<String> = json
        .map(|(n, (.., json))| format!(",\"c{n}\":{json}"))
        .collect();
    let member = format!("{{\"id\":\"k\"{}}}", json.join(""));
    assert!(body.contains(&member), "{member}\n{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_of_redshift_is_read_as_text_and_becomes_json_exactly() {
    let place = Place::redshift().await;
    check(&place, &[BOTH, REDSHIFT]).await;
    assert_eq!(place.gate().refused(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_of_postgresql_is_read_as_text_and_becomes_json_exactly() {
    let mut place = Place::postgres().await;
    place.run("create type mood as enum ('fine')").await;
    check(&place, &[BOTH, POSTGRES]).await;
}

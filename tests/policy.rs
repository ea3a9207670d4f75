//! The policy of a campaign in the warehouse, on SQLite, on a real PostgreSQL
//! and through the Redshift gate: what becomes of each member, compared with a
//! model that shares nothing with `src/`.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

#[path = "policy/model.rs"]
mod model;
use crate::support;

use campaignd::audience::{FrequencyCap, Holdout, OrderBy, Policy, TableNames};
use campaignd::history::{BatchStatus, RunFacts, RunStatus};
use campaignd::id::RunId;
use campaignd::warehouse::{Change, apply_lift};
use model::expected;
use std::collections::BTreeSet;
use support::place::{Eyes, Place, at, closing, facts_of, outcome, settlement};

crate::on_each_warehouse! {
    each_member_falls_out_for_the_reason_the_model_says
    a_holdout_has_its_share_and_stays_the_same
    an_order_by_a_column_that_is_not_returned_is_refused
    a_run_held_before_anything_was_sent_leaves_no_reasons_behind
    the_views_show_what_became_of_members_and_what_the_contact_was_worth
}

/// How many random worlds each database sees.
const WORLDS: u32 = 14;

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    /// From 0 to `sides` - 1.
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }

    fn one_of<T: Clone>(&mut self, all: &[T]) -> T {
        all[usize::try_from(self.roll(all.len() as u64)).unwrap()].clone()
    }
}

/// A row of the audience.
#[derive(Clone)]
struct Person {
    key: Option<String>,
    age: Option<u64>,
    spend: Option<u64>,
}

/// A row of history from a run that has ended.
#[derive(Clone)]
struct Contact {
    key: String,
    campaign: &'static str,
    channel: &'static str,
    counts: bool,
    hours_ago: u64,
}

/// A run under way and whom it is about to contact.
#[derive(Clone)]
struct Open {
    campaign: &'static str,
    channel: &'static str,
    keys: BTreeSet<String>,
}

struct World {
    audience: Vec<Person>,
    suppressed: Vec<BTreeSet<String>>,
    contacts: Vec<Contact>,
    open: Vec<Open>,
    policy: Policy,
}

const OURS: &str = "winback";
const CHANNELS: [&str; 2] = ["email", "sms"];

fn world(dice: &mut Dice) -> World {
    let key = |dice: &mut Dice| format!("p-{}", dice.roll(150));
    let some = |dice: &mut Dice| match dice.roll(4) {
        0 => None,
        _ => Some(dice.roll(9)),
    };
    let audience = (0..220)
        .map(|_| Person {
            key: match dice.roll(20) {
                0 => None,
                1 => Some("ä".repeat(129)),
                2 => Some(format!("{}  ", key(dice))),
                3 => Some(format!("ü'\\🦀-{}", dice.roll(9))),
                _ => Some(key(dice)),
            },
            age: some(dice),
            spend: some(dice),
        })
        .collect();
    let keys = |dice: &mut Dice, count: u64| (0..count).map(|_| key(dice)).collect();
    let contacts = (0..200)
        .map(|_| Contact {
            key: key(dice),
            campaign: dice.one_of(&[OURS, "digest"]),
            channel: dice.one_of(&CHANNELS),
            counts: dice.roll(5) > 0,
            hours_ago: 12 + 24 * dice.roll(12),
        })
        .collect();
    let open = [
        (OURS, "email"),
        ("a", "email"),
        ("b", "sms"),
        ("c", "email"),
    ];
    World {
        audience,
        suppressed: (0..dice.roll(3)).map(|_| keys(dice, 12)).collect(),
        contacts,
        open: open
            .map(|(campaign, channel)| Open {
                campaign,
                channel,
                keys: keys(dice, 15),
            })
            .into(),
        policy: policy(dice),
    }
}

fn policy(dice: &mut Dice) -> Policy {
    let cap = |dice: &mut Dice| FrequencyCap {
        contacts: u32::try_from(1 + dice.roll(3)).unwrap(),
        within_secs: (1 + dice.roll(10)) * 86_400,
        channel: dice.one_of(&[None, Some("email".to_owned()), Some("sms".to_owned())]),
    };
    let order = |dice: &mut Dice, column: &str| OrderBy {
        column: column.to_owned(),
        descending: dice.roll(2) == 0,
    };
    Policy {
        frequency_cap: (0..dice.roll(3)).map(|_| cap(dice)).collect(),
        cooldown_secs: (dice.roll(2) == 0).then(|| (1 + dice.roll(10)) * 86_400),
        holdout: (dice.roll(2) == 0).then(|| Holdout {
            basis_points: 1_500,
            salt: dice.one_of(&["winback", "it's \\ ö"]).to_owned(),
        }),
        limit: (dice.roll(3) > 0).then(|| 1 + dice.roll(90)),
        order_by: match dice.roll(3) {
            0 => Vec::new(),
            1 => vec![order(dice, "AGE")],
            _ => vec![order(dice, "spend"), order(dice, "age")],
        },
    }
}

fn literal(text: Option<&String>) -> String {
    text.map_or("null".to_owned(), |text| {
        format!("'{}'", text.replace('\'', "''"))
    })
}

fn number(value: Option<u64>) -> String {
    value.map_or("null".to_owned(), |value| value.to_string())
}

async fn fill(place: &mut Place, table: &str, columns: &str, rows: Vec<String>) {
    place.run(&format!("drop table if exists {table}")).await;
    place
        .run(&format!("create table {table} ({columns})"))
        .await;
    if !rows.is_empty() {
        let insert = format!("insert into {table} values {}", rows.join(", "));
        place.run(&insert).await;
    }
}

async fn write_audience(place: &mut Place, world: &World) {
    let rows = world.audience.iter().map(|person| {
        let (age, spend) = (number(person.age), number(person.spend));
        format!("({}, {age}, {spend})", literal(person.key.as_ref()))
    });
    let columns = "id varchar(400), age int, spend int";
    fill(place, "audience", columns, rows.collect()).await;
    for (index, list) in world.suppressed.iter().enumerate() {
        let rows = list.iter().map(|key| format!("({})", literal(Some(key))));
        let name = format!("list_{index}");
        fill(place, &name, "id varchar(400)", rows.collect()).await;
    }
}

/// History rows of runs that have ended. Of some the time of the attempt was
/// lost, so that they count from when they were recorded.
async fn write_contacts(place: &mut Place, world: &World) {
    let is_sqlite = matches!(place.eyes, Eyes::Sqlite(_));
    for table in ["contact_history", "open_runs"] {
        let delete = format!("delete from campaignd.{table}");
        place.run_ours(&delete).await;
    }
    let rows = world.contacts.iter().enumerate().map(|(index, contact)| {
        let hours = contact.hours_ago;
        let then = match is_sqlite {
            true => format!("strftime('%Y-%m-%d %H:%M:%f', 'now', '-{hours} hours') || '000'"),
            false => format!("(now() at time zone 'UTC') - interval '{hours} hours'"),
        };
        let tried = if index % 7 == 0 { "null" } else { &then };
        format!(
            "('ended-{index}', '{}', '{}', '{}', {}, {tried}, {then})",
            contact.campaign, contact.key, contact.channel, contact.counts
        )
    });
    let rows: Vec<String> = rows.collect();
    place
        .run_ours(&format!(
            "insert into campaignd.contact_history (run_id, campaign, profile_id, channel, \
             counts_as_contact, contacted_at, recorded_at) values {}",
            rows.join(", ")
        ))
        .await;
}

/// Runs under way at each of the places a run's members can be in; the last
/// has a part of them in history already.
async fn begin_open_runs(place: &mut Place, world: &World, number: u32) {
    for (index, open) in world.open.iter().enumerate() {
        let table = format!("open_{index}");
        let mut rows: Vec<String> = open.keys.iter().map(|key| format!("('{key}')")).collect();
        let all_planned = index % 2 == 0;
        if !all_planned {
            rows.push("(null)".to_owned());
        }
        fill(place, &table, "id varchar(400)", rows).await;
        let mut facts = facts_of(open.campaign, &format!("select id from {table}"));
        fire(&mut facts, "2026-01-01T00:00:00Z", number);
        facts.channel = open.channel.to_owned();
        place.warehouse.register(&facts).await.unwrap();
        place.warehouse.freeze(&facts).await.unwrap();
        let funnel = place.warehouse.admit(&facts).await.unwrap();
        assert_eq!(funnel.planned, open.keys.len() as u64);
        if index >= 2 {
            place.warehouse.lay_out(&facts).await.unwrap();
            let sent = vec![outcome(&facts, 1, 3, BatchStatus::Delivered)];
            let settled = settlement(&facts, funnel, sent);
            place.warehouse.settle(&[settled]).await.unwrap();
        }
    }
    // One whose members are not numbered yet counts for nothing.
    let mut staging = facts_of("staging", "select id from audience");
    fire(&mut staging, "2026-01-01T00:00:00Z", number);
    place.warehouse.register(&staging).await.unwrap();
    place.warehouse.freeze(&staging).await.unwrap();
}

/// Makes it the run of the `number`th hour from `base` on.
fn fire(facts: &mut RunFacts, base: &str, number: u32) {
    facts.fire_time = at(base) + jiff::SignedDuration::from_hours(number.into());
    facts.run = RunId::scheduled(&facts.campaign, facts.fire_time);
}

fn our_facts(world: &World, number: u32) -> RunFacts {
    let mut facts = facts_of(OURS, "select id, age, spend from audience");
    fire(&mut facts, "2026-06-01T00:00:00Z", number);
    let lists = 0..world.suppressed.len();
    facts.suppress = lists.map(|index| format!("list_{index}")).collect();
    facts.policy = world.policy.clone();
    facts
}

async fn each_member_falls_out_for_the_reason_the_model_says(place: &mut Place) {
    let is_sqlite = matches!(place.eyes, Eyes::Sqlite(_));
    let mut seen = BTreeSet::new();
    for number in 1..=WORLDS {
        let world = world(&mut Dice(number.into()));
        write_audience(place, &world).await;
        write_contacts(place, &world).await;
        begin_open_runs(place, &world, number).await;
        let facts = our_facts(&world, number);
        let funnel = place.laid_out(&facts).await;

        let (verdicts, [no_key, bad_key, duplicate]) = expected(&world, is_sqlite);
        let run = TableNames::of(&facts.run).run;
        let found = place
            .rows(&format!(
                "select cd_key, case when cd_seq is null then cd_status else 'planned' end \
                 from campaignd.{run} order by cd_key"
            ))
            .await;
        let rows = |which: &dyn Fn(&str) -> bool| -> BTreeSet<String> {
            let rows = verdicts.iter().filter(|(_, status)| which(status));
            rows.map(|(key, status)| format!("{key}|{status}"))
                .collect()
        };
        let policy = &world.policy;
        assert_eq!(
            BTreeSet::from_iter(found),
            rows(&|_| true),
            "{number}: {policy:?}"
        );
        let places = format!("select min(cd_seq), max(cd_seq), count(cd_seq) from campaignd.{run}");
        let planned = verdicts.values().filter(|v| **v == "planned").count() as u64;
        if planned > 0 {
            let expected = format!("1|{planned}|{planned}");
            assert_eq!(place.rows(&places).await, [expected]);
        }
        let count = |status: &str| verdicts.values().filter(|v| **v == status).count() as u64;
        assert!(funnel.adds_up());
        assert_eq!(funnel.audience, world.audience.len() as u64);
        assert_eq!(
            [
                [funnel.no_key, funnel.bad_key, funnel.duplicate],
                [funnel.suppressed, funnel.held_out, funnel.capped],
                [funnel.cooling_down, funnel.over_limit, funnel.planned]
            ],
            [
                [no_key, bad_key, duplicate],
                [count("suppressed"), count("held_out"), count("capped")],
                [count("cooling_down"), count("over_limit"), planned]
            ],
        );
        // Asked again, it says the same.
        assert_eq!(place.warehouse.admit(&facts).await.unwrap(), funnel);

        let end = closing(&facts, funnel, RunStatus::Cancelled);
        place.warehouse.close(&end).await.unwrap();
        let recorded = format!(
            "select profile_id, status from campaignd.contact_history where run_id = '{}' \
             and reason is not null and contacted_at is null and batch is null",
            facts.run
        );
        let recorded = BTreeSet::from_iter(place.rows(&recorded).await);
        assert_eq!(recorded, rows(&|status| status != "planned"));
        seen.extend(verdicts.into_values());
    }
    assert_eq!(seen.len(), 6, "the worlds show every verdict: {seen:?}");
}

async fn a_holdout_has_its_share_and_stays_the_same(place: &mut Place) {
    place.run("create table many (id varchar(40))").await;
    place
        .run(
            "insert into many with recursive numbers(n) as (select 1 union all \
             select n + 1 from numbers where n < 100000) select 'customer-' || n from numbers",
        )
        .await;
    let mut tables = Vec::new();
    for (campaign, salt, basis_points) in [
        ("one", "spring", 1_000),
        ("two", "spring", 1_000),
        ("three", "autumn", 1_000),
        ("four", "spring", 2_550),
    ] {
        let mut facts = facts_of(campaign, "select id from many");
        facts.policy.holdout = Some(Holdout {
            basis_points,
            salt: salt.to_owned(),
        });
        let funnel = place.laid_out(&facts).await;
        let share = u64::from(basis_points) * 10;
        assert!(
            funnel.held_out.abs_diff(share) < 1_000,
            "{campaign}: {} of 100,000",
            funnel.held_out
        );
        tables.push((TableNames::of(&facts.run).run, funnel.held_out));
    }
    let mut both = async |one: usize, other: usize| {
        let sql = format!(
            "select count(*) from campaignd.{} a join campaignd.{} b on b.cd_key = a.cd_key \
             where a.cd_status = 'held_out' and b.cd_status = 'held_out'",
            tables[one].0, tables[other].0
        );
        place.rows(&sql).await[0].parse::<u64>().unwrap()
    };
    assert_eq!(both(0, 1).await, tables[0].1, "the same salt");
    assert_eq!(
        both(0, 3).await,
        tables[0].1,
        "a greater share has the smaller"
    );
    let shared = both(0, 2).await;
    assert!(shared.abs_diff(1_000) < 300, "another salt: {shared}");
}

async fn an_order_by_a_column_that_is_not_returned_is_refused(place: &mut Place) {
    let mut facts = facts_of(OURS, "select id, email from people");
    facts.policy.limit = Some(3);
    facts.policy.order_by = vec![OrderBy {
        column: "age".to_owned(),
        descending: false,
    }];
    place.warehouse.register(&facts).await.unwrap();
    let refused = place.warehouse.freeze(&facts).await.unwrap_err();
    assert!(!refused.is_transient());
    assert!(refused.message.contains("`age`"), "{refused}");
}

async fn a_run_held_before_anything_was_sent_leaves_no_reasons_behind(place: &mut Place) {
    let mut facts = facts_of(OURS, "select id from people");
    facts.policy.limit = Some(3);
    let funnel = place.laid_out(&facts).await;
    let held = closing(&facts, funnel, RunStatus::Held);
    place.warehouse.close(&held).await.unwrap();
    let rows = "select count(*) from campaignd.contact_history";
    assert_eq!(place.rows(rows).await, ["0"]);
    // It is staged anew under its own id.
    place.laid_out(&facts).await;
    let end = closing(&facts, funnel, RunStatus::Cancelled);
    place.warehouse.close(&end).await.unwrap();
    assert_eq!(place.rows(rows).await, ["4"]);
}

async fn the_views_show_what_became_of_members_and_what_the_contact_was_worth(place: &mut Place) {
    let mut facts = facts_of(OURS, "select id from people");
    facts.policy.limit = Some(3);
    let funnel = place.laid_out(&facts).await;
    let sent = vec![outcome(&facts, 1, 3, BatchStatus::Delivered)];
    let settled = settlement(&facts, funnel, sent);
    place.warehouse.settle(&[settled]).await.unwrap();
    let end = closing(&facts, funnel, RunStatus::Finished);
    place.warehouse.close(&end).await.unwrap();
    // What a holdout of some of them would have left.
    place
        .run_ours(
            "update campaignd.contact_history set status = 'held_out' \
             where status = 'over_limit' and profile_id <> 'p-7'",
        )
        .await;
    let performance = "select campaign, channel, cast(day as varchar(10)), members, contacts, \
                       delivered, held_out, over_limit from campaignd.contact_performance";
    assert_eq!(
        place.rows(performance).await,
        ["winback|email|2026-11-22|7|3|3|3|1"]
    );

    place
        .run("create table conversions (profile_id varchar(40), converted_at timestamp)")
        .await;
    let contacted = "select profile_id from campaignd.contact_history where status = 'delivered' \
                     order by profile_id";
    let contacted = place.rows(contacted).await;
    let held_out = "select profile_id from campaignd.contact_history where status = 'held_out'";
    let held_out = place.rows(held_out).await;
    for (key, when) in [
        (&contacted[0], "2026-11-22 15:00:00"),
        (&contacted[0], "2026-11-23 15:00:00"),
        (&contacted[1], "2026-12-01 00:00:00"),
        (&contacted[2], "2026-11-22 13:59:59"),
        (&contacted[2], "2026-12-22 14:00:00"),
        (&held_out[0], "2026-11-22 14:00:00"),
    ] {
        let key = literal(Some(key));
        let insert = format!("insert into conversions values ({key}, '{when}')");
        place.run(&insert).await;
    }
    let relation = match place.eyes {
        Eyes::Sqlite(_) => "conversions",
        Eyes::Postgres(_) => "public.conversions",
    };
    let relation = relation.parse().unwrap();
    for change in [Change::Created, Change::None] {
        let applied = apply_lift(place.options.clone(), &relation).await.unwrap();
        assert_eq!(applied.change, change);
    }
    let lift = "select campaign, contacted, contacted_converted, held_out, held_out_converted, \
                cast(round(cast(lift * 300 as numeric)) as int) from campaignd.holdout_lift";
    assert_eq!(place.rows(lift).await, ["winback|3|2|3|1|100"]);
}

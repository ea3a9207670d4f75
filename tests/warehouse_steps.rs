//! The steps of a run in the warehouse, on SQLite and on a real PostgreSQL:
//! the same promises for both.

#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod support;

use campaignd::audience::{AudienceSpec, Dialect, TableNames};
use campaignd::history::{
    BatchOutcome, BatchStatus, BootstrapOptions, Closing, RunFacts, RunStatus, Settlement, Tally,
    UnstartedRun, bootstrap,
};
use campaignd::id::{BatchPath, CampaignName, MessageId, RunId, Trigger};
use campaignd::run::{Kind, Registration, Warehouse, WarehouseErrorClass};
use campaignd::warehouse::{Change, ConnectorOptions, ServerOptions, Tls, apply_bootstrap, open};
use jiff::Timestamp;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row, SqliteConnection, raw_sql};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;
use support::postgres::Postgres;
use uuid::Uuid;

/// Runs each test on both databases.
macro_rules! on_both {
    ($($name:ident)*) => {
        mod sqlite {
            $(#[tokio::test] async fn $name() {
                let mut place = super::Place::sqlite().await;
                super::$name(&mut place).await;
            })*
        }
        mod postgres {
            $(#[tokio::test] async fn $name() {
                let mut place = super::Place::postgres().await;
                super::$name(&mut place).await;
            })*
        }
    };
}

on_both! {
    a_run_goes_from_its_audience_to_its_history
    every_step_can_be_repeated
    settling_again_writes_nothing
    values_come_back_as_they_were
    a_run_of_another_owner_is_taken
    a_run_that_has_ended_is_taken
    a_failing_query_says_where
    columns_that_cannot_be_staged_are_refused
    a_semicolon_and_a_comment_at_the_end_do_no_harm
    more_than_one_statement_is_never_run
    an_empty_audience_is_closed_with_zeros
    a_run_that_failed_before_admission_is_closed
    fire_times_without_a_run_are_recorded_once
    several_runs_settle_in_one_transaction
    an_error_names_no_member
}

/// A warehouse with people in it, and a second pair of eyes on it.
struct Place {
    warehouse: Arc<dyn Warehouse>,
    options: ConnectorOptions,
    eyes: Eyes,
    _folder: tempfile::TempDir,
    _server: Option<Postgres>,
}

enum Eyes {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

fn server_options(server: &Postgres) -> ServerOptions {
    let details = server.database("warehouse");
    ServerOptions {
        dialect: Dialect::Postgres,
        host: details.host,
        port: details.port,
        database: details.database,
        user: details.user,
        password: String::new().into(),
        tls: Tls::Disable,
        tls_ca_file: None,
        schema: "campaignd".to_owned(),
        max_queries: NonZeroU32::new(2).unwrap(),
        statement_timeout: Duration::from_secs(60),
    }
}

async fn look_at(server: &ServerOptions) -> PgConnection {
    let options = sqlx::postgres::PgConnectOptions::new_without_pgpass()
        .socket(&server.host)
        .port(server.port)
        .username(&server.user)
        .database(&server.database);
    let mut eyes = PgConnection::connect_with(&options).await.unwrap();
    let setting = raw_sql("set standard_conforming_strings = on");
    setting.execute(&mut eyes).await.unwrap();
    eyes
}

impl Place {
    async fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("warehouse.db");
        let options = ConnectorOptions::Sqlite {
            path: path.clone(),
            max_queries: NonZeroU32::new(2).unwrap(),
        };
        let warehouse = open(options.clone()).unwrap();
        warehouse.ping().await.unwrap();
        let url = format!("sqlite://{}", path.display());
        let eyes = Eyes::Sqlite(SqliteConnection::connect(&url).await.unwrap());
        Self::with_people(warehouse, options, eyes, folder, None).await
    }

    async fn postgres() -> Self {
        let server = Postgres::start();
        let login = server_options(&server);
        let eyes = Eyes::Postgres(look_at(&login).await);
        let options = ConnectorOptions::Server(login);
        apply_bootstrap(options.clone()).await.unwrap();
        let warehouse = open(options.clone()).unwrap();
        warehouse.ping().await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        Self::with_people(warehouse, options, eyes, folder, Some(server)).await
    }

    async fn with_people(
        warehouse: Arc<dyn Warehouse>,
        options: ConnectorOptions,
        eyes: Eyes,
        folder: tempfile::TempDir,
        server: Option<Postgres>,
    ) -> Self {
        let mut place = Self {
            warehouse,
            options,
            eyes,
            _folder: folder,
            _server: server,
        };
        place
            .run("create table people (id varchar(400), email varchar(200), age int)")
            .await;
        // Seven good keys, one of them three times (once behind blanks), two
        // nulls, and one of 257 bytes in 129 characters.
        let long = format!("{}x", "ä".repeat(128));
        let rows = [
            "('p-1', 'ada@example.com', 36)",
            "('p-1', 'ada@example.org', 36)",
            "('p-1  ', 'ada@example.net', 37)",
            r"('p-2', 'o''hara\n@example.com', 41)",
            "('p-3', '🦀 \"quoted\" 日本', null)",
            "('p-4', null, 0)",
            r"('p-''5\', '', -1)",
            "('p-6', 'f@example.com', 50)",
            "('p-7', 'g@example.com', 51)",
            "(null, 'nobody@example.com', 1)",
            "(null, 'nobody@example.com', 2)",
            &format!("('{long}', 'long@example.com', 3)"),
        ];
        let insert = format!("insert into people values {}", rows.join(", "));
        place.run(&insert).await;
        place
    }

    async fn run(&mut self, sql: &str) {
        let sql = raw_sql(AssertSqlSafe(sql.to_owned()));
        match &mut self.eyes {
            Eyes::Sqlite(eyes) => drop(sql.execute(eyes).await.unwrap()),
            Eyes::Postgres(eyes) => drop(sql.execute(eyes).await.unwrap()),
        }
    }

    /// Rows as text, cells joined by `|`; SQLite's schema is none.
    async fn rows(&mut self, sql: &str) -> Vec<String> {
        let join = |cells: Vec<Option<String>>| {
            let cells = cells.into_iter().map(|c| c.unwrap_or("null".to_owned()));
            cells.collect::<Vec<_>>().join("|")
        };
        match &mut self.eyes {
            Eyes::Sqlite(eyes) => {
                let sql = sql.replace("campaignd.", "");
                let rows = raw_sql(AssertSqlSafe(sql)).fetch_all(eyes).await.unwrap();
                let cells = |row: &sqlx::sqlite::SqliteRow| {
                    (0..row.len()).map(|i| row.get_unchecked(i)).collect()
                };
                rows.iter().map(|row| join(cells(row))).collect()
            }
            Eyes::Postgres(eyes) => {
                let sql = raw_sql(AssertSqlSafe(sql.to_owned()));
                let rows = sql.fetch_all(eyes).await.unwrap();
                let cells = |row: &sqlx::postgres::PgRow| {
                    (0..row.len()).map(|i| row.get_unchecked(i)).collect()
                };
                rows.iter().map(|row| join(cells(row))).collect()
            }
        }
    }

    async fn tables_of(&mut self, facts: &RunFacts) -> Vec<String> {
        let names = TableNames::of(&facts.run);
        let catalog = match self.eyes {
            Eyes::Sqlite(_) => "select name from sqlite_master where type = 'table' and name",
            Eyes::Postgres(_) => "select relname from pg_class where relname",
        };
        let TableNames { stage, admit, run } = names;
        let found = self
            .rows(&format!("{catalog} in ('{stage}', '{admit}', '{run}')"))
            .await;
        let mut kinds: Vec<String> = found
            .iter()
            .map(|name| name.split('_').next().unwrap().to_owned())
            .collect();
        kinds.sort();
        kinds
    }

    /// Takes a run as far as its run table.
    async fn laid_out(&self, facts: &RunFacts) -> campaignd::audience::Funnel {
        let ours = self.warehouse.register(facts).await.unwrap();
        assert_eq!(ours, Registration::Ours);
        self.warehouse.freeze(facts).await.unwrap();
        let funnel = self.warehouse.admit(facts).await.unwrap();
        self.warehouse.lay_out(facts).await.unwrap();
        funnel
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn facts(sql: &str) -> RunFacts {
    facts_of("winback", sql)
}

fn facts_of(campaign: &str, sql: &str) -> RunFacts {
    let campaign: CampaignName = campaign.parse().unwrap();
    let fire_time = at("2026-11-22T14:00:00Z");
    RunFacts {
        run: RunId::scheduled(&campaign, fire_time),
        campaign,
        campaign_version: "v1".to_owned(),
        fire_time,
        trigger: Trigger::Scheduled,
        started_at: at("2026-11-22T14:00:01Z"),
        audience: AudienceSpec {
            key: "id".to_owned(),
            sql: sql.to_owned(),
        },
        batch_size: 3,
        destination: "email-esp".parse().unwrap(),
        channel: "email".to_owned(),
        attributes: Some(r#"{"offer":"it's \\ 10 %"}"#.to_owned()),
        owner: Uuid::from_u128(1),
        term: 1,
    }
}

const PEOPLE: &str = "select id, email, age from people";

fn outcome(facts: &RunFacts, batch: u32, members: u32, status: BatchStatus) -> BatchOutcome {
    let path = BatchPath::whole(batch);
    BatchOutcome {
        message_id: MessageId::of(&facts.run, &path, 0),
        path,
        status,
        members,
        attempts: 1,
        http_status: Some(200),
        first_attempt_at: Some(at("2026-11-22T14:01:00.25Z")),
        settled_at: at("2026-11-22T14:01:01Z"),
        error: (status != BatchStatus::Delivered).then(|| "the destination's no".to_owned()),
    }
}

fn settlement(
    facts: &RunFacts,
    funnel: campaignd::audience::Funnel,
    outcomes: Vec<BatchOutcome>,
) -> Settlement {
    Settlement {
        facts: Arc::new(facts.clone()),
        funnel,
        status: RunStatus::Open,
        error: None,
        outcomes,
    }
}

fn closing(facts: &RunFacts, funnel: campaignd::audience::Funnel, status: RunStatus) -> Closing {
    Closing {
        facts: Arc::new(facts.clone()),
        funnel,
        status,
        finished_at: at("2026-11-22T14:05:00Z"),
        error: None,
        keep_run_table: false,
    }
}

async fn a_run_goes_from_its_audience_to_its_history(place: &mut Place) {
    let facts = facts(PEOPLE);
    let funnel = place.laid_out(&facts).await;
    assert!(funnel.adds_up());
    let fell_out = (
        funnel.audience,
        funnel.no_key,
        funnel.bad_key,
        funnel.duplicate,
    );
    assert_eq!(fell_out, (12, 2, 1, 2));
    assert_eq!(funnel.planned, 7);
    assert_eq!(place.tables_of(&facts).await, ["run"]);

    let page = place.warehouse.page(&facts, 1, 7).await.unwrap();
    assert_eq!(page.len(), 7);
    assert_eq!(&**page.columns(), ["id", "email", "age"]);

    let first = [
        outcome(&facts, 1, 3, BatchStatus::Delivered),
        outcome(&facts, 2, 3, BatchStatus::Unknown),
    ];
    let tally = place
        .warehouse
        .settle(&[settlement(&facts, funnel, first.into())])
        .await
        .unwrap();
    let expected = Tally {
        delivered: 3,
        unknown: 3,
        still_open: 1,
        ..Tally::default()
    };
    assert_eq!(tally, [expected]);
    let row =
        "select status, audience, planned, delivered, unknown, still_open from campaignd.runs";
    assert_eq!(place.rows(row).await, ["open|12|7|3|3|1"]);

    let last = outcome(&facts, 3, 1, BatchStatus::Rejected);
    place
        .warehouse
        .settle(&[settlement(&facts, funnel, vec![last])])
        .await
        .unwrap();
    let tally = place
        .warehouse
        .close(&closing(&facts, funnel, RunStatus::Incomplete))
        .await
        .unwrap();
    assert_eq!((tally.rejected, tally.still_open), (1, 0));
    assert_eq!(tally.total(), funnel.planned);
    assert_eq!(place.tables_of(&facts).await, [""; 0]);
    assert_eq!(
        place.rows("select * from campaignd.open_runs").await,
        [""; 0]
    );
    the_history_of_winback_is_whole(place).await;
}

async fn the_history_of_winback_is_whole(place: &mut Place) {
    let counted = "select status, batch, count(*), count(distinct profile_id) \
                   from campaignd.contact_history group by status, batch order by batch";
    assert_eq!(
        place.rows(counted).await,
        ["delivered|1|3|3", "unknown|2|3|3", "rejected|3|1|1"]
    );
    let details = "select run_id, campaign, destination, channel, part, reason, attributes, \
                   campaign_version from campaignd.contact_history where batch = 3";
    assert_eq!(
        place.rows(details).await,
        [
            r#"winback@20261122T140000Z|winback|email-esp|email||the destination's no|{"offer":"it's \\ 10 %"}|v1"#
        ]
    );
    let counts = match place.eyes {
        Eyes::Sqlite(_) => ["1|0", "1|0", "0|0"],
        Eyes::Postgres(_) => ["t|f", "t|f", "f|f"],
    };
    let contacts = "select counts_as_contact, is_test from campaignd.contact_history \
                    group by batch, counts_as_contact, is_test order by batch";
    assert_eq!(place.rows(contacts).await, counts);
    let times = "select distinct cast(fire_time as varchar(19)), cast(contacted_at as varchar(22)) \
                 from campaignd.contact_history";
    let times = place.rows(times).await;
    assert_eq!(times.len(), 1);
    assert!(times[0].starts_with("2026-11-22 14:00:00"), "{times:?}");
    assert!(times[0].contains("|2026-11-22 14:01:00.25"), "{times:?}");
    let runs = "select status, delivered, rejected, unknown, still_open from campaignd.runs";
    assert_eq!(place.rows(runs).await, ["incomplete|3|1|3|0"]);
}

async fn every_step_can_be_repeated(place: &mut Place) {
    let facts = facts(PEOPLE);
    for _ in 0..2 {
        let ours = place.warehouse.register(&facts).await.unwrap();
        assert_eq!(ours, Registration::Ours);
    }
    for _ in 0..2 {
        place.warehouse.freeze(&facts).await.unwrap();
        assert_eq!(place.tables_of(&facts).await, ["stage"]);
    }
    // What is frozen, stays: a later change of the source is not seen.
    place.run("delete from people where id = 'p-7'").await;
    let funnel = place.warehouse.admit(&facts).await.unwrap();
    assert_eq!(place.warehouse.admit(&facts).await.unwrap(), funnel);
    assert_eq!(funnel.planned, 7);
    for _ in 0..2 {
        place.warehouse.lay_out(&facts).await.unwrap();
        assert_eq!(place.tables_of(&facts).await, ["run"]);
    }
    place.warehouse.freeze(&facts).await.unwrap();
    assert_eq!(place.warehouse.admit(&facts).await.unwrap(), funnel);
    assert_eq!(place.tables_of(&facts).await, ["run"]);

    let closing = closing(&facts, funnel, RunStatus::Cancelled);
    let tally = place.warehouse.close(&closing).await.unwrap();
    assert_eq!(place.warehouse.close(&closing).await.unwrap(), tally);
    assert_eq!(tally.still_open, 7);
    let rows = "select status, still_open from campaignd.runs";
    assert_eq!(place.rows(rows).await, ["cancelled|7"]);
}

async fn settling_again_writes_nothing(place: &mut Place) {
    let facts = facts(PEOPLE);
    let funnel = place.laid_out(&facts).await;
    let outcomes = vec![
        outcome(&facts, 1, 3, BatchStatus::Delivered),
        outcome(&facts, 2, 3, BatchStatus::Failed),
        outcome(&facts, 2, 3, BatchStatus::Failed),
    ];
    let settlement = [settlement(&facts, funnel, outcomes)];
    let once = place.warehouse.settle(&settlement).await.unwrap();
    assert_eq!(place.warehouse.settle(&settlement).await.unwrap(), once);
    assert_eq!(
        (once[0].delivered, once[0].failed, once[0].still_open),
        (3, 3, 1)
    );

    place
        .warehouse
        .close(&closing(&facts, funnel, RunStatus::Incomplete))
        .await
        .unwrap();
    // Also when the run is closed: its last row stays as it is.
    assert_eq!(place.warehouse.settle(&settlement).await.unwrap(), once);
    let counts = "select (select count(*) from campaignd.contact_history), \
                  (select count(*) from campaignd.deliveries), \
                  (select count(*) from campaignd.runs where status = 'incomplete')";
    assert_eq!(place.rows(counts).await, ["6|2|1"]);
}

async fn values_come_back_as_they_were(place: &mut Place) {
    let facts = facts("select age, email, id from people");
    place.laid_out(&facts).await;
    let page = place.warehouse.page(&facts, 1, 7).await.unwrap();
    let rows: Vec<Vec<(Kind, &str)>> = (0..7).map(|n| page.row(n).cells().collect()).collect();
    // Of the rows of one key the first in the order of its columns stays.
    let ada = [
        (Kind::Integer, "36"),
        (Kind::Text, "ada@example.com"),
        (Kind::Text, "p-1"),
    ];
    assert!(rows.contains(&ada.to_vec()), "{rows:?}");
    let crab = [
        (Kind::Null, ""),
        (Kind::Text, "🦀 \"quoted\" 日本"),
        (Kind::Text, "p-3"),
    ];
    assert!(rows.contains(&crab.to_vec()), "{rows:?}");
    let slash = [
        (Kind::Integer, "-1"),
        (Kind::Text, ""),
        (Kind::Text, r"p-'5\"),
    ];
    assert!(rows.contains(&slash.to_vec()), "{rows:?}");

    let again = place.warehouse.page(&facts, 3, 4).await.unwrap();
    let again: Vec<Vec<_>> = (0..again.len())
        .map(|n| again.row(n).cells().collect())
        .collect();
    assert_eq!(again, rows[2..4]);
    let beyond = place.warehouse.page(&facts, 8, 100).await.unwrap();
    assert!(beyond.is_empty());
    assert_eq!(beyond.columns().len(), 3);
}

async fn a_run_of_another_owner_is_taken(place: &mut Place) {
    let ours = facts(PEOPLE);
    let theirs = RunFacts {
        owner: Uuid::from_u128(2),
        ..ours.clone()
    };
    place.warehouse.register(&ours).await.unwrap();
    let taken = place.warehouse.register(&theirs).await.unwrap();
    assert!(matches!(taken, Registration::Taken { .. }));
    place.warehouse.freeze(&ours).await.unwrap();
    let refused = place.warehouse.admit(&theirs).await.unwrap_err();
    assert_eq!(refused.class, WarehouseErrorClass::Statement);
    let closing = closing(&theirs, Default::default(), RunStatus::Failed);
    assert!(place.warehouse.close(&closing).await.is_err());
    assert_eq!(place.tables_of(&ours).await, ["stage"]);
    // And nothing was left locked.
    place.warehouse.admit(&ours).await.unwrap();
}

async fn a_run_that_has_ended_is_taken(place: &mut Place) {
    let facts = facts(PEOPLE);
    let funnel = place.laid_out(&facts).await;
    let end = closing(&facts, funnel, RunStatus::Finished);
    place.warehouse.close(&end).await.unwrap();
    let taken = place.warehouse.register(&facts).await.unwrap();
    let by = "an earlier run that is finished".to_owned();
    assert_eq!(taken, Registration::Taken { by });

    // A held run is begun again under its own id.
    let held = facts_of("held", PEOPLE);
    let funnel = place.laid_out(&held).await;
    let end = closing(&held, funnel, RunStatus::Held);
    place.warehouse.close(&end).await.unwrap();
    assert_eq!(place.laid_out(&held).await, funnel);
    let rows = "select status from campaignd.runs where campaign = 'held'";
    assert_eq!(place.rows(rows).await, ["open"]);
}

async fn a_failing_query_says_where(place: &mut Place) {
    let facts = facts("select id,\n  ägé, emial from people -- ü");
    place.warehouse.register(&facts).await.unwrap();
    let failed = place.warehouse.freeze(&facts).await.unwrap_err();
    assert_eq!(failed.class, WarehouseErrorClass::Statement);
    assert_eq!(failed.place, Some((2, 3)), "{failed:?}");
    assert!(failed.message.contains("ägé"), "{failed}");
    assert_eq!(place.tables_of(&facts).await, [""; 0]);

    let gone = facts_of("gone", "select id from no_such_table");
    let failed = place.warehouse.freeze(&gone).await.unwrap_err();
    assert_eq!(failed.class, WarehouseErrorClass::Statement);
    assert_eq!(failed.place, Some((1, 16)), "{failed:?}");
}

async fn columns_that_cannot_be_staged_are_refused(place: &mut Place) {
    for (sql, word) in [
        ("select email as idd, age from people", "`id`"),
        ("select id, age as cd_seq from people", "cd_seq"),
        ("select id, age, age from people", "age"),
    ] {
        let facts = facts(sql);
        let failed = place.warehouse.freeze(&facts).await.unwrap_err();
        assert_eq!(failed.class, WarehouseErrorClass::Statement, "{sql}");
        assert!(failed.message.contains(word), "{sql}: {failed}");
        assert_eq!(place.tables_of(&facts).await, [""; 0]);
    }
}

async fn a_semicolon_and_a_comment_at_the_end_do_no_harm(place: &mut Place) {
    let facts = facts("select id, email from people; -- everybody");
    let funnel = place.laid_out(&facts).await;
    assert_eq!(funnel.planned, 7);
}

async fn more_than_one_statement_is_never_run(place: &mut Place) {
    for sql in [
        "select id from people; drop table people",
        "select id from people) as q; drop table people; --",
        r"select id from people where email = 'x\'; drop table people; --'",
        "delete from people",
    ] {
        let failed = place.warehouse.freeze(&facts(sql)).await.unwrap_err();
        assert_eq!(failed.class, WarehouseErrorClass::Statement, "{sql}");
    }
    assert_eq!(place.rows("select count(*) from people").await, ["12"]);
}

async fn an_empty_audience_is_closed_with_zeros(place: &mut Place) {
    let facts = facts("select id, email from people where 1 = 0");
    let funnel = place.laid_out(&facts).await;
    assert_eq!(funnel, Default::default());
    let page = place.warehouse.page(&facts, 1, 3).await.unwrap();
    assert!(page.is_empty());
    let end = closing(&facts, funnel, RunStatus::Finished);
    let tally = place.warehouse.close(&end).await.unwrap();
    assert_eq!(tally, Tally::default());
    let rows = "select status, audience, planned, still_open from campaignd.runs";
    assert_eq!(place.rows(rows).await, ["finished|0|0|0"]);
}

async fn a_run_that_failed_before_admission_is_closed(place: &mut Place) {
    let facts = facts("select id, oops from people");
    place.warehouse.register(&facts).await.unwrap();
    let failed = place.warehouse.freeze(&facts).await.unwrap_err();
    let end = Closing {
        error: Some(failed.message),
        ..closing(&facts, Default::default(), RunStatus::Failed)
    };
    place.warehouse.close(&end).await.unwrap();
    let rows = place.rows("select status, error from campaignd.runs").await;
    assert!(
        rows[0].starts_with("failed|") && rows[0].contains("oops"),
        "{rows:?}"
    );
    assert_eq!(
        place.rows("select * from campaignd.open_runs").await,
        [""; 0]
    );
}

async fn fire_times_without_a_run_are_recorded_once(place: &mut Place) {
    let campaign: CampaignName = "winback".parse().unwrap();
    let missed = |hour: i64| {
        let fire_time = at("2026-11-22T00:00:00Z") + jiff::SignedDuration::from_hours(hour);
        UnstartedRun {
            run: RunId::scheduled(&campaign, fire_time),
            campaign: campaign.clone(),
            campaign_version: "v1".to_owned(),
            fire_time,
            status: RunStatus::Missed,
            reason: "the daemon wasn't running".to_owned(),
        }
    };
    let first: Vec<_> = (0..3).map(missed).collect();
    let more: Vec<_> = (0..700).map(missed).collect();
    place.warehouse.record_unstarted(&first).await.unwrap();
    place.warehouse.record_unstarted(&more).await.unwrap();
    place.warehouse.record_unstarted(&[]).await.unwrap();
    let rows = "select status, count(*), count(distinct run_id), max(error) \
                from campaignd.runs group by status";
    assert_eq!(
        place.rows(rows).await,
        ["missed|700|700|the daemon wasn't running"]
    );
}

async fn several_runs_settle_in_one_transaction(place: &mut Place) {
    let (one, two) = (facts_of("one", PEOPLE), facts_of("two", PEOPLE));
    let funnel = place.laid_out(&one).await;
    place.laid_out(&two).await;
    let settlements = [
        settlement(
            &one,
            funnel,
            vec![outcome(&one, 3, 1, BatchStatus::Delivered)],
        ),
        settlement(
            &two,
            funnel,
            vec![outcome(&two, 1, 3, BatchStatus::Cancelled)],
        ),
    ];
    let tallies = place.warehouse.settle(&settlements).await.unwrap();
    assert_eq!((tallies[0].delivered, tallies[0].still_open), (1, 6));
    assert_eq!((tallies[1].cancelled, tallies[1].still_open), (3, 4));
    let rows = "select campaign, status, count(*) from campaignd.contact_history \
                group by campaign, status order by campaign";
    assert_eq!(
        place.rows(rows).await,
        ["one|delivered|1", "two|cancelled|3"]
    );
}

async fn an_error_names_no_member(place: &mut Place) {
    let sql = match place.eyes {
        Eyes::Sqlite(_) => "select id, json_extract(email, '$') as j from people",
        Eyes::Postgres(_) => "select id, cast(email as int) as j from people",
    };
    let facts = facts(sql);
    let failed = place.warehouse.freeze(&facts).await.unwrap_err();
    assert_eq!(failed.class, WarehouseErrorClass::Statement);
    let said = format!("{failed} {failed:?}");
    assert!(!said.contains("ada") && !said.contains("example"), "{said}");
}

#[tokio::test]
async fn postgres_types_become_kinds_and_what_is_unknown_becomes_text() {
    let mut place = Place::postgres().await;
    place.run("create type mood as enum ('fine')").await;
    let facts = facts(
        "select 'k' as id, true as b, false as c, 9007199254740993 as i, 1.50 as n, \
         cast('NaN' as numeric) as nan, cast(0.1 as float8) as f, \
         cast('2026-01-02 03:04:05.6' as timestamp) as t, \
         cast('2026-01-02 03:04:05+02' as timestamptz) as z, \
         cast('infinity' as timestamp) as never, cast('{\"a\":1}' as jsonb) as j, \
         cast('[1]' as json) as k, cast('2026-01-02' as date) as d, \
         cast('fine' as mood) as m, cast('(1,2)' as point) as p, \
         cast('\\x00ff' as bytea) as y",
    );
    place.laid_out(&facts).await;
    let page = place.warehouse.page(&facts, 1, 1).await.unwrap();
    let cells: Vec<_> = page.row(0).cells().skip(1).collect();
    assert_eq!(
        cells,
        [
            (Kind::Bool, "true"),
            (Kind::Bool, "false"),
            (Kind::Integer, "9007199254740993"),
            (Kind::Decimal, "1.50"),
            (Kind::Float, "NaN"),
            (Kind::Float, "0.1"),
            (Kind::Timestamp, "2026-01-02 03:04:05.6"),
            (Kind::TimestampTz, "2026-01-02 01:04:05+00"),
            (Kind::Text, "infinity"),
            (Kind::Json, "{\"a\": 1}"),
            (Kind::Json, "[1]"),
            (Kind::Text, "2026-01-02"),
            (Kind::Text, "fine"),
            (Kind::Text, "(1,2)"),
            (Kind::Text, "\\x00ff"),
        ]
    );
}

#[tokio::test]
async fn sqlite_cells_take_the_kind_of_their_declared_column() {
    let mut place = Place::sqlite().await;
    place
        .run("create table things (id text, b boolean, t timestamp, j json, r real, x blob)")
        .await;
    place
        .run("insert into things values ('a', 1, '2026-01-02 03:04:05', '{\"a\":1}', 0.5, x'00ff')")
        .await;
    let facts = facts("select id, b, t, j, r, x, 1.0 / 3 as third from things");
    place.laid_out(&facts).await;
    let page = place.warehouse.page(&facts, 1, 1).await.unwrap();
    let cells: Vec<_> = page.row(0).cells().skip(1).collect();
    assert_eq!(
        cells,
        [
            (Kind::Bool, "true"),
            (Kind::Timestamp, "2026-01-02 03:04:05"),
            (Kind::Json, "{\"a\":1}"),
            (Kind::Float, "0.5"),
            (Kind::Text, "AP8="),
            (Kind::Float, "0.3333333333333333"),
        ]
    );
}

#[tokio::test]
async fn tables_that_are_not_there_are_asked_for_and_made_once() {
    let server = Postgres::start();
    let options = ConnectorOptions::Server(server_options(&server));
    let warehouse = open(options.clone()).unwrap();
    for failed in [
        warehouse.ping().await.unwrap_err(),
        warehouse.register(&facts(PEOPLE)).await.unwrap_err(),
    ] {
        assert_eq!(failed.class, WarehouseErrorClass::Configuration);
        assert!(
            failed
                .message
                .ends_with("run `campaignd bootstrap NAME --apply`")
        );
    }
    let made = apply_bootstrap(options.clone()).await.unwrap();
    assert!(made.iter().all(|made| made.change == Change::Created));
    warehouse.ping().await.unwrap();
    let again = apply_bootstrap(options).await.unwrap();
    assert!(again.iter().all(|made| made.change == Change::None));
}

#[tokio::test]
async fn a_column_that_an_older_version_did_not_have_is_added() {
    let mut place = Place::postgres().await;
    place
        .run("alter table campaignd.runs drop column error")
        .await;
    let applied = apply_bootstrap(place.options.clone()).await.unwrap();
    let runs = applied
        .iter()
        .find(|made| made.what == "table runs")
        .unwrap();
    assert_eq!(runs.change, Change::ColumnsAdded(1));
}

#[tokio::test]
async fn what_bootstrap_prints_can_be_run_twice_by_an_administrator() {
    let mut place = Place::postgres().await;
    let options = BootstrapOptions {
        schema: "other \"schema\"".to_owned(),
        user: "campaigner".to_owned(),
        shared: vec!["public.people".to_owned()],
    };
    let sql = bootstrap(Dialect::Postgres, &options).unwrap();
    place.run(&sql).await;
    place.run(&sql).await;
    let ConnectorOptions::Server(server) = place.options.clone() else {
        unreachable!("it is a server");
    };
    let login = ConnectorOptions::Server(ServerOptions {
        user: options.user,
        schema: options.schema,
        ..server
    });
    let warehouse = open(login).unwrap();
    warehouse.ping().await.unwrap();
    let facts = facts(PEOPLE);
    warehouse.register(&facts).await.unwrap();
    warehouse.freeze(&facts).await.unwrap();
    assert_eq!(warehouse.admit(&facts).await.unwrap().planned, 7);
}

#[tokio::test]
async fn a_warehouse_that_cannot_be_reached_is_named() {
    let server = Postgres::start();
    let mut options = server_options(&server);
    options.host = "127.0.0.1".to_owned();
    let there = open(ConnectorOptions::Server(options.clone())).unwrap();
    let failed = there.ping().await.unwrap_err();
    assert_eq!(failed.class, WarehouseErrorClass::Configuration, "{failed}");

    options.database = "no_such_database".to_owned();
    let wrong = open(ConnectorOptions::Server(options.clone())).unwrap();
    let failed = wrong.ping().await.unwrap_err();
    assert_eq!(failed.class, WarehouseErrorClass::Configuration);
    assert!(
        failed
            .message
            .ends_with("check `database` of the connector"),
        "{failed}"
    );

    drop(server);
    let gone = open(ConnectorOptions::Server(options.clone())).unwrap();
    let failed = gone.ping().await.unwrap_err();
    assert_eq!(failed.class, WarehouseErrorClass::Lost);
    let target = format!("127.0.0.1:{}", options.port);
    assert!(failed.message.contains(&target), "{failed}");
}

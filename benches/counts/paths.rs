//! The paths that are counted, on inputs that never change.

use campaignd::audience::{
    AudienceSpec, Column, Dialect, FrequencyCap, Holdout, OrderBy, Policy, RunTables, Schema,
};
use campaignd::delivery::{Envelope, Kind, Page, Renderer, SigningKey, sign};
use campaignd::id::{BatchPath, MessageId, RunId};
use std::hint::black_box;
use std::sync::Arc;

/// Their names.
pub(crate) const ALL: [&str; 3] = ["render", "sign", "freeze"];

/// Members of the batch that is rendered.
const MEMBERS: usize = 500;

/// Bytes of the body that is signed.
const BODY: usize = 64 * 1024;

const RUN: &str = "winback-lapsed-buyers@20261122T140000Z";

/// Runs the path so many times.
pub(crate) fn run(path: &str, times: u32) {
    match path {
        "render" => render(times),
        "sign" => signature(times),
        "freeze" => freeze(times),
        other => panic!("no path is called {other}"),
    }
}

fn run_id() -> RunId {
    RUN.parse().expect("a run id")
}

/// A batch: rows of text cells to the bytes of the body.
fn render(times: u32) {
    let envelope = Envelope {
        campaign: "winback-lapsed-buyers".parse().expect("a name"),
        run: run_id(),
        fire_time: "2026-11-22T14:00:00Z".parse().expect("a time"),
        channel: "email".to_owned(),
        batches: 20,
        attributes: serde_json::Map::new(),
    };
    let renderer = Renderer::new(&envelope);
    let columns = [
        "profile_id",
        "email",
        "first_name",
        "value",
        "last_order_at",
    ];
    let columns: Vec<String> = columns.map(str::to_owned).into();
    let mut page = Page::new(Arc::from(columns));
    for number in 0..MEMBERS {
        page.push(Kind::Text, &format!("p-{number:08}"));
        page.push(Kind::Text, &format!("customer{number}@example.com"));
        page.push(Kind::Text, "Zoë \"Z\"");
        page.push(Kind::Decimal, "199.95");
        page.push(Kind::Timestamp, "2026-01-02 03:04:05");
    }
    let batch = BatchPath::whole(3);
    for _ in 0..times {
        let body = renderer.render(black_box(&batch), black_box(&page), 0..MEMBERS);
        black_box(body.expect("the usual body has no template"));
    }
}

/// The signature of one request.
fn signature(times: u32) {
    let key = SigningKey::parse("whsec_Y2FtcGFpZ25kLWJlbmNoLXNpZ25pbmcta2V5LTMy");
    let keys = [key.expect("a secret of 32 bytes")];
    let id = MessageId::of(&run_id(), &BatchPath::whole(3), 0);
    let at = "2026-11-22T14:00:00Z".parse().expect("a time");
    let body = vec![b'x'; BODY];
    for _ in 0..times {
        black_box(sign(&keys, &id, at, black_box(&body)));
    }
}

/// The statement that freezes a run's audience, under every kind of policy.
fn freeze(times: u32) {
    let schema = Schema {
        dialect: Dialect::Postgres,
        name: "campaignd".to_owned(),
    };
    let audience = AudienceSpec {
        key: "profile_id".to_owned(),
        sql: "select profile_id, email, last_order_at from shared.lapsed_buyers".to_owned(),
    };
    let column = |name: &str, number: u32| Column {
        name: name.to_owned(),
        type_name: number.to_string(),
    };
    let columns = [
        column("profile_id", 25),
        column("email", 25),
        column("last_order_at", 1114),
    ];
    let policy = Policy {
        frequency_cap: vec![FrequencyCap {
            contacts: 2,
            within_secs: 604_800,
            channel: Some("email".to_owned()),
        }],
        cooldown_secs: Some(2_592_000),
        holdout: Some(Holdout {
            basis_points: 1_000,
            salt: "winback-2026".to_owned(),
        }),
        limit: Some(200_000),
        order_by: vec![OrderBy {
            column: "last_order_at".to_owned(),
            descending: true,
        }],
    };
    let suppress = ["shared.do_not_contact".to_owned()];
    let run = run_id();
    for _ in 0..times {
        let tables = RunTables::new(black_box(&schema), &run, &audience);
        let tables = tables.without(&suppress).under(&policy);
        let frozen = tables.freeze(&columns, &columns[0], 500);
        black_box(frozen.expect("the columns carry the policy"));
    }
}

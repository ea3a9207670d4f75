//! What the machine does at most: each kind of work alone, by the plainest
//! means.

use crate::postgres::ConnDetails;
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use sqlx::{AssertSqlSafe, Connection as _, Row as _, raw_sql};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Rows of a page, when pages are read alone.
const PAGE: u32 = 10_000;

/// The campaign's query for the first `members` customers.
pub(crate) fn audience(members: u32) -> String {
    format!(
        "select profile_id, email, first_name, lifetime_value, last_order_at from customers where id <= {members}"
    )
}

/// How long each kind of work takes alone.
pub(crate) struct Limits {
    pub(crate) stage: Duration,
    pub(crate) pages: Duration,
    pub(crate) posts: Duration,
    pub(crate) settle: Duration,
}

/// The bench's own connection.
pub(crate) struct Warehouse(Mutex<PgConnection>);

impl Warehouse {
    pub(crate) async fn connect(database: &ConnDetails) -> Self {
        let options = PgConnectOptions::new_without_pgpass()
            .socket(&database.host)
            .port(database.port)
            .username(&database.user)
            .database(&database.database)
            .ssl_mode(PgSslMode::Disable);
        let connection = PgConnection::connect_with(&options).await;
        Self(Mutex::new(connection.expect("the server answers")))
    }

    /// The server's version.
    pub(crate) async fn version(&self) -> String {
        let version = sqlx::query_scalar("show server_version");
        let version = version.fetch_one(&mut *self.0.lock().await).await;
        version.expect("the server answers")
    }

    pub(crate) async fn fill(&self, customers: u32) {
        self.run(&format!(
            "create table customers as select n as id, 'p-' || lpad(n::text, 8, '0') as profile_id,
             'customer' || n || '@example.com' as email, 'Name' || n % 1000 as first_name,
             (n % 100000)::numeric / 100 as lifetime_value,
             timestamp '2026-01-01' + n % 10000 * interval '1 hour' as last_order_at
             from generate_series(1, {customers}) n"
        ))
        .await;
        self.run("analyze customers").await;
    }

    async fn run(&self, sql: &str) -> Duration {
        let begun = Instant::now();
        let mut connection = self.0.lock().await;
        raw_sql(AssertSqlSafe(sql.to_owned()))
            .execute(&mut *connection)
            .await
            .expect(sql);
        begun.elapsed()
    }

    /// Each kind of work alone, for the audience that `bodies` came from.
    pub(crate) async fn limits(
        &self,
        members: u32,
        batch_size: u32,
        bodies: &[Vec<u8>],
        port: u16,
        in_flight: u32,
    ) -> Limits {
        self.run("drop table if exists limit_stage, limit_outcomes, limit_history")
            .await;
        let stage = self
            .run(&format!(
                "create table limit_stage as select row_number() over (order by profile_id) as seq, q.* from ({}) q",
                audience(members)
            ))
            .await;
        self.run("create index on limit_stage using brin (seq) with (pages_per_range = 32)")
            .await;
        self.run("analyze limit_stage").await;
        let pages = self.read_pages(members).await;
        let posts = post(bodies, port, in_flight).await;
        let settle = self.settle(members.div_ceil(batch_size), batch_size).await;
        Limits {
            stage,
            pages,
            posts,
            settle,
        }
    }

    async fn read_pages(&self, members: u32) -> Duration {
        let begun = Instant::now();
        let mut connection = self.0.lock().await;
        let mut bytes = 0;
        for first in (1..=members).step_by(PAGE as usize) {
            let sql = format!(
                "select profile_id, email, first_name, lifetime_value, last_order_at from limit_stage where seq between {first} and {} order by seq",
                first + PAGE - 1
            );
            let mut rows = raw_sql(AssertSqlSafe(sql)).fetch(&mut *connection);
            while let Some(row) = rows.try_next().await.expect("a page") {
                for column in 0..5 {
                    bytes += row
                        .try_get_raw(column)
                        .expect("a cell")
                        .as_bytes()
                        .map_or(0, <[u8]>::len);
                }
            }
        }
        assert!(bytes > 0, "the pages hold members");
        begun.elapsed()
    }

    /// The history goes into a table like the one that `bootstrap` has made,
    /// with its index, which takes a sixth of the time.
    async fn settle(&self, batches: u32, batch_size: u32) -> Duration {
        self.run(&format!(
            "create table limit_outcomes as select n as batch, md5(n::text) as message_id, timestamp '2026-01-01' as at from generate_series(1, {batches}) n"
        ))
        .await;
        self.run("create table limit_history (like campaignd.contact_history including all)")
            .await;
        self.run(&format!(
            "insert into limit_history select 'audience@20260101T000000Z', 'audience', timestamp '2026-01-01', s.profile_id,
             'sink', 'email', 'delivered', true, false, o.batch, '', o.message_id, null, '{{\"offer\":\"bench\"}}',
             repeat('0', 64), o.at, now() at time zone 'utc'
             from limit_stage s join limit_outcomes o on o.batch = (s.seq - 1) / {batch_size} + 1"
        ))
        .await
    }
}

/// Posts the bodies over `in_flight` bare sockets.
pub(crate) async fn post(bodies: &[Vec<u8>], port: u16, in_flight: u32) -> Duration {
    let requests: Arc<Vec<Vec<u8>>> = Arc::new(bodies.iter().map(|body| request(body)).collect());
    let next = Arc::new(AtomicUsize::new(0));
    let begun = Instant::now();
    let mut posters = JoinSet::new();
    for _ in 0..in_flight {
        posters.spawn(post_some(Arc::clone(&requests), Arc::clone(&next), port));
    }
    posters.join_all().await;
    begun.elapsed()
}

/// Posts the bodies with the HTTP client the program uses, and nothing else.
pub(crate) async fn post_by_client(bodies: &[Vec<u8>], port: u16, in_flight: u32) -> Duration {
    let client = reqwest::Client::builder().no_proxy().build();
    let client = client.expect("a client");
    let url: reqwest::Url = format!("http://127.0.0.1:{port}/").parse().expect("a URL");
    let bodies: Arc<Vec<Bytes>> = Arc::new(bodies.iter().cloned().map(Bytes::from).collect());
    let next = Arc::new(AtomicUsize::new(0));
    let begun = Instant::now();
    let mut posters = JoinSet::new();
    for _ in 0..in_flight {
        let (client, url) = (client.clone(), url.clone());
        let (bodies, next) = (Arc::clone(&bodies), Arc::clone(&next));
        posters.spawn(async move {
            while let Some(body) = bodies.get(next.fetch_add(1, Ordering::Relaxed)) {
                let sending = client.post(url.clone()).body(body.clone()).send();
                let answer = sending.await.expect("it answers");
                assert_eq!(answer.status(), 200);
            }
        });
    }
    posters.join_all().await;
    begun.elapsed()
}

fn request(body: &[u8]) -> Vec<u8> {
    let mut request = format!(
        "POST / HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}

async fn post_some(requests: Arc<Vec<Vec<u8>>>, next: Arc<AtomicUsize>, port: u16) {
    let mut stream = TcpStream::connect(("127.0.0.1", port))
        .await
        .expect("the receiver");
    stream.set_nodelay(true).expect("a TCP socket");
    let mut answer = [0; 1_024];
    while let Some(request) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
        stream.write_all(request).await.expect("it reads");
        // The answer is one short write, and so one read.
        let read = stream.read(&mut answer).await.expect("it answers");
        assert!(answer[..read].starts_with(b"HTTP/1.1 200"), "it says 200");
    }
}

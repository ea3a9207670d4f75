//! The activation job on PostgreSQL beside the machine's own limits, in the
//! same run: `make bench`.
//!
//! For each audience size the built program runs one campaign, from the
//! customers table through the webhook to contact history. Then each of its
//! four kinds of work is done alone, by the plainest means: the audience as one
//! `CREATE TABLE AS`, its rows read in keyed pages and thrown away, the same
//! bodies posted over bare sockets, the history written by one
//! `INSERT … SELECT`. Their sum is the composite limit; the ratio says how
//! much of the machine is left over.

mod limits;
mod machine;
#[path = "../../tests/support/postgres.rs"]
#[expect(unreachable_pub, reason = "it is the tests' own")]
mod postgres;
mod process;
mod rates;
mod receiver;

use limits::{Limits, Warehouse};
use process::Usage;
use receiver::Receiver;
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;

/// People in the warehouse.
const CUSTOMERS: u32 = 1_000_000;

/// Members of the audiences measured.
const AUDIENCES: [u32; 3] = [10_000, 100_000, 1_000_000];

/// Members of the one audience of `-- large`: that memory does not grow, nor a
/// page take longer, shows only there.
const LARGE: u32 = 10_000_000;

/// Each figure is the median of this many runs.
const RUNS: usize = 3;

/// Members of a usual batch.
const BATCH_SIZE: u32 = 500;

/// Requests in flight with it.
const IN_FLIGHT: u32 = 8;

/// Requests in flight where each brings one member.
const IN_FLIGHT_SINGLY: u32 = 64;

/// How long the receiver takes to answer.
const DELAYS: [Duration; 2] = [Duration::ZERO, Duration::from_millis(50)];

/// Requests of one member that a case may take: answered at once, and later. The
/// larger audiences would take an hour, and show nothing that these do not.
const MAX_SINGLY: [u32; 2] = [100_000, 10_000];

/// A folder that is in memory on Linux.
const IN_MEMORY: &str = "/dev/shm";

/// Signs what the bench sends to itself; not a secret.
const SIGNING_SECRET: &str = "whsec_Y2FtcGFpZ25kLWJlbmNoLXNpZ25pbmcta2V5LTMy";

fn main() {
    // `cargo test --benches` and `cargo nextest` call benches with these.
    if std::env::args().any(|arg| arg == "--test" || arg == "--list") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(bench());
}

/// One run of the program.
struct Ours {
    wall: Duration,
    usage: Usage,
}

#[expect(clippy::print_stdout, reason = "a bench prints its table")]
async fn bench() {
    let server = postgres::Postgres::start();
    let database = server.database("bench");
    let warehouse = Warehouse::connect(&database).await;
    // `cargo bench --bench activation -- large`: only the largest audience, once.
    let is_large = std::env::args().any(|arg| arg == "large");
    let customers = if is_large { LARGE } else { CUSTOMERS };
    warehouse.fill(customers).await;
    let receiver = Receiver::start().await;
    let dir = tempfile::tempdir().expect("a temporary folder");
    write_files(dir.path(), &database, receiver.port());
    process::run(dir.path(), &["bootstrap", "warehouse", "--apply"]).await;

    // `cargo bench --bench activation -- rates`: only this, which takes four
    // minutes.
    if std::env::args().any(|arg| arg == "rates") {
        for line in rates::rates(&database, &receiver).await {
            println!("{line}");
        }
        return;
    }
    println!("{}", machine::facts(&warehouse.version().await));
    let runs = if is_large { 1 } else { RUNS };
    println!("{customers} customers, medians of {runs}");
    println!(
        "{:>9} {:>5} {:>5} {:>6} {:>8} {:>8} {:>8} {:>8} {:>9} {:>8} {:>7} {:>10} {:>7} {:>8}",
        "members",
        "batch",
        "ms",
        "flight",
        "stage s",
        "pages s",
        "posts s",
        "settle s",
        "limit s",
        "ours s",
        "ratio",
        "members/s",
        "CPU s",
        "RSS MiB"
    );
    let only = std::env::args().find_map(|arg| arg.parse::<u32>().ok());
    let (cases, durable) = match (is_large, only) {
        (true, _) => (vec![Case::large()], false),
        (false, None) => (cases(), true),
        // `cargo bench --bench activation -- 1000000`: that audience alone.
        (false, Some(members)) => {
            let cases = cases().into_iter().filter(|case| case.members == members);
            (cases.collect(), false)
        }
    };
    for case in cases {
        let measured = match case.is_bounded() {
            true => measure(&case, runs, dir.path(), &warehouse, &receiver).await,
            false => "not measured: it would take the bench too long".to_owned(),
        };
        println!("{} {measured}", case.label());
    }
    if durable {
        println!("{}", durability(&database, receiver.port()).await);
    }
}

/// What one line of the table is about.
struct Case {
    members: u32,
    batch_size: u32,
    in_flight: u32,
    delay: Duration,
}

/// All lines, the usual batches first.
fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (batch_size, in_flight) in [(BATCH_SIZE, IN_FLIGHT), (1, IN_FLIGHT_SINGLY)] {
        for delay in DELAYS {
            cases.extend(AUDIENCES.map(|members| Case {
                members,
                batch_size,
                in_flight,
                delay,
            }));
        }
    }
    cases
}

impl Case {
    fn large() -> Self {
        Self {
            members: LARGE,
            batch_size: BATCH_SIZE,
            in_flight: IN_FLIGHT,
            delay: Duration::ZERO,
        }
    }

    fn is_bounded(&self) -> bool {
        let [at_once, delayed] = MAX_SINGLY;
        let most = if self.delay.is_zero() {
            at_once
        } else {
            delayed
        };
        self.batch_size > 1 || self.members <= most
    }

    fn campaign(&self) -> String {
        let singly = if self.batch_size == 1 { "-singly" } else { "" };
        format!("audience-{}{singly}", self.members)
    }

    fn label(&self) -> String {
        format!(
            "{:>9} {:>5} {:>5} {:>6}",
            self.members,
            self.batch_size,
            self.delay.as_millis(),
            self.in_flight
        )
    }
}

/// Runs the case so many times, ours and the limits turn by turn. The run
/// before them is not measured: the bodies are kept of it, which costs memory
/// that the limits do not pay for.
async fn measure(
    case: &Case,
    runs: usize,
    dir: &Path,
    warehouse: &Warehouse,
    receiver: &Receiver,
) -> String {
    let mut limits = Vec::new();
    let mut ours = Vec::new();
    receiver.delay(case.delay);
    receiver.record();
    run_ours(dir, &case.campaign()).await;
    let bodies = receiver.recorded();
    for _ in 0..runs {
        receiver.take_requests();
        ours.push(run_ours(dir, &case.campaign()).await);
        assert_eq!(
            receiver.take_requests(),
            u64::from(case.members.div_ceil(case.batch_size)),
            "every batch came once"
        );
        let (port, in_flight) = (receiver.port(), case.in_flight);
        let alone = warehouse.limits(case.members, case.batch_size, &bodies, port, in_flight);
        limits.push(alone.await);
    }
    receiver.delay(Duration::ZERO);
    line(case.members, &limits, &ours)
}

/// What the durable writes cost: the largest audience with the ledger on disk
/// and in memory, turn by turn.
async fn durability(database: &postgres::ConnDetails, port: u16) -> String {
    let largest = AUDIENCES[AUDIENCES.len() - 1];
    let dirs = [std::env::temp_dir(), IN_MEMORY.into()]
        .map(|base| tempfile::tempdir_in(base).expect("a temporary folder"));
    let mut seconds = [Vec::new(), Vec::new()];
    for dir in &dirs {
        write_files(dir.path(), database, port);
    }
    for _ in 0..RUNS {
        for (dir, seconds) in dirs.iter().zip(&mut seconds) {
            let ours = run_ours(dir.path(), &format!("audience-{largest}")).await;
            seconds.push(ours.wall.as_secs_f64());
        }
    }
    let [disk, memory] = seconds.map(|seconds| median(seconds.into_iter()));
    format!(
        "{largest} members with the ledger on disk {disk:.3} s, in memory {memory:.3} s: \
         durability takes {:.1} %",
        (disk - memory) / disk * 100.0
    )
}

async fn run_ours(dir: &Path, campaign: &str) -> Ours {
    let begun = Instant::now();
    let usage = process::run(dir, &["run", campaign]).await;
    Ours {
        wall: begun.elapsed(),
        usage,
    }
}

fn line(members: u32, limits: &[Limits], ours: &[Ours]) -> String {
    let stage = median(limits.iter().map(|l| l.stage.as_secs_f64()));
    let pages = median(limits.iter().map(|l| l.pages.as_secs_f64()));
    let posts = median(limits.iter().map(|l| l.posts.as_secs_f64()));
    let settle = median(limits.iter().map(|l| l.settle.as_secs_f64()));
    let limit = stage + pages + posts + settle;
    let wall = median(ours.iter().map(|o| o.wall.as_secs_f64()));
    let cpu = median(ours.iter().map(|o| o.usage.cpu.as_secs_f64()));
    let rss = median(ours.iter().map(|o| o.usage.peak_rss_kib as f64 / 1024.0));
    format!(
        "{stage:>8.3} {pages:>8.3} {posts:>8.3} {settle:>8.3} {limit:>9.3} {wall:>8.3} {:>7.2} {:>10.0} {cpu:>7.2} {rss:>8.1}",
        limit / wall,
        f64::from(members) / wall,
    )
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn write_files(dir: &Path, database: &postgres::ConnDetails, port: u16) {
    let settings = format!(
        "campaigns: ./campaigns
state: {{ url: 'sqlite://./state.db' }}
connectors:
  warehouse:
    kind: postgres
    host: {}
    port: {}
    database: {}
    auth: {{ user: {} }}
    tls: disable
    schema: campaignd
destinations:
  sink:
    url: http://127.0.0.1:{port}/
    channel: email
    signing_secrets: [ '{SIGNING_SECRET}' ]
    max_in_flight: {IN_FLIGHT}
    dedupe_window: 24h
    allow_http: true
    allow_private_network: true
  sink-singly:
    url: http://127.0.0.1:{port}/
    channel: email
    signing_secrets: [ '{SIGNING_SECRET}' ]
    max_in_flight: {IN_FLIGHT_SINGLY}
    dedupe_window: 24h
    allow_http: true
    allow_private_network: true
log: {{ format: text, level: warn }}
",
        database.host, database.port, database.database, database.user
    );
    std::fs::write(dir.join("campaignd.yaml"), settings).expect("the settings are written");
    std::fs::create_dir(dir.join("campaigns")).expect("the folder is made");
    for case in cases().into_iter().chain([Case::large()]) {
        let name = case.campaign();
        let batch_size = case.batch_size;
        let sink = if batch_size == 1 {
            "sink-singly"
        } else {
            "sink"
        };
        let campaign = format!(
            "name: {name}
connector: warehouse
schedule: {{ cron: '0 9 * * *', timezone: UTC }}
audience:
  key: profile_id
  sql: |
    {}
activation: {{ destination: {sink}, batch_size: {batch_size} }}
contact_history: {{ attributes: {{ offer: bench }} }}
",
            limits::audience(case.members)
        );
        std::fs::write(dir.join(format!("campaigns/{name}.yaml")), campaign)
            .expect("the campaign is written");
    }
}

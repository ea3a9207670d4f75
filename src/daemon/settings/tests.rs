use super::*;
use crate::campaign::Source;
use crate::delivery::OnAmbiguous;
use crate::ledger::Encryption;
use crate::warehouse::{ConnectorOptions, Tls};
use crate::webhook::Auth;
use secrecy::ExposeSecret;
use std::num::NonZeroU32;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

/// The least a file can say of one thing of each kind.
const LEAST: &str = "
campaigns: ./campaigns
state: { url: sqlite://./state.db }
connectors:
  warehouse:
    kind: redshift
    host: wg.example.com
    database: shared
    auth: { user: campaignd, password: \"${credential:warehouse_password}\" }
  socket:
    kind: postgres
    host: /run/postgresql
    database: shared
    auth: { user: campaignd }
  sandbox: { kind: sqlite, path: ./sandbox.db }
destinations:
  email-esp:
    url: https://hooks.example.com/activate
    signing_secrets: [ \"${env:SIGNING}\", whsec_bGl0ZXJhbA== ]
    headers: { X-Workspace: acme }
    auth: { bearer: \"${file:./token}\" }
";

/// Every key of this version, each with another value than its default.
const MOST: &str = "
campaigns: /srv/campaigns
state: { url: sqlite:///var/lib/campaignd/state.db }
connectors:
  warehouse:
    kind: postgres
    host: 127.0.0.1
    port: 15432
    database: shared
    auth: { user: campaignd, password: pw }
    tls: disable
    tls_ca_file: null
    schema: marketing
    max_queries: 3
    statement_timeout: 5m
    history: null
destinations:
  sms-gateway:
    url: http://127.0.0.1:8080/
    channel: sms
    signing_secrets: [ a ]
    auth: { basic: { user: u, password: p } }
    tls_ca_file: ./ca.pem
    format: json
    timeout: 10s
    max_in_flight: 4
    rate_limit: 600/min
    max_body: 64KiB
    retry: { initial: 2s, max: 1m, give_up_after: 1h }
    dedupe_window: 24h
    not_processed: [503]
    allow_private_network: true
    allow_http: true
limits: { max_runs: 2, max_in_flight: 3, memory: 64MiB }
shutdown_grace: 5s
log: { format: text, level: debug }
";

fn settings(text: &str) -> Settings {
    let name = "campaignd.yaml";
    compile(&Source { name, text })
        .unwrap()
        .resolve_paths(Path::new("/etc/campaignd"))
}

fn only<K, V>(map: &std::collections::BTreeMap<K, V>) -> &V {
    map.values().next().unwrap()
}

#[test]
fn what_the_file_leaves_out_has_the_promised_defaults() {
    let settings = settings(LEAST);
    assert_eq!(settings.limits, Limits::default());
    assert_eq!(settings.log, LogSettings::default());
    assert_eq!(settings.shutdown_grace, Duration::from_secs(30));
    let secrets = Secrets::of([]);
    let socket = &settings.connectors[&"socket".parse().unwrap()];
    let ConnectorOptions::Server(server) = socket.options(&secrets).unwrap() else {
        panic!("not a server");
    };
    assert_eq!((server.port, server.tls), (5432, Tls::Disable));
    assert_eq!(server.schema, "campaignd");
    assert_eq!(server.max_queries.get(), 6);
    assert_eq!(server.statement_timeout, Duration::from_secs(1800));
    assert_eq!(server.password.expose_secret(), "");
    let destination = only(&settings.destinations);
    assert_eq!(destination.terms().channel, "email-esp");
    assert_eq!(destination.terms().max_body, 1024 * 1024);
    assert_eq!(destination.rate_limit, None);
    let rules = destination.rules();
    assert_eq!(rules.timeout, Duration::from_secs(30));
    assert_eq!(rules.retry_initial, Duration::from_secs(1));
    assert_eq!(rules.retry_max, Duration::from_secs(300));
    assert_eq!(rules.give_up_after, Duration::from_secs(6 * 3600));
    assert_eq!(rules.on_ambiguous, OnAmbiguous::Park);
}

#[test]
fn what_the_file_says_is_what_is_meant() {
    let settings = settings(MOST);
    assert_eq!(settings.campaigns, PathBuf::from("/srv/campaigns"));
    let state = PathBuf::from("/var/lib/campaignd/state.db");
    assert_eq!(settings.state.path(), state);
    assert_eq!(settings.limits.memory, 64 * 1024 * 1024);
    assert_eq!(settings.log.level.as_str(), "debug");
    let secrets = Secrets::of([]);
    let options = only(&settings.connectors).options(&secrets).unwrap();
    assert_eq!(options.max_queries(), NonZeroU32::new(3).unwrap());
    let destination = only(&settings.destinations);
    assert_eq!(destination.rate_limit, Some("600/min".parse().unwrap()));
    let options = destination.options(&secrets).unwrap();
    assert_eq!(options.url, "http://127.0.0.1:8080/");
    assert_eq!(options.tls_ca_file, Some("/etc/campaignd/ca.pem".into()));
    assert!(options.allow_http && options.allow_private_network);
    assert!(matches!(options.auth, Some(Auth::Basic { .. })));
    let rules = destination.rules();
    assert_eq!(rules.on_ambiguous, OnAmbiguous::Resend);
    assert_eq!(rules.dedupe_window, Some(Duration::from_secs(86_400)));
    assert_eq!(rules.not_processed, [503]);
}

#[test]
fn relative_paths_are_taken_from_the_folder_of_the_file() {
    let settings = settings(LEAST);
    assert_eq!(
        settings.campaigns,
        PathBuf::from("/etc/campaignd/campaigns")
    );
    let state = PathBuf::from("/etc/campaignd/state.db");
    assert_eq!(settings.state.path(), state);
    let Connector::Sqlite(sandbox) = &settings.connectors[&"sandbox".parse().unwrap()] else {
        panic!("not sqlite");
    };
    assert_eq!(sandbox.path, PathBuf::from("/etc/campaignd/sandbox.db"));
}

#[test]
fn secrets_come_from_where_their_references_lead_without_the_last_line_break() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("warehouse_password"), "pw\n").unwrap();
    std::fs::write(folder.path().join("token"), "to ken\r\n").unwrap();
    let credentials = folder.path().to_str().unwrap();
    let secrets = Secrets::of([("CREDENTIALS_DIRECTORY", credentials), ("SIGNING", "s1")]);
    let name = "campaignd.yaml";
    let file = compile(&Source { name, text: LEAST }).unwrap();
    let settings = file.resolve_paths(folder.path());
    let warehouse = &settings.connectors[&"warehouse".parse().unwrap()];
    let ConnectorOptions::Server(server) = warehouse.options(&secrets).unwrap() else {
        panic!("not a server");
    };
    assert_eq!(server.password.expose_secret(), "pw");
    assert_eq!((server.port, server.tls), (5439, Tls::VerifyFull));
    let options = only(&settings.destinations).options(&secrets).unwrap();
    let signing: Vec<_> = options
        .signing_secrets
        .iter()
        .map(|s| s.expose_secret())
        .collect();
    assert_eq!(signing, ["s1", "whsec_bGl0ZXJhbA=="]);
    let Some(Auth::Bearer(token)) = options.auth else {
        panic!("no token");
    };
    assert_eq!(token.expose_secret(), "to ken");
}

#[test]
fn a_missing_secret_is_named_by_its_key() {
    let settings = settings(LEAST);
    let secrets = Secrets::of([]);
    let warehouse = &settings.connectors[&"warehouse".parse().unwrap()];
    assert_eq!(
        warehouse.options(&secrets).unwrap_err().to_string(),
        "`connectors.warehouse.auth.password` needs the credential warehouse_password, \
         but $CREDENTIALS_DIRECTORY is not set"
    );
    let destination = only(&settings.destinations);
    assert_eq!(
        destination.options(&secrets).unwrap_err().to_string(),
        "`destinations.email-esp.auth.bearer` needs the secret in /etc/campaignd/token: \
         No such file or directory (os error 2)"
    );
}

#[test]
fn no_secret_shows_in_debug_output_or_beside_a_problem() {
    let settings = settings(LEAST);
    let secrets = Secrets::of([("SIGNING", "canary")]);
    let shown = format!("{settings:?} {secrets:?}");
    assert!(
        !shown.contains("bGl0ZXJhbA") && !shown.contains("canary"),
        "{shown}"
    );
    let name = "campaignd.yaml";
    let text = masked(&Source { name, text: LEAST });
    assert!(!text.contains("bGl0ZXJhbA"), "{text}");
    assert_eq!(text.len(), LEAST.len());
}

#[test]
fn a_resolved_header_that_would_break_the_request_is_refused() {
    let text = LEAST.replace("acme", "\"${env:HEADER}\"");
    let text = text.replace("${file:./token}", "${env:SIGNING}");
    let secrets = Secrets::of([("HEADER", "a\r\nHost: b"), ("SIGNING", "s")]);
    let error = only(&settings(&text).destinations)
        .options(&secrets)
        .unwrap_err();
    assert_eq!(error.key, "destinations.email-esp.headers.X-Workspace");
    assert!(!error.to_string().contains("Host"), "{error}");
}

fn with_state(state: &str) -> Result<Settings, Vec<String>> {
    let text = format!("state: {{ {state} }}\n");
    let source = Source {
        name: "campaignd.yaml",
        text: &text,
    };
    match compile(&source) {
        Ok(file) => Ok(file.resolve_paths(Path::new("/etc/campaignd"))),
        Err(problems) => Err(problems.into_iter().map(|p| p.message).collect()),
    }
}

#[test]
fn a_state_store_on_a_server_is_reached_as_its_url_says() {
    let url =
        "url: 'postgres://me:${env:PW}@db.example:6432/led%20ger?sslrootcert=ca.pem', lease: 20s";
    let settings = with_state(url).unwrap();
    assert_eq!(settings.lease, Duration::from_secs(20));
    let StateStore::Postgres(server) = &settings.state else {
        panic!("{:?}", settings.state);
    };
    let options = server.options(&Secrets::of([("PW", "p@ss")])).unwrap();
    assert_eq!((options.host.as_str(), options.port), ("db.example", 6432));
    assert_eq!(
        (options.user.as_str(), options.database.as_str()),
        ("me", "led ger")
    );
    assert_eq!(options.password.expose_secret(), "p@ss");
    assert_eq!(options.encryption, Encryption::VerifyFull);
    assert_eq!(
        options.ca_file,
        Some(PathBuf::from("/etc/campaignd/ca.pem"))
    );
    let error = server.options(&Secrets::of([])).unwrap_err();
    assert_eq!(error.key, "state.url");

    let here = with_state("url: 'postgresql://me:p%40ss@[::1]/ledger'").unwrap();
    let StateStore::Postgres(server) = &here.state else {
        panic!("{:?}", here.state);
    };
    assert!(!format!("{here:?}").contains("p@ss"));
    let options = server.options(&Secrets::of([])).unwrap();
    assert!(!format!("{options:?}").contains("p@ss"));
    assert_eq!((options.host.as_str(), options.port), ("::1", 5432));
    assert_eq!(options.encryption, Encryption::Disable);
    assert_eq!(here.lease, Duration::from_secs(60));
}

#[test]
fn a_state_store_that_cannot_be_meant_is_refused_without_its_password() {
    for wrong in [
        "url: 'postgres://me:hunter2@db.example/ledger?sslmode=disable'",
        "url: 'postgres://me:hunter2@db.example/ledger?options=x'",
        "url: 'postgres://:hunter2@db.example/ledger'",
        "url: 'postgres://me:hunter2@db.example/'",
        "url: 'postgres://me:hunter2@db.example:99999/ledger'",
        "url: 'postgres://me:hunter2${env:A}@db.example/ledger'",
        "url: 'mysql://me:hunter2@db.example/ledger'",
        "url: 'postgres://me:hunter2@127.0.0.1/ledger', lease: 1s",
    ] {
        let problems = with_state(wrong).unwrap_err();
        assert_eq!(problems.len(), 1, "{wrong}: {problems:?}");
        assert!(!problems[0].contains("hunter2"), "{problems:?}");
    }
}

const TOKENS: &str = "
connectors: { sandbox: { kind: sqlite, path: ./sandbox.db } }
destinations:
  esp:
    url: https://hooks.example.com/activate
    signing_secrets: [ a ]
    auth:
      oauth2:
        token_url: https://login.example.com/token
        client_id: campaigns
        client_secret: ${env:CLIENT_SECRET}
        scope: send
    client_cert_file: ./client.pem
    client_key_file: ./client.key
";

#[test]
fn tokens_and_client_certificates_are_read() {
    let settings = settings(TOKENS);
    let secrets = Secrets::of([("CLIENT_SECRET", "s3cret")]);
    let options = only(&settings.destinations).options(&secrets).unwrap();
    let Some(Auth::OAuth2(oauth2)) = &options.auth else {
        panic!("not OAuth2");
    };
    assert_eq!(oauth2.token_url, "https://login.example.com/token");
    assert_eq!(oauth2.client_id, "campaigns");
    assert_eq!(oauth2.client_secret.expose_secret(), "s3cret");
    assert_eq!(oauth2.scope.as_deref(), Some("send"));
    let own = options.client_certificate.as_ref().unwrap();
    assert_eq!(own.cert_file, Path::new("/etc/campaignd/client.pem"));
    assert_eq!(own.key_file, Path::new("/etc/campaignd/client.key"));
    assert!(!format!("{settings:?} {options:?}").contains("s3cret"));
}

#[test]
fn wrong_tokens_and_client_certificates_are_said_with_what_to_do() {
    let cases = [
        (
            "    client_key_file: ./client.key\n",
            "",
            "`client_cert_file` needs `client_key_file`",
        ),
        (
            "    client_cert_file: ./client.pem\n",
            "",
            "`client_key_file` needs `client_cert_file`",
        ),
        (
            "https://login",
            "http://login",
            "`token_url` is not encrypted",
        ),
        (
            "https://login.example.com",
            "https://127.0.0.1",
            "`token_url` leads to this machine",
        ),
        ("        client_id: campaigns\n", "", "client_id"),
        ("scope: send", "scpe: send", "scope"),
        (
            "      oauth2:",
            "      bearer: t\n      oauth2:",
            "exactly one of",
        ),
    ];
    for (from, to, says) in cases {
        let text = TOKENS.replacen(from, to, 1);
        assert_ne!(text, TOKENS, "{from}");
        let name = "campaignd.yaml";
        let problems = compile(&Source { name, text: &text }).unwrap_err();
        let said: Vec<_> = problems.iter().map(|problem| &problem.message).collect();
        assert!(
            said.iter().any(|said| said.contains(says)),
            "{says}: {said:?}"
        );
    }
}

/// Under the feature `iam` and without it: what is not built in is refused at
/// its place, with the one thing to do.
#[test]
fn a_login_by_iam_is_for_a_build_that_has_it() {
    let login = "auth: { user: campaignd, password: \"${credential:warehouse_password}\" }";
    let text = LEAST.replace(login, "auth: { iam: { workgroup: wg, region: us-east-1 } }");
    assert_ne!(text, LEAST);
    let name = "campaignd.yaml";
    let problems = match compile(&Source { name, text: &text }) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    };
    match cfg!(feature = "iam") {
        true => assert_eq!(problems, [""; 0]),
        false => {
            let [problem] = problems.as_slice() else {
                panic!("{problems:?}");
            };
            assert!(problem.starts_with("campaignd.yaml:9:"), "{problem}");
            assert!(
                problem.contains("build it with the feature `iam`"),
                "{problem}"
            );
        }
    }
}

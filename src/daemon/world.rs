//! The adapters the operator's settings name, each with its limits: what runs
//! are carried with.

use super::desk::Desk;
use super::gone;
use super::settings::{self, Secrets, Settings, SettingsError, StateStore};
use crate::campaign::{DestinationTerms, RunSpec};
use crate::delivery::{Rate, Rules};
use crate::history::Retention;
use crate::id::{ConnectorName, DestinationName};
use crate::run::{
    Clock, Destination, Forget, Guards, Kit, Ledger, LedgerError, Limit, Memory, RunRecord,
    Settler, Throttle, ThrottleOptions, Turns, Warehouse, WarehouseError,
};
use crate::warehouse;
use crate::warehouse::ConnectorOptions;
use crate::webhook::{HttpDestination, WebhookError};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::task::TaskTracker;

/// Why the settings cannot be turned into connections.
#[derive(Debug, thiserror::Error)]
pub enum AssemblyError {
    /// A secret, or a file the settings name.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// A connector.
    #[error("connector `{name}`: {error}")]
    Connector {
        /// Which.
        name: ConnectorName,
        /// What is wrong.
        error: WarehouseError,
    },
    /// A destination.
    #[error("destination `{name}`: {error}")]
    Destination {
        /// Which.
        name: DestinationName,
        /// What is wrong.
        error: WebhookError,
    },
}

/// A run names something that the settings no longer define.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} `{name}` is not in campaignd.yaml; put it back, and the run is carried on")]
pub struct Undefined {
    what: &'static str,
    name: String,
}

struct Connector {
    /// What it was made of, so that it is kept while that stays as it is.
    settings: settings::Connector,
    password: Option<SecretString>,
    /// The same of the connector that has its history, if that is another.
    history: Option<(settings::Connector, Option<SecretString>)>,
    warehouse: Arc<dyn Warehouse>,
    options: ConnectorOptions,
    queries: Turns,
    settler: Settler,
}

struct Channel {
    /// What its throttle was made for, so that what it has learnt is kept
    /// while that stays as it is.
    paced: Paced,
    way: Way,
    terms: DestinationTerms,
}

/// How a run reaches its destination.
pub(super) struct Way {
    pub(super) destination: Arc<dyn Destination>,
    pub(super) rules: Arc<Rules>,
    pub(super) throttle: Throttle,
}

/// What a destination's throttle is made for.
#[derive(PartialEq)]
struct Paced {
    url: String,
    max_in_flight: u32,
    rate_limit: Option<Rate>,
    total: u32,
}

/// Everything outside, behind its port.
pub struct World {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Our own book.
    pub ledger: Arc<dyn Ledger>,
    connectors: BTreeMap<ConnectorName, Arc<Connector>>,
    channels: BTreeMap<DestinationName, Channel>,
    /// Requests at a time, all destinations together.
    total: Limit,
    memory: Memory,
    give_up_on_warehouse: Option<Duration>,
    /// When runs stop sending by themselves.
    pub guards: Guards,
    lease: Duration,
    keep: settings::Keep,
    shares_ledger: bool,
    /// Where people's requests are done.
    pub desk: Arc<Desk>,
    /// The settling tasks.
    tasks: TaskTracker,
}

/// The connectors of `settings`, those of `before` that have not changed
/// among them.
fn connectors_of(
    settings: &Settings,
    secrets: &Secrets,
    before: &BTreeMap<ConnectorName, Arc<Connector>>,
    tasks: &TaskTracker,
    clock: &Arc<dyn Clock>,
) -> Result<BTreeMap<ConnectorName, Arc<Connector>>, AssemblyError> {
    let mut connectors = BTreeMap::new();
    for (name, wanted) in &settings.connectors {
        let password = wanted.password(secrets)?;
        let history = match settings.history_of(wanted) {
            None => None,
            Some(history) => Some((history.clone(), history.password(secrets)?)),
        };
        let known = before.get(name);
        let kept = known.filter(|known| {
            known.is_made_of(wanted, password.as_ref()) && known.has_history(history.as_ref())
        });
        let connector = match kept {
            Some(kept) => Arc::clone(kept),
            None => {
                let options = settings.connector_options(name, wanted, secrets)?;
                let queries = Turns::new(options.max_queries().get(), Arc::clone(clock));
                let warehouse =
                    warehouse::open(options.clone()).map_err(|error| AssemblyError::Connector {
                        name: name.clone(),
                        error,
                    })?;
                Arc::new(Connector {
                    settings: wanted.clone(),
                    password,
                    history,
                    settler: Settler::start(Arc::clone(&warehouse), tasks),
                    warehouse,
                    options,
                    queries,
                })
            }
        };
        connectors.insert(name.clone(), connector);
    }
    Ok(connectors)
}

impl Connector {
    fn is_made_of(&self, settings: &settings::Connector, password: Option<&SecretString>) -> bool {
        self.settings == *settings && exposed(self.password.as_ref()) == exposed(password)
    }

    fn has_history(&self, history: Option<&(settings::Connector, Option<SecretString>)>) -> bool {
        let made_of = |(settings, password): &(settings::Connector, Option<SecretString>)| {
            (settings.clone(), exposed(password.as_ref()))
        };
        self.history.as_ref().map(made_of) == history.map(made_of)
    }
}

fn exposed(secret: Option<&SecretString>) -> Option<String> {
    secret.map(|secret| secret.expose_secret().to_owned())
}

impl World {
    /// Makes the adapters of `settings`. Nothing is connected to yet.
    pub fn assemble(
        settings: &Settings,
        secrets: &Secrets,
        clock: Arc<dyn Clock>,
        ledger: Arc<dyn Ledger>,
    ) -> Result<Self, AssemblyError> {
        let desk = Arc::new(Desk::new(Arc::clone(&ledger), Arc::clone(&clock)));
        let tasks = TaskTracker::new();
        let connectors = connectors_of(settings, secrets, &BTreeMap::new(), &tasks, &clock)?;
        Self::around(
            (settings, secrets),
            None,
            (clock, ledger, desk),
            (connectors, tasks),
        )
    }

    /// The same for changed settings, with this world's ledger, desk, and
    /// those of its connectors whose settings and passwords have not changed.
    pub fn reassemble(
        &self,
        settings: &Settings,
        secrets: &Secrets,
    ) -> Result<Self, AssemblyError> {
        let (clock, ledger) = (Arc::clone(&self.clock), Arc::clone(&self.ledger));
        let desk = Arc::clone(&self.desk);
        let tasks = self.tasks.clone();
        let connectors = connectors_of(settings, secrets, &self.connectors, &tasks, &clock)?;
        let new = Self::around(
            (settings, secrets),
            Some(self),
            (clock, ledger, desk),
            (connectors, tasks),
        )?;
        Ok(Self {
            give_up_on_warehouse: self.give_up_on_warehouse,
            lease: self.lease,
            shares_ledger: self.shares_ledger,
            ..new
        })
    }

    fn around(
        (settings, secrets): (&Settings, &Secrets),
        before: Option<&Self>,
        (clock, ledger, desk): (Arc<dyn Clock>, Arc<dyn Ledger>, Arc<Desk>),
        (connectors, tasks): (BTreeMap<ConnectorName, Arc<Connector>>, TaskTracker),
    ) -> Result<Self, AssemblyError> {
        let in_flight = settings.limits.max_in_flight;
        let total = before
            .map(|before| before.total.clone())
            .filter(|total| total.size() == in_flight)
            .unwrap_or_else(|| Limit::new(in_flight));
        let mut channels = BTreeMap::new();
        for (name, destination) in &settings.destinations {
            let options = destination.options(secrets)?;
            let paced = Paced {
                url: destination.url.clone(),
                max_in_flight: destination.max_in_flight,
                rate_limit: destination.rate_limit,
                total: total.size(),
            };
            let known = before.and_then(|before| before.channels.get(name));
            let throttle = match known.filter(|known| known.paced == paced) {
                Some(known) => known.way.throttle.clone(),
                None => {
                    let throttle = ThrottleOptions {
                        name: name.clone(),
                        max_in_flight: destination.max_in_flight,
                        rate_limit: destination.rate_limit,
                    };
                    Throttle::new(throttle, Arc::clone(&clock), total.clone())
                }
            };
            let adapter =
                HttpDestination::new(options).map_err(|error| AssemblyError::Destination {
                    name: name.clone(),
                    error,
                })?;
            channels.insert(
                name.clone(),
                Channel {
                    paced,
                    way: Way {
                        destination: Arc::new(adapter),
                        rules: Arc::new(destination.rules()),
                        throttle,
                    },
                    terms: destination.terms(),
                },
            );
        }
        let share = settings.limits.memory / u64::from(settings.limits.max_runs.max(1));
        Ok(Self {
            clock,
            ledger,
            connectors,
            channels,
            total,
            memory: before
                .map(|before| before.memory.clone())
                .filter(|memory| memory.share() == share)
                .unwrap_or_else(|| Memory::new(share)),
            give_up_on_warehouse: None,
            guards: Guards {
                adopt_after: settings.adopt_after,
                recheck_after: settings.recheck_after,
                withheld_rows: settings.keep.withheld_rows,
                ..Guards::default()
            },
            lease: settings.lease,
            keep: settings.keep,
            desk,
            shares_ledger: matches!(settings.state, StateStore::Postgres(_)),
            tasks,
        })
    }

    /// Gives up on a lost warehouse after `patience`: for a person who waits.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.give_up_on_warehouse = Some(patience);
        self
    }

    /// What the run is carried with; an error where the settings do not define
    /// it any more. A run that only ends needs no destination.
    pub async fn kit(
        &self,
        record: &RunRecord,
        spec: &RunSpec,
    ) -> Result<Result<Kit, Undefined>, LedgerError> {
        if let Some(channel) = self.channels.get(&spec.destination) {
            return Ok(self.kit_with(spec, &channel.way));
        }
        let expires_at = spec.expires_at(record.fire_time);
        let ends = expires_at.is_some_and(|at| at <= self.clock.now())
            || self.ledger.is_cancelled(&record.run).await?;
        if ends {
            let nowhere = gone::way(&spec.destination, &self.clock, &self.total);
            return Ok(self.kit_with(spec, &nowhere));
        }
        Ok(Err(Undefined {
            what: "destination",
            name: spec.destination.to_string(),
        }))
    }

    fn kit_with(&self, spec: &RunSpec, way: &Way) -> Result<Kit, Undefined> {
        let connector = self
            .connectors
            .get(&spec.connector)
            .ok_or_else(|| Undefined {
                what: "connector",
                name: spec.connector.to_string(),
            })?;
        Ok(Kit {
            clock: Arc::clone(&self.clock),
            ledger: Arc::clone(&self.ledger),
            warehouse: Arc::clone(&connector.warehouse),
            settler: connector.settler.clone(),
            destination: Arc::clone(&way.destination),
            rules: Arc::clone(&way.rules),
            queries: connector.queries.clone(),
            throttle: way.throttle.clone(),
            memory: self.memory.clone(),
            lease: self.lease,
            pauses: self.desk.pauses(),
            give_up_on_warehouse: self.give_up_on_warehouse,
            guards: self.guards,
        })
    }

    /// The connectors there are.
    pub fn connectors(&self) -> impl Iterator<Item = &ConnectorName> {
        self.connectors.keys()
    }

    /// How often runs whose lease has lapsed are looked for; none where no
    /// other host shares the ledger.
    pub fn rescan_every(&self) -> Option<Duration> {
        self.shares_ledger.then_some(self.lease / 3)
    }

    /// The connector's warehouse, if the settings define it.
    pub fn warehouse(&self, name: &ConnectorName) -> Option<&Arc<dyn Warehouse>> {
        self.connectors
            .get(name)
            .map(|connector| &connector.warehouse)
    }

    /// Whom to ask about a campaign before it is run, and its turns; none if
    /// the settings do not define its connector.
    pub(super) fn reader(&self, name: &ConnectorName) -> Option<(ConnectorOptions, Turns)> {
        let connector = self.connectors.get(name)?;
        Some((connector.options.clone(), connector.queries.clone()))
    }

    /// How long the connector's warehouse keeps what runs have left there, if
    /// the settings define it.
    pub fn retention(&self, name: &ConnectorName) -> Option<Retention> {
        self.connectors.get(name).map(|connector| Retention {
            history: self.keep.history,
            tables: connector.settings.stage_retention(),
        })
    }

    /// What is old enough at `now` to be removed from the ledger. A run stays
    /// at least as long as its table may.
    pub fn forget(&self, now: Timestamp) -> Forget {
        let tables = self
            .connectors
            .values()
            .map(|c| c.settings.stage_retention());
        let runs = tables.fold(self.keep.ledger, Duration::max);
        let before = |age: Duration| now.checked_sub(age).unwrap_or(Timestamp::MIN);
        Forget {
            runs_before: before(runs),
            actions_before: before(self.keep.history),
        }
    }

    /// The destination, if the settings define it.
    pub fn destination(&self, name: &DestinationName) -> Option<&Arc<dyn Destination>> {
        self.channels
            .get(name)
            .map(|channel| &channel.way.destination)
    }

    /// What of the destination is frozen into a run specification.
    pub fn terms(&self, name: &DestinationName) -> Option<&DestinationTerms> {
        self.channels.get(name).map(|channel| &channel.terms)
    }

    /// Lets go of the connectors and waits for their settling tasks.
    pub async fn close(self) {
        drop(self.connectors);
        self.tasks.close();
        self.tasks.wait().await;
    }
}

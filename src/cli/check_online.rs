//! What only the warehouse knows of campaigns and connectors: `check --online`.

use super::plan::asked;
use crate::campaign::{Campaign, Problem, Severity, Source, problem_at};
use crate::daemon::settings::{Secrets, Settings};
use crate::daemon::source;
use crate::delivery::Misfit;
use crate::id::ConnectorName;
use crate::run::{Clock as _, SystemClock};
use crate::warehouse::{Blamed, ConnectorOptions, open, report};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

/// What was asked, and what came of it.
#[derive(Default)]
pub(super) struct Online {
    /// Of campaign files, and of the operator's.
    pub(super) problems: Vec<Problem>,
    /// The texts of the files among them, by name.
    pub(super) sources: BTreeMap<String, String>,
    /// The connectors that could not be asked: their campaigns were not.
    pub(super) unreachable: BTreeSet<ConnectorName>,
}

/// Asks about each connector the operator has defined and about `campaigns`,
/// each with its file.
pub(super) async fn ask(
    config: &Path,
    settings: &Settings,
    campaigns: &[(String, Arc<Campaign>)],
) -> Online {
    let mut online = Online::default();
    for (name, connector) in &settings.connectors {
        let options = settings.connector_options(name, connector, &Secrets::from_process());
        let asked = match options {
            Ok(options) => reach(options).await,
            Err(error) => Err(error.to_string()),
        };
        let of_connector = |what: &str| {
            let message = format!("connector `{name}`: {what}");
            Problem::of_file(&config.display().to_string(), message)
        };
        match asked {
            Ok(findings) => {
                let notes = findings.iter().map(|finding| noted(of_connector(finding)));
                online.problems.extend(notes);
            }
            Err(why) => {
                online.problems.push(of_connector(&why));
                online.unreachable.insert(name.clone());
            }
        }
    }
    for (file, campaign) in campaigns {
        if !online.unreachable.contains(&campaign.connector) {
            online.campaign(settings, file, campaign).await;
        }
    }
    online
}

/// The problem as one that refuses nothing.
fn noted(problem: Problem) -> Problem {
    Problem {
        severity: Severity::Note,
        ..problem
    }
}

/// A server must have our tables; SQLite's are made when they are needed, and
/// are not made here. Returns what `connector test` finds there: privileges
/// beyond need, and tables where there should be views.
async fn reach(options: ConnectorOptions) -> Result<Vec<String>, String> {
    if let ConnectorOptions::Sqlite { path, .. } = &options {
        return match path.exists() {
            true => Ok(Vec::new()),
            false => Err(format!("the file {} is not there", path.display())),
        };
    }
    let warehouse = open(options.clone()).map_err(|error| error.to_string())?;
    warehouse.ping().await.map_err(|error| error.to_string())?;
    let report = report(options, &[]).await;
    Ok(report.map_err(|error| error.to_string())?.findings)
}

impl Online {
    async fn campaign(&mut self, settings: &Settings, file: &str, campaign: &Campaign) {
        let Ok(asked) = asked(settings, campaign, SystemClock.now()) else {
            return;
        };
        let found = match asked.look().await {
            Ok(found) => found,
            Err(error) => {
                let message = format!("connector `{}`: {error}", campaign.connector);
                return self.problems.push(Problem::of_file(file, message));
            }
        };
        let text = match source::read(Path::new(file)) {
            Ok(text) => text,
            Err(problem) => return self.problems.push(problem),
        };
        let source = Source {
            name: file,
            text: &text.text,
        };
        for note in found.notes {
            let problem = problem_at(&source, &["audience", "sql"], None, note.to_owned());
            self.problems.push(noted(problem));
        }
        for misfit in asked.misfits(&found.columns) {
            let Misfit { key, message, .. } = misfit;
            let path = ["activation", "payload"];
            let problem = problem_at(&source, &path, None, format!("`{key}`: {message}"));
            self.problems.push(match misfit.is_note {
                true => noted(problem),
                false => problem,
            });
        }
        for (blamed, error) in found.problems {
            let path: &[&'static str] = match blamed {
                Blamed::Query => &["audience", "sql"],
                Blamed::Key => &["audience", "key"],
                Blamed::Suppress => &["policy", "suppress"],
                Blamed::Order => &["policy", "order_by"],
                Blamed::Fresh => &["fresh_when", "sql"],
                Blamed::Policy => &["policy"],
            };
            let problem = problem_at(&source, path, error.place, error.message);
            self.problems.push(problem);
        }
        self.sources.insert(file.to_owned(), text.text);
    }
}

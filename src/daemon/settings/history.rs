//! Whose history a connector writes: its own, or another connector's.

use super::connector::Connector;
use super::file::Settings;
use super::secret::{Secrets, SettingsError};
use crate::campaign::is_relation;
use crate::campaign::yaml::{Field, Section, suggestion};
use crate::id::ConnectorName;
use crate::warehouse::{ApartOptions, ConnectorOptions};
use std::collections::BTreeMap;

/// History that is written through another connector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryElsewhere {
    /// The connector that has the tables.
    pub connector: ConnectorName,
    /// What shows their contacts where the audience is read: a relation with
    /// the columns of `contact_history`.
    pub relation: Option<String>,
}

/// Reads `history` and `history_relation` of the connector `name`; nothing in
/// it where the history is its own.
pub(super) fn history_elsewhere(
    name: &str,
    section: &mut Section,
) -> Option<Option<HistoryElsewhere>> {
    let history = section.optional("history");
    let relation = section.optional("history_relation");
    let connector = match &history {
        Some(field) => Some(field.parse::<ConnectorName>()?),
        None => None,
    };
    let connector = connector.filter(|connector| connector.as_str() != name);
    let shown = match &relation {
        Some(field) => Some(relation_of(field)?),
        None => None,
    };
    match (connector, relation) {
        (None, Some(field)) => {
            let path = field.path();
            field.error(format!(
                "`{path}` has an effect only where `history` names another connector; leave it out"
            ));
            None
        }
        (connector, _) => Some(connector.map(|connector| HistoryElsewhere {
            connector,
            relation: shown,
        })),
    }
}

fn relation_of(field: &Field) -> Option<String> {
    let text = field.filled_text()?;
    if !is_relation(text) {
        let path = field.path();
        field.error(format!(
            "`{path}` must name a table or view, as in `shared.contact_history`"
        ));
        return None;
    }
    Some(text.to_owned())
}

/// Every `history` must name a connector that keeps its own.
pub(super) fn check_histories(
    field: &Field,
    connectors: &BTreeMap<ConnectorName, Connector>,
) -> Option<()> {
    let mut all_sound = true;
    for (name, field) in field.section()?.named() {
        let history = connectors.iter().find(|(known, _)| known.as_str() == name);
        let Some(to) = history.and_then(|(_, connector)| connector.history()) else {
            continue;
        };
        let to = &to.connector;
        let problem = match connectors.get(to) {
            None => {
                let right = suggestion(to.as_str(), connectors.keys().map(ConnectorName::as_str));
                format!("unknown connector `{to}`{right}")
            }
            Some(other) => match other.history() {
                None => continue,
                Some(next) => format!(
                    "`{to}` writes its own history through `{}`; name `{}` here",
                    next.connector, next.connector
                ),
            },
        };
        all_sound = false;
        if let Some(place) = field.section()?.optional("history") {
            place.error(problem);
        }
    }
    all_sound.then_some(())
}

impl Connector {
    /// Whose history it writes, where that is another connector's.
    pub fn history(&self) -> Option<&HistoryElsewhere> {
        match self {
            Self::Sqlite(_) => None,
            Self::Server(server) => server.history.as_ref(),
        }
    }
}

impl Settings {
    /// The connectors whose history is another one's, and what shows them its
    /// contacts.
    pub(super) fn histories(&self) -> BTreeMap<ConnectorName, Option<String>> {
        let elsewhere = self.connectors.iter().filter_map(|(name, connector)| {
            let history = connector.history()?;
            Some((name.clone(), history.relation.clone()))
        });
        elsewhere.collect()
    }

    /// The connector that has the history of `connector`, where that is
    /// another one.
    pub fn history_of(&self, connector: &Connector) -> Option<&Connector> {
        self.connectors.get(&connector.history()?.connector)
    }

    /// How `connector`, which is called `name`, and the one that has its
    /// history are reached, with secrets resolved.
    pub fn connector_options(
        &self,
        name: &ConnectorName,
        connector: &Connector,
        secrets: &Secrets,
    ) -> Result<ConnectorOptions, SettingsError> {
        let mut options = connector.options(secrets)?;
        let elsewhere = connector.history().zip(self.history_of(connector));
        if let (ConnectorOptions::Server(server), Some((elsewhere, history))) =
            (&mut options, elsewhere)
        {
            server.apart = Some(Box::new(ApartOptions {
                name: name.clone(),
                history: history.options(secrets)?,
                relation: elsewhere.relation.clone(),
            }));
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use crate::campaign::{self, Source};
    use crate::daemon::settings::compile;

    /// Two connectors, the first one's history as `history` says.
    fn file(history: &str) -> String {
        format!(
            "connectors:\n  \
             consumer: {{ kind: postgres, host: localhost, database: d, auth: {{ user: u }}, {history} }}\n  \
             other: {{ kind: postgres, host: localhost, database: d, auth: {{ user: u }}, history: ledger }}\n  \
             ledger: {{ kind: sqlite, path: ./l.db }}\n\
             destinations:\n  sink: {{ url: 'https://a.example', channel: email, \
             signing_secrets: [ '${{env:S}}' ], on_ambiguous: park }}\n"
        )
    }

    /// What is wrong with it.
    fn problems(history: &str) -> String {
        let text = file(history);
        let source = Source {
            name: "campaignd.yaml",
            text: &text,
        };
        let found = compile(&source).err().unwrap_or_default();
        let found: Vec<String> = found.iter().map(|p| p.message.clone()).collect();
        found.join("\n")
    }

    #[test]
    fn history_is_written_through_a_connector_that_keeps_its_own() {
        assert_eq!(problems("history: ledger"), "");
        assert_eq!(problems("history: null"), "");
        assert_eq!(problems("history: consumer"), "");
        assert_eq!(
            problems("history: legder"),
            "unknown connector `legder`; did you mean `ledger`?"
        );
        assert_eq!(
            problems("history: other"),
            "`other` writes its own history through `ledger`; name `ledger` here"
        );
    }

    #[test]
    fn a_history_relation_needs_history_elsewhere_and_a_plain_name() {
        assert_eq!(
            problems("history: ledger, history_relation: share.contact_history"),
            ""
        );
        assert!(problems("history_relation: share.c").contains("leave it out"));
        assert!(problems("history: ledger, history_relation: 'a; b'").contains("table or view"));
    }

    /// The problems or notes of a campaign with a cap.
    fn judged(history: &str) -> String {
        let text = file(history);
        let source = Source {
            name: "campaignd.yaml",
            text: &text,
        };
        let known = compile(&source).unwrap().known();
        let campaign = Source {
            name: "a.yaml",
            text: "name: a\nconnector: consumer\nschedule: { every: 1h }\n\
                   audience: { key: id, sql: select id from people }\n\
                   policy: { frequency_cap: { contacts: 1, within: 7d } }\n\
                   activation: { destination: sink }\n",
        };
        let found = match campaign::compile(&campaign, &known) {
            Ok((_, notes)) => notes,
            Err(problems) => problems,
        };
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        found.join("\n")
    }

    #[test]
    fn caps_need_a_relation_that_shows_contacts_and_are_not_exact_then() {
        assert_eq!(judged("history: null"), "");
        let refused = judged("history: ledger");
        assert!(refused.starts_with("a.yaml:5:26: "), "{refused}");
        assert!(
            refused.contains("give it a `history_relation`"),
            "{refused}"
        );
        let noted = judged("history: ledger, history_relation: share.c");
        assert!(noted.contains("is not exact"), "{noted}");
        assert!(noted.contains("once share.c shows it"), "{noted}");
    }
}

//! `campaignd check`: every problem of every file, offline.

use super::check_online;
use super::exit::{Failure, PROBLEMS, UNREACHABLE};
use super::problems::{render, view};
use super::show::{Format, colors, counted, say, say_json};
use crate::campaign::{self, Campaign, Problem, Severity, Source};
use crate::daemon::folder::{self, Folder};
use crate::daemon::settings::{self, Settings};
use crate::daemon::source;
use crate::run::{Clock as _, SystemClock};
use jiff::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What is asked.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Campaign files; the whole campaigns folder if none is named.
    files: Vec<PathBuf>,
    /// Asks the warehouse too: whether the connectors can be reached, and
    /// whether it can run what the campaigns ask.
    #[arg(long)]
    online: bool,
}

/// What was looked at, and what was found.
#[derive(Default)]
struct Found {
    campaigns: usize,
    problems: Vec<Problem>,
    sources: BTreeMap<String, String>,
    /// Those without a problem so far, each with its file.
    sound: Vec<(String, Arc<Campaign>)>,
}

#[derive(Serialize)]
struct Report {
    campaigns: usize,
    problems: serde_json::Value,
}

pub(super) async fn run(config: &Path, args: &Args, format: Format) -> Result<(), Failure> {
    let mut found = Found::default();
    let mut is_unreachable = false;
    if let Some(settings) = found.settings(config) {
        let known = settings.known();
        found.folder(match args.files.as_slice() {
            [] => folder::load(&settings.campaigns, &known, Folder::default()),
            files => folder::load_files(files, &settings.campaigns, &known),
        });
        found.schedule_notes(SystemClock.now());
        if args.online {
            let online = check_online::ask(config, &settings, &found.sound).await;
            is_unreachable = !online.unreachable.is_empty();
            found.problems.extend(online.problems);
            found.sources.extend(online.sources);
        }
    }
    found.sort();
    let errors = found
        .problems
        .iter()
        .filter(|problem| problem.severity == Severity::Error)
        .count();
    match format {
        Format::Json => say_json(&Report {
            campaigns: found.campaigns,
            problems: view(&found.problems),
        }),
        Format::Text => {
            let text = render(&found.problems, &found.sources, colors());
            let files = counted(found.campaigns, "campaign file");
            say(format!("{text}{files}, {}", counted(errors, "problem")));
        }
    }
    match errors {
        0 => Ok(()),
        _ if is_unreachable => Err(Failure::silent(UNREACHABLE)),
        _ => Err(Failure::silent(PROBLEMS)),
    }
}

impl Found {
    /// Reads the operator's file.
    fn settings(&mut self, config: &Path) -> Option<Settings> {
        let text = match source::read(config) {
            Ok(text) => text,
            Err(problem) => {
                self.problems.push(problem);
                return None;
            }
        };
        let compiled = settings::compile(&text.source());
        let shown = settings::masked(&text.source());
        self.sources.insert(text.name, shown);
        match compiled {
            Ok(file) => Some(file.resolve_paths(config.parent().unwrap_or(Path::new("")))),
            Err(problems) => {
                self.problems.extend(problems);
                None
            }
        }
    }

    fn folder(&mut self, folder: Folder) {
        self.campaigns += folder.files;
        let sound = folder.campaigns.into_values();
        self.sound
            .extend(sound.map(|loaded| (loaded.file, loaded.campaign)));
        self.problems.extend(folder.problems);
        self.sources.extend(folder.sources);
    }

    /// Notes campaigns that do not fire again, and fire times that fall where a
    /// zone's clock jumps or goes back.
    fn schedule_notes(&mut self, now: Timestamp) {
        for (name, campaign) in &self.sound {
            // The folder keeps the texts of files with problems only.
            let text = match self.sources.get(name) {
                Some(text) => text.clone(),
                None => match source::read(Path::new(name)) {
                    Ok(read) => read.text,
                    Err(_) => continue,
                },
            };
            let source = Source { name, text: &text };
            let notes = campaign::schedule_notes(&source, campaign, now);
            if !notes.is_empty() {
                self.problems.extend(notes);
                self.sources.insert(name.clone(), text);
            }
        }
    }

    /// Puts what was found of one file together, in the order of the file.
    fn sort(&mut self) {
        let place = |problem: &Problem| (problem.line, problem.column);
        self.problems
            .sort_by(|a, b| a.file.cmp(&b.file).then(place(a).cmp(&place(b))));
    }
}

//! `campaignd check`: every problem of every file, offline.

use super::exit::{Failure, PROBLEMS};
use super::problems::{colors, render, view};
use super::show::{Format, counted, say, say_json};
use crate::campaign::{self, Known, Problem, Severity};
use crate::daemon::folder::{self, Folder};
use crate::daemon::settings;
use crate::daemon::source;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What is asked.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Campaign files; the whole campaigns folder if none is named.
    files: Vec<PathBuf>,
}

/// What was looked at, and what was found.
#[derive(Default)]
struct Found {
    campaigns: usize,
    problems: Vec<Problem>,
    sources: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct Report {
    campaigns: usize,
    problems: serde_json::Value,
}

pub(super) fn run(config: &Path, args: &Args, format: Format) -> Result<(), Failure> {
    let mut found = Found::default();
    if let Some((known, campaigns)) = found.settings(config) {
        if args.files.is_empty() {
            found.folder(folder::load(&campaigns, &known, Folder::default()));
        }
        for file in &args.files {
            found.file(file, &known);
        }
    }
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
        _ => Err(Failure::silent(PROBLEMS)),
    }
}

impl Found {
    /// Reads the operator's file: the names campaigns may use, and where the
    /// campaigns are.
    fn settings(&mut self, config: &Path) -> Option<(Known, PathBuf)> {
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
            Ok(file) => {
                let settings = file.resolve_paths(config.parent().unwrap_or(Path::new("")));
                Some((settings.known(), settings.campaigns))
            }
            Err(problems) => {
                self.problems.extend(problems);
                None
            }
        }
    }

    fn folder(&mut self, folder: Folder) {
        self.campaigns += folder.files;
        self.problems.extend(folder.problems);
        self.sources.extend(folder.sources);
    }

    fn file(&mut self, file: &Path, known: &Known) {
        self.campaigns += 1;
        let text = match source::read(file) {
            Ok(text) => text,
            Err(problem) => return self.problems.push(problem),
        };
        match campaign::compile(&text.source(), known) {
            Ok((_, notes)) => self.problems.extend(notes),
            Err(problems) => self.problems.extend(problems),
        }
        self.sources.insert(text.name, text.text);
    }
}

//! The campaigns folder: every file compiled, the last good version kept where
//! a file has problems.

use super::look::{Stamp, changed_at, stamp};
use super::source::{SourceText, read};
use crate::campaign::yaml::suggestion;
use crate::campaign::{Campaign, Known, Problem, Severity, compile, duplicate_name};
use crate::id::CampaignName;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A campaign in force.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The campaign.
    pub campaign: Arc<Campaign>,
    /// The file it was compiled from.
    pub file: String,
    /// When that file became what it is; none where the system does not say.
    pub changed_at: Option<Timestamp>,
    /// Of the text it was compiled from, so that an unchanged one is not
    /// compiled again.
    digest: [u8; 32],
    /// What is worth knowing about that text.
    notes: Vec<Problem>,
}

/// What the folder holds.
#[derive(Debug, Clone, Default)]
pub struct Folder {
    /// The campaigns in force, last good versions included.
    pub campaigns: BTreeMap<CampaignName, Loaded>,
    /// Everything wrong, file by file, and the notes.
    pub problems: Vec<Problem>,
    /// The texts of the files that have problems or notes, to show them in.
    pub sources: BTreeMap<String, String>,
    /// How many files were found.
    pub files: usize,
    /// How many of them were refused.
    pub refused: usize,
    known: Known,
    /// The files as they were before they were read.
    pub(super) stamp: Stamp,
}

/// One file, as it was found.
struct Found {
    file: String,
    text: Option<SourceText>,
    compiled: Result<Loaded, Vec<Problem>>,
}

/// Reads `dir` anew. A file with problems, or with a name that another file has
/// too, leaves its last good version from `previous` in force; a file that is
/// gone takes its campaign with it.
pub fn load(dir: &Path, known: &Known, previous: Folder) -> Folder {
    // Taken first: what changes while it is read is read again.
    let stamp = stamp(dir);
    let paths = match campaign_files(dir) {
        Ok(paths) => paths,
        Err(error) => {
            let file = dir.display().to_string();
            let problem = Problem::of_file(&file, format!("could not read the folder: {error}"));
            return Folder {
                problems: vec![problem],
                stamp,
                ..previous
            };
        }
    };
    let before: BTreeMap<&str, &Loaded> = previous
        .campaigns
        .values()
        .map(|loaded| (loaded.file.as_str(), loaded))
        .collect();
    let reusable = previous.known == *known;
    let find_one = |path: &PathBuf| {
        let file = path.display().to_string();
        let last = before.get(file.as_str()).copied();
        find(path, file, known, last.filter(|_| reusable))
    };
    let mut found = on_all_cores(&paths, find_one);
    refuse_shared_names(&mut found, &before);
    Folder {
        stamp,
        ..gather(found, &before, known)
    }
}

/// Reads the files `paths`, each once. Where one of them lies in `dir`, the
/// names of the others there are taken; what else they say does not count.
pub fn load_files(paths: &[PathBuf], dir: &Path, known: &Known) -> Folder {
    let canonical = |path: &Path| path.canonicalize().unwrap_or(path.to_path_buf());
    let mut seen = BTreeSet::new();
    let named: Vec<&PathBuf> = paths
        .iter()
        .filter(|path| seen.insert(canonical(path)))
        .collect();
    let folder = canonical(dir);
    let others = match seen.iter().any(|path| path.parent() == Some(&folder)) {
        true => campaign_files(dir).unwrap_or_default(),
        false => Vec::new(),
    };
    let others = others
        .iter()
        .filter(|path| !seen.contains(&canonical(path)));
    let all: Vec<&PathBuf> = named.iter().copied().chain(others).collect();
    let find_one = |path: &&PathBuf| find(path, path.display().to_string(), known, None);
    let mut found = on_all_cores(&all, find_one);
    let before = BTreeMap::new();
    refuse_shared_names(&mut found, &before);
    found.truncate(named.len());
    gather(found, &before, known)
}

/// Files that one core compiles before another is worth its start.
const A_CORES_WORTH: usize = 100;

/// What `work` makes of each of `all`, in their order.
fn on_all_cores<T: Sync, U: Send>(all: &[T], work: impl Fn(&T) -> U + Sync) -> Vec<U> {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let share = all.len().div_ceil(cores).max(A_CORES_WORTH);
    let do_share = |share: &[T]| share.iter().map(&work).collect::<Vec<U>>();
    let mut shares = all.chunks(share);
    let ours = shares.next().unwrap_or_default();
    std::thread::scope(|scope| {
        let others: Vec<_> = shares
            .map(|share| scope.spawn(|| do_share(share)))
            .collect();
        let mut done = do_share(ours);
        for other in others {
            match other.join() {
                Ok(more) => done.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        done
    })
}

/// That there is no campaign `name`, with the one of `names` that was probably
/// meant, or where they are listed.
pub fn unknown<'a>(name: &str, names: impl Iterator<Item = &'a CampaignName>) -> String {
    let names: Vec<&str> = names.map(CampaignName::as_str).collect();
    let meant = suggestion(name, names.iter().copied());
    let known = match (names.is_empty(), meant.is_empty()) {
        (true, _) => "; there are none",
        (false, true) => "; `campaignd status` lists those there are",
        (false, false) => "",
    };
    format!("there is no campaign `{name}`{meant}{known}")
}

/// Says once what is wrong with the folder, a line each.
pub fn log_problems(folder: &Folder) {
    for problem in &folder.problems {
        if problem.severity == Severity::Error {
            tracing::error!("{problem}");
        }
    }
    if folder.refused > 0 {
        tracing::error!(
            files = folder.files,
            refused = folder.refused,
            "{} of {} campaign files are refused; their last good versions stay in force",
            folder.refused,
            folder.files,
        );
    }
}

/// Says what of `now` is not as it was in `before`, the problems included that
/// were not there.
pub fn log_changes(before: &Folder, now: &Folder) {
    let new = now.problems.iter();
    let new = new.filter(|problem| problem.severity == Severity::Error);
    for problem in new.filter(|problem| !before.problems.contains(problem)) {
        tracing::error!("{problem}; what was in force stays");
    }
    for change in changes(before, now) {
        tracing::info!("{change}");
    }
}

/// A line for each campaign that is in force another way than before.
fn changes(before: &Folder, now: &Folder) -> Vec<String> {
    let (before, now) = (&before.campaigns, &now.campaigns);
    let arrived = now.iter().filter_map(|(name, loaded)| {
        let file = &loaded.file;
        match before.get(name) {
            None => Some(format!("{name} is in force, as {file} says")),
            Some(last) if last.digest != loaded.digest => {
                Some(format!("{name} has changed, as {file} says"))
            }
            Some(_) => None,
        }
    });
    let gone = before.iter().filter(|(name, _)| !now.contains_key(*name));
    let retired = gone.map(|(name, loaded)| {
        let file = &loaded.file;
        format!("{name} is retired, since {file} is gone; a run under way goes on")
    });
    arrived.chain(retired).collect()
}

/// The campaign files directly in `dir`, sorted. Hidden files are left out, and
/// with them what editors and configuration managers keep beside a file.
pub(super) fn campaign_files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let is_campaign = name.is_some_and(|name| {
            let named_so = name.ends_with(".yaml") || name.ends_with(".yml");
            named_so && !name.starts_with(['.', '#', '~'])
        });
        if is_campaign && !path.is_dir() {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn find(path: &Path, file: String, known: &Known, last: Option<&Loaded>) -> Found {
    // Asked first: what changes while it is read is no older than this.
    let changed_at = changed_at(path);
    let text = match read(path) {
        Ok(text) => text,
        Err(problem) => {
            return Found {
                file,
                text: None,
                compiled: Err(vec![problem]),
            };
        }
    };
    let digest: [u8; 32] = Sha256::digest(text.text.as_bytes()).into();
    let compiled = match last.filter(|last| last.digest == digest) {
        Some(last) => Ok(last.clone()),
        None => compile(&text.source(), known).map(|(campaign, notes)| Loaded {
            campaign: Arc::new(campaign),
            file: file.clone(),
            changed_at,
            digest,
            notes,
        }),
    };
    Found {
        file,
        text: Some(text),
        compiled,
    }
}

/// Refuses every file whose campaign has the name of another file's, or of one
/// that is in force from a file that has problems now.
fn refuse_shared_names(found: &mut [Found], before: &BTreeMap<&str, &Loaded>) {
    let mut claims: BTreeMap<CampaignName, Vec<String>> = BTreeMap::new();
    for each in found.iter() {
        let name = match &each.compiled {
            Ok(loaded) => Some(loaded.campaign.name.clone()),
            Err(_) => before
                .get(each.file.as_str())
                .map(|loaded| loaded.campaign.name.clone()),
        };
        if let Some(name) = name {
            claims.entry(name).or_default().push(each.file.clone());
        }
    }
    for each in found.iter_mut() {
        let (Ok(loaded), Some(text)) = (&each.compiled, &each.text) else {
            continue;
        };
        let files = claims.get(&loaded.campaign.name);
        let other = files.and_then(|files| files.iter().find(|file| **file != each.file));
        if let Some(other) = other {
            let problem = duplicate_name(&text.source(), &loaded.campaign.name, other);
            each.compiled = Err(vec![problem]);
        }
    }
}

fn gather(found: Vec<Found>, before: &BTreeMap<&str, &Loaded>, known: &Known) -> Folder {
    let mut folder = Folder {
        files: found.len(),
        known: known.clone(),
        ..Folder::default()
    };
    for each in found {
        let in_force = match each.compiled {
            Ok(loaded) => {
                folder.problems.extend(loaded.notes.iter().cloned());
                Some(loaded)
            }
            Err(problems) => {
                folder.refused += 1;
                folder.problems.extend(problems);
                before.get(each.file.as_str()).copied().cloned()
            }
        };
        let is_shown = folder.problems.last().is_some_and(|p| p.file == each.file);
        if let Some(text) = each.text.filter(|_| is_shown) {
            folder.sources.insert(text.name, text.text);
        }
        if let Some(loaded) = in_force {
            let name = loaded.campaign.name.clone();
            folder.campaigns.entry(name).or_insert(loaded);
        }
    }
    folder
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use tempfile::TempDir;

    #[test]
    fn campaign_files_are_loaded_and_others_are_left_alone() {
        let dir = folder(&[
            ("b.yaml", &text("b", 50)),
            ("a.yml", &text("a", 50)),
            (".hidden.yaml", "x"),
            ("#a.yaml", "x"),
            ("a.yaml~", "x"),
            ("notes.txt", "x"),
        ]);
        fs::create_dir(dir.path().join("folder.yaml")).unwrap();
        let loaded = load(dir.path(), &known(), Folder::default());
        check(&loaded, "a=50 b=50", "");
        assert_eq!((loaded.files, loaded.refused), (2, 0));
    }

    #[test]
    fn what_several_cores_make_of_many_is_in_order() {
        let all: Vec<usize> = (0..A_CORES_WORTH * 5 + 1).collect();
        assert_eq!(on_all_cores(&all, |each| *each), all);
        assert_eq!(on_all_cores(&all[..3], |each| *each), [0, 1, 2]);
        assert!(on_all_cores(&all[..0], |each| *each).is_empty());
    }

    #[test]
    fn a_file_with_problems_leaves_its_last_good_version_in_force() {
        let dir = folder(&[("a.yaml", &text("a", 50)), ("b.yaml", "name: B")]);
        let first = load(dir.path(), &known(), Folder::default());
        check(&first, "a=50", "b b b b b");
        fs::write(dir.path().join("a.yaml"), text("a", 101)).unwrap();
        let second = load(dir.path(), &known(), first);
        check(&second, "a=50", "a b b b b b");
        assert_eq!(second.sources.len(), 2);
        fs::write(dir.path().join("a.yaml"), text("a", 60)).unwrap();
        let third = load(dir.path(), &known(), second);
        check(&third, "a=60", "b b b b b");
    }

    #[test]
    fn a_removed_file_takes_its_campaign_with_it() {
        let dir = folder(&[("a.yaml", &text("a", 50)), ("b.yaml", &text("b", 50))]);
        let first = load(dir.path(), &known(), Folder::default());
        fs::remove_file(dir.path().join("a.yaml")).unwrap();
        check(&load(dir.path(), &known(), first), "b=50", "");
    }

    #[test]
    fn what_has_changed_is_said_of_each_campaign() {
        let dir = folder(&[("a.yaml", &text("a", 50)), ("b.yaml", &text("b", 50))]);
        let first = load(dir.path(), &known(), Folder::default());
        fs::write(dir.path().join("a.yaml"), text("a", 51)).unwrap();
        fs::rename(dir.path().join("b.yaml"), dir.path().join("c.yaml")).unwrap();
        fs::write(dir.path().join("d.yaml"), text("d", 50)).unwrap();
        let second = load(dir.path(), &known(), first.clone());
        fs::remove_file(dir.path().join("c.yaml")).unwrap();
        let third = load(dir.path(), &known(), second.clone());
        let said = [changes(&first, &second), changes(&second, &third)].concat();
        let said: Vec<&str> = said
            .iter()
            .map(|line| line.split(',').next().unwrap())
            .collect();
        assert_eq!(said, ["a has changed", "d is in force", "b is retired"]);
    }

    #[test]
    fn a_shared_name_is_a_problem_in_both_files_and_replaces_nothing() {
        let dir = folder(&[("a.yaml", &text("a", 50))]);
        let first = load(dir.path(), &known(), Folder::default());
        fs::write(dir.path().join("a.yaml"), text("a", 51)).unwrap();
        fs::write(dir.path().join("b.yaml"), text("a", 52)).unwrap();
        let second = load(dir.path(), &known(), first);
        check(&second, "a=50", "a b");
        let message = &second.problems[1].message;
        assert!(message.starts_with("`a` is also the name of the campaign in "));
        assert_eq!((second.problems[1].line, second.problems[1].column), (1, 7));
        check(&load(dir.path(), &known(), Folder::default()), "", "a b");
    }

    #[test]
    fn a_name_in_force_from_a_broken_file_is_not_taken_by_another() {
        let dir = folder(&[("a.yaml", &text("a", 50))]);
        let first = load(dir.path(), &known(), Folder::default());
        fs::write(dir.path().join("a.yaml"), "name: [").unwrap();
        fs::write(dir.path().join("b.yaml"), text("a", 52)).unwrap();
        check(&load(dir.path(), &known(), first), "a=50", "a b");
    }

    #[test]
    fn an_unchanged_file_is_judged_again_when_the_operator_changes_the_names() {
        let dir = folder(&[("a.yaml", &text("a", 50))]);
        let first = load(dir.path(), &known(), Folder::default());
        let again = load(dir.path(), &known(), first.clone());
        let name = "a".parse().unwrap();
        assert!(Arc::ptr_eq(
            &first.campaigns[&name].campaign,
            &again.campaigns[&name].campaign
        ));
        let renamed = Known {
            connectors: ["other".parse().unwrap()].into(),
            ..known()
        };
        check(&load(dir.path(), &renamed, again), "a=50", "a");
    }

    #[test]
    fn a_folder_that_cannot_be_read_leaves_everything_in_force() {
        let dir = folder(&[("a.yaml", &text("a", 50))]);
        let first = load(dir.path(), &known(), Folder::default());
        let gone = dir.path().join("gone");
        check(&load(&gone, &known(), first), "a=50", "gone");
    }

    /// Compares the campaigns in force with their priorities, and the files
    /// of the problems.
    #[track_caller]
    fn check(folder: &Folder, campaigns: &str, problems: &str) {
        let in_force: Vec<_> = folder
            .campaigns
            .iter()
            .map(|(name, loaded)| format!("{name}={}", loaded.campaign.priority))
            .collect();
        let files: Vec<_> = folder
            .problems
            .iter()
            .map(|problem| {
                Path::new(&problem.file)
                    .file_stem()
                    .unwrap()
                    .to_str()
                    .unwrap()
            })
            .collect();
        let found = (in_force.join(" "), files.join(" "));
        assert_eq!(found, (campaigns.to_owned(), problems.to_owned()));
    }

    fn folder(files: &[(&str, &str)]) -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        dir
    }

    fn text(name: &str, priority: u32) -> String {
        format!(
            "name: {name}\nconnector: sandbox\npriority: {priority}\n\
             schedule: {{ cron: \"0 9 * * *\", timezone: UTC }}\n\
             audience: {{ key: id, sql: select id from customers }}\n\
             activation: {{ destination: email-esp }}\n"
        )
    }

    fn known() -> Known {
        Known {
            connectors: ["sandbox".parse().unwrap()].into(),
            destinations: ["email-esp".parse().unwrap()].into(),
            ..Known::default()
        }
    }
}

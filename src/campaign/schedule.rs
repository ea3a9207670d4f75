//! The `schedule` section of a campaign file.

use super::file::Campaign;
use super::yaml::{Document, Field, Problem, Reader, Section, Source};
use crate::id::CampaignName;
use crate::schedule::{
    Blackout, CatchUp, Overlap, Schedule, SchedulePart, SendWindow, Terms, WhenText, spread_offset,
};
use jiff::Timestamp;
use std::time::Duration;

const DAY: Duration = Duration::from_secs(86_400);
const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

/// The three ways to say when; one is wanted.
const WAYS: [&str; 3] = ["cron", "every", "at"];

/// Where each part stands, so that its problems are shown there.
struct Places<'r> {
    cron: Vec<Field<'r>>,
    at: Option<Field<'r>>,
    zone: Option<Field<'r>>,
    starts: Option<Field<'r>>,
    ends: Option<Field<'r>>,
}

/// The schedule, or none where problems were reported. What is sound is
/// checked even where the rest is not, so that no problem hides another.
pub(super) fn schedule_of(mut section: Section, name: Option<&CampaignName>) -> Option<Schedule> {
    let is_one = one_way(&section);
    let cron = match WAYS.iter().any(|way| section.has(way)) {
        true => section.optional("cron"),
        false => section.required("cron"),
    };
    let every = section.optional("every");
    let at = section.optional("at");
    let zone = match every.is_some() && cron.is_none() && at.is_none() {
        true => section.optional("timezone"),
        false => section.required("timezone"),
    };
    let zone_name = zone.as_ref().map(Field::filled_text);
    let zone_text = zone_name.flatten().unwrap_or("UTC");
    let starts = section.optional("starts");
    let ends = section.optional("ends");
    let terms = terms_of(&mut section, name, zone_text);
    section.finish();

    let items = cron.as_ref().map(Field::one_or_more).unwrap_or_default();
    let written = items.len();
    let (fields, texts): (Vec<_>, Vec<_>) = items
        .into_iter()
        .filter_map(|field| Some((field.clone(), field.filled_text()?)))
        .unzip();
    let period = every.as_ref().map(|f| f.duration(MINUTE..=366 * DAY));
    let at_text = at.as_ref().map(Field::filled_text);
    let starts_text = starts.as_ref().map(Field::filled_text);
    let ends_text = ends.as_ref().map(Field::filled_text);
    let is_whole = texts.len() == written
        && period != Some(None)
        && ![zone_name, at_text, starts_text, ends_text].contains(&Some(None))
        && (zone.is_some() || every.is_some());
    let when = match (texts.is_empty(), at_text.flatten(), period.flatten()) {
        (false, ..) => WhenText::Cron(texts),
        (true, Some(at), _) => WhenText::At(at),
        // Stands in where there is none, so that the rest is checked.
        (true, None, period) => WhenText::Every(period.unwrap_or(DAY)),
    };
    let has_way = cron.is_some() || every.is_some() || at.is_some();
    let is_whole = is_whole && has_way && (written > 0 || cron.is_none());
    let places = Places {
        cron: fields,
        at,
        zone,
        starts,
        ends,
    };
    let compiled = Schedule::of(&when, zone_text, starts_text.flatten(), ends_text.flatten());
    match compiled {
        Ok(schedule) if is_whole && is_one => {
            let schedule = schedule.under(terms?);
            if let (Some(message), Some(at)) = (schedule.blacked_out(), &places.at) {
                at.error(message);
                return None;
            }
            Some(schedule)
        }
        Ok(_) => None,
        Err(problems) => {
            for problem in problems {
                if let Some(field) = places.of(problem.part) {
                    field.error(problem.message);
                }
            }
            None
        }
    }
}

/// Whether no more than one of the ways is given.
fn one_way(section: &Section) -> bool {
    let given: Vec<String> = WAYS
        .iter()
        .filter(|way| section.has(way))
        .map(|way| format!("`{way}`"))
        .collect();
    if given.len() > 1 {
        section.error(&format!(
            "`schedule` has {}; give one of `cron`, `every` and `at`",
            given.join(" and ")
        ));
    }
    given.len() <= 1
}

impl<'r> Places<'r> {
    fn of(&self, part: SchedulePart) -> Option<&Field<'r>> {
        match part {
            SchedulePart::Cron(index) => self.cron.get(index),
            SchedulePart::At => self.at.as_ref(),
            SchedulePart::Timezone => self.zone.as_ref(),
            SchedulePart::Starts => self.starts.as_ref(),
            SchedulePart::Ends => self.ends.as_ref(),
        }
    }
}

fn terms_of(section: &mut Section, name: Option<&CampaignName>, zone: &str) -> Option<Terms> {
    let spread = section
        .optional("spread")
        .map_or(Some(Duration::ZERO), |f| f.duration(SECOND..=DAY));
    let catch_up = section
        .optional("catch_up")
        .map_or(Some(CatchUp::default()), |f| {
            f.choice(&[
                ("none", CatchUp::None),
                ("latest", CatchUp::Latest),
                ("all", CatchUp::All),
            ])
        });
    let within = section
        .optional("catch_up_within")
        .map_or(Some(None), |f| f.duration(MINUTE..=366 * DAY).map(Some));
    let overlap = section
        .optional("overlap")
        .map_or(Some(Overlap::default()), |f| {
            f.choice(&[("skip", Overlap::Skip), ("queue", Overlap::Queue)])
        });
    let blackout = section
        .optional("blackout")
        .map_or(Some(Vec::new()), |f| blackouts(&f));
    let send_window = section
        .optional("send_window")
        .map_or(Some(None), |f| send_window(&f, zone).map(Some));
    let name = name.map_or("", |name| name.as_str());
    Some(Terms {
        offset: spread_offset(name, spread?),
        catch_up: catch_up?,
        catch_up_within: within?,
        overlap: overlap?,
        blackout: blackout?,
        send_window: send_window?,
    })
}

fn blackouts(field: &Field) -> Option<Vec<Blackout>> {
    let items = field.list()?;
    let count = items.len();
    let sound: Vec<Blackout> = items.iter().filter_map(blackout).collect();
    (sound.len() == count).then_some(sound)
}

fn blackout(field: &Field) -> Option<Blackout> {
    let mut section = field.section()?;
    let from = section.required("from");
    let to = section.required("to");
    section.finish();
    let date = |field: Option<&Field>| {
        let field = field?;
        let read = Blackout::date(field.filled_text()?);
        read.map_err(|message| field.error(message)).ok()
    };
    let (first, last) = (date(from.as_ref()), date(to.as_ref()));
    let (first, last) = (first?, last?);
    if last < first {
        field.error(format!(
            "the blackout ends on {last}, before it begins on {first}; exchange the two"
        ));
        return None;
    }
    Some(Blackout {
        from: first,
        to: last,
    })
}

fn send_window(field: &Field, zone: &str) -> Option<SendWindow> {
    let mut section = field.section()?;
    let from = section.required("from");
    let to = section.required("to");
    section.finish();
    let (from, to) = (from?.filled_text()?, to?.filled_text()?);
    match SendWindow::parse(from, to, zone) {
        Ok(window) => Some(window),
        // Said already, at the zone.
        Err(message) if message.starts_with("unknown time zone") => None,
        Err(message) => {
            field.error(message);
            None
        }
    }
}

/// Notes on when it fires, as seen from `now`: that it does not fire again, and
/// the fire times of the next 400 days that fall where the zone's clock jumps
/// or goes back; the first of each kind.
pub fn schedule_notes(source: &Source, campaign: &Campaign, now: Timestamp) -> Vec<Problem> {
    let past = campaign.schedule.past_note(now);
    let clock = campaign.schedule.clock_notes(now);
    if past.is_none() && clock.is_empty() {
        return Vec::new();
    }
    let Ok(document) = Document::read(source) else {
        return Vec::new();
    };
    let reader = Reader::new(source);
    let section = reader
        .top(&document)
        .and_then(|mut top| top.optional("schedule"))
        .and_then(|field| field.section());
    if let Some(mut section) = section {
        if let Some(past) = past {
            let key = match past.part {
                SchedulePart::At => "at",
                _ => "ends",
            };
            if let Some(field) = section.optional(key) {
                field.note(past.message);
            }
        }
        let when = section.optional("cron").or_else(|| section.optional("at"));
        for note in clock {
            if let Some(field) = &when {
                field.note(note.message);
            }
        }
    }
    reader.into_problems()
}

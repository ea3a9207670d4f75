//! Fire times. A stand-in with the agreed signatures.

/// A compiled schedule.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    cron: Vec<String>,
    timezone: String,
}

/// One thing wrong with a schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleProblem {
    /// Which part of it.
    pub part: SchedulePart,
    /// What is wrong.
    pub message: String,
}

/// A part of a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchedulePart {
    /// One of its expressions, from 0.
    Cron(usize),
    /// Its time zone.
    Timezone,
}

impl Schedule {
    /// Compiles expressions and a zone.
    pub fn compile(cron: &[String], timezone: &str) -> Result<Self, Vec<ScheduleProblem>> {
        let mut problems = Vec::new();
        for (index, expression) in cron.iter().enumerate() {
            if let Err(error) = expression.parse::<croner::Cron>() {
                problems.push(ScheduleProblem {
                    part: SchedulePart::Cron(index),
                    message: format!("`{expression}` does not parse: {error}"),
                });
            }
        }
        if jiff::tz::TimeZone::get(timezone).is_err() {
            problems.push(ScheduleProblem {
                part: SchedulePart::Timezone,
                message: format!("unknown time zone `{timezone}`"),
            });
        }
        if problems.is_empty() {
            Ok(Self {
                cron: cron.to_vec(),
                timezone: timezone.to_owned(),
            })
        } else {
            Err(problems)
        }
    }

    /// What tells one schedule from another.
    pub fn hash(&self) -> String {
        format!("{:?} {}", self.cron, self.timezone)
    }
}

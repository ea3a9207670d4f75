//! The fields of a cron expression: what each may hold, and what to say when
//! it holds something else.

use super::cron::parser;

/// One field of a cron expression.
struct Field {
    one: &'static str,
    many: &'static str,
    min: u16,
    max: u16,
    /// Names that stand for numbers, from `first_name` upwards.
    names: &'static [&'static str],
    first_name: u16,
    /// What it may hold, in words.
    range: &'static str,
    /// Letters of croner's further forms: last, nearest weekday, nth.
    marks: &'static [char],
}

const PLAIN: Field = Field {
    one: "second",
    many: "seconds",
    min: 0,
    max: 59,
    names: &[],
    first_name: 0,
    range: "0 to 59",
    marks: &[],
};

const FIELDS: [Field; 6] = [
    PLAIN,
    Field {
        one: "minute",
        many: "minutes",
        ..PLAIN
    },
    Field {
        one: "hour",
        many: "hours",
        max: 23,
        range: "0 to 23",
        ..PLAIN
    },
    Field {
        one: "day of month",
        many: "days of the month",
        min: 1,
        max: 31,
        range: "1 to 31, `L` for the last, or like `15W` for the nearest weekday",
        marks: &['L', 'W'],
        ..PLAIN
    },
    Field {
        one: "month",
        many: "months",
        min: 1,
        max: 12,
        names: &[
            "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC",
        ],
        first_name: 1,
        range: "1 to 12 or JAN to DEC",
        ..PLAIN
    },
    Field {
        one: "day of week",
        many: "days of the week",
        max: 7,
        names: &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"],
        range: "0 to 7 or SUN to SAT, and like `MON#2` for the second or `FRIL` for the last of a month",
        marks: &['L', '#'],
        ..PLAIN
    },
];

const NICKNAMES: [(&str, &str); 6] = [
    ("@YEARLY", "0 0 1 1 *"),
    ("@ANNUALLY", "0 0 1 1 *"),
    ("@MONTHLY", "0 0 1 * *"),
    ("@WEEKLY", "0 0 * * SUN"),
    ("@DAILY", "0 0 * * *"),
    ("@HOURLY", "0 * * * *"),
];

/// The six fields of `expression` in capitals, seconds `0` where it has five;
/// or what is wrong with one of them.
pub(super) fn split(expression: &str) -> Result<[String; 6], String> {
    let text = expression.to_uppercase();
    if let Some((_, five)) = NICKNAMES.iter().find(|(name, _)| *name == text.trim()) {
        return Err(format!(
            "`{expression}` is a nickname; write its fields: `{five}`"
        ));
    }
    let mut fields: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    let count = fields.len();
    if count == 5 {
        fields.insert(0, "0".to_owned());
    }
    let fields: [String; 6] = fields.try_into().map_err(|_| {
        let noun = if count == 1 { "field" } else { "fields" };
        format!(
            "`{expression}` has {count} {noun}; give five (minute, hour, day of month, month, \
             day of week), or six with seconds first"
        )
    })?;
    for (field, text) in FIELDS.iter().zip(&fields) {
        field
            .check(text)
            .map_err(|what| format!("`{expression}` has {what}"))?;
    }
    Ok(fields)
}

/// What to say of an expression that croner refuses though each plain number
/// in it is in range: it names the field that is refused on its own.
pub(super) fn blame(expression: &str, fields: &[String; 6]) -> String {
    for (index, (field, text)) in FIELDS.iter().zip(fields).enumerate() {
        let mut alone = ["*"; 6];
        alone[index] = text;
        if parser().parse(&alone.join(" ")).is_err() {
            return format!("`{expression}` has {}", field.refused(text));
        }
    }
    format!("`{expression}` is not a cron expression")
}

impl Field {
    /// What is wrong with `text` in this field, if anything is.
    fn check(&self, text: &str) -> Result<(), String> {
        // A day of week behind `+` must match together with the day of month.
        let is_weekday = self.one == "day of week";
        let text = text
            .strip_prefix('+')
            .filter(|_| is_weekday)
            .unwrap_or(text);
        if text == "?" && !self.marks.is_empty() {
            return Ok(());
        }
        text.split(',').try_for_each(|part| self.check_part(part))
    }

    fn check_part(&self, part: &str) -> Result<(), String> {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(step)),
            None => (part, None),
        };
        if let Some(step) = step {
            self.check_step(range, step)?;
        }
        if range == "*" {
            return Ok(());
        }
        let Some((first, last)) = range.split_once('-') else {
            return self.check_value(range).map(drop);
        };
        let (low, high) = (self.check_value(first)?, self.check_value(last)?);
        match (low, high) {
            // SUN ends a range as 7.
            (Some(low), Some(0)) if self.max == 7 && low > 0 => Ok(()),
            (Some(low), Some(high)) if low > high => Err(format!(
                "{} {range}; a range goes up, so write `{low}-{},{}-{high}`",
                self.many, self.max, self.min
            )),
            _ => Ok(()),
        }
    }

    fn check_step(&self, range: &str, step: &str) -> Result<(), String> {
        let many = self.many;
        match step.parse::<u16>() {
            Ok(size) if size > 0 && size <= self.max => {}
            _ => {
                return Err(format!(
                    "a step of `{step}` in its {many}; steps there are 1 to {}",
                    self.max
                ));
            }
        }
        if range == "*" || range.contains('-') {
            return Ok(());
        }
        let from = if range.is_empty() { "*" } else { range };
        let range = if from == "*" {
            "*".to_owned()
        } else {
            format!("{from}-{}", self.max)
        };
        Err(format!(
            "a step without a range in its {many}; write `{range}/{step}`"
        ))
    }

    /// The number that `text` stands for; none where croner must judge it.
    fn check_value(&self, text: &str) -> Result<Option<u16>, String> {
        if let Some(place) = self.names.iter().position(|name| *name == text) {
            let place = u16::try_from(place).expect("there are at most twelve names");
            return Ok(Some(place + self.first_name));
        }
        match text.parse::<u16>() {
            Ok(number) if (self.min..=self.max).contains(&number) => Ok(Some(number)),
            Err(_) if text.contains(self.marks) && !self.marks.is_empty() => Ok(None),
            _ => Err(self.refused(text)),
        }
    }

    fn refused(&self, text: &str) -> String {
        let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let quote = if is_number { "" } else { "`" };
        format!(
            "{} {quote}{text}{quote}; {} are {}",
            self.one, self.many, self.range
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::cron::CronLine;

    #[track_caller]
    fn check(expression: &str, problem: &str) {
        assert_eq!(CronLine::parse(expression).unwrap_err(), problem);
    }

    #[test]
    fn a_number_out_of_range_is_named_with_its_range() {
        check(
            "61 * * * *",
            "`61 * * * *` has minute 61; minutes are 0 to 59",
        );
        check("0 24 * * *", "`0 24 * * *` has hour 24; hours are 0 to 23");
        check(
            "60 0 9 * * *",
            "`60 0 9 * * *` has second 60; seconds are 0 to 59",
        );
        check(
            "0 9 * 13 *",
            "`0 9 * 13 *` has month 13; months are 1 to 12 or JAN to DEC",
        );
    }

    #[test]
    fn a_name_counts_only_in_its_own_field() {
        check(
            "MON 9 * * *",
            "`MON 9 * * *` has minute `MON`; minutes are 0 to 59",
        );
        check(
            "0 9 * MOND *",
            "`0 9 * MOND *` has month `MOND`; months are 1 to 12 or JAN to DEC",
        );
        assert!(CronLine::parse("0 9 * jan-mar mon-fri").is_ok());
        assert!(CronLine::parse("0 9 * * FRI-SUN").is_ok());
    }

    #[test]
    fn the_number_of_fields_is_five_or_six() {
        check(
            "* * * *",
            "`* * * *` has 4 fields; give five (minute, hour, day of month, month, day of week), \
             or six with seconds first",
        );
        check(
            "@daily",
            "`@daily` is a nickname; write its fields: `0 0 * * *`",
        );
        assert!(CronLine::parse("0 0 9 * * * 2027").is_err());
        assert!(CronLine::parse("").is_err());
        assert!(CronLine::parse("30 0 9 * * *").is_ok());
    }

    #[test]
    fn a_step_or_range_that_croner_would_bend_is_refused_with_the_right_one() {
        check(
            "*/90 * * * *",
            "`*/90 * * * *` has a step of `90` in its minutes; steps there are 1 to 59",
        );
        check(
            "5/10 * * * *",
            "`5/10 * * * *` has a step without a range in its minutes; write `5-59/10`",
        );
        check(
            "0 22-2 * * *",
            "`0 22-2 * * *` has hours 22-2; a range goes up, so write `22-23,0-2`",
        );
        check(
            "0,,5 * * * *",
            "`0,,5 * * * *` has minute ``; minutes are 0 to 59",
        );
    }

    #[test]
    fn what_croner_alone_refuses_is_blamed_on_its_field() {
        let problem = CronLine::parse("0 9 LX * *").unwrap_err();
        assert!(problem.contains("has day of month `LX`"), "{problem}");
        let problem = CronLine::parse("0 9 * * MON#9").unwrap_err();
        assert!(problem.contains("has day of week `MON#9`"), "{problem}");
        for good in [
            "0 9 L * *",
            "0 9 15W * *",
            "0 9 * * MON#2",
            "0 9 13 * +FRI",
            "0 9 ? * FRIL",
        ] {
            assert!(CronLine::parse(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn an_expression_that_never_fires_is_a_problem() {
        check("0 9 30 2 *", "`0 9 30 2 *` never fires: no date matches it");
        check(
            "0 9 31 2,4,6,9,11 *",
            "`0 9 31 2,4,6,9,11 *` never fires: no date matches it",
        );
        assert!(CronLine::parse("0 9 29 2 +MON").is_ok());
    }
}

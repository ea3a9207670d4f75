//! How large an audience its campaign expects, so that a mistake in the data
//! is noticed before anything is sent.

use serde::{Deserialize, Serialize};

/// Bounds of `audience`; both ends are within.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// At least so many rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<u64>,
    /// At most so many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<u64>,
    /// At most so much more or less than the last time, in hundredths of a per
    /// cent of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_change_basis_points: Option<u32>,
}

impl Expect {
    /// Whether it expects nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What is unexpected about `audience`, where the last one was `last`; a
    /// change against none is not judged, and against 0 it always is one.
    pub fn refuses(&self, audience: u64, last: Option<u64>) -> Option<String> {
        if let Some(min) = self.min.filter(|min| audience < *min) {
            return Some(format!(
                "the audience is {audience}; expected are at least {min}"
            ));
        }
        if let Some(max) = self.max.filter(|max| audience > *max) {
            return Some(format!(
                "the audience is {audience}; expected are at most {max}"
            ));
        }
        let (points, last) = (self.max_change_basis_points?, last?);
        let change = u128::from(audience.abs_diff(last));
        let is_within = last > 0 && change * 10_000 <= u128::from(last) * u128::from(points);
        (!is_within).then(|| {
            format!(
                "the audience is {audience} and was {last} the last time; expected is a change \
                 of at most {} %",
                f64::from(points) / 100.0
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expect(min: u64, max: u64, points: u32) -> Expect {
        Expect {
            min: Some(min),
            max: Some(max),
            max_change_basis_points: Some(points),
        }
    }

    #[test]
    fn both_ends_are_within() {
        let expect = expect(10, 100, 5_000);
        for (audience, last) in [(10, None), (100, None), (50, Some(100)), (15, Some(10))] {
            assert_eq!(expect.refuses(audience, last), None, "{audience} {last:?}");
        }
        for (audience, last) in [(9, None), (101, None), (49, Some(100)), (16, Some(10))] {
            assert!(
                expect.refuses(audience, last).is_some(),
                "{audience} {last:?}"
            );
        }
    }

    #[test]
    fn after_an_audience_of_none_every_audience_is_a_change() {
        assert!(expect(0, 100, 1_000_000).refuses(0, Some(0)).is_some());
        assert_eq!(Expect::default().refuses(7, Some(0)), None);
    }

    #[test]
    fn the_largest_audiences_do_not_overflow() {
        let expect = expect(0, u64::MAX, u32::MAX);
        assert_eq!(expect.refuses(u64::MAX, Some(u64::MAX)), None);
        assert!(expect.refuses(u64::MAX, Some(1)).is_some());
    }
}

//! The nearest right name.

/// The candidate that `word` was probably meant to be: the most similar one,
/// if it is similar at all.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    /// Below this, a suggestion is more confusing than none.
    const SIMILAR: f64 = 0.75;

    // Long words cost quadratic time, and none of our names is as long.
    if word.len() > 200 {
        return None;
    }
    let lower = word.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| {
            let edits = strsim::normalized_damerau_levenshtein(&lower, &candidate.to_lowercase());
            let prefix = strsim::jaro_winkler(&lower, &candidate.to_lowercase());
            (edits.max(prefix - 0.1), candidate)
        })
        .filter(|(similarity, _)| *similarity >= SIMILAR)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

/// `; did you mean …?` for the nearest candidate, or nothing.
pub fn suggestion<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    nearest(word, candidates).map_or_else(String::new, |right| format!("; did you mean `{right}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_a_stranger_is_not() {
        let keys = ["batch_size", "destination", "schedule", "key"];
        assert_eq!(nearest("batchsize", keys), Some("batch_size"));
        assert_eq!(nearest("batch-size", keys), Some("batch_size"));
        assert_eq!(nearest("destinaton", keys), Some("destination"));
        assert_eq!(nearest("Schedule", keys), Some("schedule"));
        assert_eq!(nearest("colour", keys), None);
    }
}

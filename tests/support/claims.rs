//! What a ledger promises of claims that are made together.

use super::records::{claim, cursor, minute, new_run};
use campaignd::id::{CampaignName, RunId};
use campaignd::run::{Claim, Ledger, LedgerError, NewRun, RunState};
use jiff::Timestamp;

/// A claim of one run by campaign `rush-<number>`, each third under a
/// specification of its own.
fn rush(number: usize, before: Option<Timestamp>) -> Claim {
    let name: CampaignName = format!("rush-{number}").parse().unwrap();
    let run = NewRun {
        run: RunId::scheduled(&name, minute(5)),
        campaign: name.clone(),
        campaign_version: format!("v{}", number % 3),
        ..new_run(minute(5), RunState::Queued)
    };
    Claim {
        campaign: name,
        ..claim(before, minute(5), vec![run])
    }
}

/// A promise.
pub async fn claims_made_together_are_each_taken_or_refused(ledger: &dyn Ledger) {
    for number in 0..70 {
        let known = Claim {
            after: cursor(minute(0)),
            runs: Vec::new(),
            ..rush(number, None)
        };
        ledger.claim(known).await.unwrap();
    }
    let seen = |number: usize| (number < 70).then(|| minute(0));
    let mut claims: Vec<Claim> = (0..150).map(|number| rush(number, seen(number))).collect();
    claims[40].before = Some(cursor(minute(1)));
    claims[44].before = None;
    let answers = ledger.claim_all(claims).await;
    assert_eq!(answers.len(), 150);
    for (number, answer) in answers.into_iter().enumerate() {
        let mut asked = rush(number, None);
        let now = ledger.cursor(&asked.campaign).await.unwrap();
        let is_moved = now == Some(cursor(minute(5)));
        match number {
            40 | 44 => assert!(!is_moved && matches!(answer, Err(LedgerError::Conflict { .. }))),
            _ => assert!(is_moved && answer == Ok(vec![asked.runs.remove(0).run])),
        }
    }
    let open = ledger.open_runs().await.unwrap();
    assert_eq!(open.len(), 148);
    assert!(open.iter().all(|run| run.spec == "{}"));
}

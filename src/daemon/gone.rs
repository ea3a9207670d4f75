//! A destination that the operator has taken out of the file: runs that only
//! end, because they are cancelled or have expired, need none.

use super::world::Way;
use crate::delivery::{OnAmbiguous, Rules};
use crate::id::DestinationName;
use crate::run::{Clock, Destination, Limit, Outcome, Request, Throttle, ThrottleOptions};
use async_trait::async_trait;
use std::sync::Arc;
use std::time::Duration;

const GONE: &str = "the destination is not in campaignd.yaml";

/// Nothing leaves for it.
struct Gone;

#[async_trait]
impl Destination for Gone {
    async fn attempt(&self, _: Request) -> Outcome {
        let reason = GONE.to_owned();
        Outcome::NotSent { reason }
    }

    async fn reach(&self) -> Result<(), String> {
        Err(GONE.to_owned())
    }
}

/// The way to the destination `name`, which is gone.
pub(super) fn way(name: &DestinationName, clock: &Arc<dyn Clock>, total: &Limit) -> Way {
    let options = ThrottleOptions {
        name: name.clone(),
        max_in_flight: 1,
        rate_limit: None,
    };
    let second = Duration::from_secs(1);
    Way {
        destination: Arc::new(Gone),
        rules: Arc::new(Rules {
            timeout: second,
            retry_initial: second,
            retry_max: second,
            give_up_after: Duration::MAX,
            dedupe_window: None,
            on_ambiguous: OnAmbiguous::Park,
            not_processed: Vec::new(),
        }),
        throttle: Throttle::new(options, Arc::clone(clock), total.clone()),
    }
}

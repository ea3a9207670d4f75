//! What the throttle lets begin, and in which order.

use super::*;
use crate::delivery::{OnAmbiguous, Rejections};
use crate::run::SystemClock;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::task::JoinSet;

fn throttle(max_in_flight: u32, total: &Limit) -> Throttle {
    let options = ThrottleOptions {
        name: "esp".parse().unwrap(),
        max_in_flight,
        rate_limit: None,
    };
    Throttle::new(options, Arc::new(SystemClock), total.clone())
}

fn rules() -> Rules {
    Rules {
        timeout: Duration::from_secs(30),
        retry_initial: Duration::from_secs(1),
        retry_max: Duration::from_secs(300),
        give_up_after: Duration::from_secs(3600),
        dedupe_window: None,
        on_ambiguous: OnAmbiguous::Park,
        not_processed: Vec::new(),
    }
}

fn answered(status: u16) -> Outcome {
    Outcome::Answered {
        status,
        retry_after: None,
        rejections: Rejections::default(),
    }
}

async fn pass_of(throttle: &Throttle) -> Pass {
    throttle.admit(&CancellationToken::new()).await.unwrap()
}

/// Whether somebody who asks now has to wait.
async fn has_to_wait(throttle: &Throttle) -> bool {
    let halt = CancellationToken::new();
    let asking = throttle.admit(&halt);
    tokio::select! {
        biased;
        pass = asking => pass.is_none(),
        () = async { for _ in 0..10 { tokio::task::yield_now().await } } => true,
    }
}

#[tokio::test]
async fn neither_limit_is_ever_exceeded_and_everybody_gets_through() {
    let total = Limit::new(5);
    let mut tasks = JoinSet::new();
    let all = Arc::new(AtomicU32::new(0));
    for throttle in [throttle(4, &total), throttle(3, &total)] {
        let own = Arc::new(AtomicU32::new(0));
        for _ in 0..200 {
            let (throttle, own, all) = (throttle.clone(), Arc::clone(&own), Arc::clone(&all));
            tasks.spawn(async move {
                let pass = pass_of(&throttle).await;
                let attempt = async {
                    let at_once = own.fetch_add(1, Ordering::SeqCst) + 1;
                    assert!(at_once <= throttle.max_in_flight());
                    assert!(all.fetch_add(1, Ordering::SeqCst) < 5);
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    own.fetch_sub(1, Ordering::SeqCst);
                    all.fetch_sub(1, Ordering::SeqCst);
                    answered(200)
                };
                pass.spend(&rules(), attempt).await;
            });
        }
    }
    assert_eq!(tasks.join_all().await.len(), 400);
    assert!(!has_to_wait(&throttle(1, &total)).await);
}

#[tokio::test]
async fn who_waits_for_a_slow_destination_holds_nothing_of_the_others() {
    let total = Limit::new(3);
    let (slow, quick) = (throttle(1, &total), throttle(1, &total));
    let hanging = pass_of(&slow).await;
    let mut waiting = JoinSet::new();
    for _ in 0..20 {
        let slow = slow.clone();
        waiting.spawn(async move { drop(pass_of(&slow).await) });
    }
    for _ in 0..20 {
        tokio::task::yield_now().await;
        let pass = pass_of(&quick).await;
        pass.spend(&rules(), async { answered(200) }).await;
    }
    assert_eq!(slow.in_flight(), 1);
    drop(hanging);
    assert_eq!(waiting.join_all().await.len(), 20);
}

#[tokio::test]
async fn who_is_halted_does_not_go_and_keeps_nobody() {
    let total = Limit::new(1);
    let throttle = throttle(8, &total);
    let pass = pass_of(&throttle).await;
    let halt = CancellationToken::new();
    let mut tasks = JoinSet::new();
    for _ in 0..3 {
        let (throttle, halt) = (throttle.clone(), halt.clone());
        tasks.spawn(async move { throttle.admit(&halt).await.is_none() });
    }
    tokio::task::yield_now().await;
    halt.cancel();
    assert_eq!(tasks.join_all().await, [true; 3]);
    drop(pass);
    assert!(!has_to_wait(&throttle).await);
    assert_eq!(throttle.in_flight(), 0);
}

#[tokio::test]
async fn requests_begin_in_the_order_they_were_asked_for() {
    let throttle = throttle(1, &Limit::new(1));
    let first = pass_of(&throttle).await;
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = JoinSet::new();
    for nth in 0..20 {
        let (throttle, order) = (throttle.clone(), Arc::clone(&order));
        tasks.spawn(async move {
            let _pass = pass_of(&throttle).await;
            order.lock().unwrap().push(nth);
        });
        tokio::task::yield_now().await;
    }
    drop(first);
    tasks.join_all().await;
    assert_eq!(*order.lock().unwrap(), (0..20).collect::<Vec<_>>());
}

#[tokio::test]
async fn ten_failures_stop_what_waits_as_well_as_what_comes() {
    let throttle = throttle(1, &Limit::new(1));
    for _ in 0..10 {
        assert!(!throttle.is_open());
        let pass = pass_of(&throttle).await;
        pass.spend(&rules(), async { answered(500) }).await;
    }
    assert!(throttle.is_open());
    assert!(has_to_wait(&throttle).await);
}

#[tokio::test]
async fn a_pass_that_is_not_used_gives_its_token_back() {
    let options = ThrottleOptions {
        name: "esp".parse().unwrap(),
        max_in_flight: 8,
        rate_limit: Some("1/h".parse().unwrap()),
    };
    let throttle = Throttle::new(options, Arc::new(SystemClock), Limit::new(8));
    drop(pass_of(&throttle).await);
    let pass = pass_of(&throttle).await;
    pass.spend(&rules(), async { answered(200) }).await;
    assert!(has_to_wait(&throttle).await);
}

#[tokio::test]
async fn as_many_get_ready_as_may_be_in_flight_and_fewer_where_the_rate_is_low() {
    let check = |max_in_flight, rate: Option<&str>, expect| {
        let options = ThrottleOptions {
            name: "esp".parse().unwrap(),
            max_in_flight,
            rate_limit: rate.map(|rate| rate.parse().unwrap()),
        };
        let throttle = Throttle::new(options, Arc::new(SystemClock), Limit::new(8));
        assert_eq!(throttle.most_ready(1), expect);
    };
    // It begins at two.
    check(8, None, 2);
    check(1, None, 1);
    check(64, Some("10/s"), 1);
    check(64, Some("1/min"), 1);
    check(64, Some("1000/s"), 2);

    let throttle = throttle(8, &Limit::new(8));
    let halt = CancellationToken::new();
    let limit = throttle.limit();
    let mut ready = Vec::new();
    for _ in 0..limit {
        ready.push(throttle.ready(1, &halt).await.unwrap());
    }
    let one_more = throttle.ready(1, &halt);
    let one_gives_it_back = async {
        tokio::task::yield_now().await;
        drop(ready.pop());
    };
    let (got, ()) = tokio::join!(one_more, one_gives_it_back);
    assert!(got.is_some());
    halt.cancel();
    assert!(throttle.ready(1, &halt).await.is_none());
}

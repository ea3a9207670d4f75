use super::super::clock::SystemClock;
use super::super::place::Place;
use super::*;
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

fn standing(priority: u8) -> Standing {
    Standing {
        under_way: false,
        priority,
        fire_time: Timestamp::UNIX_EPOCH,
    }
}

fn turns(size: u32) -> Turns {
    Turns::new(size, Arc::new(SystemClock))
}

#[tokio::test(start_paused = true)]
async fn turns_are_given_by_priority_and_never_more_than_there_are() {
    let turns = turns(2);
    let (first, second) = (turns.take(standing(0)).await, turns.take(standing(0)).await);
    let (tell, mut told) = mpsc::channel(8);
    let mut tasks = tokio::task::JoinSet::new();
    for priority in [10, 90, 50] {
        let (turns, tell) = (turns.clone(), tell.clone());
        tasks.spawn(async move {
            let turn = turns.take(standing(priority)).await;
            assert!(turns.in_use() <= 2);
            tell.send(priority).await.unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
            drop(turn);
        });
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(turns.waiting(), 3);
    drop(first);
    for expected in [90, 50, 10] {
        assert_eq!(told.recv().await, Some(expected));
    }
    while tasks.join_next().await.is_some() {}
    drop(second);
    assert_eq!((turns.in_use(), turns.waiting()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn who_stops_waiting_leaves_the_line_and_keeps_nothing() {
    let turns = turns(1);
    let turn = turns.take(standing(0)).await;
    let waited = tokio::time::timeout(Duration::from_secs(1), turns.take(standing(9))).await;
    assert!(waited.is_err());
    assert_eq!(turns.waiting(), 0);
    drop(turn);
    assert_eq!(turns.in_use(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_recovers_lets_somebody_through() {
    let turns = turns(2);
    let strained = turns.take(standing(0)).await;
    strained.ended(turns.0.clock.elapsed(), Ended::Refused);
    assert_eq!(turns.limit(), 1);
    let held = turns.take(standing(0)).await;
    let minutes = Duration::from_secs(61);
    let second = tokio::time::timeout(minutes, turns.take(standing(0))).await;
    assert!(second.is_ok());
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_rests_leaves_its_place_and_takes_it_again() {
    let turns = turns(1);
    let turn = turns.take(standing(0)).await;
    let place = Place::new(turns.clone(), turn, standing(0), CancellationToken::new());
    let other = async {
        let turn = turns.take(standing(0)).await;
        tokio::time::sleep(Duration::from_secs(9)).await;
        drop(turn);
    };
    let began = tokio::time::Instant::now();
    let resting = place.resting(tokio::time::sleep(Duration::from_secs(1)));
    tokio::join!(resting, other);
    assert_eq!(began.elapsed().as_secs(), 9);
    assert_eq!(turns.in_use(), 1, "it has its place again");
    drop(place);
    assert_eq!(turns.in_use(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_run_of_which_something_goes_on_keeps_its_place() {
    let turns = turns(1);
    let turn = turns.take(standing(0)).await;
    let place = Place::new(turns.clone(), turn, standing(0), CancellationToken::new());
    let busy = place.begin();
    let resting = place.resting(async {
        assert_eq!(turns.in_use(), 1);
        drop(busy);
        assert_eq!(turns.in_use(), 0);
    });
    resting.await;
    assert_eq!(turns.in_use(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_to_end_waits_for_no_place() {
    let turns = turns(1);
    let ending = CancellationToken::new();
    let turn = turns.take(standing(0)).await;
    let place = Place::new(turns.clone(), turn, standing(0), ending.clone());
    let rested = place.resting(async {
        let other = turns.take(standing(0)).await;
        ending.cancel();
        other
    });
    let other = rested.await;
    assert_eq!(turns.in_use(), 1);
    drop(other);
}

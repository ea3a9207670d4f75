//! What becomes of each member, said once more in memory and in plain words.

use super::{OURS, Person, World};
use campaignd::audience::{Holdout, OrderBy, Policy};
use md5::{Digest as _, Md5};
use std::collections::BTreeMap;

/// The model: what becomes of each key, and the rows without a member.
pub(super) fn expected(
    world: &World,
    is_sqlite: bool,
) -> (BTreeMap<String, &'static str>, [u64; 3]) {
    let policy = &world.policy;
    let (mut none, mut bad, mut rows) = (0, 0, 0);
    let mut members: BTreeMap<String, Vec<&Person>> = BTreeMap::new();
    for person in &world.audience {
        match &person.key {
            None => none += 1,
            Some(key) if key.trim_end_matches(' ').len() > 256 => bad += 1,
            Some(key) => {
                rows += 1;
                let key = key.trim_end_matches(' ').to_owned();
                members.entry(key).or_default().push(person);
            }
        }
    }
    let duplicate = rows - members.len() as u64;
    let mut verdicts = BTreeMap::new();
    let mut wanted = Vec::new();
    for (key, rows) in &members {
        let verdict = reason(world, key, is_sqlite);
        verdicts.insert(key.clone(), verdict.unwrap_or("planned"));
        if verdict.is_none() {
            let first = rows.iter().map(|row| rank(policy, row)).min().unwrap();
            wanted.push((first, key.clone()));
        }
    }
    wanted.sort();
    let limit = policy.limit.unwrap_or(u64::MAX);
    for (_, key) in wanted
        .into_iter()
        .skip(usize::try_from(limit).unwrap_or(usize::MAX))
    {
        verdicts.insert(key, "over_limit");
    }
    (verdicts, [none, bad, duplicate])
}

/// Smaller comes first; nobody's age or spend is over a hundred.
fn rank(policy: &Policy, person: &Person) -> Vec<u64> {
    let place = |order: &OrderBy| {
        let value = match order.column.as_str() {
            "AGE" | "age" => person.age,
            _ => person.spend,
        };
        match (value, order.descending) {
            (None, _) => 1_000,
            (Some(value), true) => 100 - value,
            (Some(value), false) => value,
        }
    };
    policy.order_by.iter().map(place).collect()
}

fn reason(world: &World, key: &str, is_sqlite: bool) -> Option<&'static str> {
    let policy = &world.policy;
    if world.suppressed.iter().any(|list| list.contains(key)) {
        return Some("suppressed");
    }
    let held = |holdout: &Holdout| bucket(&holdout.salt, key, is_sqlite) < holdout.basis_points;
    if policy.holdout.as_ref().is_some_and(held) {
        return Some("held_out");
    }
    let contacts = |within_secs: u64, takes: &dyn Fn(&str, &str) -> bool| {
        let earlier = world.contacts.iter().filter(|contact| {
            contact.key == key
                && contact.counts
                && contact.hours_ago * 3_600 < within_secs
                && takes(contact.campaign, contact.channel)
        });
        let open = world
            .open
            .iter()
            .filter(|open| open.keys.contains(key) && takes(open.campaign, open.channel));
        earlier.count() + open.count()
    };
    let capped = policy.frequency_cap.iter().any(|cap| {
        let takes = |_: &str, channel: &str| cap.channel.as_deref().is_none_or(|c| c == channel);
        contacts(cap.within_secs, &takes) >= cap.contacts as usize
    });
    if capped {
        return Some("capped");
    }
    let ours = |campaign: &str, _: &str| campaign == OURS;
    let within = policy.cooldown_secs?;
    (contacts(within, &ours) > 0).then_some("cooling_down")
}

/// The bucket of a key as each database is documented to compute it.
fn bucket(salt: &str, key: &str, is_sqlite: bool) -> u32 {
    if !is_sqlite {
        let digest: [u8; 16] = Md5::digest(format!("{salt}:{key}")).into();
        return u32::from_be_bytes(digest[..4].try_into().unwrap()) % 10_000;
    }
    let prime = 2_147_483_647_u64;
    let factor = |place: u32| {
        let mut hash = sha2::Sha256::default();
        sha2::Digest::update(&mut hash, place.to_be_bytes());
        sha2::Digest::update(&mut hash, salt);
        let digest: [u8; 32] = sha2::Digest::finalize(hash).into();
        let bits = u32::from_be_bytes(digest[..4].try_into().unwrap());
        1 + u64::from(bits) % (prime - 1)
    };
    let sum = (1..).zip(key.chars()).fold(factor(0), |sum, (place, c)| {
        (sum + u64::from(u32::from(c)) * factor(place)) % prime
    });
    u32::try_from(sum % 10_000).unwrap()
}

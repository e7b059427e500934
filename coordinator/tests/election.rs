//! Who leads, on a real PostgreSQL: one at a time, by the database's clock, and how the others hear of it.

// Helpers of tests are tests: a panic is how they fail.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use guestkit_coordinator::store::{Candidate, Postgres, StoreError};
use guestkit_processes::postgres::Server;

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(3600);

fn candidate(name: &str) -> Candidate {
    Candidate { id: name.into(), address: format!("http://{name}:7443") }
}

async fn coordinators<const N: usize>() -> Option<[Postgres; N]> {
    let database = Server::shared().unwrap()?.create_database().unwrap();
    // At once, as a fleet that is switched on: whoever comes second finds the schema made.
    let opened = futures::future::join_all((0..N).map(|_| Postgres::open(&database.url))).await;
    let opened: Vec<Postgres> = opened.into_iter().map(Result::unwrap).collect();
    Some(opened.try_into().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_that_start_at_once_one_leads() {
    let Some(all) = coordinators::<5>().await else { return };
    let names = ["a", "b", "c", "d", "e"].map(candidate);
    let won = futures::future::join_all(all.iter().zip(&names).map(|(one, name)| one.campaign(name, LONG))).await;
    let won: Vec<_> = won.into_iter().map(Result::unwrap).collect();
    assert_eq!(won.iter().flatten().count(), 1, "{won:?}");
    let at = won.iter().position(Option::is_some).unwrap();
    for one in &all {
        let leader = one.leader().await.unwrap().unwrap();
        assert_eq!(
            (leader.epoch, leader.id, leader.address),
            (won[at].unwrap(), names[at].id.clone(), names[at].address.clone())
        );
    }
    all[at].renew(won[at].unwrap()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_leader_is_deposed_and_stays_so() {
    let Some([a, b]) = coordinators().await else { return };
    let first = a.campaign(&candidate("a"), LONG).await.unwrap().unwrap();
    assert_eq!(b.campaign(&candidate("b"), LONG).await.unwrap(), None);
    let second = b.campaign(&candidate("b"), Duration::ZERO).await.unwrap().unwrap();
    assert!(second > first);
    assert!(matches!(a.renew(first).await, Err(StoreError::Deposed { ours }) if ours == first.0));
    assert!(matches!(a.resign(first).await, Err(StoreError::Deposed { .. })));
    assert_eq!(a.leader().await.unwrap().unwrap().id, "b");
    b.renew(second).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_resignation_the_next_need_not_wait() {
    let Some([a, b]) = coordinators().await else { return };
    let first = a.campaign(&candidate("a"), LONG).await.unwrap().unwrap();
    a.resign(first).await.unwrap();
    assert_eq!(b.leader().await.unwrap(), None);
    assert!(matches!(a.renew(first).await, Err(StoreError::Deposed { .. })));
    assert!(b.campaign(&candidate("b"), LONG).await.unwrap().unwrap() > first);
}

#[tokio::test(flavor = "multi_thread")]
async fn standbys_hear_who_leads() {
    let Some([a, b]) = coordinators().await else { return };
    let mut follower = b.follow();
    let epoch = a.campaign(&candidate("a"), LONG).await.unwrap().unwrap();
    let heard = follower.leader.wait_for(Option::is_some).await.unwrap().clone().unwrap();
    assert_eq!((heard.epoch, heard.id.as_str()), (epoch, "a"));
    a.resign(epoch).await.unwrap();
    follower.leader.wait_for(Option::is_none).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_password_and_the_socket_both_lead_in() {
    let Some(server) = Server::shared().unwrap() else { return };
    let database = server.create_database().unwrap();
    let by_tcp = Postgres::open(&database.url).await.unwrap();
    let by_socket = Postgres::open(&database.socket_url).await.unwrap();
    let epoch = by_tcp.campaign(&candidate("a"), LONG).await.unwrap().unwrap();
    by_socket.renew(epoch).await.unwrap();
    let wrong = database.url.replace("secret", "guess");
    let refused = Postgres::open(&wrong).await.unwrap_err();
    assert!(matches!(refused, StoreError::Postgres { .. }), "{refused:?}");
    for told in [format!("{by_tcp} {by_tcp:?}"), format!("{refused} {refused:?}")] {
        assert!(!told.contains("secret") && !told.contains("guess"), "{told}");
    }
}

//! The asynchronous face: tasks that wait beside one another, and beside threads.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use wharf::process::asynchronous::{call, receive, receive_timeout, send};
use wharf::process::{Address, Error, ReplyTo, kill, me, spawn};

use crate::PATIENCE;

pub(crate) fn scenes() -> Vec<(&'static str, crate::Scene)> {
    vec![
        ("tasks_wait_without_holding_up_a_thread", tasks),
        ("tasks_and_threads_share_a_mailbox", mixed),
    ]
}

#[derive(Debug, Serialize, Deserialize)]
struct Late {
    value: u64,
    reply: ReplyTo<u64>,
}

/// Answers in the opposite order, once it was asked so often.
fn backwards(count: usize) -> Result<(), Error> {
    loop {
        let mut asked = Vec::new();
        while asked.len() < count {
            asked.push(wharf::process::receive::<Late>()?);
        }
        for Late { value, reply } in asked.into_iter().rev() {
            reply.send(&value)?;
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn tasks() {
    runtime().block_on(async {
        let server = spawn(backwards, 20).unwrap();
        let all: Vec<_> = (0..20_u64)
            .map(|value| {
                tokio::spawn(async move {
                    call::<_, u64>(&server, PATIENCE, |reply| Late { value, reply }).await
                })
            })
            .collect();
        for (value, one) in (0..).zip(all) {
            assert_eq!(one.await.unwrap().unwrap(), value);
        }
        // One alone is never answered; who is waited for ends.
        let begin = Instant::now();
        let late =
            call::<_, u64>(&server, Duration::from_millis(30), |reply| Late { value: 1, reply });
        assert!(matches!(late.await, Err(Error::Timeout)) && begin.elapsed() < PATIENCE);
        let waits = tokio::spawn(async move {
            call::<_, u64>(&server, PATIENCE, |reply| Late { value: 2, reply }).await
        });
        tokio::task::yield_now().await;
        kill(&server).unwrap();
        assert!(matches!(waits.await.unwrap(), Err(Error::Down(_))));

        let own = me().unwrap();
        assert_eq!(receive_timeout::<String>(Duration::ZERO).await.unwrap(), None);
        send(&own, "to oneself").await.unwrap();
        assert_eq!(receive::<String>().await.unwrap(), "to oneself");
    });
}

fn count_down((to, count): (Address, u64)) -> Result<(), Error> {
    (0..count).try_for_each(|number| wharf::send(&to, &number))
}

/// Each of them may read what the other one waits for.
fn mixed() {
    const COUNT: u64 = 300;
    let own = me().unwrap();
    spawn(count_down, (own, COUNT)).unwrap();
    spawn(count_down, (own, COUNT)).unwrap();
    let threads: Vec<_> = (0..3)
        .map(|_| {
            std::thread::spawn(|| {
                (0..COUNT / 3).filter(|_| wharf::receive::<u64>().is_ok()).count()
            })
        })
        .collect();
    let by_tasks = runtime().block_on(async {
        let all: Vec<_> = (0..3)
            .map(|_| {
                tokio::spawn(async {
                    let mut taken = 0;
                    for _ in 0..COUNT / 3 {
                        taken += usize::from(receive::<u64>().await.is_ok());
                    }
                    taken
                })
            })
            .collect();
        let mut taken = 0;
        for one in all {
            taken += one.await.unwrap();
        }
        taken
    });
    let by_threads: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    assert_eq!(by_tasks + by_threads, usize::try_from(2 * COUNT).unwrap());
}

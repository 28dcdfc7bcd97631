//! From the kill of a service to somebody who follows and has heard of it.

use crate::Contest;
use crate::contest::{ALL, OURS, Peer};
use crate::crew::{Lone, grow_old};
use crate::exits::Limit;
use crate::follower::{Follower, Heard};
use crate::report::{Report, Table};
use crate::restart::{TURNS, best};
use crate::samples::Samples;
use crate::wait::{QUIET, between, pass};
use crate::wharf::ROW;

/// Rounds that do not count.
const WARM_UP: usize = 2;
const LIMIT: &str = "C: a pidfd is readable";

pub(crate) fn measure(contest: &Contest<'_>, report: &mut Report) {
    let shop = contest.shop;
    let mut limit = Limit::new(&shop.workshop);
    let mut least = Samples::default();
    let telling = ALL.into_iter().filter(|peer| *peer != Peer::C && peer.tells_nobody().is_none());
    let mut rivals: Vec<_> = telling
        .map(|peer| {
            let heard = (!peer.is_wharf() && peer != Peer::S6).then(|| Heard::new(shop, peer));
            let rival = Lone::start(shop, peer, heard.as_ref().map(|heard| heard.path.as_path()));
            let follower = Follower::new(shop, &rival, heard);
            (rival, follower, Samples::default())
        })
        .collect();
    for round in 0..WARM_UP + contest.rounds {
        grow_old();
        for _ in 0..TURNS {
            pass(QUIET);
            let took = limit.kill_and_see();
            if round >= WARM_UP {
                least.push(took);
            }
        }
        for (rival, follower, samples) in &mut rivals {
            let turns = if rival.crew.peer.is_brisk() { TURNS } else { 1 };
            for turn in 0..turns {
                pass(if turn == 0 { QUIET } else { ROW });
                follower.attend();
                let killed = rival.kill();
                let took = between(killed, follower.heard());
                rival.successor();
                if round >= WARM_UP {
                    samples.push(took);
                }
            }
        }
    }
    let mut table = Table::new("Kill → a follower has heard of it", "µs").row(LIMIT, least);
    for (rival, follower, samples) in rivals {
        table = table.row(rival.crew.peer.name(), samples);
        drop(follower);
        rival.stop();
    }
    for peer in ALL {
        if let Some(why) = peer.tells_nobody() {
            table = table.absent(peer.name(), why);
        }
    }
    for ours in OURS {
        let name = ours.name();
        report.promise(format!("{name}: kill → exit event, × pidfd in C"), table.ratio(name), 2.5);
        let (peer, median) = best(&table);
        let value = table.median(name) / median;
        report.promise(format!("{name}: kill → exit event, × the best peer ({peer})"), value, 1.0);
    }
    report.table(table);
}

//! From the kill of a service to its exit event in the hands of a subscriber on the socket.

use crate::exits::{Limit, Subscriber};
use crate::report::{Report, Table};
use crate::rival::Rival;
use crate::samples::Samples;
use crate::wait::{QUIET, between, pass};
use crate::wharf::ROW;
use crate::workshop::Workshop;
use crate::{Options, WARM_UP};

pub(crate) fn measure(workshop: &Workshop, options: &Options, report: &mut Report) {
    let mut limit = Limit::new(workshop);
    let mut wharf = Rival::wharf(workshop, "wharf-events", "");
    let mut subscriber = Subscriber::new(wharf.as_wharf().connect());
    let (mut bare, mut told) = (Samples::default(), Samples::default());
    for round in 0..WARM_UP + options.rounds {
        pass(ROW);
        let c = limit.kill_and_see();
        pass(QUIET);
        let killed = wharf.kill();
        let seen = subscriber.exit();
        wharf.successor();
        if round >= WARM_UP {
            bare.push(c);
            told.push(between(killed, seen));
        }
    }
    let table = Table::new("Kill → exit known", "µs")
        .row("C: a pidfd is readable", bare)
        .row("wharf: exit event on the socket", told);
    let ratio = table.ratio("wharf: exit event on the socket");
    report.promise("kill → exit event at a subscriber, × pidfd in C", ratio, 2.5);
    report.table(table);
}

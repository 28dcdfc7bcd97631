//! The catalogue: every metric there is, with its type, its meaning and its labels.
//!
//! One table. The text of a scrape is made from it, `docs/metrics.json` and `docs/METRICS.md` are
//! compared with it, and dashboards are checked against those. Nothing is measured here.

use serde_json::{Value, json};

use crate::event::State;
use crate::exit::Reason;

/// The type of a metric, in the words of the exposition format.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// It only grows, and starts again at 0 with each life of the manager.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Counts of durations by upper bound, in seconds.
    Histogram(&'static [f64]),
}

impl Kind {
    /// The word after `# TYPE`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// What there is one series of, or one of each value of the further labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// The manager.
    Manager,
    /// Each service.
    Service,
    /// Each service that is a port.
    Port,
    /// Each replica, while there is something to say of it.
    Replica,
}

/// One metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metric {
    /// Its name, with the prefix `wharf_` and the unit.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// What it says, in a sentence. Of a counter also what becomes of it when the manager restarts.
    pub help: &'static str,
    /// The names of its labels, in the order in which they are filled in.
    pub labels: &'static [&'static str],
    /// What it is about.
    pub of: Of,
}

/// What can be wrong with a port's output: the values of `kind`.
pub const PROTOCOL_FAULTS: [&str; 5] = ["garbage", "oversize", "truncated", "unmatched", "stray"];

/// Upper bounds of the time a start takes, in seconds.
pub const SPAWN: &[f64] = &[0.001, 0.003, 0.01, 0.1, 1.0];
/// Upper bounds of the time until an end is seen, in seconds.
pub const DETECTION: &[f64] = &[0.0003, 0.001, 0.003, 0.01, 0.1];
/// Upper bounds of the time until a call is answered, in seconds.
pub const REQUEST: &[f64] = &[0.001, 0.01, 0.1, 1.0, 10.0];

const MANAGER: &[&str] = &[];
const SERVICE: &[&str] = &["service"];
const REPLICA: &[&str] = &["service", "replica"];

/// A counter's help ends with what happens over a restart of the manager.
macro_rules! counted {
    ($text:literal) => {
        concat!($text, " Starts at 0 with each life of the manager.")
    };
}

const fn metric(
    name: &'static str,
    kind: Kind,
    of: Of,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric { name, kind, help, labels, of }
}

/// Every metric, in the order of a scrape.
#[rustfmt::skip]
pub const CATALOGUE: &[Metric] = &{
    use Kind::{Counter, Gauge, Histogram};
    use Of::{Manager, Port, Replica, Service};
    [
    metric("wharf_build_info", Gauge, Manager, &["version"],
        "Always 1; the version of wharf is a label."),
    metric("wharf_service_info", Gauge, Service, &["service", "framing", "restart_policy", "exe"],
        "Always 1; how the service is configured is in the labels. The framing of a plain server is none; exe is the first word of the command."),
    metric("wharf_service_state", Gauge, Service, &["service", "state"],
        "Replicas of the service in each state."),
    metric("wharf_service_replicas", Gauge, Service, SERVICE,
        "Replicas of the service that run."),
    metric("wharf_service_replicas_healthy", Gauge, Service, SERVICE,
        "Replicas of the service that are ready and, where it has a health check, seen to be well."),
    metric("wharf_service_replicas_desired", Gauge, Service, SERVICE,
        "Replicas of the service that are to run: configured, not stopped by an operator, and not finished."),

    metric("wharf_process_starts_total", Counter, Service, SERVICE,
        counted!("Runs of the service that were begun, those among them whose program could not be executed.")),
    metric("wharf_process_exits_total", Counter, Service, &["service", "reason"],
        counted!("Exit records of the service by reason: each is counted when it is published, once it is in the journal (or a second later, where the journal cannot be written).")),
    metric("wharf_service_restarts_total", Counter, Service, SERVICE,
        counted!("Restarts that the service's restart policy decided upon. Those that somebody asked for are not among them.")),
    metric("wharf_probe_failures_total", Counter, Service, SERVICE,
        counted!("Questions whether a replica of the service is ready or well (http, tcp, exec, call) that had no good answer.")),
    metric("wharf_restart_backoff_seconds", Gauge, Service, SERVICE,
        "The whole length of the wait before the next start, of the replica that waits longest; 0 when none waits."),
    metric("wharf_restart_budget_remaining", Gauge, Service, SERVICE,
        "Restarts that are left before the service is given up (restart.max_restarts within restart.within), of the replica with the fewest; 0 when one has failed for good."),
    metric("wharf_last_exit_code", Gauge, Replica, REPLICA,
        "The exit code of the last end; absent where the last end was no exit (a signal is never a code)."),
    metric("wharf_last_exit_signal", Gauge, Replica, REPLICA,
        "The signal of the last end; absent where no signal ended it."),
    metric("wharf_last_exit_timestamp_seconds", Gauge, Replica, REPLICA,
        "When the last end was recorded, in seconds since 1970; absent before the first."),
    metric("wharf_process_start_time_seconds", Gauge, Replica, REPLICA,
        "When the present process was made, in seconds since 1970; absent while there is none."),

    metric("wharf_cpu_seconds_total", Counter, Service, &["service", "mode"],
        counted!("CPU time of the service's processes and of the children they waited for; it goes on growing from run to run.")),
    metric("wharf_resident_memory_bytes", Gauge, Service, SERVICE,
        "Resident memory of the service: of all processes in its control groups, or of its own processes where no control groups are in use."),
    metric("wharf_memory_peak_bytes", Gauge, Service, SERVICE,
        "The largest memory that what runs now has had since it started: by its control groups where the kernel counts memory there, otherwise by its processes."),
    metric("wharf_oom_kills_total", Counter, Service, SERVICE,
        counted!("Processes of the service that the kernel killed because memory ran out, by its control groups; stays 0 without an enforced limits.memory.")),
    metric("wharf_open_fds", Gauge, Service, SERVICE,
        "Open file descriptors of the service's processes."),
    metric("wharf_max_fds", Gauge, Service, SERVICE,
        "How many file descriptors the service's processes may open, all together."),
    metric("wharf_worst_fd_ratio", Gauge, Service, SERVICE,
        "Open file descriptors as a share of those allowed, of the service's process that is nearest to its limit: 0 to 1."),
    metric("wharf_threads", Gauge, Service, SERVICE,
        "Threads of the service's processes."),
    metric("wharf_io_read_bytes_total", Counter, Service, SERVICE,
        counted!("Bytes that the service's processes, and the children they waited for, had fetched from storage.")),
    metric("wharf_io_write_bytes_total", Counter, Service, SERVICE,
        counted!("Bytes that the service's processes, and the children they waited for, had sent to storage.")),

    metric("wharf_port_frames_total", Counter, Port, &["service", "direction"],
        counted!("Messages to (in) and from (out) the program, sentinels included.")),
    metric("wharf_port_bytes_total", Counter, Port, &["service", "direction"],
        counted!("Bytes to (in) and from (out) the program over its port.")),
    metric("wharf_port_protocol_errors_total", Counter, Port, &["service", "kind"],
        counted!("How often the program's output was not its port's protocol, by what was wrong. The first three end the run; unmatched is a reply that no open call could have had, which was dropped; stray is a line that is no protocol and was borne.")),
    metric("wharf_port_request_duration_seconds", Histogram(REQUEST), Port, SERVICE,
        counted!("From the arrival of a call to its reply, or to its failure.")),
    metric("wharf_port_queue_length", Gauge, Port, SERVICE,
        "Messages that wait to be written to the program."),
    metric("wharf_port_blocked_seconds_total", Counter, Port, SERVICE,
        counted!("Time in which messages waited because the program did not read its input.")),

    metric("wharf_spawn_duration_seconds", Histogram(SPAWN), Service, SERVICE,
        counted!("From the order to start a run to its program being executed.")),
    metric("wharf_exit_detection_seconds", Histogram(DETECTION), Service, SERVICE,
        counted!("From the moment at which the manager could first have seen a process's end to its taking it up: an upper bound, the kernel's own waking apart.")),
    metric("wharf_log_lines_total", Counter, Service, &["service", "stream"],
        counted!("Lines that the service wrote for its log; a line of more than 64 KiB counts as several.")),
    metric("wharf_log_dropped_lines_total", Counter, Service, SERVICE,
        counted!("Lines that were dropped because the disk could not take them.")),

    metric("wharf_config_last_reload_successful", Gauge, Manager, MANAGER,
        "1 when the last configuration that was to take effect did, 0 when it was refused."),
    metric("wharf_config_last_reload_timestamp_seconds", Gauge, Manager, MANAGER,
        "When the configuration in effect took effect, in seconds since 1970."),
    metric("wharf_journal_write_errors_total", Counter, Manager, MANAGER,
        counted!("Failed attempts to write exit records to the journal; the records wait and are written later.")),
    metric("wharf_scrape_duration_seconds", Gauge, Manager, MANAGER,
        "How long the look at everything took that this scrape tells; scrapes at the same time share one."),
    ]
};

impl Metric {
    /// How many series there are of it for each of what it is about.
    pub fn series_each(&self) -> usize {
        let labels = self.labels.iter().map(|label| match *label {
            "state" => State::ALL.len(),
            "reason" => Reason::ALL.len(),
            "mode" | "direction" | "stream" => 2,
            "kind" => PROTOCOL_FAULTS.len(),
            _ => 1,
        });
        let shape = match self.kind {
            Kind::Counter | Kind::Gauge => 1,
            // One a bound, one for all, the sum and the count.
            Kind::Histogram(bounds) => bounds.len() + 3,
        };
        labels.product::<usize>() * shape
    }

    /// How many series there are of it, in words.
    pub fn cardinality(&self) -> String {
        let each = self.series_each();
        match self.of {
            Of::Manager => each.to_string(),
            Of::Service => format!("{each} a service"),
            Of::Port => format!("{each} a service with a port"),
            Of::Replica => format!("at most {each} a replica"),
        }
    }
}

/// The catalogue as `docs/metrics.json` has it.
pub fn catalogue_document() -> Value {
    let rows = CATALOGUE.iter().map(|metric| {
        let mut row = json!({
            "name": metric.name,
            "type": metric.kind.as_str(),
            "help": metric.help,
            "labels": metric.labels,
            "cardinality": metric.cardinality(),
        });
        if let Kind::Histogram(bounds) = metric.kind {
            row["buckets"] = json!(bounds);
        }
        row
    });
    Value::Array(rows.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_conventions() {
        let mut names: Vec<_> = CATALOGUE.iter().map(|metric| metric.name).collect();
        for metric in CATALOGUE {
            assert!(metric.name.starts_with("wharf_"), "{}", metric.name);
            let total = metric.name.ends_with("_total");
            assert_eq!(total, metric.kind == Kind::Counter, "{}", metric.name);
            assert!(metric.help.ends_with('.') && !metric.help.contains('\n'), "{}", metric.name);
            for banned in ["pid", "argv", "code", "host", "instance", "job", "le"] {
                assert!(!metric.labels.contains(&banned), "{} has {banned}", metric.name);
            }
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CATALOGUE.len(), "a name stands twice");
    }

    #[test]
    fn a_service_has_60_to_80_series() {
        let count = |of: &[Of]| {
            let rows = CATALOGUE.iter().filter(|metric| of.contains(&metric.of));
            rows.map(Metric::series_each).sum::<usize>()
        };
        let (plain, port) =
            (count(&[Of::Service, Of::Replica]), count(&[Of::Service, Of::Replica, Of::Port]));
        assert!((60..=80).contains(&plain), "{plain}");
        assert!((60..=90).contains(&port), "{port}");
    }
}
